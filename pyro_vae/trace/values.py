"""Averages over the values of enumerated sites, weighted by their probabilities under the guide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.trace.masks import masked
from pyro_vae.trace.plates import VALUES_DIM, frames

__all__ = ["Probabilities", "average_inside", "check_inside"]


class Probabilities(NamedTuple):
    """Log-probabilities of the values of a site, the probabilities, and whether they are above 0."""

    log_q: Tensor
    q: Tensor
    possible: Tensor

    @classmethod
    def of(cls, log_q: Tensor) -> Probabilities:
        """Return the probabilities from their logarithms."""
        return cls(log_q, log_q.exp(), log_q > -torch.inf)

    def average(self, x: Tensor, dim: int = 0, *, keepdim: bool = False) -> Tensor:
        """Return the mean over the values; a value of probability 0 does not count, whatever x is there."""
        return (self.q * masked(self.possible, x)).sum(dim, keepdim=keepdim)

    def log_average(self, x: Tensor) -> Tensor:
        """Return the logarithm of the mean of exponentials over the first dimension."""
        return (self.log_q + masked(self.possible, x)).logsumexp(0)


def average_inside(values: Sequence[Any], message: Any, x: Tensor) -> Tensor:
    """Average a term over the values of sites in further plates, before the term is summed over these plates.

    Args:
        values: enumerated sites, in the order of their dimensions
        message: of the term
        x: the term, for each entry of the batch shape

    Raises:
        ValueError: the term depends on the values of a site in a plate that the term is not in.
    """
    # from the last site, whose probabilities depend on the values of the earlier ones
    for number in range(len(values) - 1, -1, -1):
        dim = VALUES_DIM - number
        if x.dim() >= -dim and x.shape[dim] > 1:
            site = values[number]
            if site.inner or (site.local and not site.layout.contains(message)):
                check_inside(message, site.name, site.guide, site.model)
            if site.inner:
                x = Probabilities.of(site.unmasked_log_q).average(x, dim, keepdim=True)
    return x


def check_inside(message: Any, name: str, *enumerated: Any) -> None:
    """Raise if a site that depends on the values of another one is not in all plates of that one.

    Args:
        message: of the site that depends
        name: of the enumerated site
        enumerated: messages of the enumerated site in guide and model, whose plates may have different names
    """
    plates = {frame.name for frame in frames(message)}
    outside = [[frame.name for frame in frames(m) if frame.name not in plates] for m in enumerated]
    if all(outside):
        raise ValueError(
            f"model and guide: site {message['name']!r} depends on the values of site {name!r}, which are summed in "
            f"plate {outside[0][0]!r}: open this plate around {message['name']!r}, or declare what belongs to one "
            "example by .to_event"
        )
