"""The latents of each example as one row of real numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import biject_to

from pyro_vae.trace.layout import Layout
from pyro_vae.trace.plates import particle_dim

__all__ = ["Unconstrained"]


class Unconstrained:
    """A map between the latents of each example and one row of real numbers.

    Args:
        sites: messages of continuous latents in the plate of the data, by name
        layout: the layout of the dimensions

    Raises:
        ValueError: there is no map from the real numbers onto the support of a site.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> terms = pv.trace.run(toy.program.model, toy.program.guide, (toy.draw(5),), num_particles=3)
        >>> sites = {site.name: site.guide for site in terms.latent}
        >>> Unconstrained(sites, terms.latent[0].layout).rows(sites).shape
        torch.Size([3, 5, 2])
    """

    def __init__(self, sites: Mapping[str, Any], layout: Layout) -> None:
        self.sites, self.layout = sites, layout
        self.maps = {name: bijection(name, site["fn"].support) for name, site in sites.items()}

    def rows(self, sites: Mapping[str, Any]) -> Tensor:
        """Return the latents of messages as real numbers, ``(particles, batch, dims)``."""
        rows = []
        for name, to_value in self.maps.items():
            u = to_value.inv(sites[name]["value"])
            rows.append(self.layout.per_row(u, self.sites[name], u.dim() - self.batch_dims(name)))
        return torch.cat(rows, -1)

    def values(self, rows: Tensor) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the latents and the log-determinants of their maps, each by site and of the shapes of the site."""
        sites, jacobians, done = {}, {}, 0
        for name, to_value in self.maps.items():
            shape, dims = to_value.inverse_shape(self.sites[name]["value"].shape), self.batch_dims(name)
            # the dimensions of the rows that the site has, and where
            places = {
                i: dims + dim
                for i, dim in enumerate((particle_dim(self.sites[name]), self.layout.name and self.layout.dim))
                if dim is not None
            }
            rest = [size for place, size in enumerate(shape) if place not in places.values()]
            size = math.prod(rest)
            part = rows[..., done : done + size].reshape(*[rows.shape[i] for i in places], *rest)
            part = part.movedim(list(range(len(places))), list(places.values()))
            done += size
            value = to_value(part)
            log_det = to_value.log_abs_det_jacobian(part, value)
            sites[name], jacobians[name] = {"value": value}, sum_rightmost(log_det, log_det.dim() - dims)
        return sites, jacobians

    def batch_dims(self, name: str) -> int:
        """Return the number of dimensions of the plates of a site."""
        site = self.sites[name]
        return site["value"].dim() - site["fn"].event_dim


def bijection(name: str, support: Any) -> Any:
    """Return the map from real numbers onto a support."""
    try:
        return biject_to(support)
    except NotImplementedError as error:
        raise ValueError(
            f"program: the latent {name!r} has support {support}: no map from the real numbers"
        ) from error
