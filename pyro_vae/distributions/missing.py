"""Missing entries: NaN in x, which leave the bound and its gradient exactly."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints

__all__ = ["factorized", "hide_missing"]

#: A number inside each support that was met: no step looks for it again, on the CPU, while its device waits.
FILLERS: WeakKeyDictionary[constraints.Constraint, float] = WeakKeyDictionary()


def factorized(fn: TorchDistributionMixin) -> bool:
    """Whether a likelihood is a product over the entries of a datum, so that any of them can be left out."""
    return isinstance(fn, dist.Independent) and not fn.base_dist.event_shape


def hide_missing(fn: TorchDistributionMixin, x: Tensor) -> tuple[TorchDistributionMixin, Tensor]:
    r"""Leave the NaN entries of ``x`` out of a factorized likelihood.

    .. math:: \log p(x_{\text{observed}} \mid z) = \sum_{i \text{ observed}} \log p(x_i \mid z)

    Args:
        fn: p(x given z), a product over the entries
        x: a batch with NaN where an entry was not observed

    Returns:
        The likelihood with a mask, and ``x`` with a value inside the support in each hole: what stands there changes
        nothing, but outside the support even a masked gradient would be NaN.
    """
    seen = ~torch.isnan(x)
    masked = fn.base_dist.mask(seen).to_event(fn.reinterpreted_batch_ndims)
    value = filler(fn)
    return masked, torch.where(seen, x, value.to(x) if isinstance(value, Tensor) else value)


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
    """Return a number inside a constraint on numbers."""
    lower = getattr(support, "lower_bound", None)
    if support.is_discrete and isinstance(lower, (int, float)):
        return float(lower)  # told without a look at a tensor: supports of counts are made anew for each batch
    for value in (0.0, 0.5, 1.0, 2.0, -1.0):
        if support.check(torch.tensor(value)).all():
            return value
    upper = getattr(support, "upper_bound", None)
    if lower is not None and upper is not None:
        return float((torch.as_tensor(lower) + torch.as_tensor(upper)).flatten()[0] / 2)
    if lower is not None:
        return float(torch.as_tensor(lower).flatten()[0]) + 1.0
    raise ValueError(f"no value inside the support {support} is known, so that entries cannot be missing under it")
