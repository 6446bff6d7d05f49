"""The base class of the distributions in this folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor

__all__ = ["Distribution"]


class Distribution(dist.TorchDistribution):
    """A Pyro distribution that implements ``expand`` and argument checks once.

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

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability (or log-density) at ``value``, one number per event."""
        if self._validate_args:
            self._validate_sample(value)
        return self._log_prob(value)

    def _log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> torch.Size:
        return super()._extended_shape(torch.Size(sample_shape))
