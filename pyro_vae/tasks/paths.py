"""Ways from one datum to another in latent space, and along single latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.inputs import one_batch
from pyro_vae.programs.program import Program, evaluating, mean_or_draw
from pyro_vae.tasks.latents import decoded, one_latent

__all__ = ["geometric", "interpolate", "linear", "spherical", "traverse"]

#: From two posteriors of batch shape (n,) and a number t between 0 and 1 to latents (n, latent).
Path = Callable[[TorchDistributionMixin, TorchDistributionMixin, float], Tensor]


def linear(start: TorchDistributionMixin, end: TorchDistributionMixin, t: float) -> Tensor:
    """Return the point at t on the straight line between the posterior means.

    Args:
        start: q(z given x) at the one end, batch shape ``(n,)``
        end: the same at the other end
        t: how far along, from 0 to 1

    Returns:
        Latents of shape ``(n, latent)``.

    Example:
        >>> here, there = (dist.Normal(torch.full((1, 2), m), 1.0).to_event(1) for m in (0.0, 4.0))
        >>> linear(here, there, 0.25)
        tensor([[1., 1.]])
    """
    return torch.lerp(mean_or_draw(start), mean_or_draw(end), t)


def spherical(start: TorchDistributionMixin, end: TorchDistributionMixin, t: float) -> Tensor:
    r"""Return the point at t on the arc between the posterior means, at constant angular speed.

    .. math:: z_t = \frac{\sin((1 - t)\omega)}{\sin\omega} z_0 + \frac{\sin(t\omega)}{\sin\omega} z_1, \qquad
              \cos\omega = \frac{z_0 \cdot z_1}{|z_0|\,|z_1|}

    Points between draws of a standard normal prior keep a length that is typical of it, which those of a straight
    line do not. Parallel means have no arc, and get the straight line.

    References:
        Sampling generative networks (White, 2016), https://arxiv.org/abs/1609.04468

    Args:
        start: q(z given x) at the one end, batch shape ``(n,)``
        end: the same at the other end
        t: how far along, from 0 to 1

    Returns:
        Latents of shape ``(n, latent)``.

    Example:
        >>> here, there = (dist.Normal(torch.eye(2)[[i]], 1.0).to_event(1) for i in (0, 1))
        >>> spherical(here, there, 0.5)
        tensor([[0.7071, 0.7071]])
    """
    a, b = mean_or_draw(start), mean_or_draw(end)
    cos = torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1).unsqueeze(-1)
    omega = cos.acos()
    sin = omega.sin()
    arc = ((1 - t) * omega).sin() * a + (t * omega).sin() * b
    flat = sin < 1e-4
    return torch.where(flat, torch.lerp(a, b, t), arc / torch.where(flat, 1.0, sin))


def geometric(start: TorchDistributionMixin, end: TorchDistributionMixin, t: float) -> Tensor:
    r"""Return the mean at t of the path of densities from one posterior to the other.

    .. math:: q_t(z) \propto q(z \mid x_0)^{1 - t}\, q(z \mid x_1)^t

    A latent of which one datum leaves open what it is takes the value that the other needs; between posteriors of
    one covariance this is the straight line.

    Args:
        start: q(z given x) at the one end, batch shape ``(n,)``
        end: the same at the other end
        t: how far along, from 0 to 1

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
    """Return precision times mean, (n, latent), and precision, (n, latent, latent), of normals."""
    if isinstance(fn, dist.MultivariateNormal):
        precision = fn.precision_matrix
    elif isinstance(getattr(fn, "base_dist", None), dist.Normal) and fn.event_dim == 1:
        precision = torch.diag_embed(fn.base_dist.variance.reciprocal())
    else:
        raise ValueError(f"path: geometric expects normal posteriors, got {fn}; use linear or spherical")
    return (precision @ fn.mean.unsqueeze(-1)).squeeze(-1), precision


def interpolate(
    program: Program, start: Any, end: Any, *, steps: int = 9, path: Path = spherical, seed: int = 0
) -> Tensor:
    """Decode a way from each datum of ``start`` to the one of ``end``.

    Args:
        program: a VAE
        start: rows of data, or a tuple ``(x, context)``; the context stays along the way
        end: as many rows
        steps: points on the way, both ends among them
        path: :func:`linear`, :func:`spherical`, :func:`geometric`, or another callable
            ``(posterior, posterior, t) -> z``
        seed: of draws where a mean is not known in closed form

    Returns:
        Means of p(x given z), of shape ``(steps, n, *shape)``.

    Raises:
        ValueError: the data do not fit the program or each other.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> interpolate(toy.program, toy.draw(3, 1), toy.draw(3, 2), steps=5, path=geometric).shape
        torch.Size([5, 3, 5])
    """
    check_int("steps", steps, 2)
    vae = one_latent(program)
    here, there = one_batch(vae, start), one_batch(vae, end)
    if len(here[0]) != len(there[0]):
        raise ValueError(f"end: expected {len(here[0])} rows, as many as `start`, got {len(there[0])}")
    with evaluating(vae), fork_rng(here, seed):
        ends = vae.encode(*here), vae.encode(*there)
        z = torch.stack([path(*ends, i / (steps - 1)) for i in range(steps)])
        context = [c.repeat(steps, *[1] * (c.dim() - 1)) for c in here[1:]]
        found = decoded(vae, z.flatten(0, 1), context, mean=True)
    return found.unflatten(0, z.shape[:2])


def traverse(program: Program, x: Any, values: Sequence[float], *, units: Sequence[int] = (), seed: int = 0) -> Tensor:
    """Decode each datum with one latent at a time moved to each of several values, all others at their means.

    Args:
        program: a VAE with a vector of latents
        x: rows of data, or a tuple ``(x, context)``
        values: where the latent is moved to, in its own units
        units: the indices of the latents; all if empty
        seed: of draws where a mean is not known in closed form

    Returns:
        Means of p(x given z), of shape ``(units, values, n, *shape)``.

    Raises:
        ValueError: the data do not fit the program, or it has no such latent.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> traverse(toy.program, toy.draw(3), [-2.0, 0.0, 2.0]).shape
        torch.Size([2, 3, 3, 5])
    """
    vae = one_latent(program)
    batch = one_batch(vae, x)
    with evaluating(vae), fork_rng(batch, seed):
        z = mean_or_draw(vae.encode(*batch))
        if z.dim() != 2:
            raise ValueError(f"program: expected latents that are vectors, got shape {tuple(z.shape[1:])}")
        units = list(units) or list(range(z.shape[1]))
        if not len(values) or not set(units) <= set(range(z.shape[1])):
            raise ValueError(
                f"units: expected indices below {z.shape[1]}, and one or more values, got units {units} and "
                f"values {list(values)}"
            )
        moved = z.repeat(len(units), len(values), 1, 1)
        for row, unit in enumerate(units):
            moved[row, :, :, unit] = torch.as_tensor(values).to(z).unsqueeze(-1)
        context = [c.repeat(len(units) * len(values), *[1] * (c.dim() - 1)) for c in batch[1:]]
        found = decoded(vae, moved.flatten(0, 2), context, mean=True)
    return found.unflatten(0, moved.shape[:3])
