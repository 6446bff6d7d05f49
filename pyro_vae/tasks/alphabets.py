"""Entries of data and latents as letters 0, 1, ..., each with a whole number for its probability."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.missing import factorized
from pyro_vae.distributions.supports import Grid

__all__ = ["LARGEST", "Alphabet", "Buckets", "Levels", "grid_of"]

#: What probabilities are multiples of. Arithmetic that differs by 1e-16 changes one in 1e11 of them.
UNIT = 2**-16

#: The largest count of which there is a letter: a table of all of them for each entry has to fit.
LARGEST = 2**16 - 1


class Alphabet(Protocol):
    """How independent entries are written in letters."""

    def weights(self, fn: dist.Independent) -> np.ndarray:
        """Return the probabilities of all letters of each entry in units of 2^-16, (entries, letters)."""

    def read(self, letters: np.ndarray) -> Tensor:
        """Return the values that letters stand for, of shape (entries,)."""


class Levels:
    """The values of a discrete entry.

    Args:
        values: in increasing order, of shape ``(letters,)``
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def weights(self, fn: dist.Independent) -> np.ndarray:
        """Return the probabilities of the values; counts above the last one are left out."""
        base = fn.base_dist
        values = self.values.view(-1, *[1] * len(base.batch_shape)).expand(-1, *base.batch_shape)
        return whole(base.log_prob(values).softmax(0))

    def read(self, letters: np.ndarray) -> Tensor:
        """Return the values."""
        return self.values[torch.from_numpy(letters).long()]

    def write(self, x: Tensor) -> np.ndarray:
        """Return the letter of the nearest value of each entry."""
        step = float(self.values[1] - self.values[0])
        return (x.double() / step).round().to(torch.int32).numpy()


class Buckets:
    r"""Intervals of equal prior probability, into which a real latent falls.

    .. math:: P(k) = \frac1K, \qquad q(k \mid x) = Q(e_{k+1} \mid x) - Q(e_k \mid x), \qquad
              e_k = P^{-1}\left(\frac kK\right)

    Args:
        prior: a product over the latents, each with an inverse of its distribution function
        number: K
    """

    def __init__(self, prior: dist.Independent, number: int) -> None:
        base = prior.base_dist
        places = torch.arange(2 * number + 1, dtype=torch.float64) / (2 * number)
        found = base.icdf(places.view(-1, *[1] * len(base.batch_shape)).expand(-1, *base.batch_shape))
        self.edges, self.centres = found[::2], found[1::2].flatten(1)

    def weights(self, fn: dist.Independent) -> np.ndarray:
        """Return the probabilities of the intervals."""
        return whole(fn.base_dist.cdf(self.edges).diff(dim=0).clamp(min=0))

    def read(self, letters: np.ndarray) -> Tensor:
        """Return the median of each interval under the prior."""
        return self.centres.gather(0, torch.from_numpy(letters).long().unsqueeze(0)).squeeze(0)


def whole(probabilities: Tensor) -> np.ndarray:
    """Return probabilities (letters, *entries) in whole units, (entries, letters)."""
    if not torch.isfinite(probabilities).all():
        raise ValueError("program: its probabilities of a datum are not finite, so that it cannot be coded")
    return (probabilities / UNIT).round().flatten(1).T.contiguous().numpy()


def grid_of(fn: dist.TorchDistribution, largest: int) -> Tensor | None:
    """Return the values that each entry can have, or None if they are continuous or depend on each other.

    Args:
        fn: distribution of a datum
        largest: the last one of counts without a bound; 0 for none of them
    """
    if not factorized(fn):
        return None
    support = fn.base_dist.support
    if support is constraints.boolean:
        return torch.arange(2, dtype=torch.float64)
    if support is constraints.nonnegative_integer and largest:
        return torch.arange(largest + 1, dtype=torch.float64)
    if isinstance(support, Grid):
        # k / 255 as it is written by whoever scaled the data, which k * (1 / 255) is not always
        whole_steps = round(1 / support.step) if support.step < 1 else 1
        exact = abs(whole_steps * support.step - 1) < 1e-12
        codes = torch.arange(support.levels, dtype=torch.float64)
        return codes / whole_steps if exact else codes * support.step
    return None
