"""Missing entries (NaN in x), which do not contribute to the bound or its gradient."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints

__all__ = ["factorized", "hide_missing", "readable"]

#: A number inside each support, cached so that no training step waits for its device to find one.
FILLERS: WeakKeyDictionary[constraints.Constraint, float] = WeakKeyDictionary()


def factorized(fn: TorchDistributionMixin) -> bool:
    """Return whether a likelihood is a product over the entries of an example, so that entries may be missing."""
    return isinstance(fn, dist.Independent) and not fn.base_dist.event_shape


def hide_missing(fn: TorchDistributionMixin, x: Tensor) -> tuple[TorchDistributionMixin, Tensor]:
    r"""Mask the NaN entries of ``x`` in a factorized likelihood.

    .. math:: \log p(x_{\text{observed}} \mid z) = \sum_{i \text{ observed}} \log p(x_i \mid z)

    Args:
        fn: p(x given z), a product over the entries
        x: a batch with NaN for missing entries

    Returns:
        The masked likelihood, and ``x`` with a value inside the support for each missing entry. This value changes
        nothing, but a value outside the support would make even a masked gradient NaN.
    """
    seen = ~torch.isnan(x)
    masked = fn.base_dist.mask(seen).to_event(fn.reinterpreted_batch_ndims)
    value = filler(fn)
    return masked, torch.where(seen, x, value.to(x) if isinstance(value, Tensor) else value)


def readable(part: object, x: Tensor) -> Tensor:
    """Return ``x`` with 0 for missing entries, unchanged if ``part`` has a true attribute ``takes_missing``."""
    return x if getattr(part, "takes_missing", False) else torch.nan_to_num(x)


def filler(fn: TorchDistributionMixin) -> Tensor | float:
    """Return a value inside the support, for each entry or for all."""
    own = getattr(fn.base_dist, "filler", None)
    if own is not None:
        return own
    support = fn.base_dist.support
    if support not in FILLERS:
        FILLERS[support] = inside(support)
    return FILLERS[support]


def inside(support: constraints.Constraint) -> float:
    """Return a number that satisfies a constraint on numbers."""
    lower = getattr(support, "lower_bound", None)
    if support.is_discrete and isinstance(lower, (int, float)):
        return float(lower)  # without reading a tensor: each batch has new supports of counts
    for value in (0.0, 0.5, 1.0, 2.0, -1.0):
        if support.check(torch.tensor(value)).all():
            return value
    upper = getattr(support, "upper_bound", None)
    if lower is not None and upper is not None:
        return float((torch.as_tensor(lower) + torch.as_tensor(upper)).flatten()[0] / 2)
    if lower is not None:
        return float(torch.as_tensor(lower).flatten()[0]) + 1.0
    raise ValueError(f"missing: expected a support with a known value inside, got {support}. Use missing=False")
