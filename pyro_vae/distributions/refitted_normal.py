"""A normal whose scale is fitted to whatever it is asked about."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro import distributions as dist
from torch import Tensor

__all__ = ["RefittedNormal"]


class RefittedNormal(dist.Normal):
    r"""A normal that first sets its scale to the best one for the values whose density is asked for.

    .. math:: \sigma^2 = \operatorname{mean} (x - \mu)^2

    At the best scale the density is stationary in it, so that the gradient in :math:`\mu` needs no derivative of
    :math:`\sigma`. It is meant for training: what it returns for one value depends on the others.

    Args:
        loc: :math:`\mu`
        scale: for draws
        refit: called with the mean squared error, returns the scale
        seen: which entries are observed, all if None

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
        """Return the distribution with another batch shape."""
        new = super().expand(batch_shape, self._get_checked_instance(RefittedNormal, _instance))
        new.refit, new.seen = self.refit, self.seen
        return new

    def mask(self, mask: Tensor | bool) -> dist.MaskedDistribution:
        """Leave entries out, of the density and of the scale."""
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
