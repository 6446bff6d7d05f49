"""The bound of the most likely rows of a batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_number
from pyro_vae.estimators.over_batch import OverBatch, divergence, reconstruction
from pyro_vae.trace import Terms

__all__ = ["TrimmedELBO"]


class TrimmedELBO(OverBatch):
    r"""The evidence lower bound without the least likely rows of a batch, for data that contain anomalies.

    .. math:: L_n = \frac{B}{\lvert S \rvert} \, [n \in S] \, \mathrm{ELBO}_n, \qquad
              S = \text{the } \lceil (1 - t) B \rceil \text{ rows with the largest } \mathrm{ELBO}_n

    so that a sum over a batch of B rows is B times the mean over S, a trimmed likelihood with the concentration step
    in each batch. A VAE that is trained by it does not learn a group of anomalies, and their log-likelihood remains
    low. It is a density of the other rows, and a poor one in the tails.

    References:
        A fast algorithm for the minimum covariance determinant estimator (Rousseeuw and Van Driessen, 1999),
        https://doi.org/10.1080/00401706.1999.10485670;
        Learning with bad training data via iterative trimmed loss minimization (Shen and Sanghavi, 2019),
        https://arxiv.org/abs/1810.11874

    Args:
        trim: t, share of the rows of a batch that are left out, from 0 to below 1
        options: ``num_particles``, ``beta`` and ``free_bits`` of :class:`Estimator`

    Raises:
        ValueError: ``trim`` is out of range; ``particles_per_pass``; in a run, a latent that is masked or enumerated.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> bounds = TrimmedELBO(trim=0.5).per_datum(toy.program.model, toy.program.guide, toy.draw(10))
        >>> int((bounds == 0).sum())
        5
    """

    def __init__(self, *, trim: float = 0.2, **options: Any) -> None:
        super().__init__(**options)
        self.trim = check_number("trim", trim, 0, below=1)

    def check_rows(self, rows: int) -> None:
        """Accept any batch: one of few rows is used whole."""

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the bound of each row that is kept, times the number of rows over that of rows kept, and else 0."""
        bound = reconstruction(terms) - beta * divergence(terms)
        rows = bound.shape[0]
        left_out = int(self.trim * rows)
        dropped = bound.detach().topk(left_out, largest=False).indices
        return (bound * (rows / (rows - left_out))).index_fill(0, dropped, 0.0)
