"""Normalizing flows: a base distribution and invertible layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_vae._util.abstract import Abstract
from pyro_vae.distributions.base import Distribution

__all__ = ["Flow", "Layer"]


class Layer(Abstract, nn.Module):
    r"""An invertible map of vectors, :math:`u = f(z)`, with an optional context."""

    @abstractmethod
    def forward(self, z: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return u, and :math:`\log \lvert \det \partial u / \partial z \rvert` of shape ``(*batch,)``."""

    @abstractmethod
    def inverse(self, u: Tensor, *context: Tensor) -> Tensor:
        """Return z."""


class Flow(Distribution):
    r"""The distribution of z for which :math:`f_n(\dots f_1(z))` follows a base distribution.

    .. math:: \log p(z) = \log p_{\mathrm{base}}(u) + \sum_i \log \lvert \det \partial f_i \rvert, \qquad
              u = f_n \circ \dots \circ f_1(z)

    The layers map z to u, so that a density takes one pass even where the inverse is slow. Nothing is cached between
    calls. (Pyro's flow transforms cache their last input and its graph in the module, which then cannot be copied and
    returns densities of old weights after a step.)

    Args:
        base: distribution of u, over vectors of real numbers
        layers: from z to u
        context: context of each layer

    Shape:
        batch shape and event shape of the base.

    Example:
        >>> from pyro import distributions as dist
        >>> Flow(dist.Normal(torch.zeros(3), 1.0).to_event(1), []).sample((5,)).shape
        torch.Size([5, 3])
    """

    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        base: TorchDistributionMixin,
        layers: Sequence[Layer],
        context: Sequence[Tensor] = (),
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.base_dist, self.layers, self.context = base, layers, tuple(context)
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    def _log_prob(self, value: Tensor) -> Tensor:
        total = 0.0
        for layer in self.layers:
            value, log_det = layer(value, *self.context)
            total = total + log_det
        return self.base_dist.log_prob(value) + total

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample from the base and invert the layers, with a gradient."""
        u = self.base_dist.rsample(torch.Size(sample_shape))
        for layer in reversed(self.layers):
            u = layer.inverse(u, *self.context)
        return u
