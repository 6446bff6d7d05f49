"""The continuous Bernoulli, accurate for every logit."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(dist.ContinuousBernoulli):
    r"""The continuous Bernoulli with a normaliser that is accurate for every logit.

    .. math::
        p(x) = C(\lambda)\, \lambda^x (1 - \lambda)^{1 - x}, \qquad
        \log C = \log \frac{\lvert t \rvert}{2 \sinh(\lvert t \rvert / 2)}
                 + \tfrac{1}{2} t + \operatorname{softplus}(-t), \qquad t = \operatorname{logit} \lambda

    torch cuts out the neighbourhood of 1/2 by a threshold on the probability, which loses accuracy beside
    it in float32. Written in the logit, :math:`\log p(x) = x t - g(t)` with
    :math:`g(t) = \log \frac{e^t - 1}{t}`, one series at 0 suffices.

    Args:
        logits: log-odds :math:`t`, any real number

    References:
        The continuous Bernoulli: fixing a pervasive error in variational autoencoders
        (Loaiza-Ganem and Cunningham, 2019), https://arxiv.org/abs/1907.06845

    Example:
        >>> ContinuousBernoulli(logits=torch.zeros(3)).log_prob(torch.full((3,), 0.2))
        tensor([0., 0., 0.])
    """

    def expand(self, batch_shape: torch.Size, _instance: ContinuousBernoulli | None = None) -> ContinuousBernoulli:
        """Return the distribution with another batch shape."""
        return super().expand(batch_shape, self._get_checked_instance(ContinuousBernoulli, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at ``value`` in [0, 1]."""
        if self._validate_args:
            self._validate_sample(value)
        t = self.logits
        # x t - g(t) = (x - 1) t - g(-t): the one of the two in which no large terms cancel
        return torch.where(t > 0, value - 1, value) * t - log_mean_exp_ramp(torch.where(t > 0, -t, t))

    @property
    def mean(self) -> Tensor:
        r"""The mean :math:`g'(t) = 1/(1 - e^{-t}) - 1/t`."""
        t = self.logits
        near = t.abs() < 0.1
        safe = torch.where(near, torch.ones_like(t), t)
        return torch.where(near, 0.5 + t / 12 - t**3 / 720 + t**5 / 30240, -1 / torch.expm1(-safe) - 1 / safe)


def log_mean_exp_ramp(t: Tensor) -> Tensor:
    r"""Return :math:`\log \int_0^1 e^{t x} dx = \log \frac{e^t - 1}{t}`, even where t is tiny or huge."""
    size = t.abs()
    near = size < 0.1
    safe = torch.where(near, torch.ones_like(t), size)
    # log((e^s - 1)/s) = s + log(1 - e^-s) - log s for s > 0, and g(-s) = g(s) - s
    far = torch.where(t > 0, size, torch.zeros_like(t)) + torch.log(-torch.expm1(-safe)) - safe.log()
    square = t * t
    return torch.where(near, t / 2 + square * (1 / 24 - square * (1 / 2880 - square / 181440)), far)
