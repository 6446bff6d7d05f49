"""Many particles in several passes: the memory of one pass, the same terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyro_vae.trace.terms import Draw, Site, Terms

__all__ = ["in_passes"]


def in_passes(one_pass: Callable[[int], Terms], sizes: Sequence[int], quantities: Sequence[str]) -> Terms:
    """Run passes of so many particles each and join their terms.

    What a pass computes on the way is forgotten, and computed again from the same noise when its gradient is wanted
    (activation checkpointing). What stays is a few numbers for each datum and particle.

    Args:
        one_pass: from the number of particles to their terms
        sizes: particles of each pass
        quantities: attributes of :class:`Site` that the estimator will read
    """
    # one list of draws a pass; that of the sites is the same for all of them
    outlines: list[Terms] = []
    keys: list[tuple[int, str]] = []

    def tensors(size: int) -> list[Tensor]:
        terms = one_pass(size)
        found = {(i, name): t for i, site in enumerate(terms.sites) for name, t in read(site, quantities, size)}
        if len(outlines) < len(sizes):  # not where a pass is computed again for its gradient
            outlines.append(without_tensors(terms))
            keys[:] = found
        return list(found.values())

    rows = [checkpoint(tensors, size, use_reentrant=False) for size in sizes]
    joined = outlines[0]
    for (i, name), column in zip(keys, zip(*rows, strict=True), strict=True):
        vars(joined.sites[i])[name] = torch.cat(column, -3 if name == "dimension_kl" else -2)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    draws = [Draw(s, s + n, terms.draws[0].values) for s, n, terms in zip(starts, sizes, outlines, strict=True)]
    return replace(joined, num_particles=sum(sizes), draws=draws)


def read(site: Site, quantities: Sequence[str], size: int) -> list[tuple[str, Tensor]]:
    """Return what is asked of a site and what it has, each with all particles."""
    if site.guide is None:
        quantities = ["log_p"]
    elif site.enumerated:
        quantities = [*quantities, "unmasked_log_q"]
    found = [(name, getattr(site, name)) for name in quantities]
    return [(name, t if name == "dimension_kl" else spread(t, size)) for name, t in found if t is not None]


def spread(t: Tensor, size: int) -> Tensor:
    """Expand (*values, 1, batch) to (*values, size, batch)."""
    return t.expand(*t.shape[:-2], size, t.shape[-1])


def without_tensors(terms: Terms) -> Terms:
    """Return the sites without what holds on to the tensors of their pass."""

    def bare(message: Any) -> Any:
        return None if message is None else {name: message[name] for name in ("scale", "cond_indep_stack")}

    def strip(site: Site) -> Site:
        new = Site(site.name, bare(site.model), bare(site.guide), site.separable, site.enumerated)
        new.reparameterized = site.reparameterized
        vars(new)["closed_kl"] = None
        return new

    return replace(terms, latent=list(map(strip, terms.latent)), observed=list(map(strip, terms.observed)))
