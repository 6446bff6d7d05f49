"""Antithetic pairs of Bernoulli draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent

from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.score import ScoreFunction
from pyro_vae.estimators.sites import Site, Terms, masked, particle_dim, per_datum
from pyro_vae.estimators.trace import Record

__all__ = ["DisARM"]


class Antithetic(Record):
    """Draw Bernoulli sites in pairs of particles, from one uniform number u and from 1 - u."""

    def __init__(self, replay: dict[str, Any] | None = None) -> None:
        super().__init__(replay)
        self.shapes: dict[str, torch.Size] = {}

    def _pyro_sample(self, msg: Any) -> None:
        # here the plate over particles has not come to the distribution yet
        self.shapes[msg["name"]] = getattr(msg["fn"], "batch_shape", torch.Size())
        super()._pyro_sample(msg)

    def _pyro_post_sample(self, msg: Any) -> None:
        dim = particle_dim(msg)
        if dim is not None and not msg["is_observed"] and not msg["done"]:
            msg["value"] = self.pairs(msg, dim)
        super()._pyro_post_sample(msg)
