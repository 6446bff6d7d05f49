"""The base of the estimators for scikit-learn."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import validate_data
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int, check_number
from pyro_vae.conditional import Conditional
from pyro_vae.data.read import matrix
from pyro_vae.data.tables.cells import parse
from pyro_vae.estimators import Estimator
from pyro_vae.likelihoods import Normal
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import StandardNormal
from pyro_vae.programs import VAE
from pyro_vae.scales import Shared
from pyro_vae.training import History, TableDefaults, fit

__all__ = ["FLOATS", "Fitted"]

#: Types of data that are kept.
FLOATS = (np.float64, np.float32)


class Fitted(BaseEstimator):
    """The base of all estimators: constructor, training and validation of rows."""

    def __init__(
        self,
        latent: int | None = 2,
        *,
        prior: Callable[..., Conditional] = StandardNormal,
        likelihood: Callable[..., Conditional] | None = None,
        posterior: Callable[..., Conditional] | None = MeanFieldNormal,
        estimator: Estimator | None = None,
        epochs: int | None = 100,
        batch_size: int = 128,
        learning_rate: float | None = 1e-3,
        missing: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.latent, self.prior, self.likelihood, self.posterior = latent, prior, likelihood, posterior
        self.estimator, self.epochs, self.batch_size = estimator, epochs, batch_size
        self.learning_rate, self.missing, self.random_state = learning_rate, missing, random_state

    def fit(self, X: Any, y: Any = None) -> Any:
        """Train a new VAE on the rows of X, of shape (n_samples, n_features); y is ignored."""
        X = self._rows(X, reset=True)
        sizes = self._sizes(*X.shape)
        parts = self._factories(sizes)
        latent = sizes.latent if self.latent is None else check_int("latent", self.latent)
        batch_size = check_int("batch_size", self.batch_size)
        epochs = sizes.epochs(batch_size) if self.epochs is None else check_int("epochs", self.epochs)
        learning_rate = sizes.learning_rate if self.learning_rate is None else self.learning_rate
        check_number("learning_rate", learning_rate, above=0)
        # scikit-learn uses numpy's global random state for None, which must not change
        source = check_random_state(np.random.RandomState() if self.random_state is None else self.random_state)
        self.seed_ = int(source.randint(2**31 - 1))
        with fork_rng(seed=self.seed_):
            program = VAE(
                prior=parts["prior"](latent),
                likelihood=parts["likelihood"](latent, X.shape[1:]),
                posterior=parts["posterior"](X.shape[1:], latent),
                missing=self.missing,
            )
        program.to(torch.from_numpy(X[:0].copy()).dtype)
        self.history_ = self._train(
            program,
            torch.from_numpy(np.array(X)),
            estimator=self._estimator(sizes),
            optimizer=partial(torch.optim.Adam, lr=learning_rate),
            epochs=epochs,
            batch_size=batch_size,
            seed=self.seed_,
            progress=False,
        )
        self.program_, self._n_features_out = program, latent
        return self

    def _sizes(self, rows: int, columns: int) -> TableDefaults:
        """Return the default sizes for a table."""
        return TableDefaults(rows, columns)

    def _train(self, program: VAE, x: Tensor, **options: Any) -> History:
        """Train a program on rows."""
        return fit(program, x, **options)

    def _defaults(self, sizes: TableDefaults) -> dict[str, Callable[..., Conditional]]:
        """Return the factories of the parts that may be None, for a table of this size."""
        return {"likelihood": partial(Normal, scale=Shared())}

    def _factories(self, sizes: TableDefaults) -> dict[str, Callable[..., Conditional]]:
        """Return the factories of the parts; check them."""
        found = {"prior": self.prior, "likelihood": self.likelihood, "posterior": self.posterior}
        found |= {name: part for name, part in self._defaults(sizes).items() if found[name] is None}
        for name, part in found.items():
            if not callable(part) or isinstance(part, Conditional):
                raise TypeError(
                    f"{name}: expected a class of pyro_vae, or functools.partial of one with its options, got {part!r}"
                )
        return found

    def _estimator(self, sizes: TableDefaults) -> Estimator | None:
        """Return a new estimator."""
        return copy.deepcopy(self.estimator)

    def _rows(self, X: Any, *, reset: bool = False) -> np.ndarray:
        """Return rows as floats after scikit-learn has checked them."""
        X = matrix("X", X)
        try:
            rows = validate_data(self, X, reset=reset, dtype=FLOATS, ensure_all_finite="allow-nan")
        except ValueError as error:
            refuse_text(X, error)
            raise
        if not self.missing and np.isnan(rows).any():
            raise ValueError("X: expected finite values, but it contains NaN. For missing entries, pass missing=True")
        return rows

    def _tensor(self, X: np.ndarray) -> Tensor:
        """Return a copy of an array in the type of the program."""
        return torch.from_numpy(np.array(X)).to(self.program_.dtype)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing
        return tags


def refuse_text(X: Any, error: ValueError) -> None:
    """Raise an error that names the first cell with text instead of a number, if there is one."""
    names = getattr(X, "columns", None)
    cells = np.asarray(X, object)
    for row, values in enumerate(cells if cells.ndim == 2 else ()):
        for j, value in enumerate(values):
            if isinstance(value, str) and parse(value) is None:
                column = repr(names[j]) if names is not None else j
                raise ValueError(
                    f"X: expected numbers, got {value!r} in row {row} of column {column}. Encode text as numbers, for "
                    "example by OrdinalEncoder or OneHotEncoder, and leave cells without a value NaN; or train "
                    "`pyro-vae train --missing` or a VAE of pyro_vae.likelihoods.Heterogeneous, which take text"
                ) from error
