"""A distribution whose event is flattened to one vector."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints, kl_divergence, register_kl

from pyro_vae.distributions.base import Distribution

__all__ = ["Flattened"]


class FlattenedConstraint(constraints.Constraint):
    """Vectors that satisfy ``base`` after a reshape to ``shape``."""

    event_dim = 1

    def __init__(self, base: constraints.Constraint, shape: torch.Size) -> None:
        super().__init__()
        self.base, self.shape = base, shape

    @property
    def is_discrete(self) -> bool:
        """Whether the base constraint is discrete."""
        return self.base.is_discrete

    def check(self, value: Tensor) -> Tensor:
        """Return which vectors satisfy the base constraint."""
        return self.base.check(value.unflatten(-1, self.shape))

    def __repr__(self) -> str:
        return f"flattened {self.base}"  # torch's own drops the first letter of the class


class Flattened(Distribution):
    r"""A distribution with its event, of any shape, flattened to one vector.

    .. math:: p(z) = p_{\mathrm{base}}(\mathrm{reshape}(z))

    A product of one-hot categoricals has an event of shape (groups, categories); flattened, it fits a network
    with ``latent`` inputs. The KL divergence between two such distributions is that of their bases.

    Args:
        base: a distribution with at least one event dimension

    Shape:
        batch shape of the base, event shape ``(n,)`` with the n entries of its event.

    Raises:
        ValueError: ``base`` has no event dimension.

    Example:
        >>> from pyro import distributions as dist
        >>> Flattened(dist.OneHotCategorical(torch.ones(4, 3)).to_event(1)).sample((5,)).shape
        torch.Size([5, 12])
    """

    def __init__(self, base: TorchDistributionMixin, *, validate_args: bool | None = None) -> None:
        if not base.event_shape:
            raise ValueError(f"base: expected an event dimension, got event shape () of {base}. Use base.to_event(1)")
        self.base_dist = base
        event = torch.Size((base.event_shape.numel(),))
        super().__init__(base.batch_shape, event, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:
        """Whether the base has a reparameterized sampler."""
        return self.base_dist.has_rsample

    @property
    def support(self) -> constraints.Constraint:
        """The support of the base, flattened."""
        return FlattenedConstraint(self.base_dist.support, self.base_dist.event_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample from the base, with a gradient."""
        return self._flat(self.base_dist.rsample(torch.Size(sample_shape)))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample from the base."""
        return self._flat(self.base_dist.sample(torch.Size(sample_shape)))

    def _log_prob(self, value: Tensor) -> Tensor:
        return self.base_dist.log_prob(value.unflatten(-1, self.base_dist.event_shape))

    def entropy(self) -> Tensor:
        """Return the entropy of the base."""
        return self.base_dist.entropy()

    @property
    def mean(self) -> Tensor:
        """The mean of the base, flattened."""
        return self._flat(self.base_dist.mean)

    @property
    def variance(self) -> Tensor:
        """The variance of the base, flattened."""
        return self._flat(self.base_dist.variance)

    @property
    def has_enumerate_support(self) -> bool:
        """Whether the values of the base can be enumerated."""
        return factors(self.base_dist).has_enumerate_support

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return all values, of shape ``(n, *batch, entries)``.

        Raises:
            ValueError: there are more than a million values.
        """
        base, fn = factors(self.base_dist), self.base_dist
        one = base.enumerate_support(expand=False)
        one = one.reshape(len(one), *base.event_shape)
        factor_dims = len(fn.batch_shape + fn.event_shape) - len(base.event_shape)
        groups = (fn.batch_shape + fn.event_shape)[len(self.batch_shape) : factor_dims].numel()
        if groups * math.log(len(one)) > math.log(1e6):
            raise ValueError(f"enumerate_support: expected at most a million values, got {len(one)}^{groups}")
        index = torch.cartesian_prod(*[torch.arange(len(one), device=one.device)] * groups).reshape(-1, groups)
        values = one[index].reshape(len(index), *[1] * len(self.batch_shape), -1)
        return values.expand(-1, *self.batch_shape, -1) if expand else values

    def _flat(self, x: Tensor) -> Tensor:
        return x.flatten(x.dim() - len(self.base_dist.event_shape))


def factors(fn: TorchDistributionMixin) -> TorchDistributionMixin:
    """Return the distribution of one factor of an independent product."""
    while isinstance(fn, torch.distributions.Independent):
        fn = fn.base_dist
    return fn


@register_kl(Flattened, Flattened)
def kl_flattened(q: Flattened, p: Flattened) -> Tensor:
    """Return the KL divergence between the bases."""
    if q.base_dist.event_shape != p.base_dist.event_shape:
        raise NotImplementedError
    return kl_divergence(q.base_dist, p.base_dist)
