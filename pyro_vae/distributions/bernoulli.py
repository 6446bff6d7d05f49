"""Variants of the Bernoulli distribution: on [0, 1], on grey values, and with a fused sum over the event."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import binary_cross_entropy_with_logits

from pyro_vae.distributions.base import ValidatedLogProb

__all__ = ["ContinuousBernoulli", "GreyBernoulli", "IndependentBernoulli"]


class ContinuousBernoulli(ValidatedLogProb, dist.ContinuousBernoulli):
    r"""The continuous Bernoulli, with density, moments and samples that are accurate for every logit.

    .. math::
        p(x) = C(\lambda)\, \lambda^x (1 - \lambda)^{1 - x}, \qquad
        \log C = \log \frac{\lvert t \rvert}{2 \sinh(\lvert t \rvert / 2)}
                 + \tfrac{1}{2} t + \operatorname{softplus}(-t), \qquad t = \operatorname{logit} \lambda

    torch treats probabilities near 1/2 separately and loses accuracy in float32 around its threshold. Written in
    the logit, :math:`\log p(x) = x t - g(t)` with :math:`g(t) = \log \frac{e^t - 1}{t}` needs one series at 0.

    Args:
        logits: log-odds :math:`t`, any real number

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders
        (Loaiza-Ganem and Cunningham, 2019), https://arxiv.org/abs/1907.06845

    Example:
        >>> ContinuousBernoulli(logits=torch.zeros(3)).log_prob(torch.full((3,), 0.2))
        tensor([0., 0., 0.])
    """

    def _log_prob(self, value: Tensor) -> Tensor:
        t = self.logits
        # x t - g(t) = (x - 1) t - g(-t): choose the form in which no large terms cancel
        return torch.where(t > 0, value - 1, value) * t - log_mean_exp(torch.where(t > 0, -t, t))

    @property
    def mean(self) -> Tensor:
        r"""The mean :math:`g'(t) = 1/(1 - e^{-t}) - 1/t`."""
        t = self.logits
        near = t.abs() < 0.1
        safe = torch.where(near, torch.ones_like(t), t)
        return torch.where(near, 0.5 + t / 12 - t**3 / 720 + t**5 / 30240, -1 / torch.expm1(-safe) - 1 / safe)

    @property
    def variance(self) -> Tensor:
        r"""The variance :math:`g''(t) = 1/t^2 - 1/(4 \sinh^2(t/2))`."""
        size = self.logits.abs()
        near = size < 0.3
        safe = torch.where(near, torch.ones_like(size), size)
        far = safe**-2 - torch.exp(-safe) / torch.expm1(-safe) ** 2
        return torch.where(near, 1 / 12 - size**2 / 240 + size**4 / 6048 - size**6 / 172800, far)

    def entropy(self) -> Tensor:
        r"""Return the entropy :math:`g(t) - t g'(t)`."""
        return log_mean_exp(self.logits) - self.logits * self.mean

    def cdf(self, value: Tensor) -> Tensor:
        r"""Return the distribution function, :math:`(e^{t x} - 1) / (e^t - 1)`."""
        size, rising = self.logits.abs().clamp(min=1e-30), self.logits > 0
        below = torch.expm1(-size * torch.where(rising, 1 - value, value)) / torch.expm1(-size)
        return torch.where(rising, 1 - below, below)

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantile at each probability."""
        t, size, rising = self.logits, self.logits.abs(), self.logits > 0
        near = size < (0.1 if size.dtype == torch.float32 else 0.005)
        safe = torch.where(near, torch.ones_like(size), size)
        far = -torch.log1p(torch.where(rising, 1 - value, value) * torch.expm1(-safe)) / safe
        # the series at 0, where the gradient of the formula above loses all digits
        inner = t / 2 + t * t * (1 - 2 * value) / 6 + t**3 * (1 - 6 * value + 6 * value * value) / 24
        x = torch.where(near, value + value * (1 - value) * inner, torch.where(rising, 1 - far, far))
        return x.clamp(0, 1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples with a gradient to the logits."""
        u = torch.rand(
            self._extended_shape(torch.Size(sample_shape)), dtype=self.logits.dtype, device=self.logits.device
        )
        return self.icdf(u.clamp(min=torch.finfo(u.dtype).eps))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)


def log_mean_exp(t: Tensor) -> Tensor:
    r"""Return :math:`\log \int_0^1 e^{t x} dx = \log \frac{e^t - 1}{t}`, also where t is tiny or huge."""
    size = t.abs()
    near = size < 0.1
    safe = torch.where(near, torch.ones_like(t), size)
    # log((e^s - 1)/s) = s + log(1 - e^-s) - log s for s > 0, and g(-s) = g(s) - s
    far = torch.where(t > 0, size, torch.zeros_like(t)) + torch.log(-torch.expm1(-safe)) - safe.log()
    square = t * t
    return torch.where(near, t / 2 + square * (1 / 24 - square * (1 / 2880 - square / 181440)), far)


class GreyBernoulli(dist.Bernoulli):
    r"""The Bernoulli log-probability evaluated at grey values in [0, 1]: a cross-entropy, **not** a density.

    .. math:: \ell(x) = x \log p + (1 - x) \log(1 - p), \qquad x \in [0, 1]

    Many public VAEs train on grey pixels with it. Its values are not log-likelihoods and cannot be compared with
    those of a distribution.

    Example:
        >>> GreyBernoulli(probs=torch.tensor(0.5)).log_prob(torch.tensor(0.3))
        tensor(-0.6931)
    """

    support = constraints.unit_interval


class IndependentBernoulli(dist.Independent):
    r"""``Bernoulli(...).to_event(n)`` with a faster log-density: the sign is changed after the sum over the event.

    .. math:: \log p(x) = -\sum_j \left( \log(1 + e^{a_j}) - x_j a_j \right)

    torch changes the sign of each entry, forwards and backwards, which takes a tenth of a training step with 50
    particles of 784 pixels.

    Args:
        base_distribution: a Bernoulli
        reinterpreted_batch_ndims: number of event dimensions

    Example:
        >>> IndependentBernoulli(dist.Bernoulli(logits=torch.zeros(5, 8, 8)), 2).log_prob(torch.ones(5, 8, 8)).shape
        torch.Size([5])
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of the event ``value``."""
        if self.base_dist._validate_args:
            self.base_dist._validate_sample(value)
        logits, value = broadcast_all(self.base_dist.logits, value)
        each = binary_cross_entropy_with_logits(logits, value, reduction="none")
        event = tuple(range(-self.reinterpreted_batch_ndims, 0))
        return -(each.sum(event) if event else each)
