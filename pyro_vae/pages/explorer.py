"""An interactive page of a latent space."""

from __future__ import annotations

import base64
import copy
import functools
import math
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.evaluation import log_likelihood
from pyro_vae.evaluation.over import one_batch
from pyro_vae.pages.array_program import UnsupportedOperation, array_program
from pyro_vae.pages.page import asset, page
from pyro_vae.plots import is_image
from pyro_vae.plots.latents import MAX_CLASSES
from pyro_vae.plots.style import COLOURS, MARKERS
from pyro_vae.programs import VAE
from pyro_vae.programs.program import evaluating, mean_or_sample
from pyro_vae.tasks.decoding import require_vae

__all__ = ["explorer"]

#: Samples of the prior in the page, samples to estimate an unknown covariance from, and points per side of a grid of
#: decoded latents.
PRIOR_SAMPLES, COVARIANCE_SAMPLES, GRID = 64, 1000, 15


def explorer(
    vae: VAE,
    x: Any,
    labels: Any = None,
    *,
    rows: Any = None,
    title: str = "Latent space",
    about: str = "",
    seed: int = 0,
    num_particles: int = 1000,
) -> str:
    """Return a page on which the mouse moves through the latent space and the decoder shows each point.

    The decoder runs in the page if its mean can be compiled to a list of array operations, as for every network of
    :mod:`pyro_vae.nets`. Others, such as an autoregressive decoder, run in advance on a grid in the plane of the first
    two directions.

    Args:
        vae: a VAE without context
        x: a few hundred examples of shape ``(n, *shape)``. Grey levels of images are scaled to at least [0, 1]; each
            column of a table has a scale and units of its own
        labels: ``(n,)`` class labels, or None
        rows: ``(n,)`` numbers by which the page names the examples; 0 to n - 1 by default
        title: title of the page
        about: text below the title
        seed: random seed
        num_particles: importance samples per example for the log-likelihood and Pareto k

    Returns:
        The page as HTML.

    Raises:
        TypeError: the program is not a VAE, or takes a context.
        ValueError: the data do not fit the program or have missing entries, or there is not one label or row number
            per example.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.VAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli(2, (8, 8)),
        ...     posterior=pv.posteriors.MeanFieldNormal((8, 8), 2),
        ... )
        >>> explorer(toy, torch.zeros(5, 8, 8), num_particles=50)[:15]
        '<!doctype html>'
    """
    if any(getattr(part, "context", 0) for part in require_vae(vae).children()):
        raise TypeError("vae: expected a program without context, as the page cannot choose one")
    (x,) = one_batch(vae, x)
    if torch.isnan(x).any():
        raise ValueError("x: expected no missing entries, got NaN. Fill them first with `impute`")
    labels, rows = (None if v is None else torch.as_tensor(v) for v in (labels, rows))
    for name, values in (("labels", labels), ("rows", rows)):
        if values is not None and values.shape != (len(x),):
            raise ValueError(f"{name}: expected shape ({len(x)},), one per example, got {tuple(values.shape)}")
    found = log_likelihood(vae, x, num_particles=num_particles, seed=seed)
    with evaluating(vae), fork_rng(vae.device, seed):
        means, covariances = posterior_moments(vae, x)
        prior = vae.prior().expand((PRIOR_SAMPLES,)).sample().flatten(1)
        directions = directions_of(means)
        drawn = decoder(vae, means, covariances, directions)
    shape = tuple(x.shape[1:])
    image = [*shape[-2:], shape[0] if len(shape) == 3 else 1] if is_image(shape) else None
    classes = [] if labels is None else labels.unique().tolist()
    low, high = min(0.0, float(x.min())), float(x.max())
    if image:
        high = max(1.0, high)
    encode = functools.partial(in_bytes, low=low, high=high) if image else base64_of
    grid = drawn.get("grid")
    if grid:
        grid |= {name: encode(grid[name]) for name in ("values", "reconstructions")}
    content = {
        "title": title,
        "about": about,
        "foot": f"k\u0302 is the tail shape of the importance weights p(x, z) / q(z|x), from {num_particles:,} "
        "samples. Above 0.7 they are unreliable, and q(z|x) misses part of the posterior. This is so for "
        f"{int((found.pareto_k > 0.7).sum())} of these {len(x)} examples.",
        "size": len(x),
        "latent": means.shape[1],
        "entries": math.prod(shape),
        "image": image,
        "range": [low, high],
        "columns": columns_of(vae, x),
        "names": [f"z{subscript(j + 1)}" for j in range(means.shape[1])],
        "directions": directions,
        "means": base64_of(means),
        "covariances": base64_of(covariances),
        "prior": base64_of(prior),
        "num_prior_samples": PRIOR_SAMPLES,
        "data": encode(x),
        "rows": list(range(len(x))) if rows is None else rows.tolist(),
        "labels": None if labels is None else labels.tolist(),
        "classes": classes if len(classes) <= MAX_CLASSES else [],
        "colours": COLOURS,
        "markers": MARKERS,
        "evidence": numbers(found.per_example),
        "tails": numbers(found.pareto_k),
        "steps": drawn.get("steps"),
        "grid": grid,
    }
    return page(
        title,
        asset("explorer.html"),
        data=content,
        styles=["explorer.css"],
        scripts=["array_program.js", "explorer_map.js", "explorer_tiles.js", "explorer.js"],
    )


