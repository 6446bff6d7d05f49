"""Student's t likelihood, for real data with heavy tails."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pyro_vae.distributions import StudentT as Family
from pyro_vae.likelihoods.per_entry import PerEntry
from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.scales import Scale, Shared, as_scale

__all__ = ["StudentT"]


class StudentT(PerEntry):
    r"""Independent Student-t entries with locations from the decoder and learned degrees of freedom.

    .. math:: p(x \mid z) = \prod_i \frac{\Gamma(\frac{\nu_i + 1}{2})}
              {\Gamma(\frac{\nu_i}{2}) \sqrt{\pi \nu_i}\, \sigma_i}
              \Bigl(1 + \frac{(x_i - \mu_i)^2}{\nu_i \sigma_i^2}\Bigr)^{-\frac{\nu_i + 1}{2}},
              \quad \mu = \mathrm{net}(z)

    References:
        Student-t variational autoencoder for robust density estimation (Takahashi et al., 2018),
        https://doi.org/10.24963/ijcai.2018/374

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), (outputs, *shape))``, with one output for the location and one more
            for each of ``scale`` and ``df`` that is ``PerExample``
        context: width of the context in addition to z
        scale: :math:`\sigma` in the units of the data: a number (fixed) or an object of ``pyro_vae.scales``
            (``Fixed``, ``Shared`` for one learned number, ``PerExample`` for an output of the network)
        df: degrees of freedom :math:`\nu`, likewise; None for one learned number, initially 5

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> StudentT(3, (28, 28))(torch.zeros(5, 3)).event_shape
        torch.Size([28, 28])
    """

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        scale: Scale | float = 1.0,
        df: Scale | float | None = None,
    ) -> None:
        df = Shared(5.0) if df is None else as_scale(df, "df")
        super().__init__(latent, shape, net=net, context=context, outputs=1, scale=as_scale(scale), df=df)

    def distribution(self, loc: Tensor, *raw: Tensor) -> Family:
        """Return the distribution of every entry."""
        n = self.scale.outputs
        return Family(self.df(*raw[n:]), loc, self.scale(*raw[:n]))
