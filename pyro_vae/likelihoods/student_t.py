"""Student's t likelihood, for real data with heavy tails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import StudentT as Family
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import Scale, Shared, as_scale

__all__ = ["StudentT"]


class StudentT(Conditional):
    r"""Independent Student-t entries with learned degrees of freedom, whose locations the network makes from z.

    .. math:: p(x \mid z) = \prod_i \frac{\Gamma(\frac{\nu_i + 1}{2})}
              {\Gamma(\frac{\nu_i}{2}) \sqrt{\pi \nu_i}\, \sigma_i}
              \Bigl(1 + \frac{(x_i - \mu_i)^2}{\nu_i \sigma_i^2}\Bigr)^{-\frac{\nu_i + 1}{2}},
              \quad \mu = \mathrm{net}(z)

    References:
        Student-t variational autoencoder for robust density estimation (Takahashi et al., 2018),
        https://doi.org/10.24963/ijcai.2018/374

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), (rows, *shape))`` with a row for the location
            and one for each of scale and df that is an output
        context: how many numbers of context one datum brings beside z
        scale: sigma in the units of the data: a number (fixed), or an object of ``pyro_vae.scales`` (``Fixed``,
            ``Shared`` for one learned number, ``PerExample`` for an output of the network)
        df: degrees of freedom :math:`\nu`, in the same way; None for one learned number, 5 at first

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
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        scale: Scale | float = 1.0,
        df: Scale | float | None = None,
    ) -> None:
        super().__init__()
        self.context, self.shape = context, as_shape(shape)
        self.scale, self.df = as_scale(scale), Shared(5.0) if df is None else as_scale(df)
        self.net = build(net, (latent,), (1 + self.scale.outputs + self.df.outputs, *self.shape), context)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        loc, *raw = self.net(z, *context).unbind(-1 - len(self.shape))
        wide = self.scale.outputs
        fn = Family(self.df(*raw[wide:]), loc, self.scale(*raw[:wide]))
        return fn.to_event(len(self.shape))