def columns_of(vae: VAE, x: Tensor) -> list[dict[str, Any]] | None:
    """Return name and range of each column of a table, as numbers and as text; None for other data."""
    columns = getattr(vae.likelihood, "columns", None)
    if columns is None:
        return None
    found = []
    for c, values in zip(columns, x.T.tolist(), strict=True):
        labels = getattr(c, "values", ())
        ends = (0, len(labels) - 1) if labels else (min(values), max(values))
        if ends[0] == ends[1]:  # a scale of one value has no width
            ends = (ends[0] - 1, ends[1] + 1)
        words = [str(labels[0]), str(labels[-1])] if labels else [f"{end:,.5g}" for end in ends]
        found.append({"name": c.name, "ends": ends, "words": words})
    return found


def posterior_moments(vae: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return means (n, latent) and covariances (n, latent, latent) of q(z given x), estimated where unknown."""
    q = vae.encode(x)
    samples = q.sample((COVARIANCE_SAMPLES,)).flatten(2)
    try:
        means = q.mean.flatten(1)
    except NotImplementedError:
        means = samples.mean(0)
    if hasattr(q, "covariance_matrix"):
        return means, q.covariance_matrix
    centred = samples - samples.mean(0)
    covariances = torch.einsum("kni,knj->nij", centred, centred) / (COVARIANCE_SAMPLES - 1)
    base = getattr(q, "base_dist", None)
    if isinstance(q, torch.distributions.Independent) and not base.event_shape:
        covariances = torch.diag_embed(base.variance.flatten(1))
    return means, covariances


def directions_of(means: Tensor) -> list[dict[str, Any]]:
    """Return names and unit vectors: two principal directions for three or more latents, then each latent."""
    latent = means.shape[1]
    found = [{"name": f"z{subscript(j + 1)}", "vector": row} for j, row in enumerate(torch.eye(latent).tolist())]
    if latent < 3:
        return found
    centred = (means - means.mean(0)).double().cpu()
    variance, vectors = torch.linalg.eigh(centred.T @ centred)
    share = variance / variance.sum().clamp(min=1e-30)
    top = vectors.flip(1).T[:2]
    # the sign of an eigenvector is arbitrary: chosen as in the figures
    top = top * top.gather(1, top.abs().argmax(1, keepdim=True)).sign()
    first = [
        {"name": f"PCA {i + 1} ({float(share[-1 - i]):.0%} of the variance)", "vector": v.tolist()}
        for i, v in enumerate(top)
    ]
    return [*first, *found]


def decoder(vae: VAE, means: Tensor, covariances: Tensor, directions: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of p(x given z) as steps for the page, or on a grid."""
    shape = vae.prior().event_shape
    try:
        likelihood = copy.deepcopy(vae.likelihood).cpu()
        return {"steps": array_program(lambda z: likelihood(z.reshape(1, *shape)).mean, means[:1].cpu())}
    except (UnsupportedOperation, NotImplementedError):
        pass
    plane = torch.tensor([d["vector"] for d in directions[:2]], dtype=means.dtype, device=means.device)
    places = means @ plane.T
    reach = 2 * torch.einsum("di,nij,dj->nd", plane, covariances, plane).sqrt()
    low, high = (places - reach).amin(0), (places + reach).amax(0)
    steps = torch.linspace(0, 1, GRID, device=means.device)
    lines = [steps * (high - low)[i] + low[i] for i in range(len(plane))]
    # rows from bottom to top, each from left to right
    at = torch.cartesian_prod(*reversed(lines)).reshape(-1, len(plane)).flip(1)
    if len(plane) == 1:
        at = at.repeat(GRID, 1)
    z = means.mean(0) + (at - places.mean(0)) @ plane
    values = mean_or_sample(vae.decode(z.reshape(-1, *shape)))
    ends = [[float(a), float(b)] for a, b in zip(low, high, strict=True)]
    grid = {"count": GRID, "across": ends[0], "up": ends[-1], "values": values}
    return {"grid": {**grid, "reconstructions": mean_or_sample(vae.decode(means.reshape(-1, *shape)))}}


def base64_of(x: Tensor) -> str:
    """Return numbers as base64 of float32."""
    return base64.b64encode(x.detach().float().cpu().contiguous().numpy().tobytes()).decode()


def in_bytes(x: Tensor, *, low: float, high: float) -> str:
    """Return values, scaled from [low, high] to [0, 255], as base64 of bytes."""
    share = (x.detach().float().cpu() - low) / (high - low)
    levels = (share.clamp(0, 1) * 255).round().to(torch.uint8)
    return base64.b64encode(levels.contiguous().numpy().tobytes()).decode()


def numbers(x: Tensor) -> list[float | None]:
    """Return numbers with five digits, None for NaN and infinity."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in x.tolist()]


def subscript(n: int) -> str:
    """Return a number in subscript digits."""
    return str(n).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
