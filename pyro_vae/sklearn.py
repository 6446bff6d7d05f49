"""Estimators for scikit-learn: a VAE as a transformer and as a density. Requires the extra ``sklearn``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.arrays import fill_masked
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int, check_number
from pyro_vae.conditional import Conditional
from pyro_vae.data.read import matrix
from pyro_vae.estimators import Estimator
from pyro_vae.evaluation.likelihood.log_likelihood import weighted
from pyro_vae.likelihoods import Normal
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import StandardNormal
from pyro_vae.programs import VAE
from pyro_vae.programs.program import evaluating
from pyro_vae.scales import Shared
from pyro_vae.training import fit

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
    from sklearn.utils import Tags, check_array, check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("pyro_vae.sklearn needs scikit-learn: pip install pyro-vae[sklearn]") from error

__all__ = ["VAEDensity", "VAETransformer"]

#: Types of data that are kept, and rows that are transformed at once.
FLOATS, ROWS = (np.float64, np.float32), 1000


class _Fitted(BaseEstimator):
    """The base of both estimators: constructor, training and validation of rows."""

    def __init__(
        self,
        latent: int = 2,
        *,
        prior: Callable[..., Conditional] = StandardNormal,
        likelihood: Callable[..., Conditional] | None = None,
        posterior: Callable[..., Conditional] = MeanFieldNormal,
        estimator: Estimator | None = None,
        epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        missing: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.latent, self.prior, self.likelihood, self.posterior = latent, prior, likelihood, posterior
        self.estimator, self.epochs, self.batch_size = estimator, epochs, batch_size
        self.learning_rate, self.missing, self.random_state = learning_rate, missing, random_state

    def fit(self, X: Any, y: Any = None) -> Any:
        """Train a new VAE on the rows of X, of shape (n_samples, n_features); y is ignored."""
        X = self._rows(X, reset=True)
        parts = self._factories()
        # scikit-learn uses numpy's global random state for None, which must not change
        source = check_random_state(np.random.RandomState() if self.random_state is None else self.random_state)
        self.seed_ = int(source.randint(2**31 - 1))
        with fork_rng(seed=self.seed_):
            program = VAE(
                prior=parts["prior"](self.latent),
                likelihood=parts["likelihood"](self.latent, X.shape[1:]),
                posterior=parts["posterior"](X.shape[1:], self.latent),
                missing=self.missing,
            )
        program.to(torch.from_numpy(X[:0].copy()).dtype)
        self.history_ = fit(
            program,
            X,
            estimator=copy.deepcopy(self.estimator),
            optimizer=partial(torch.optim.Adam, lr=self.learning_rate),
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=self.seed_,
            progress=False,
        )
        self.program_, self._n_features_out = program, self.latent
        return self

    def _factories(self) -> dict[str, Callable[..., Conditional]]:
        """Return the factories of the parts; check them and the learning rate. ``fit`` checks the other options."""
        likelihood = partial(Normal, scale=Shared()) if self.likelihood is None else self.likelihood
        found = {"prior": self.prior, "likelihood": likelihood, "posterior": self.posterior}
        for name, part in found.items():
            if not callable(part) or isinstance(part, Conditional):
                raise TypeError(
                    f"{name}: expected a class of pyro_vae, or functools.partial of one with its options, got {part!r}"
                )
        check_number("learning_rate", self.learning_rate, above=0)
        check_int("latent", self.latent)
        return found

    def _rows(self, X: Any, *, reset: bool = False) -> np.ndarray:
        """Return rows as floats after scikit-learn has checked them."""
        finite = "allow-nan" if self.missing else True
        return validate_data(self, matrix("X", X), reset=reset, dtype=FLOATS, ensure_all_finite=finite)

    def _tensor(self, X: np.ndarray) -> Tensor:
        """Return a copy of an array in the type of the program."""
        return torch.from_numpy(np.array(X)).to(self.program_.dtype)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing
        return tags


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _Fitted):
    r"""A VAE as a transformer: a row x becomes the mean of q(z given x).

    .. math:: x \mapsto E_q[z \mid x], \qquad \text{and back: } z \mapsto E[x \mid z]

    Each fit makes new parts: pass classes, or ``functools.partial`` of them with options. Rows are not scaled; put a
    StandardScaler before.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        latent: number of latents
        prior: makes p(z)
        likelihood: makes p(x given z); None for Normal with one learned scale
        posterior: makes q(z given x)
        estimator: estimator of the bound, such as ``pyro_vae.estimators.IWAE(num_particles=8)``; ELBO if None
        epochs: passes over the rows
        batch_size: rows per step
        learning_rate: learning rate of Adam
        missing: whether entries may be NaN, that is, not observed
        random_state: an int or RandomState for weights, order and noise; None for a new seed in each fit

    Attributes:
        program_: the trained VAE, in float64, or float32 if the rows were
        history_: history of the training, in mean nats per example
        seed_: seed of the training
        n_features_in_: number of columns

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> VAETransformer(epochs=2, random_state=0).fit_transform(X).shape
        (150, 2)
    """

    def transform(self, X: Any) -> np.ndarray:
        """Return the mean of q(z given x) for each row, of shape (n_samples, latent)."""
        check_is_fitted(self)
        x = self._tensor(self._rows(X))
        with evaluating(self.program_), fork_rng(seed=self.seed_):
            return self._means(self.program_.encode, x, "posterior")

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the mean of p(x given z) for each row z of shape (latent,), of shape (n_samples, n_features)."""
        check_is_fitted(self)
        z = self._tensor(check_array(fill_masked(X), dtype=FLOATS))
        if z.shape[1] != self._n_features_out:
            raise ValueError(f"X: expected {self._n_features_out} latents per row, got {z.shape[1]}")
        with evaluating(self.program_):
            return self._means(self.program_.decode, z, "likelihood")

    def _means(self, part_of: Callable[[Tensor], Any], rows: Tensor, part: str) -> np.ndarray:
        try:
            return torch.cat([part_of(some).mean for some in rows.split(ROWS)]).numpy()
        except NotImplementedError as error:
            name = type(getattr(self.program_, part)).__name__
            raise TypeError(f"{part}: expected one with a mean in closed form, such as Normal, got {name}") from error

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class VAEDensity(DensityMixin, _Fitted):
    r"""A VAE as a density estimator, by importance sampling.

    .. math:: \log p(x) \approx \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)},
              \qquad z_k \sim q(z \mid x)

    The expectation is a lower bound (the ELBO for K = 1) that converges to the exact value as K grows. The noise is a
    function of the row: its score does not depend on the other rows.

    References:
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519

    Args:
        latent: number of latents
        prior, likelihood, posterior, estimator, epochs, batch_size, learning_rate, missing, random_state: as in
            :class:`VAETransformer`
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
        latent: int = 2,
        *,
        prior: Callable[..., Conditional] = StandardNormal,
        likelihood: Callable[..., Conditional] | None = None,
        posterior: Callable[..., Conditional] = MeanFieldNormal,
        estimator: Estimator | None = None,
        epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        missing: bool = False,
        num_particles: int = 500,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        parts = {"prior": prior, "likelihood": likelihood, "posterior": posterior, "estimator": estimator}
        size = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
        super().__init__(latent, **parts, **size, missing=missing, random_state=random_state)
        self.num_particles = num_particles

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-likelihood of each row in nats, of shape (n_samples,)."""
        check_is_fitted(self)
        check_int("num_particles", self.num_particles)
        x = self._tensor(self._rows(X))
        options: dict[str, Any] = {"seed": self.seed_, "by_row": True, "progress": False}
        return weighted(self.program_, x, self.num_particles, **options).per_example.numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-likelihood of the rows in nats; y is ignored."""
        return float(self.score_samples(X).mean())
