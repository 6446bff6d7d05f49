"""The likelihood of a table that contains anomalies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.data.tables import Column, Real
from pyro_vae.distributions import StudentT
from pyro_vae.likelihoods.heterogeneous import Heterogeneous
from pyro_vae.nets import MLP, NetBuilder, Shape
from pyro_vae.scales import Shared

__all__ = ["StudentTTable"]

#: Degrees of freedom: the tail is heavy, and variances are finite.
DF = 4.0


class StudentTTable(Heterogeneous):
    r"""A row of a table whose real columns are Student-t with one learned scale in standardized units.

    .. math:: \frac{x_j - m_j}{s_j} \mid z \sim t_4(\mu_j, \sigma), \qquad \mu = \mathrm{net}(z)

    with mean :math:`m_j` and standard deviation :math:`s_j` of the column, and 4 degrees of freedom. Rows and columns
    share :math:`\sigma`, and ranges of columns do not apply, so that no scale can make unusual values likely: minus
    the log-likelihood of a row is an anomaly score. Other columns are those of :class:`Heterogeneous`; make columns of
    numbers ``Real`` to treat them alike, as ``pyro-vae train --purpose anomalies`` does.

    References:
        Student-t variational autoencoder for robust density estimation (Takahashi et al., 2018),
        https://doi.org/10.24963/ijcai.2018/374

    Args:
        latent: number of latents
        shape: ``(number of columns,)``
        columns: one object of ``pyro_vae.data.tables`` per column
        net: builds the decoder, ``net((latent,), (outputs,))``, as for :class:`Heterogeneous`; the second output of a
            Real column is not used
        context: width of the context in addition to z

    Shape:
        As for :class:`Heterogeneous`.

    Raises:
        ValueError: ``shape`` is not ``(number of columns,)``.

    Example:
        >>> import torch
        >>> columns = [Real("height", 170.0, 10.0), Real("weight", 70.0, 12.0)]
        >>> StudentTTable(3, (2,), columns=columns)(torch.zeros(5, 3)).event_shape
        torch.Size([2])
    """

    def __init__(
        self, latent: int, shape: Shape, *, columns: Sequence[Column], net: NetBuilder = MLP, context: int = 0
    ) -> None:
        super().__init__(latent, shape, columns=columns, net=net, context=context)
        self.scale = Shared()

    def family(self, column: Column, raw: Tensor, *units: Tensor) -> dist.TorchDistribution:
        """Return the distribution of several columns of one type."""
        if not isinstance(column, Real):
            return super().family(column, raw, *units)
        shift, scale, *_ = units
        loc = shift + scale * raw[..., 0]
        return StudentT(torch.full_like(loc, DF), loc, scale * self.scale())
