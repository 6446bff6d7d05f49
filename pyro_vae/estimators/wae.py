"""The Wasserstein autoencoder."""

from __future__ import annotations

from typing import Any

from pyro_vae.estimators.kernels import InverseMultiquadratic, Kernel
from pyro_vae.estimators.mmd import MMD

__all__ = ["WAE"]


class WAE(MMD):
    r"""The Wasserstein autoencoder with a penalty by maximum mean discrepancy (WAE-MMD).

    .. math:: -\mathbb E_{q(z \mid x)}[c(x, z)] - \beta \lambda \, \mathrm{MMD}^2(q(z), p(z)), \qquad
              c(x, z) = -\log p(x \mid z)

    The transport cost is that of the likelihood: up to a constant the squared distance over :math:`2 \sigma^2` for
    ``likelihoods.Normal(..., scale=Fixed(sigma))``; a learned scale trades cost against penalty. It differs from
    :class:`MMD` by its kernel, whose heavy tails still pull draws that are far from the prior. The estimate of the
    discrepancy is unbiased for every batch size of at least 2; the objective is not a bound on the evidence. A prior
    without a reparameterized sampler does not learn.

    References:
        Wasserstein auto-encoders (Tolstikhin et al., 2018), https://arxiv.org/abs/1711.01558

    Args:
        lambda_: :math:`\lambda`, weight of the discrepancy
        kernel: of the discrepancy; ``InverseMultiquadratic()`` if None
        options: ``num_particles``, ``beta`` and ``free_bits`` of :class:`Estimator`

    Raises:
        ValueError: a negative weight; in a run, a batch of one row.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> WAE().per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    def __init__(self, *, lambda_: float = 10.0, kernel: Kernel | None = None, **options: Any) -> None:
        kernel = InverseMultiquadratic() if kernel is None else kernel
        super().__init__(lambda_=lambda_, kernel=kernel, **options)
