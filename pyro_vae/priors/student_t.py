"""The Student-t prior."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.distributions import StudentT as Family
from pyro_vae.priors.location_scale import LocationScale
from pyro_vae.scales import FLOOR, check_positive, inverse_positive, positive

__all__ = ["StudentT"]


class StudentT(LocationScale):
    r"""Independent Student-t latents, whose heavy tails allow for outliers.

    .. math:: p(z) = \prod_j \frac{\Gamma(\frac{\nu + 1}{2})}{\Gamma(\frac{\nu}{2}) \sqrt{\pi \nu}\, \sigma}
              \left(1 + \frac{(z_j - \mu_j)^2}{\nu \sigma^2}\right)^{-\frac{\nu + 1}{2}}

    References:
        Student-t variational autoencoder for robust density estimation (Takahashi et al., 2018),
        https://doi.org/10.24963/ijcai.2018/374

    Args:
        latent: number of latents
        df: degrees of freedom :math:`\nu`; the mean exists above 1, the variance above 2
        scale: :math:`\sigma`
        learned: learn :math:`\mu`, :math:`\sigma` and :math:`\nu` of each latent, starting from these values

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``df`` or ``scale`` is not a finite number above 1e-4.

    Example:
        >>> StudentT(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, latent: int, *, df: float = 5.0, scale: float = 1.0, learned: bool = False) -> None:
        super().__init__(latent, scale=scale, learned=learned)
        check_positive("df", df, FLOOR)
        hold = nn.Parameter if learned else nn.Buffer
        self.raw_df = hold(inverse_positive(torch.full((latent,), float(df))))

    def forward(self, *context: Tensor) -> dist.Independent:
        """Return p(z), which ignores any context."""
        return Family(positive(self.raw_df), self.loc, positive(self.raw)).to_event(1)
