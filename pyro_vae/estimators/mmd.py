"""The MMD-VAE."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_number
from pyro_vae.estimators.kernels import RBF, Kernel
from pyro_vae.estimators.over_batch import OverBatch, mmd_to_prior, reconstruction
from pyro_vae.trace import Terms

__all__ = ["MMD"]


class MMD(OverBatch):
    r"""The MMD-VAE: the aggregate posterior is pulled to the prior, the posterior of each example is not.

    .. math:: \mathbb E_{q(z \mid x)}[\log p(x \mid z)] - \beta \lambda \, \mathrm{MMD}^2(q(z), p(z))

    It is :class:`InfoVAE` with :math:`\alpha = 1`. The estimate of the discrepancy is unbiased for every batch size of
    at least 2; the objective is not a bound on the evidence. A prior without a reparameterized sampler does not learn.

    References:
        InfoVAE: balancing learning and inference in variational autoencoders (Zhao et al., 2019),
        https://arxiv.org/abs/1706.02262

    Args:
        lambda_: :math:`\lambda`, weight of the discrepancy, which is below 2 for the kernels of this library
        kernel: of the discrepancy; ``RBF()`` if None
        options: ``num_particles``, ``beta`` and ``free_bits`` of :class:`Estimator`

    Raises:
        ValueError: a negative weight; in a run, a batch of one row.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> MMD().per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    def __init__(self, *, lambda_: float = 1000.0, kernel: Kernel | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.lambda_ = check_number("lambda_", lambda_, 0)
        self.kernel = RBF() if kernel is None else kernel

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return reconstruction minus weighted discrepancy per example."""
        return reconstruction(terms) - beta * self.lambda_ * mmd_to_prior(terms, self.kernel)
