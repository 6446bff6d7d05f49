"""Mixtures of many components, cheap to expand and to sample from."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.base import Distribution

__all__ = ["Mixture"]

#: Largest number of values that one pass of the sampler creates.
VALUES_PER_PASS = 2**24


class Mixture(Distribution):
    r"""A mixture of components of one family.

    .. math:: p(z) = \sum_k \pi_k \, p_k(z), \qquad \pi = \operatorname{softmax}(\mathrm{logits})

    Each component is a joint distribution of a whole event. ``MixtureSameFamily`` of torch has the same density, but
    copies all components when it is expanded to a batch and samples from all of them at once: ten thousand samples
    of a mixture with 500 components take a gigabyte.

    Args:
        logits: unnormalized log-weights, ``(*batch, components)``
        components: a distribution with batch shape ``(*batch, components)``
        center: subtract the mean of the mixture from z, so that p(z) has mean 0

    Shape:
        batch shape ``batch``, event shape that of a component.

    Raises:
        ValueError: ``logits`` and ``components`` differ in their number of components.

    Example:
        >>> Mixture(torch.zeros(4), dist.Normal(torch.zeros(4, 3), 1.0).to_event(1)).sample((5,)).shape
        torch.Size([5, 3])
    """

    arg_constraints = {"logits": constraints.real_vector}

    def __init__(
        self,
        logits: Tensor,
        components: TorchDistributionMixin,
        *,
        center: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        if not components.batch_shape or logits.shape[-1:] != components.batch_shape[-1:]:
            raise ValueError(
                f"logits, components: expected one logit per component, got logits of shape {tuple(logits.shape)} and "
                f"components of batch shape {tuple(components.batch_shape)}"
            )
        batch = torch.broadcast_shapes(logits.shape, components.batch_shape)
        self.logits = logits.expand(batch)
        self.components = components if components.batch_shape == batch else components.expand(batch)
        super().__init__(batch[:-1], components.event_shape, validate_args=validate_args)
        self.shift = self._average(self.components.mean) if center else None

    @property
    def support(self) -> constraints.Constraint:
        """The support of a component."""
        return self.components.support

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Mixture:
        """Return the distribution expanded to ``batch_shape``; new dimensions on the left are free."""
        new = copy.copy(self)
        new._batch_shape = shape = torch.Size(batch_shape)
        own = self.logits.shape[:-1]
        if shape[len(shape) - len(own) :] != own:
            wide = shape + self.logits.shape[-1:]
            new.logits, new.components = self.logits.expand(wide), self.components.expand(wide)
            new.shift = None if self.shift is None else self.shift.expand(shape + self.event_shape)
        return new

    def _log_prob(self, value: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(value.shape[: value.dim() - len(self.event_shape)], self.batch_shape)
        value = value if self.shift is None else value + self.shift
        normal = diagonal_normal(self.components)
        if normal is not None and self.logits.dim() == 1:
            each = normal_log_probs(value, normal.loc, normal.scale)
        else:
            each = self.components.log_prob(value.unsqueeze(-1 - len(self.event_shape)))
        return torch.logsumexp(each + torch.log_softmax(self.logits, -1), -1).expand(batch)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample a component, then an event from it."""
        shape = self._extended_shape(sample_shape)
        own = self.logits.shape[:-1]
        draws = shape[: len(shape) - len(own) - len(self.event_shape)].numel()
        numbers = self.logits.shape.numel() * self.event_shape.numel()
        at_once = max(1, VALUES_PER_PASS // max(1, numbers))
        with torch.no_grad():
            passes = [self._sample_pass(min(at_once, draws - i)) for i in range(0, draws, at_once)]
        samples = torch.cat(passes).reshape(shape) if passes else self.logits.new_empty(shape)
        return samples if self.shift is None else samples - self.shift.detach()

    def _sample_pass(self, n: int) -> Tensor:
        which = torch.distributions.Categorical(logits=self.logits, validate_args=False).sample((n,))
        each = self.components.sample((n,))
        dim = which.dim()
        index = which.reshape(*which.shape, *[1] * (1 + len(self.event_shape)))
        index = index.expand(*which.shape, 1, *self.event_shape)
        return each.gather(dim, index).squeeze(dim)

    @property
    def mean(self) -> Tensor:
        """The mean of the components' means; 0 if the mixture is centered."""
        mean = self._average(self.components.mean)
        return (mean if self.shift is None else torch.zeros_like(mean)).expand(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        """The mean variance within components plus the variance of their means."""
        mean = self.components.mean
        centre = self._average(mean).unsqueeze(-1 - len(self.event_shape))
        spread = self.components.variance + (mean - centre).square()
        return self._average(spread).expand(self._extended_shape())

    def _average(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.logits, -1).reshape(*self.logits.shape, *[1] * len(self.event_shape))
        return (weights * x).sum(-1 - len(self.event_shape))


def diagonal_normal(fn: TorchDistributionMixin) -> torch.distributions.Normal | None:
    """Return the ``Normal`` inside a diagonal normal over vectors, None for any other distribution."""
    base = getattr(fn, "base_dist", None)
    vectors = len(fn.event_shape) == 1 and getattr(fn, "reinterpreted_batch_ndims", 0) == 1
    # subclasses may have a density of their own, and mps has no double precision
    return base if vectors and type(base) is dist.Normal and base.loc.device.type != "mps" else None


def normal_log_probs(value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    r"""Return the log-density of each vector under each of many diagonal normals, ``(*batch, components)``.

    The square is expanded to :math:`z^2 / \sigma^2 - 2 z m / \sigma^2 + m^2 / \sigma^2`, so that two matrix products
    replace the differences of all pairs. Double precision, because the three terms may be large where their sum is
    small.
    """
    z, m, precision = value.double(), loc.double(), scale.double().square().reciprocal()
    square = z.square() @ precision.mT - 2 * z @ (m * precision).mT + (m.square() * precision).sum(-1)
    constant = scale.double().log().sum(-1) + 0.5 * math.log(2 * math.pi) * loc.shape[-1]
    return (-0.5 * square - constant).to(value.dtype)
