"""A base distribution seen through layers that can be inverted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

__all__ = ["Flow", "Layer"]


class Layer(nn.Module, ABC):
    r"""An invertible map of vectors, :math:`u = f(z)`, that may depend on a context."""

    @abstractmethod
    def forward(self, z: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return u of the shape of z and :math:`\log \lvert \det \partial u / \partial z \rvert`, one number a z."""

    @abstractmethod
    def inverse(self, u: Tensor, *context: Tensor) -> Tensor:
        """Return z."""


class Flow(dist.TorchDistribution):
    r"""The distribution of z where :math:`f_n(\dots f_1(z))` follows a base distribution.

    .. math:: \log p(z) = \log p_{\mathrm{base}}(u) + \sum_i \log \lvert \det \partial f_i \rvert, \qquad
              u = f_n \circ \dots \circ f_1(z)

    The layers run from z to u, so that a density needs one pass, also of layers whose inverse is slow. Nothing
    is kept between calls: the flow transforms of Pyro keep their last input with its graph in the module, which
    then cannot be copied, and a density read after a step would be that of old weights.

    Args:
        base: distribution of u, over vectors of real numbers
        layers: from z to u
        context: given to each layer

    Shape:
        batch shape and event shape of the base.

    Example:
        >>> Flow(dist.Normal(torch.zeros(3), 1.0).to_event(1), []).sample((5,)).shape
        torch.Size([5, 3])
    """

    arg_constraints = {}
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

    def expand(self, batch_shape: torch.Size, _instance: Flow | None = None) -> Flow:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(Flow, _instance)
        new.base_dist = self.base_dist.expand(torch.Size(batch_shape))
        # the layers broadcast the context with their input
        new.layers, new.context = self.layers, self.context
        super(Flow, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density, by one pass through the layers."""
        if self._validate_args:
            self._validate_sample(value)
        total = 0.0
        for layer in self.layers:
            value, log_det = layer(value, *self.context)
            total = total + log_det
        return self.base_dist.log_prob(value) + total

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw from the base and invert the layers, with a gradient."""
        u = self.base_dist.rsample(torch.Size(sample_shape))
        for layer in reversed(self.layers):
            u = layer.inverse(u, *self.context)
        return u
