"""Estimators for scikit-learn: a VAE as a transformer, and as a density."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.estimators import Estimator
from pyro_vae.evaluation.likelihood.log_likelihood import log_weights
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

#: Types in which data are taken as they are, and the program is trained.
FLOATS = (np.float64, np.float32)

#: Rows that are transformed at once.
ROWS = 1000


class _Fitted(BaseEstimator):
    """What both estimators share: building, training and reading rows."""

    def fit(self, X: Any, y: Any = None) -> Any:
        """Train a new VAE on the rows of X, of shape (n_samples, n_features); y is not used."""
        X = self._rows(X, reset=True)
        self._check_parts()
        given = self.random_state
        # scikit-learn reads None as numpy's global stream, which is not to be moved
        source = np.random.RandomState() if given is None else check_random_state(given)
        self.seed_ = int(source.randint(2**31 - 1))
        shape = X.shape[1:]
        with fork_rng(seed=self.seed_):
            program = VAE(
                prior=self.prior(self.latent),
                likelihood=(self.likelihood or partial(Normal, scale=Shared()))(self.latent, shape),
                posterior=self.posterior(shape, self.latent),
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

    def _check_parts(self) -> None:
        """Refuse parts that cannot be made anew, and a rate that is none; sizes are checked where they are used."""
        for name, part in (("prior", self.prior), ("likelihood", self.likelihood), ("posterior", self.posterior)):
            if (part is not None or name != "likelihood") and (not callable(part) or isinstance(part, Conditional)):
                raise TypeError(
                    f"{name}: expected a class of pyro_vae, or functools.partial of one with its options, from which "
                    f"each fit makes a new part, got {part!r}"
                )
        if not isinstance(self.learning_rate, Real) or not self.learning_rate > 0:
            raise ValueError(f"learning_rate: expected a number above 0, got {self.learning_rate!r}")
        check_int("latent", self.latent)

    def _rows(self, X: Any, *, reset: bool = False) -> np.ndarray:
        """Return checked rows of floats."""
        finite = "allow-nan" if self.missing else True
        return validate_data(self, X, reset=reset, dtype=FLOATS, ensure_all_finite=finite)

    def _tensor(self, X: np.ndarray) -> Tensor:
        """Return an array in the type of the program, in memory of its own."""
        return torch.from_numpy(np.array(X)).to(self.program_.dtype)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing
        return tags


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _Fitted):
    r"""A VAE as a transformer: a row x becomes the mean of q(z given x).

    .. math:: x \mapsto E_q[z \mid x], \qquad z \mapsto E[x \mid z] \text{ back}

    The parts are made anew by each fit, as ``prior(latent)``, ``likelihood(latent, shape)`` and
    ``posterior(shape, latent)``: give classes, or ``functools.partial`` of them with options. Rows are not scaled:
    put a StandardScaler before. Needs the optional extra ``sklearn``.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        latent: number of latents
        prior: makes p(z)
        likelihood: makes p(x given z); None for Normal with one learned scale
        posterior: makes q(z given x)
        estimator: of the bound, such as ``pyro_vae.estimators.IWAE(num_particles=8)``; ELBO if None
        epochs: passes over the rows
        batch_size: rows a step
        learning_rate: of Adam
        missing: whether entries may be NaN, that is, not observed
        random_state: an int or RandomState, of which weights, order and noise follow; None for others at each fit

    Attributes:
        program_: the trained VAE, in float64, or float32 if the rows were
        history_: of the training, in mean nats per datum
        seed_: of the training
        n_features_in_: number of columns

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X = load_iris().data
        >>> VAETransformer(epochs=2, random_state=0).fit_transform(X).shape
        (150, 2)
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
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.latent, self.prior, self.likelihood, self.posterior = latent, prior, likelihood, posterior
        self.estimator, self.epochs, self.batch_size = estimator, epochs, batch_size
        self.learning_rate, self.missing, self.random_state = learning_rate, missing, random_state

    def transform(self, X: Any) -> np.ndarray:
        """Return the mean of q(z given x) for each row, of shape (n_samples, latent)."""
        check_is_fitted(self)
        x = self._tensor(self._rows(X))
        with evaluating(self.program_), fork_rng(seed=self.seed_):
            return self._means(self.program_.encode, x, "posterior")

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the mean of p(x given z) for each row z of shape (latent,), of shape (n_samples, n_features)."""
        check_is_fitted(self)
        z = self._tensor(check_array(X, dtype=FLOATS))
        if z.shape[1] != self._n_features_out:
            raise ValueError(f"X: expected {self._n_features_out} latents a row, got {z.shape[1]}")
        with evaluating(self.program_):
            return self._means(self.program_.decode, z, "likelihood")

    def _means(self, part_of: Callable[[Tensor], Any], rows: Tensor, part: str) -> np.ndarray:
        try:
            return torch.cat([part_of(some).mean for some in rows.split(ROWS)]).numpy()
        except NotImplementedError as error:
            name = type(getattr(self.program_, part)).__name__
            raise TypeError(f"{part}: {name} has no mean in closed form; use one that has, such as Normal") from error

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class VAEDensity(DensityMixin, _Fitted):
    r"""A VAE as a density of rows, by importance sampling.

    .. math:: \log p(x) \approx \log \frac1K \sum_{k=1}^K \frac{p(x, z_k)}{q(z_k \mid x)},
              \qquad z_k \sim q(z \mid x)

    A lower bound in expectation (the ELBO for K = 1), which rises to the truth with K. Every row sees the same noise,
    so that its score does not depend on the rows beside it, and the errors of the scores go together. Needs the
    optional extra ``sklearn``.

    References:
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519

    Args:
        latent: number of latents
        prior: makes p(z)
        likelihood: makes p(x given z); None for Normal with one learned scale
        posterior: makes q(z given x)
        estimator: of the bound in training; ELBO if None
        epochs: passes over the rows
        batch_size: rows a step
        learning_rate: of Adam
        missing: whether entries may be NaN, that is, not observed
        num_particles: K, for the scores
        random_state: an int or RandomState, of which weights, order and noise follow; None for others at each fit

    Attributes:
        program_: the trained VAE, in float64, or float32 if the rows were
        history_: of the training, in mean nats per datum
        seed_: of training and scores
        n_features_in_: number of columns

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
        self.latent, self.prior, self.likelihood, self.posterior = latent, prior, likelihood, posterior
        self.estimator, self.epochs, self.batch_size = estimator, epochs, batch_size
        self.learning_rate, self.missing = learning_rate, missing
        self.num_particles, self.random_state = num_particles, random_state

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-likelihood of each row in nats, of shape (n_samples,)."""
        check_is_fitted(self)
        check_int("num_particles", self.num_particles)
        x = self._tensor(self._rows(X))
        self.program_.check(x)
        found = []
        with evaluating(self.program_), fork_rng(seed=self.seed_):
            start = torch.get_rng_state()
            for row in x.split(1):
                torch.set_rng_state(start)
                found.append(log_weights(self.program_, (row,), self.num_particles).double().logsumexp(0))
        return torch.cat(found).numpy() - np.log(self.num_particles)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-likelihood of the rows in nats; y is not used."""
        return float(self.score_samples(X).mean())
