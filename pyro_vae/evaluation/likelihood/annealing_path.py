"""The densities between prior and posterior along which annealing moves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to

from pyro_vae.programs.program import Program
from pyro_vae.trace import Call, Enumerated, Sampled, Site
from pyro_vae.trace.handlers import factor
from pyro_vae.trace.layout import Layout
from pyro_vae.trace.plates import frames

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
        self.maps = {name: biject_to_support(name, site["fn"].support) for name, site in self.sites.items()}

    def sample_prior(self) -> Tensor:
        """Sample latents from the prior, of shape ``(chains, batch, size)``."""
        with torch.no_grad():
            return self.pack(self.call.trace(self.model, Sampled()).sites)

    def repeat(self, sites: Mapping[str, Any]) -> Tensor:
        """Return the latents of a run of the model without chains, repeated for each chain."""
        found = {}
        for name, site in self.sites.items():
            shape = site["value"].shape
            found[name] = {"value": sites[name]["value"].reshape(1, *shape[1:]).expand(shape)}
        return self.pack(found)

    def pack(self, sites: Mapping[str, Any]) -> Tensor:
        """Return the latents as one row per chain and example."""
        rows = []
        for name, bijection in self.maps.items():
            value = bijection.inv(sites[name]["value"])
            rows.append(value.movedim(self.data_dim(name), 1).flatten(2) if value.dim() > 2 else value.unsqueeze(-1))
        return torch.cat(rows, -1)

    def data_dim(self, name: str) -> int:
        """Return the dimension of the examples in the latents of a site."""
        site = self.sites[name]
        return site["value"].dim() - site["fn"].event_dim - 1

    def unpack(self, u: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Return the latents of each site and the log-determinant of the map, of shape ``(chains, batch)``."""
        sites, jacobian, done = {}, u.new_zeros(u.shape[:2]), 0
        for name, bijection in self.maps.items():
            shape = bijection.inverse_shape(self.sites[name]["value"].shape)
            data = self.data_dim(name)
            rest = [*shape[1:data], *shape[data + 1 :]]
            size = math.prod(rest)
            part = u[..., done : done + size].reshape(*u.shape[:2], *rest).movedim(1, data)
            done += size
            value = bijection(part)
            det = bijection.log_abs_det_jacobian(part, value)
            jacobian = jacobian + (det.movedim(data, 1).flatten(2).sum(-1) if det.dim() > 2 else det)
            sites[name] = {"value": value}
        return sites, jacobian

    def terms(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(z, y) and log p(x given z, y), each of shape ``(*values of y, chains, batch)``."""
        sites, jacobian = self.unpack(u)
        scored = self.call.trace(self.model, Enumerated(sites))
        latent, observed = jacobian, torch.zeros_like(jacobian)
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


def biject_to_support(name: str, support: Any) -> Any:
    """Return the map from real numbers onto a support."""
    try:
        return biject_to(support)
    except NotImplementedError as error:
        raise AnnealingError(
            f"program: the latent {name!r} has support {support}: no map from the real numbers"
        ) from error
