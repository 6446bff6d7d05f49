"""Runs of guide and model at other values of the latents of the examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyro_vae.trace.call import buffers_kept
from pyro_vae.trace.handlers import Recorder
from pyro_vae.trace.rerun import same_run
from pyro_vae.trace.terms import Terms
from pyro_vae.trace.tracing import pair

__all__ = ["moved_terms"]


def moved_terms(terms: Terms, sites: Mapping[str, Any]) -> Terms:
    """Score other values of the latents under guide and model, and return the sites of each example.

    The guide runs again only if it has several sites, where the density of one may depend on the value of another.

    Args:
        terms: one run of guide and model, in one pass
        sites: a message with a value for each latent in the plate of the data
    """
    call = terms.call
    shared = {name: {"value": value} for draw in terms.draws for name, (value, _) in draw.shared.items()}
    drawn = Recorder({**shared, **sites, **terms.subsamples})
    if len(shared) + len(sites) == 1:
        [site] = terms.latent
        drawn.sites = {site.name: {**site.guide, **sites[site.name]}}
    else:
        with same_run(call):
            call.trace(call.guide, drawn)
    with buffers_kept(call):
        scored = call.trace(call.model, Recorder({**drawn.sites, **terms.subsamples}))
    return pair(call, drawn, scored).split()[0]
