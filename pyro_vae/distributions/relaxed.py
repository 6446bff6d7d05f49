"""Continuous relaxations of discrete distributions (concrete, Gumbel-softmax)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.base import Distribution
from pyro_vae.distributions.supports import open_unit_interval

__all__ = ["RelaxedBernoulli", "RelaxedOneHotCategorical"]


class RelaxedBernoulli(Distribution):
    r"""The binary concrete distribution: the sigmoid of a logistic variable, accurate for every logit.

    .. math:: z = \sigma(y), \qquad y \sim \mathrm{Logistic}(t / \tau, 1 / \tau), \qquad
              \log p(z) = \log \tau + s - 2 \log(1 + e^s) - \log z (1 - z), \quad s = \tau \operatorname{logit} z - t

    torch converts the logit to a probability, which is 0 or 1 in float32 for logits beyond 16: its samples then
    follow another distribution and its log-density is minus infinity.

    References:
        The concrete distribution (Maddison et al., 2017), https://arxiv.org/abs/1611.00712

    Args:
        temperature: tau, a positive number as a tensor; as it goes to 0 the samples become binary
        logits: log-odds t, shape ``(*batch,)``

    Shape:
        batch shape ``batch`` and event shape ``()``.

    Example:
        >>> RelaxedBernoulli(torch.tensor(0.5), torch.zeros(4)).rsample((2,)).shape
        torch.Size([2, 4])
    """

    arg_constraints = {"temperature": constraints.positive, "logits": constraints.real}
    support = open_unit_interval
    has_rsample = True

    def __init__(self, temperature: Tensor, logits: Tensor, *, validate_args: bool | None = None) -> None:
        self.temperature, self.logits = torch.broadcast_tensors(temperature, logits)
        super().__init__(self.logits.shape, validate_args=validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample numbers strictly between 0 and 1, with a gradient."""
        u = torch.rand(self._extended_shape(sample_shape), dtype=self.logits.dtype, device=self.logits.device)
        info = torch.finfo(u.dtype)
        noise = torch.logit(u.clamp(info.tiny, 1 - info.eps))
        return torch.sigmoid((self.logits + noise) / self.temperature).clamp(info.tiny, 1 - info.eps)

    def _log_prob(self, value: Tensor) -> Tensor:
        info = torch.finfo(value.dtype)
        value = value.clamp(info.tiny, 1 - info.eps / 2)
        up, down = value.log(), torch.log1p(-value)
        s = self.temperature * (up - down) - self.logits
        # s - 2 log(1 + e^s) is even in s: written in -|s| it cannot overflow
        size = -s.abs()
        return self.temperature.log() + size - 2 * torch.log1p(size.exp()) - up - down


class RelaxedOneHotCategorical(dist.RelaxedOneHotCategorical):
    r"""The concrete (Gumbel-softmax) distribution, with samples that never round to an exact 0.

    .. math:: z = \operatorname{softmax}\left(\frac{\log \pi + g}{\tau}\right), \qquad g_k \sim \mathrm{Gumbel}

    With very different logits or a low temperature, a coordinate underflows to 0 in float32, where the density is
    undefined. Here it is clamped to the smallest normal number.

    References:
        The concrete distribution (Maddison et al., 2017), https://arxiv.org/abs/1611.00712;
        Categorical reparameterization with Gumbel-softmax (Jang et al., 2017), https://arxiv.org/abs/1611.01144

    Args:
        temperature: tau, a positive number as a tensor; as it goes to 0 the samples become one-hot
        logits: unnormalized log-probabilities, shape ``(*batch, categories)``

    Example:
        >>> RelaxedOneHotCategorical(torch.tensor(0.5), logits=torch.zeros(4)).rsample((2,)).shape
        torch.Size([2, 4])
    """

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample points of the simplex, with a gradient."""
        x = super().rsample(torch.Size(sample_shape))
        return x.clamp_min(torch.finfo(x.dtype).tiny)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample points of the simplex, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)
