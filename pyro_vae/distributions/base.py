"""The base classes of the distributions in this folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all

__all__ = ["Distribution", "Ranged", "ValidatedLogProb"]


class ValidatedLogProb:
    """A mixin whose ``log_prob`` validates the value and calls ``_log_prob``."""

    _validate_args: Any
    _validate_sample: Any

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability (or log-density) at ``value``, one number per event."""
        if self._validate_args:
            self._validate_sample(value)
        return self._log_prob(value)

    def _log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError


class Distribution(ValidatedLogProb, dist.TorchDistribution):
    """A Pyro distribution that implements ``expand`` and the validation of values once.

    A subclass lists its tensor parameters in ``arg_constraints`` and writes ``_log_prob``. :meth:`expand` expands
    these parameters (except for their event dimensions) and every attribute that is a distribution, and shares all
    other attributes.
    """

    arg_constraints = {}

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Distribution:
        """Return the distribution expanded to ``batch_shape``."""
        shape = torch.Size(batch_shape)
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new._batch_shape = shape
        for name, constraint in self.arg_constraints.items():
            value = getattr(self, name)
            setattr(new, name, value.expand(shape + value.shape[value.dim() - constraint.event_dim :]))
        for name, value in vars(self).items():
            if isinstance(value, torch.distributions.Distribution):
                setattr(new, name, value.expand(shape))
        return new

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> torch.Size:
        return super()._extended_shape(torch.Size(sample_shape))


class Ranged(Distribution):
    """A distribution with a location, a scale, and a range that holds nearly all of its mass."""

    arg_constraints = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "low": constraints.real,
        "high": constraints.real,
    }

    def __init__(
        self,
        loc: Tensor | float,
        scale: Tensor | float,
        low: Tensor | float,
        high: Tensor | float,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale, self.low, self.high = broadcast_all(loc, scale, low, high)
        super().__init__(self.loc.shape, validate_args=validate_args)
