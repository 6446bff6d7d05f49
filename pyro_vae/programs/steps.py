"""Sequences that end at different times: which steps count, what stands in for the others, chains of latents."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae.distributions.missing import factorized

__all__ = ["chain", "check_lengths", "inside", "pad", "steps_inside"]


def chain(
    step: Callable[[int, Tensor | None], TorchDistributionMixin],
    within: Tensor,
    draw: Callable[[str, TorchDistributionMixin], Tensor] = pyro.sample,
) -> Tensor:
    """Draw ``z_1``, ``z_2``, ... one after the other.

    Args:
        step: returns the distribution of the latents of a step, given its number from 0 and the latents before it
            (None at first)
        within: which steps lie within each sequence, of shape ``(n, T)``
        draw: given a name and a distribution returns a value

    Returns:
        The latents, of shape ``(*batch, n, T, latent)``.
    """
    drawn: list[Tensor] = []
    for t, here in enumerate(within.unbind(-1)):
        before = drawn[-1] if drawn else None
        with poutine.mask(mask=here):
            z = draw(f"z_{t + 1}", step(t, before))
        # beyond its end a sequence stands still: a chain running on could overflow, and a masked NaN has a gradient
        drawn.append(z if before is None else torch.where(here.unsqueeze(-1), z, before))
    return torch.stack(drawn, -2)


def inside(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return which steps lie within each sequence, of shape ``(n, T)``."""
    steps = torch.arange(x.shape[1], device=x.device)
    return (steps < x.shape[1]).expand(len(x), -1) if lengths is None else steps < lengths.unsqueeze(-1)


def pad(x: Tensor, within: Tensor) -> Tensor:
    """Put the first step of a sequence beyond its end: finite, and inside the support of any likelihood."""
    return torch.where(entries(within, x.dim()), x, x[:, :1])


def entries(within: Tensor, dim: int) -> Tensor:
    """Give a mask over steps the trailing dimensions of one of the entries."""
    return within.reshape(*within.shape, *[1] * (dim - within.dim()))


def steps_inside(fn: TorchDistributionMixin, within: Tensor) -> TorchDistributionMixin:
    """Make one event of all steps of p(x_t given z_t), without those beyond the end of a sequence."""
    if not factorized(fn):
        return fn.mask(within).to_event(1)
    # entry by entry, so that a scale that is fitted to the batch leaves them out as well
    k = fn.reinterpreted_batch_ndims
    return fn.base_dist.mask(entries(within, 2 + k).expand(fn.base_dist.batch_shape)).to_event(1 + k)


def check_lengths(lengths: Tensor, x: Tensor) -> None:
    """Refuse lengths that are not whole numbers from 1 to T, one a row of x."""
    n, most = x.shape[:2]
    if lengths.shape != (n,):
        raise ValueError(f"lengths: expected shape ({n},), one number a sequence, got {tuple(lengths.shape)}")
    bad = ~((lengths >= 1) & (lengths <= most) & (lengths == lengths.long()))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"lengths: lengths[{row}] is {lengths[row].item():g}, expected a whole number from 1 to {most}, the "
            "number of steps in x; leave empty sequences out"
        )
