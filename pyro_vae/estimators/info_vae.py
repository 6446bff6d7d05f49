"""The information maximizing VAE."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_number
from pyro_vae.estimators.kernels import RBF, Kernel
from pyro_vae.estimators.over_batch import OverBatch, divergence, mmd_to_prior, reconstruction
from pyro_vae.trace import Terms

__all__ = ["InfoVAE"]


class InfoVAE(OverBatch):
    r"""The bound with a weight on the information in the latent, and one on the aggregate posterior.

    .. math:: \mathbb E_{q(z \mid x)}[\log p(x \mid z)] - \beta \left( (1 - \alpha)\, \mathrm{KL}(q(z \mid x) \,\|\,
              p(z)) + (\alpha + \lambda - 1)\, \mathrm{MMD}^2(q(z), p(z)) \right)

    with the aggregate posterior :math:`q(z) = \mathbb E_x[q(z \mid x)]`, which the batch samples. With :math:`\alpha =
    0, \lambda = 1` it is the ELBO. The estimate of the discrepancy is unbiased for every batch size of at least 2, and
    so are value and gradient of the objective, which is not a bound on the evidence. A prior without a reparameterized
    sampler (a VampPrior) learns from the KL alone.

    References:
        InfoVAE: balancing learning and inference in variational autoencoders (Zhao et al., 2019),
        https://arxiv.org/abs/1706.02262

    Args:
        alpha: :math:`\alpha`, at most 1
        lambda_: :math:`\lambda`, at least :math:`1 - \alpha`; the discrepancy is below 2 for the kernels of this
            library, so that images with a reconstruction term of hundreds of nats need a large weight
        kernel: of the discrepancy; ``RBF()`` if None
        options: ``num_particles``, ``beta`` and ``free_bits`` of :class:`Estimator`

    Raises:
        ValueError: alpha or lambda outside of their range; in a run, a batch of one row.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> InfoVAE(alpha=0.5, lambda_=10.0).per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    def __init__(
        self, *, alpha: float = 0.0, lambda_: float = 1000.0, kernel: Kernel | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, maximum=1)
        self.lambda_ = check_number("lambda_", lambda_, 1 - self.alpha)
        self.kernel = RBF() if kernel is None else kernel

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return reconstruction minus both divergences per example."""
        gap = (1 - self.alpha) * divergence(terms)
        gap = gap + (self.alpha + self.lambda_ - 1) * mmd_to_prior(terms, self.kernel)
        return reconstruction(terms) - beta * gap
