"""Student's t, accurate for every number of degrees of freedom."""

from __future__ import annotations

import math

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions.utils import broadcast_all

from pyro_vae.distributions.special import factorial_remainder

__all__ = ["StudentT"]


class StudentT(dist.StudentT):
    r"""Student's t, whose log-density stays exact where it comes close to a normal or has hardly a tail.

    .. math:: p(x) = \frac{\Gamma(\frac{\nu + 1}{2})}{\Gamma(\frac \nu 2) \sqrt{\pi \nu}\, \sigma}
              \Bigl(1 + \frac{y^2}{\nu}\Bigr)^{-\frac{\nu + 1}{2}}, \qquad y = \frac{x - \mu}{\sigma}

    torch subtracts the two log-gamma functions, which leaves no digit in float32 for :math:`\nu` above 1e6, and
    squares y before it takes a logarithm.

    Args:
        df: degrees of freedom :math:`\nu > 0`
        loc: :math:`\mu`
        scale: :math:`\sigma`

    Example:
        >>> StudentT(torch.tensor(1e9)).log_prob(torch.tensor(0.0))
        tensor(-0.9189)
    """

    def __init__(
        self,
        df: Tensor | float,
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        # torch's own brings the rate to the device each time, which waits for it
        self._chi2 = torch.distributions.Gamma(self.df / 2, torch.full_like(self.df, 0.5), validate_args=False)
        torch.distributions.Distribution.__init__(self, self.df.shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: StudentT | None = None) -> StudentT:
        """Return the distribution with another batch shape."""
        return super().expand(batch_shape, self._get_checked_instance(StudentT, _instance))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        half = self.df / 2
        constant = factorial_remainder(half + 0.5) - factorial_remainder(half) - 0.5 * math.log(2 * math.pi) - 0.5
        constant = constant + (half - 0.5) * torch.log1p(0.5 / half)
        w = ((value - self.loc) / self.scale) / self.df.sqrt()
        far = w.abs() > 1e8
        tail = torch.where(far, 2 * torch.where(far, w, 1.0).abs().log(), torch.log1p(torch.where(far, 0.0, w) ** 2))
        return constant - self.scale.log() - (half + 0.5) * tail
