"""A VAE as a transformer of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_array
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pyro_vae._util.arrays import fill_masked
from pyro_vae._util.random_state import fork_rng
from pyro_vae.programs.program import evaluating
from pyro_vae.sklearn.fitted import FLOATS, Fitted

__all__ = ["VAETransformer"]

#: Rows that are transformed at once.
ROWS = 1000


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Fitted):
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
