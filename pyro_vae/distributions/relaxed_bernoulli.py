"""The binary concrete distribution, right for every logit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.supports import open_unit_interval

__all__ = ["RelaxedBernoulli"]


class RelaxedBernoulli(dist.TorchDistribution):
    r"""The binary concrete distribution: a logistic variable through the sigmoid.

    .. math:: z = \sigma(y), \qquad y \sim \mathrm{Logistic}(t / \tau, 1 / \tau), \qquad
              \log p(z) = \log \tau + s - 2 \log(1 + e^s) - \log z (1 - z), \quad s = \tau \operatorname{logit} z - t

    torch goes by way of the probability, which is 0 or 1 in float32 for logits beyond 16: its draws come from
    another distribution there and its log-density is minus infinity.

    References:
        The concrete distribution (Maddison et al., 2017), https://arxiv.org/abs/1611.00712

    Args:
        temperature: tau, a positive number as a tensor; as it goes to 0 the draws become binary
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

    def expand(self, batch_shape: torch.Size, _instance: RelaxedBernoulli | None = None) -> RelaxedBernoulli:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(RelaxedBernoulli, _instance)
        new.temperature, new.logits = self.temperature.expand(batch_shape), self.logits.expand(batch_shape)
        super(RelaxedBernoulli, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw a number between 0 and 1, both excluded."""
        u = torch.rand(self._extended_shape(sample_shape), dtype=self.logits.dtype, device=self.logits.device)
        info = torch.finfo(u.dtype)
        noise = torch.logit(u.clamp(info.tiny, 1 - info.eps))
        return torch.sigmoid((self.logits + noise) / self.temperature).clamp(info.tiny, 1 - info.eps)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        info = torch.finfo(value.dtype)
        value = value.clamp(info.tiny, 1 - info.eps / 2)
        up, down = value.log(), torch.log1p(-value)
        s = self.temperature * (up - down) - self.logits
        # s - 2 log(1 + e^s) is even in s: written in -|s| nothing overflows
        size = -s.abs()
        return self.temperature.log() + size - 2 * torch.log1p(size.exp()) - up - down
