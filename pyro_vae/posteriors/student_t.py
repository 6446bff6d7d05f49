"""The Student-t posterior."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.distributions import StudentT as Family
from pyro_vae.posteriors.per_latent import PerLatent
from pyro_vae.scales import positive

__all__ = ["StudentT"]


class StudentT(PerLatent):
    r"""Independent Student-t latents with locations, scales and degrees of freedom from the encoder.

    .. math:: q(z \mid x) = \prod_j t_{\nu_j}(z_j; \mu_j, \sigma_j), \qquad
              (\mu, \operatorname{softplus}^{-1} \sigma, \operatorname{softplus}^{-1}(\nu - 2) - 8) = \mathrm{net}(x)

    The degrees of freedom stay above 2: below 2 the variance is infinite, and so is the KL from a normal prior. They
    start near 10: below 4 single-sample estimates of that KL have infinite variance, so that only data should move
    them there.

    References:
        Student-t variational autoencoder for robust density estimation (Takahashi et al., 2018),
        https://doi.org/10.24963/ijcai.2018/374

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (3, latent))``
        context: width of the context in addition to x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> StudentT((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    outputs = 3

    def distribution(self, loc: Tensor, raw: Tensor, raw_df: Tensor) -> dist.Independent:
        """Return q(z given x)."""
        # outputs are near 0 before training: the degrees of freedom start near 10
        return Family(2 + positive(raw_df + 8.0), loc, positive(raw)).to_event(1)
