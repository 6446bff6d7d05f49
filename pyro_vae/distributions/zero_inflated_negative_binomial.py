"""The negative binomial with more zeros."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.negative_binomial import negative_binomial

__all__ = ["ZeroInflatedNegativeBinomial"]


class ZeroInflatedNegativeBinomial(dist.TorchDistribution):
    r"""With probability :math:`\pi` a zero, otherwise a negative binomial count.

    .. math:: p(x) = \pi\, [x = 0] + (1 - \pi)\, \mathrm{NB}(x; \mu, r), \qquad \operatorname{logit} \pi = t

    Args:
        mean: :math:`\mu`, the mean of the negative binomial
        inverse_dispersion: r
        gate_logits: log-odds t of an additional zero

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018),
        https://doi.org/10.1038/s41592-018-0229-2

    Example:
        >>> ZeroInflatedNegativeBinomial(torch.ones(3), torch.ones(3), torch.zeros(3)).mean
        tensor([0.5000, 0.5000, 0.5000])
    """

    arg_constraints = {
        "rate": constraints.positive,
        "inverse_dispersion": constraints.positive,
        "gate_logits": constraints.real,
    }
    support = constraints.nonnegative_integer

    def __init__(
        self,
        mean: Tensor | float,
        inverse_dispersion: Tensor | float,
        gate_logits: Tensor | float,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.rate, self.inverse_dispersion, self.gate_logits = broadcast_all(mean, inverse_dispersion, gate_logits)
        super().__init__(self.rate.shape, validate_args=validate_args)

    def expand(
        self, batch_shape: torch.Size, _instance: ZeroInflatedNegativeBinomial | None = None
    ) -> ZeroInflatedNegativeBinomial:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(ZeroInflatedNegativeBinomial, _instance)
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        super(ZeroInflatedNegativeBinomial, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        r"""The mean :math:`(1 - \pi) \mu`."""
        return torch.sigmoid(-self.gate_logits) * self.rate

    @property
    def variance(self) -> Tensor:
        r"""The variance :math:`(1 - \pi)(\mu + \mu^2 / r + \pi \mu^2)`."""
        rate, gate = self.rate, torch.sigmoid(self.gate_logits)
        return torch.sigmoid(-self.gate_logits) * (rate + rate**2 * (1 / self.inverse_dispersion + gate))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw the gate and the count."""
        with torch.no_grad():
            r = self.inverse_dispersion
            x = torch.poisson(dist.Gamma(r, r / self.rate, validate_args=False).sample(sample_shape))
            return x * torch.bernoulli(torch.sigmoid(-self.gate_logits).expand(x.shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of the count ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        count = logsigmoid(-self.gate_logits) + negative_binomial(value, self.rate, self.inverse_dispersion)
        return torch.where(value == 0, torch.logaddexp(logsigmoid(self.gate_logits), count), count)
