"""Interpolation between examples in latent space, and traversal of single latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae._util.arrays import as_tensor
from pyro_vae._util.lock import in_turn
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.over import one_batch
from pyro_vae.programs.program import Program, evaluating, mean_or_sample
from pyro_vae.tasks.decoding import decode, require_vae

__all__ = ["geometric", "interpolate", "linear", "spherical", "traverse"]

#: Maps two posteriors of batch shape (n,) and a number t between 0 and 1 to latents (n, latent).
Path = Callable[[TorchDistributionMixin, TorchDistributionMixin, float], Tensor]


def linear(start: TorchDistributionMixin, end: TorchDistributionMixin, t: float) -> Tensor:
    """Return the point at t on the straight line between the posterior means.

    Args:
        start, end: q(z given x) at t = 0 and at t = 1, each with batch shape ``(n,)``
        t: position on the path, from 0 to 1

    Returns:
        Latents of shape ``(n, latent)``.

    Example:
        >>> here, there = (dist.Normal(torch.full((1, 2), m), 1.0).to_event(1) for m in (0.0, 4.0))
        >>> linear(here, there, 0.25)
        tensor([[1., 1.]])
    """
    return torch.lerp(mean_or_sample(start), mean_or_sample(end), t)


def spherical(start: TorchDistributionMixin, end: TorchDistributionMixin, t: float) -> Tensor:
    r"""Return the point at t on the arc between the posterior means (slerp), at constant angular speed.

    .. math:: z_t = \frac{\sin((1 - t)\omega)}{\sin\omega} z_0 + \frac{\sin(t\omega)}{\sin\omega} z_1, \qquad
              \cos\omega = \frac{z_0 \cdot z_1}{|z_0|\,|z_1|}

    Between samples of a standard normal prior, points on the arc keep a length that is typical of the prior; points on
    a straight line are too short. Between parallel means the path is a straight line.

    References:
        Sampling generative networks (White, 2016), https://arxiv.org/abs/1609.04468

    Args:
        start, end: q(z given x) at t = 0 and at t = 1, each with batch shape ``(n,)``
        t: position on the path, from 0 to 1

    Returns:
        Latents of shape ``(n, latent)``.

    Example:
        >>> here, there = (dist.Normal(torch.eye(2)[[i]], 1.0).to_event(1) for i in (0, 1))
        >>> spherical(here, there, 0.5)
        tensor([[0.7071, 0.7071]])
    """
    a, b = mean_or_sample(start), mean_or_sample(end)
    cos = torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1).unsqueeze(-1)
    omega = cos.acos()
    sin = omega.sin()
    arc = ((1 - t) * omega).sin() * a + (t * omega).sin() * b
    flat = sin < 1e-4
    return torch.where(flat, torch.lerp(a, b, t), arc / torch.where(flat, 1.0, sin))


def geometric(start: TorchDistributionMixin, end: TorchDistributionMixin, t: float) -> Tensor:
    r"""Return the mean at t of the geometric path of densities between the posteriors.

    .. math:: q_t(z) \propto q(z \mid x_0)^{1 - t}\, q(z \mid x_1)^t

    A latent that one example leaves uncertain takes the value of the other example. Between posteriors with equal
    covariances the path is a straight line.

    Args:
        start, end: q(z given x) at t = 0 and at t = 1, each with batch shape ``(n,)``
        t: position on the path, from 0 to 1

    Returns:
        Latents of shape ``(n, latent)``.

    Raises:
        ValueError: a posterior is not normal.

    Example:
        >>> here, there = (dist.Normal(torch.full((1, 1), m), s).to_event(1) for m, s in ((0.0, 0.5), (5.0, 1.0)))
        >>> geometric(here, there, 0.5)
        tensor([[1.]])
    """
    (a, first), (b, second) = natural(start), natural(end)
    return torch.linalg.solve((1 - t) * first + t * second, ((1 - t) * a + t * b).unsqueeze(-1)).squeeze(-1)


def natural(fn: TorchDistributionMixin) -> tuple[Tensor, Tensor]:
    """Return the natural parameters of normals: precision times mean (n, latent), precision (n, latent, latent)."""
    if isinstance(fn, dist.MultivariateNormal):
        precision = fn.precision_matrix
    elif isinstance(getattr(fn, "base_dist", None), dist.Normal) and fn.event_dim == 1:
        precision = torch.diag_embed(fn.base_dist.variance.reciprocal())
    else:
        raise ValueError(f"path: geometric expects normal posteriors, got {fn}. Use linear or spherical.")
    return (precision @ fn.mean.unsqueeze(-1)).squeeze(-1), precision


@in_turn
def interpolate(
    program: Program, start: Any, end: Any, *, num_steps: int = 9, path: Path = spherical, seed: int = 0
) -> Tensor:
    """Decode a path from each example of ``start`` to the corresponding one of ``end``.

    Args:
        program: a VAE
        start, end: n rows of data each, or tuples ``(x, context)``; the context of ``start`` is used on the whole path
        num_steps: number of points on the path, including both ends
        path: :func:`linear`, :func:`spherical`, :func:`geometric`, or another callable
            ``(posterior, posterior, t) -> z``
        seed: random seed, used where a mean has no closed form

    Returns:
        Means of p(x given z), of shape ``(num_steps, n, *shape)``.

    Raises:
        ValueError: the data do not fit the program or each other.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> interpolate(toy.program, toy.draw(3, 1), toy.draw(3, 2), num_steps=5, path=geometric).shape
        torch.Size([5, 3, 5])
    """
    num_steps = check_int("num_steps", num_steps, 2)
    vae = require_vae(program)
    here, there = one_batch(vae, start), one_batch(vae, end)
    if len(here[0]) != len(there[0]):
        raise ValueError(f"end: expected {len(here[0])} rows, as many as `start`, got {len(there[0])}")
    with evaluating(vae), fork_rng(here, seed):
        ends = vae.encode(*here), vae.encode(*there)
        z = torch.stack([path(*ends, i / (num_steps - 1)) for i in range(num_steps)])
        context = [c.repeat(num_steps, *[1] * (c.dim() - 1)) for c in here[1:]]
        x = decode(vae, z.flatten(0, 1), context, mean=True)
    return x.unflatten(0, z.shape[:2])


@in_turn
def traverse(program: Program, x: Any, values: Sequence[float], *, units: Sequence[int] = (), seed: int = 0) -> Tensor:
    """Decode each example with one latent at a time set to each of several values, all others at their means.

    Args:
        program: a VAE with a vector of latents
        x: rows of data, or a tuple ``(x, context)``
        values: values of the latent
        units: indices of the latents; all latents if empty
        seed: random seed, used where a mean has no closed form

    Returns:
        Means of p(x given z), of shape ``(units, values, n, *shape)``.

    Raises:
        ValueError: the data do not fit the program, or a latent does not exist.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> traverse(toy.program, toy.draw(3), [-2.0, 0.0, 2.0]).shape
        torch.Size([2, 3, 3, 5])
    """
    vae = require_vae(program)
    batch = one_batch(vae, x)
    with evaluating(vae), fork_rng(batch, seed):
        z = mean_or_sample(vae.encode(*batch))
        if z.dim() != 2:
            raise ValueError(f"program: expected a vector of latents, got shape {tuple(z.shape[1:])}")
        units = list(units) or list(range(z.shape[1]))
        if not set(units) <= set(range(z.shape[1])):
            raise ValueError(f"units: expected indices from 0 to {z.shape[1] - 1}, got {units}")
        if not len(values):
            raise ValueError("values: expected at least one number, got none")
        moved = z.repeat(len(units), len(values), 1, 1)
        for row, unit in enumerate(units):
            moved[row, :, :, unit] = as_tensor(values).to(z).unsqueeze(-1)
        context = [c.repeat(len(units) * len(values), *[1] * (c.dim() - 1)) for c in batch[1:]]
        decoded = decode(vae, moved.flatten(0, 2), context, mean=True)
    return decoded.unflatten(0, moved.shape[:3])
