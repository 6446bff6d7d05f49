"""Where data are in latent space, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyro_vae.estimators.sites import in_data_plate
from pyro_vae.estimators.trace import Call
from pyro_vae.evaluation.codes import Sampled, units
from pyro_vae.evaluation.inputs import at_once, batches_of, count
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.rng import fork_rng
from pyro_vae.tasks.latents import device_of

__all__ = ["Embedding", "embed"]


@dataclass(frozen=True)
class Embedding:
    """The posterior of each datum in numbers.

    Attributes:
        mean: of each latent, of shape ``(n, units)``, on the CPU
        sd: standard deviation of each latent, of shape ``(n, units)``
        names: of the latents, such as ``"z.0"``
    """

    mean: Tensor
    sd: Tensor
    names: tuple[str, ...]


def embed(program: Program, x: Any, *, draws: int = 64, seed: int = 0, progress: bool = False) -> Embedding:
    r"""Return mean and standard deviation of each latent under :math:`q(z \mid x)`.

    Exact where the guide draws all latents at once from a distribution with a mean and variance in closed form; over
    draws elsewhere, by the laws of total mean and variance.

    Args:
        program: a Program
        x: rows of data, or a tuple ``(x, context)``
        draws: of the latents of each datum
        seed: of the draws
        progress: show a progress bar

    Returns:
        The latents of all sites of the guide, side by side.

    Raises:
        ValueError: the data do not fit the program, or its guide draws no latents of them.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> found = embed(toy.program, toy.draw(4))
        >>> found.mean.shape, found.names
        (torch.Size([4, 2]), ('z.0', 'z.1'))
    """
    count("draws", draws)
    batches = batches_of(program, x)
    batches.batch_size = max(1, at_once(batches) // draws)
    parts = []
    with evaluating(program), fork_rng(device_of(program), seed):
        for batch in tqdm(batches.epoch(0), total=batches.steps, desc="embed", unit="batch", disable=not progress):
            drawn = Call(program.model, program.guide, batch, {}, draws).trace(program.guide, Sampled())
            sites = {name: moments(site) for name, site in drawn.sites.items() if is_latent(site)}
            if not sites:
                raise ValueError("program: its guide draws no latents of the data, so that there is nothing to embed")
            parts.append([torch.cat(columns, -1).cpu() for columns in zip(*sites.values(), strict=True)])
    mean, sd = (torch.cat(column) for column in zip(*parts, strict=True))
    names = tuple(f"{name}.{i}" for name, (m, _) in sites.items() for i in range(m.shape[-1]))
    return Embedding(mean, sd, names)


def is_latent(site: Any) -> bool:
    """Whether a site of the guide is a latent of the data, and not an entry of them that is missing."""
    hidden = site["infer"].get("is_auxiliary") or site["name"] == "missing"
    return in_data_plate(site) and not site["is_observed"] and not hidden


def moments(site: Any) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of a latent site, each of shape (batch, units)."""
    value = site["value"]
    try:
        mean, variance = site["fn"].mean, site["fn"].variance
    except NotImplementedError:
        mean, variance = value, torch.zeros_like(value)
    mean, variance = (units(site, v.expand(value.shape)) for v in (mean, variance))
    return mean.mean(0), (variance.mean(0) + mean.var(0, correction=0)).sqrt()
