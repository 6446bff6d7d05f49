"""Run many particles in several passes, with the memory of one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pyro_vae.trace.call import Call, buffers_kept, draw_shared, outline
from pyro_vae.trace.divergence import kl_per_dimension
from pyro_vae.trace.handlers import Recorder
from pyro_vae.trace.site import Quantity, Site
from pyro_vae.trace.terms import Draw, Terms
from pyro_vae.trace.tracing import run_call

__all__ = ["run_in_passes"]

#: The quantities that a formula reads: number of the site and the function of it.
Reads = list[tuple[int, Quantity]]

#: From the number of a site and a quantity to its value.
Source = Callable[[int, Quantity], Tensor | None]


class CachedSite(Site):
    """A site that reads its quantities from a cache."""

    source: Callable[[Quantity], Tensor | None]

    def read(self, quantity: Quantity) -> Any:
        """Return a quantity of the site."""
        return self.source(quantity)


def run_in_passes(
    call: Call,
    draws: Callable[..., Recorder],
    check: Callable[[Terms, Recorder], None],
    formula: Callable[[Terms], Any],
    particles_per_pass: int | None,
) -> Terms:
    """Run guide and model with ``particles_per_pass`` particles at a time.

    Args:
        call: model, guide and arguments, with the number of all particles
        draws: makes the handler that decides how latents are drawn, from messages that it replays
        check: raises if the terms of a pass cannot be used
        formula: what will be computed from the terms; called once with the particles of a small pass repeated
        particles_per_pass: number of particles at a time, all at once if None

    Returns:
        The terms of all particles.
    """
    total = call.num_particles
    size = min(particles_per_pass or total, total)

    def one_pass(size: int, first: bool = False) -> Terms:
        recorder = draws(shared)
        # one step updates buffers, such as the statistics of a BatchNorm, once
        with nullcontext() if first else buffers_kept(call):
            terms = run_call(call if size == total else replace(call, num_particles=size), lambda: recorder)
        shared.update(recorder.subsamples)  # all passes see the same minibatch
        check(terms, recorder)
        return terms

    shared: dict[str, Any] = {}
    if size == total:
        return one_pass(size, first=True)
    if outline(call).shared and not call.shared_per_particle:  # these sites are drawn once for all passes
        shared = draw_shared(replace(call, num_particles=1), draws)
    reads = read_by(formula, one_pass(min(size, 2)), total)
    whole, rest = divmod(total, size)
    return in_passes(one_pass, [size] * whole + [rest] * (rest > 0), reads)


def read_by(formula: Callable[[Terms], Any], terms: Terms, num_particles: int) -> Reads:
    """Return the quantities that a formula reads, by calling it once with the particles of one pass repeated.

    Args:
        formula: a function of the terms of all particles, whose result is discarded
        terms: of one pass
        num_particles: of all passes together
    """
    size = terms.num_particles
    reads: Reads = []

    def source(number: int, quantity: Quantity) -> Tensor | None:
        if (number, quantity) not in reads:
            reads.append((number, quantity))
        found = terms.sites[number].read(quantity)
        if found is None:
            return None
        dim = particles_of(quantity)
        repeated = [every_particle(found, dim, size)] * -(-num_particles // size)
        return torch.cat(repeated, dim).narrow(dim, 0, num_particles)

    starts = range(0, num_particles, size)
    draws = [terms.draws[0]._replace(start=start, stop=min(start + size, num_particles)) for start in starts]
    with torch.enable_grad():
        formula(with_source(without_tensors(terms), source, num_particles, draws))
    return reads


def in_passes(one_pass: Callable[..., Terms], sizes: Sequence[int], reads: Reads) -> Terms:
    """Run passes of the given sizes and join their terms.

    Intermediate results of a pass are discarded, and computed again from the same noise for the gradient (activation
    checkpointing). A few numbers per example and particle are kept.

    Args:
        one_pass: from the number of particles, and whether it is the first pass, to their terms
        sizes: number of particles of each pass
        reads: the quantities that the estimator reads
    """
    stripped: list[Terms] = []
    draws: list[Draw] = []
    absent: set[tuple[int, Quantity]] = set()

    def tensors(size: int) -> list[Tensor]:
        terms = one_pass(size, first=not draws)
        found = [terms.sites[number].read(quantity) for number, quantity in reads]
        if len(draws) < len(sizes):  # not where a pass is computed again for its gradient
            start = sum(draw.stop - draw.start for draw in draws)
            draws.append(terms.draws[0]._replace(start=start, stop=start + size))
            stripped[:] = [without_tensors(terms)]
            absent.update(key for key, tensor in zip(reads, found, strict=True) if tensor is None)
        pairs = zip(reads, found, strict=True)
        return [every_particle(t, particles_of(quantity), size) for (_, quantity), t in pairs if t is not None]

    columns = zip(*[checkpoint(tensors, size, use_reentrant=False) for size in sizes], strict=True)
    present = [key for key in reads if key not in absent]
    table: dict[tuple[int, Quantity], Tensor | None] = dict.fromkeys(absent)
    table |= {key: torch.cat(column, particles_of(key[1])) for key, column in zip(present, columns, strict=True)}

    def source(number: int, quantity: Quantity) -> Tensor | None:
        if (number, quantity) not in table:
            raise ValueError(
                f"particles_per_pass: {quantity.__name__} was not read in the first pass; an estimator must read the "
                "same quantities whenever its formula is called"
            )
        return table[number, quantity]

    return with_source(stripped[0], source, sum(sizes), draws)


def without_tensors(terms: Terms) -> Terms:
    """Return sites that hold on to no tensor of their pass."""

    def bare(message: Any) -> Any:
        keys = ("name", "scale", "cond_indep_stack", "weights")
        return None if message is None else {key: message[key] for key in keys if key in message}

    def strip(site: Site) -> CachedSite:
        new = CachedSite(site.name, bare(site.model), bare(site.guide), site.layout, site.enumerated, site.auxiliary)
        new.has_path, new.reparameterized = site.has_path, site.reparameterized
        return new

    stripped = {site.name: strip(site) for site in terms.sites}
    return replace(
        terms,
        latent=[stripped[site.name] for site in terms.latent],
        observed=[stripped[site.name] for site in terms.observed],
        values=[stripped[site.name] for site in terms.values],
        draws=(),
        _cache={},
    )


def with_source(terms: Terms, source: Source, num_particles: int, draws: Sequence[Draw]) -> Terms:
    """Have stripped sites read their quantities from a source."""
    for number, site in enumerate(terms.sites):
        site.source = partial(source, number)
    return replace(terms, num_particles=num_particles, draws=draws)


def particles_of(quantity: Quantity) -> int:
    """Return the dimension of the particles in a quantity."""
    return -3 if quantity is kl_per_dimension else -2


def every_particle(t: Tensor, dim: int, size: int) -> Tensor:
    """Expand a quantity that is the same for all particles."""
    return t if t.shape[dim] == size else t.expand([size if d == t.dim() + dim else -1 for d in range(t.dim())])
