"""A base distribution reweighted by accepting or rejecting its draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

__all__ = ["AcceptReject"]


class AcceptReject(dist.TorchDistribution):
    r"""The first accepted of at most T draws from a base, the T-th being taken as it is.

    .. math:: p(z) = \pi(z) \left[ \frac{1 - (1 - Z)^{T-1}}{Z}\, a(z) + (1 - Z)^{T-1} \right], \qquad
              a(z) = \operatorname{sigmoid} f(z), \quad Z = \mathbb E_\pi[a]

    References:
        Resampled priors for variational autoencoders (Bauer and Mnih, 2019), https://arxiv.org/abs/1810.11428

    Args:
        base: :math:`\pi`
        logit: f, from values ``(*batch, *event)`` to ``(*batch,)``
        logits: f at draws from the base, ``(draws, *batch)``, whose mean is taken for Z
        truncation: T, at least 2

    Raises:
        ValueError: the truncation is below 2.

    Example:
        >>> base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> fn = AcceptReject(base, lambda z: z.sum(-1), base.sample((9,)).sum(-1))
        >>> fn.sample((5,)).shape
        torch.Size([5, 2])
    """

    arg_constraints = {}
    has_rsample = False

    def __init__(
        self,
        base: TorchDistributionMixin,
        logit: Callable[[Tensor], Tensor],
        logits: Tensor,
        *,
        truncation: int = 100,
        validate_args: bool | None = None,
    ) -> None:
        if truncation < 2:
            raise ValueError(f"truncation: expected at least 2 draws, got {truncation}")
        self.base_dist, self.logit, self.truncation = base, logit, truncation
        n = math.log(len(logits))
        self.log_mean = torch.logsumexp(logsigmoid(logits), 0) - n
        # log(1 - Z) from whichever of the two is no difference of nearly equal numbers
        rare = self.log_mean < -math.log(2)
        small = torch.where(rare, self.log_mean, -1.0).exp()
        self.log_rest = torch.where(rare, torch.log1p(-small), torch.logsumexp(logsigmoid(-logits), 0) - n)
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """The support of the base."""
        return self.base_dist.support

    def expand(self, batch_shape: torch.Size, _instance: AcceptReject | None = None) -> AcceptReject:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(AcceptReject, _instance)
        new.base_dist = self.base_dist.expand(torch.Size(batch_shape))
        new.logit, new.truncation = self.logit, self.truncation
        new.log_mean, new.log_rest = self.log_mean, self.log_rest
        super(AcceptReject, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density, which is as exact as Z is."""
        if self._validate_args:
            self._validate_sample(value)
        times = self.truncation - 1
        none = times * self.log_rest
        # log((1 - (1 - Z)^times) / Z), which tends to log(times) as Z vanishes
        gone = self.log_mean < -60
        safe = torch.where(gone, -1.0, none)
        some = torch.where(gone, math.log(times), torch.log(-torch.expm1(safe)) - self.log_mean)
        return self.base_dist.log_prob(value) + torch.logaddexp(some + logsigmoid(self.logit(value)), none)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw from the base until a draw is accepted, at most T times."""
        with torch.no_grad():
            z = self.base_dist.sample(torch.Size(sample_shape))
            done = torch.zeros(z.shape[: z.dim() - len(self.event_shape)], dtype=torch.bool, device=z.device)
            for _ in range(self.truncation - 1):
                logit = self.logit(z)
                # what was accepted once stays
                done = done | (torch.rand_like(logit) < torch.sigmoid(logit))
                if done.all():
                    break
                fresh = self.base_dist.sample(torch.Size(sample_shape))
                z = torch.where(done.reshape(*done.shape, *[1] * len(self.event_shape)), z, fresh)
            return z
