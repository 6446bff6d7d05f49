"""Truncated rejection sampling from a base distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyro_vae._util.validation import check_int
from pyro_vae.distributions.base import Distribution

__all__ = ["AcceptReject"]


class AcceptReject(Distribution):
    r"""Rejection sampling from a base distribution, truncated after T proposals (the last one is always accepted).

    .. math:: p(z) = \pi(z) \left[ \frac{1 - (1 - Z)^{T-1}}{Z}\, a(z) + (1 - Z)^{T-1} \right], \qquad
              a(z) = \operatorname{sigmoid} f(z), \quad Z = \mathbb E_\pi[a]

    References:
        Resampled priors for variational autoencoders (Bauer and Mnih, 2019), https://arxiv.org/abs/1810.11428

    Args:
        base: the proposal :math:`\pi`
        logit: f, from values ``(*batch, *event)`` to ``(*batch,)``
        logits: f at samples of the base, ``(num_samples, *batch)``, from which Z is estimated
        truncation: T, at least 2

    Raises:
        ValueError: ``truncation`` is not an integer of at least 2.

    Example:
        >>> from pyro import distributions as dist
        >>> base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> fn = AcceptReject(base, lambda z: z.sum(-1), base.sample((9,)).sum(-1))
        >>> fn.sample((5,)).shape
        torch.Size([5, 2])
    """

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
        self.base_dist, self.logit, self.truncation = base, logit, check_int("truncation", truncation, 2)
        n = math.log(len(logits))
        self.log_mean = torch.logsumexp(logsigmoid(logits), 0) - n
        # log(1 - Z), in the form that does not subtract nearly equal numbers
        rare = self.log_mean < -math.log(2)
        small = torch.where(rare, self.log_mean, -1.0).exp()
        self.log_rest = torch.where(rare, torch.log1p(-small), torch.logsumexp(logsigmoid(-logits), 0) - n)
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """The support of the base."""
        return self.base_dist.support

    def _log_prob(self, value: Tensor) -> Tensor:
        times = self.truncation - 1
        none = times * self.log_rest
        # log((1 - (1 - Z)^times) / Z), which tends to log(times) as Z vanishes
        gone = self.log_mean < -60
        safe = torch.where(gone, -1.0, none)
        some = torch.where(gone, math.log(times), torch.log(-torch.expm1(safe)) - self.log_mean)
        return self.base_dist.log_prob(value) + torch.logaddexp(some + logsigmoid(self.logit(value)), none)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample from the base until a proposal is accepted, at most T times."""
        with torch.no_grad():
            z = self.base_dist.sample(torch.Size(sample_shape))
            done = torch.zeros(z.shape[: z.dim() - len(self.event_shape)], dtype=torch.bool, device=z.device)
            for _ in range(self.truncation - 1):
                logit = self.logit(z)
                # an accepted proposal is kept
                done = done | (torch.rand_like(logit) < torch.sigmoid(logit))
                if done.all():
                    break
                fresh = self.base_dist.sample(torch.Size(sample_shape))
                z = torch.where(done.reshape(*done.shape, *[1] * len(self.event_shape)), z, fresh)
            return z
