"""Mixtures of discretized logistics whose channels depend on each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.discretized_logistic import draw_bins, log_bins
from pyro_vae.distributions.special import log_total
from pyro_vae.distributions.supports import Grid

__all__ = ["CoupledLogisticMixture"]


class CoupledLogisticMixture(dist.TorchDistribution):
    r"""Pixels whose channels share a mixture component, each channel shifted by those before it.

    .. math:: p(x) = \prod_p \sum_j \pi_{pj} \prod_c
              \mathrm{DL}\Bigl(x_{cp};\ \mu_{cpj} + \sum_{b < c} a_{cbpj}\, x_{bp},\ s_{cpj}\Bigr)

    Args:
        logits: of :math:`\pi`, of shape ``(*batch, pixels, components)``
        loc: :math:`\mu`, of shape ``(*batch, channels, pixels, components)``
        scale: s, of the same shape
        coupling: a, of shape ``(*batch, channels (channels - 1) / 2, pixels, components)``, ordered by c, then b
        shape: shape of one datum, channels first
        levels: number of levels of each channel

    References:
        PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517

    Example:
        >>> loc, coupling = torch.rand(5, 3, 16, 2), torch.zeros(5, 3, 16, 2)
        >>> fn = CoupledLogisticMixture(loc[:, 0], loc, torch.ones_like(loc), coupling, (3, 4, 4))
        >>> fn.batch_shape, fn.event_shape
        (torch.Size([5]), torch.Size([3, 4, 4]))
    """

    arg_constraints = {
        "logits": constraints.independent(constraints.real, 2),
        "loc": constraints.independent(constraints.real, 3),
        "scale": constraints.independent(constraints.positive, 3),
        "coupling": constraints.independent(constraints.real, 3),
    }

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        coupling: Tensor,
        shape: Sequence[int],
        levels: int = 256,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.loc, self.scale, self.coupling, self.levels = logits, loc, scale, coupling, levels
        super().__init__(loc.shape[:-3], torch.Size(shape), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """The levels."""
        return constraints.independent(Grid(self.levels, 1 / (self.levels - 1)), len(self.event_shape))

    def expand(
        self, batch_shape: torch.Size, _instance: CoupledLogisticMixture | None = None
    ) -> CoupledLogisticMixture:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(CoupledLogisticMixture, _instance)
        for name, constraint in self.arg_constraints.items():
            value = getattr(self, name)
            setattr(new, name, value.expand(*batch_shape, *value.shape[-constraint.event_dim :]))
        new.levels = self.levels
        super(CoupledLogisticMixture, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw the component of each pixel, then its channels one after the other."""
        with torch.no_grad():
            which = dist.Categorical(logits=self.logits, validate_args=False).sample(sample_shape)
            which = which.unsqueeze(-2).unsqueeze(-1)
            loc, scale, coupling = (
                t.expand(*sample_shape, *t.shape).gather(-1, which.expand(*sample_shape, *t.shape[:-1], 1)).squeeze(-1)
                for t in (self.loc, self.scale, self.coupling)
            )
            x: list[Tensor] = []
            for c in range(loc.shape[-2]):
                x.append(draw_bins(loc[..., c, :] + shift(coupling, x, -2), scale[..., c, :], self.levels))
            return torch.stack(x, -2).reshape(self._extended_shape(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        lead = value.shape[: value.dim() - len(self.event_shape)]
        channels = value.reshape(*lead, self.event_shape[0], -1, 1).unbind(-3)
        parts = self.logits.log_softmax(-1)
        for c, x in enumerate(channels):
            loc = self.loc[..., c, :, :] + shift(self.coupling, channels[:c], -3)
            parts = parts + log_bins(x, loc, self.scale[..., c, :, :], self.levels)
        return log_total(parts).sum(-1)


def shift(coupling: Tensor, before: Sequence[Tensor], axis: int) -> Tensor | float:
    """Return what the channels ``before`` add to the location of the next one."""
    first = len(before) * (len(before) - 1) // 2
    return sum(coupling.select(axis, first + b) * x for b, x in enumerate(before)) if before else 0.0
