"""The base of estimators that average over particles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyro_vae.estimators.base import Estimator
from pyro_vae.trace import Call, Terms

__all__ = ["MeanOverParticles"]


class MeanOverParticles(Estimator):
    """An estimator whose bound is the mean of one number per particle.

    A latent that examples share is drawn once per particle, as all other latents are: the variance falls with the
    number of particles. A bound with a logarithm of the mean over particles needs the same draw in all of them.

    Args:
        options: of :class:`Estimator`
    """

    def call(
        self, model: Callable[..., Any], guide: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Call:
        """Return the call of model and guide, with a draw of each latent per particle."""
        return Call(model, guide, args, kwargs, self.num_particles, shared_per_particle=True)

    def check_shared(self, terms: Terms) -> None:
        """Accept sites that examples share: each is in the plate over particles."""
