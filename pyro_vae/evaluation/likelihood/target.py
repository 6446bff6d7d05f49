"""The joint density of a program as a function of unconstrained latents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to

from pyro_vae.programs.program import Program
from pyro_vae.trace import Call, Enumerated, Recorder, Site
from pyro_vae.trace.handlers import factor
from pyro_vae.trace.layout import in_data_plate

__all__ = ["Target"]


class Target:
    r"""A path of densities from the prior to the posterior of each datum.

    .. math:: f_t(u) = \sum_y p(z(u), y)\, p(x \mid z(u), y)^t \left|\frac{dz}{du}\right|

    The continuous latents z of all sites stand in one row of real numbers u; discrete ones, y, are summed over. Only
    ratios along the path count, so that a factor that does not depend on t (the number of values of a class that is
    known, and therefore masked) is of no account.

    Args:
        program: in evaluation mode
        batch: x and context
        chains: how many points a datum are taken at once, at least 2

    Raises:
        ValueError: the program has no continuous latent, one that data share, or one without a map from the reals;
            or a discrete one that cannot be summed over.
    """

    def __init__(self, program: Program, batch: tuple[Tensor, ...], chains: int) -> None:
        self.model, self.call = program.model, Call(program.model, program.guide, batch, {}, chains)
        with torch.no_grad():
            drawn = self.call.trace(self.model, Recorder()).sites
        self.sites = {name: site for name, site in drawn.items() if not site["is_observed"] and continuous(site)}
        if not self.sites:
            raise ValueError("program: annealing moves continuous latents, and this program has none")
        self.maps = {name: biject_to_support(name, site["fn"].support) for name, site in self.sites.items()}

    def start(self) -> Tensor:
        """Draw latents from the prior, of shape (chains, batch, size)."""
        with torch.no_grad():
            return self.pack(self.call.trace(self.model, Recorder()).sites)

    def at(self, drawn: Mapping[str, Any]) -> Tensor:
        """Return the latents of a run of the model without chains, the same for each chain."""
        sites = {}
        for name, site in self.sites.items():
            shape = site["value"].shape
            value = drawn[name]["value"].reshape(1, *shape[1:]).expand(shape)
            sites[name] = {"value": value}
        return self.pack(sites)

    def pack(self, sites: Mapping[str, Any]) -> Tensor:
        """Return latents as one row a chain and datum."""
        rows = []
        for name, bijection in self.maps.items():
            value = bijection.inv(sites[name]["value"])
            rows.append(value.movedim(self.data_dim(name), 1).flatten(2) if value.dim() > 2 else value.unsqueeze(-1))
        return torch.cat(rows, -1)

    def data_dim(self, name: str) -> int:
        """Return where the data stand in the latents of a site."""
        site = self.sites[name]
        return site["value"].dim() - site["fn"].event_dim - 1

    def unpack(self, u: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Return the latents of each site and the log-determinant of the map, (chains, batch)."""
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
            jacobian = jacobian + det.movedim(data, 1).flatten(2).sum(-1) if det.dim() > 2 else jacobian + det
            sites[name] = {"value": value}
        return sites, jacobian

    def terms(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(z, y) and log p(x given z, y), each of shape (*values of y, chains, batch)."""
        sites, jacobian = self.unpack(u)
        scored = self.call.trace(self.model, Enumerated(sites))
        latent, observed = jacobian, torch.zeros_like(jacobian)
        for name, message in scored.sites.items():
            log_p = Site(name, message).log_p
            if message["is_observed"]:
                observed = observed + log_p
            else:
                latent = latent + log_p
        return latent, observed

    @staticmethod
    def density(terms: tuple[Tensor, Tensor], t: Tensor) -> Tensor:
        """Return log f of shape (chains, batch) at the temperature t."""
        log_f = terms[0] + t * terms[1]
        values = tuple(range(log_f.dim() - 2))
        return log_f.logsumexp(values) if values else log_f


def continuous(site: Any) -> bool:
    """Whether a latent site is moved; refuse one that can be neither moved nor summed over."""
    name = site["name"]
    if not in_data_plate(site):
        raise ValueError(
            f"program: the latent {name!r} is shared by the data, and annealing finds log p(x) of each datum by itself"
        )
    if not site["fn"].support.is_discrete:
        return True
    if not factor(site["fn"]).has_enumerate_support:
        raise ValueError(f"program: the discrete latent {name!r} can neither be moved nor summed over")
    return False


def biject_to_support(name: str, support: Any) -> Any:
    """Return the map from real numbers onto a support."""
    try:
        return biject_to(support)
    except NotImplementedError as error:
        raise ValueError(
            f"program: the latent {name!r} lives on {support}, onto which no map from the real numbers is known"
        ) from error
