"""The densities between prior and posterior along which annealing moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_vae.programs.program import Program
from pyro_vae.trace import Call, Enumerated, Sampled, Site
from pyro_vae.trace.handlers import factor
from pyro_vae.trace.layout import Layout
from pyro_vae.trace.plates import frames
from pyro_vae.trace.unconstrained import Unconstrained

__all__ = ["AnnealingError", "AnnealingPath"]


class AnnealingError(ValueError):
    """The latents of a program cannot be annealed."""


class AnnealingPath:
    r"""A path of densities from the prior to the posterior of each example, in unconstrained latents.

    .. math:: f_t(u) = \sum_y p(z(u), y)\, p(x \mid z(u), y)^t \left|\frac{dz}{du}\right|

    The continuous latents z of all sites are one row of real numbers u; discrete latents y are summed over. Only
    ratios along the path matter, so a factor that does not depend on t has no effect (the number of values of a class
    that is known, and therefore masked).

    Args:
        program: in evaluation mode
        batch: x and context
        num_chains: points per example at a time, at least 2

    Raises:
        AnnealingError: the program has no continuous latent, one that examples share, or one without a map from the
            real numbers; or a discrete one that cannot be summed over.
    """

    def __init__(self, program: Program, batch: tuple[Tensor, ...], num_chains: int) -> None:
        self.model, self.call = program.model, Call(program.model, program.guide, batch, {}, num_chains)
        with torch.no_grad():
            sampled = self.call.trace(self.model, Sampled())
        latents = {name: site for name, site in sampled.sites.items() if not site["is_observed"]}
        self.sites = {name: site for name, site in latents.items() if is_continuous(site, sampled.layout)}
        if not self.sites:
            raise AnnealingError("program: annealing moves continuous latents, and this program has none")
        try:
            self.map = Unconstrained(self.sites, sampled.layout)
        except ValueError as error:
            raise AnnealingError(str(error)) from error

    def sample_prior(self) -> Tensor:
        """Sample latents from the prior, of shape ``(chains, batch, size)``."""
        with torch.no_grad():
            return self.map.rows(self.call.trace(self.model, Sampled()).sites)

    def repeat(self, sites: Mapping[str, Any]) -> Tensor:
        """Return the latents of a run of the model without chains, repeated for each chain."""
        found = {}
        for name, site in self.sites.items():
            shape = site["value"].shape
            found[name] = {"value": sites[name]["value"].reshape(1, *shape[1:]).expand(shape)}
        return self.map.rows(found)

    def terms(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(z, y) and log p(x given z, y), each of shape ``(*values of y, chains, batch)``."""
        sites, jacobians = self.map.values(u)
        scored = self.call.trace(self.model, Enumerated(sites))
        latent = sum(scored.layout.per_example(jacobian, self.sites[name]) for name, jacobian in jacobians.items())
        observed = torch.zeros_like(latent)
        for name, message in scored.sites.items():
            log_p = Site(name, message, layout=scored.layout).log_p
            if message["is_observed"]:
                observed = observed + log_p
            else:
                latent = latent + log_p
        return latent, observed

    @staticmethod
    def density(terms: tuple[Tensor, Tensor], t: Tensor) -> Tensor:
        """Return log f of shape ``(chains, batch)`` at the temperature t."""
        log_f = terms[0] + t * terms[1]
        values = tuple(range(log_f.dim() - 2))
        return log_f.logsumexp(values) if values else log_f


def is_continuous(site: Any, layout: Layout) -> bool:
    """Return whether a latent site is moved; raise if it can be neither moved nor summed over."""
    name = site["name"]
    if not layout.contains(site):
        raise AnnealingError(
            f"program: expected one latent per example, but the latent {name!r} is shared by all examples"
        )
    if not site["fn"].support.is_discrete:
        return True
    if not factor(site["fn"]).has_enumerate_support:
        raise AnnealingError(f"program: the discrete latent {name!r} has too many values to sum over")
    if len(frames(site)) > 1:
        raise AnnealingError(f"program: the discrete latent {name!r} is in a further plate: use .to_event instead")
    return False
