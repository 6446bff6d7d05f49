"""Resampling of particles between the steps of a sequence, as in a particle filter."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pyro.distributions import Independent
from torch import Tensor

from pyro_vae.trace.handlers import Reparameterized
from pyro_vae.trace.masks import masked
from pyro_vae.trace.site import Site, log_p

__all__ = ["Resampled", "Resampling", "has_steps", "log_p_of_steps"]


class Resampling(NamedTuple):
    """The ancestors of the particles of a step.

    Attributes:
        ancestors: the particle of the step before that each one continues, ``(particles, batch)``
        resampled: whether the particles of an example were resampled; each continues itself if not, ``(batch,)``
        log_w: the log-weights by which ancestors were drawn, up to a constant per example, ``(particles, batch)``
    """

    ancestors: Tensor
    resampled: Tensor
    log_w: Tensor

    def select(self, state: Tensor) -> Tensor:
        """Return the state of the ancestors, for a state of shape ``(particles, batch, ...)``."""
        index = self.ancestors.reshape(*self.ancestors.shape, *[1] * (state.dim() - 2))
        return torch.take_along_dim(state, index, 0)


class Resampled(Reparameterized):
    """Draw with a gradient through each draw, and resample the particles of each example between its steps.

    Ancestors are drawn independently of each other (multinomial resampling) where the effective sample size has fallen
    to ``threshold`` times the number of particles. They are recorded in the message of the site that follows, so that
    every later run of model and guide selects the same ones.

    Args:
        replay: messages of an earlier run, by name
        threshold: share of the number of particles, from 0 (never) to 1 (before each step)

    Example:
        >>> import torch, pyro_vae as pv
        >>> program, x = pv.programs.SequenceVAE.example(), torch.randn(5, 3, 4)
        >>> terms = pv.trace.run(program.model, program.guide, (x,), num_particles=7, draws=Resampled)
        >>> terms.latent[1].guide["resampling"].ancestors.shape
        torch.Size([7, 5])
    """

    def __init__(self, replay: dict[str, Any] | None = None, threshold: float = 1.0) -> None:
        super().__init__(replay)
        self.threshold = threshold
        self.log_w: Any = 0.0
        self.steps: dict[str, Resampling | None] = {}

    def _pyro_resample(self, msg: Any) -> None:
        state, log_weight = msg["args"]
        self.steps[msg["name"]] = None
        if log_weight is None:
            return
        with torch.no_grad():
            self.log_w = self.log_w + log_weight()
        if self.log_w.dim() > 1:  # there is no dimension of a single particle
            found = self.steps[msg["name"]] = resampling(self.log_w, self.threshold, msg["mask"])
            self.log_w = torch.where(found.resampled, 0.0, self.log_w)
            msg["done"], msg["value"] = True, found.select(state)

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self.steps:
            msg["resampling"] = self.steps[msg["name"]]
        super()._pyro_post_sample(msg)


def resampling(log_w: Tensor, threshold: float, mask: Tensor | bool | None) -> Resampling:
    """Draw the ancestors of particles with these log-weights, ``(particles, batch)``, except for masked examples."""
    weights, k = log_w.softmax(0), len(log_w)
    resampled = masked(mask, weights.square().sum(0) * (threshold * k) >= 1)
    upper = weights.cumsum(0)
    # unlike torch.multinomial it does not stop the device at a NaN, which the loss reports
    u = torch.rand_like(weights) * upper[-1]
    drawn = torch.searchsorted(upper.T.contiguous(), u.T.contiguous(), right=True).T.clamp(max=k - 1)
    own = torch.arange(k, device=log_w.device).unsqueeze(-1)
    return Resampling(torch.where(resampled, drawn, own), resampled, log_w)


def has_steps(site: Site, steps: int) -> bool:
    """Whether the first dimension of the event of an observed site is declared by ``.to_event`` and of this size."""
    fn = site.model["fn"]
    declared = isinstance(fn, Independent) and fn.reinterpreted_batch_ndims > 0
    return site.marginal is None and declared and fn.event_shape[0] == steps


def log_p_of_steps(site: Site) -> Tensor:
    """Return the log-density of each step of an observed site, ``(particles, batch, steps)``."""
    fn, message = site.model["fn"], site.model
    log_prob = fn.base_dist.log_prob(message["value"])
    inner = fn.reinterpreted_batch_ndims - 1
    log_prob = log_prob.flatten(log_prob.dim() - inner).sum(-1) if inner else log_prob
    mask = message["mask"]
    mask = mask.unsqueeze(-1) if isinstance(mask, Tensor) else mask
    found = site.layout.per_example(masked(mask, log_prob), message, 1)
    # a scale that is fitted to the batch is fitted again at each evaluation
    site._cache[log_p] = found.sum(-1)
    return found
