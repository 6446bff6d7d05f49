"""A VAE as a density estimator of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.estimators import Estimator
from pyro_vae.evaluation.likelihood.importance_sampling import importance_sampled
from pyro_vae.likelihoods import StudentT
from pyro_vae.likelihoods.student_t_table import DF
from pyro_vae.nets import MLP
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import StandardNormal
from pyro_vae.scales import Shared
from pyro_vae.sklearn.fitted import Fitted
from pyro_vae.training import AnomalyDefaults, TableDefaults

__all__ = ["VAEDensity"]


class VAEDensity(DensityMixin, Fitted):
    r"""A VAE as a density estimator, by importance sampling.

    .. math:: \log p(x) \approx \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)},
              \qquad z_k \sim q(z \mid x)

    The expectation is a lower bound (the ELBO for K = 1) that converges to the exact value as K grows. The noise is a
    function of the row: its score does not depend on the other rows.

    Minus the score of a row is an anomaly score. The defaults follow the size of the table
    (:class:`pyro_vae.training.AnomalyDefaults`): a small network and a short training do not learn the few unusual
    rows of the data, a Student-t likelihood is not drawn towards them, and the training leaves the least likely rows
    of each batch out. Rows are not scaled; put a StandardScaler before.

    References:
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519

    Args:
        latent: number of latents; None for about the square root of the number of columns
        likelihood: makes p(x given z); None for StudentT with 4 degrees of freedom, one
            learned scale and one hidden layer of 32
        posterior: makes q(z given x); None for MeanFieldNormal with one hidden layer of 32
        epochs: passes over the rows; None for as many as have 10 times the square root of the number of rows in steps
        estimator: estimator of the bound; None for :class:`pyro_vae.estimators.TrimmedELBO`.
            ``pyro_vae.estimators.ELBO()`` makes it a density of all rows, where there are no anomalies
        learning_rate: learning rate of Adam; None for 0.002
        prior, batch_size, missing, random_state: as in :class:`VAETransformer`
        num_particles: K, for the scores

    Attributes:
        program_, history_, seed_, n_features_in_: as in :class:`VAETransformer`

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> VAEDensity(epochs=2, random_state=0).fit(X).score_samples(X[:3]).shape
        (3,)
    """

    def __init__(
        self,
        latent: int | None = None,
        *,
        prior: Callable[..., Conditional] = StandardNormal,
        likelihood: Callable[..., Conditional] | None = None,
        posterior: Callable[..., Conditional] | None = None,
        estimator: Estimator | None = None,
        epochs: int | None = None,
        batch_size: int = 128,
        learning_rate: float | None = None,
        missing: bool = False,
        num_particles: int = 1000,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        parts = {"prior": prior, "likelihood": likelihood, "posterior": posterior, "estimator": estimator}
        size = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
        super().__init__(latent, **parts, **size, missing=missing, random_state=random_state)
        self.num_particles = num_particles

    def _sizes(self, rows: int, columns: int) -> TableDefaults:
        return AnomalyDefaults(rows, columns)

    def _defaults(self, sizes: TableDefaults) -> dict[str, Callable[..., Conditional]]:
        net = partial(MLP, hidden=sizes.hidden)
        student_t = partial(StudentT, net=net, scale=Shared(), df=DF)
        return {"likelihood": student_t, "posterior": partial(MeanFieldNormal, net=net)}

    def _estimator(self, sizes: TableDefaults) -> Estimator | None:
        return super()._estimator(sizes) or sizes.parts["estimator"]()

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-likelihood of each row in nats, of shape (n_samples,)."""
        check_is_fitted(self)
        check_int("num_particles", self.num_particles)
        x = self._tensor(self._rows(X))
        options: dict[str, Any] = {"seed": self.seed_, "by_row": True, "progress": False}
        return importance_sampled(self.program_, x, self.num_particles, **options).per_example.numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-likelihood of the rows in nats; y is ignored."""
        return float(self.score_samples(X).mean())
