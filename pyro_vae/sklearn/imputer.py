"""A VAE as an imputer of scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.data import Split
from pyro_vae.estimators import Estimator
from pyro_vae.likelihoods import Normal
from pyro_vae.nets import MLP, ZeroImputed
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import StandardNormal
from pyro_vae.programs import VAE
from pyro_vae.scales import Shared
from pyro_vae.sklearn.fitted import Fitted
from pyro_vae.tasks import impute
from pyro_vae.training import History, ImputationDefaults, TableDefaults, fit
from pyro_vae.training.schedules import Cosine

__all__ = ["VAEImputer"]

#: Largest share of the entries of a row that a step of the training hides.
MOST_HIDDEN = 0.5


class VAEImputer(OneToOneFeatureMixin, TransformerMixin, Fitted):
    r"""A VAE as an imputer: a missing entry becomes its conditional mean given the observed entries of its row.

    .. math:: E[x_m \mid x_o] \approx \sum_k \bar w_k\, E[x_m \mid z_k], \qquad
              \bar w_k \propto \frac{p(x_o \mid z_k)\, p(z_k)}{q(z_k \mid x_o)}, \qquad z_k \sim q(z \mid x_o)

    The mean has the smallest squared error; the median of :meth:`sample` has the smallest absolute error. The columns
    are standardized, and imputed values lie within the observed range of their column. By default the decoder is the
    sum of a linear map, which learns the correlations of columns as factor analysis does, and a small network. One
    scale per column, shared by the rows, keeps single rows from being learned exactly. Each step of the training hides
    a further share of the entries of a row, uniform between 0 and one half.

    References:
        MIWAE: deep generative modelling and imputation of incomplete data sets (Mattei and Frellsen, 2019),
        https://arxiv.org/abs/1812.02633

    Args:
        latent: number of latents; None for half the number of columns (:class:`pyro_vae.training.ImputationDefaults`)
        likelihood: makes p(x given z) of standardized rows; None for Normal with one learned scale per column
        posterior: makes q(z given x); its network must accept NaN. None for MeanFieldNormal over rows with 0 for
            missing entries and the mask, with one hidden layer of 64
        epochs: passes over the rows; None for as many as have 40 times the square root of the number of rows in steps
        learning_rate: largest learning rate of Adam, which falls to 0 along a cosine
        prior, estimator, batch_size, random_state: as in :class:`VAETransformer`
        num_particles: K, for the means and samples

    Attributes:
        program_, history_, seed_, n_features_in_: as in :class:`VAETransformer`
        mean_, scale_: mean and standard deviation of the observed entries of each column

    Raises:
        ValueError: a column has no observed entry.

    Example:
        >>> X = np.array([[1.0, 2.0], [2.0, 4.1], [3.0, np.nan], [4.0, 8.2]])
        >>> VAEImputer(epochs=2, random_state=0).fit_transform(X).shape
        (4, 2)
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
        learning_rate: float = 1e-2,
        num_particles: int = 1000,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        parts = {"prior": prior, "likelihood": likelihood, "posterior": posterior, "estimator": estimator}
        size = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
        super().__init__(latent, **parts, **size, missing=True, random_state=random_state)
        self.num_particles = num_particles

    def _sizes(self, rows: int, columns: int) -> TableDefaults:
        return ImputationDefaults(rows, columns)

    def _rows(self, X: Any, *, reset: bool = False) -> np.ndarray:
        """Return standardized rows."""
        return self._standardized(super()._rows(X, reset=reset), reset=reset)

    def _standardized(self, X: np.ndarray, *, reset: bool = False) -> np.ndarray:
        """Return rows in units of their columns; ``reset`` takes the units from them."""
        if reset:
            seen = ~np.isnan(X).all(0)
            if not seen.all():
                raise ValueError(
                    f"X: expected an observed entry in each column, got none in column {seen.argmin()}. Leave it out"
                )
            # a float32 sum over many rows loses digits, and a square may overflow
            mean, scale = (f(X.astype(np.float64), 0) for f in (np.nanmean, np.nanstd))
            scale[scale <= 1e-7 * np.abs(mean)] = 1
            self.mean_, self.scale_ = mean.astype(X.dtype), scale.astype(X.dtype)
            self._range = np.nanmin(X, 0), np.nanmax(X, 0)
        return (X - self.mean_) / self.scale_

    def _defaults(self, sizes: TableDefaults) -> dict[str, Callable[..., Conditional]]:
        decoder = partial(MLP, hidden=sizes.hidden, linear=True)
        encoder = partial(ZeroImputed, net=partial(MLP, hidden=(64,)))
        scale = Shared(shape=(sizes.columns,))
        return {
            "likelihood": partial(Normal, net=decoder, scale=scale),
            "posterior": partial(MeanFieldNormal, net=encoder),
        }

    def _train(self, program: VAE, x: Tensor, **options: Any) -> History:
        x = x[~torch.isnan(x).all(1)]
        steps = options["epochs"] * math.ceil(len(x) / options["batch_size"])
        return fit(program, Split(x, transform=hide_some), lr_schedule=Cosine(num_steps=steps), **options)

    def transform(self, X: Any) -> np.ndarray:
        """Return X with the conditional mean for each missing entry, or that of the column in rows without a value."""
        return self._imputed(X, 0)[0]

    def sample(self, X: Any, num_samples: int = 20) -> np.ndarray:
        """Return samples of X given its observed entries, of shape (num_samples, n_samples, n_features).

        Quantiles over the first axis are the ends of an interval, and their median has the smallest absolute error.
        """
        return self._imputed(X, check_int("num_samples", num_samples))[1:]

    def _imputed(self, X: Any, num_samples: int) -> np.ndarray:
        """Return X with means, then with samples of the missing entries, (1 + num_samples, n_samples, n_features)."""
        check_is_fitted(self)
        check_int("num_particles", self.num_particles)
        rows = super()._rows(X)
        x, missing = self._standardized(rows), np.isnan(rows)
        found = np.repeat(np.nan_to_num(x)[None], 1 + num_samples, 0)
        some = missing.any(1) & ~missing.all(1)
        if some.any():
            options: dict[str, Any] = {"num_samples": num_samples, "seed": self.seed_, "progress": False}
            imputed = impute(self.program_, self._tensor(x[some]), num_particles=self.num_particles, **options)
            found[:, some] = torch.cat([imputed.x[None], imputed.samples]).numpy()
        return np.where(missing, (self.mean_ + self.scale_ * found).clip(*self._range), rows)


def hide_some(x: Tensor) -> Tensor:
    """Return rows with NaN in up to half of the entries, except for rows that would lose all."""
    hidden = x.masked_fill(torch.rand_like(x) < MOST_HIDDEN * torch.rand_like(x[:, :1]), torch.nan)
    return torch.where(torch.isnan(hidden).all(1, keepdim=True), x, hidden)
