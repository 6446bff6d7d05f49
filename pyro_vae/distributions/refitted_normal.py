"""A normal with its scale fitted to the values at which the density is evaluated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro import distributions as dist
from torch import Tensor

__all__ = ["RefittedNormal"]


class RefittedNormal(dist.Normal):
    r"""A normal that fits its scale to the values at which the density is evaluated.

    .. math:: \sigma^2 = \operatorname{mean} (x - \mu)^2

    The density is stationary at this scale, so that the gradient in :math:`\mu` needs no derivative of
    :math:`\sigma`. Use it for training only: the density of one value depends on all others.

    Args:
        loc: :math:`\mu`
        scale: scale of samples
        refit: function from the mean squared error to the scale
        seen: mask of the observed entries, None for all

    References:
        Simple and effective VAE training with calibrated decoders (Rybkin et al., 2021),
        https://arxiv.org/abs/2006.13202

    Example:
        >>> RefittedNormal(torch.zeros(2), torch.tensor(1.0), torch.sqrt).log_prob(torch.tensor([3.0, -3.0]))
        tensor([-2.5176, -2.5176])
    """

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        refit: Callable[[Tensor], Tensor],
        seen: Tensor | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.refit, self.seen = refit, seen
        super().__init__(loc, scale, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: RefittedNormal | None = None) -> RefittedNormal:
        """Return the distribution expanded to ``batch_shape``."""
        new = super().expand(batch_shape, self._get_checked_instance(RefittedNormal, _instance))
        new.refit, new.seen = self.refit, self.seen
        return new

    def mask(self, mask: Tensor | bool) -> dist.MaskedDistribution:
        """Exclude entries from the density and from the fit of the scale."""
        if isinstance(mask, bool):
            return super().mask(mask)
        return dist.MaskedDistribution(RefittedNormal(self.loc, self.scale, self.refit, mask.bool()), mask)

    def log_prob(self, value: Tensor) -> Tensor:
        """Fit the scale and return the log-density at ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        with torch.no_grad():
            error = (value - self.loc) ** 2
            if self.seen is None:
                scale = self.refit(error.mean())
            else:
                seen = self.seen.expand(error.shape)
                scale = self.refit(torch.where(seen, error, 0.0).sum() / seen.sum().clamp(min=1))
        return dist.Normal(self.loc, scale.expand(self.loc.shape), validate_args=False).log_prob(value)
