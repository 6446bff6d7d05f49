"""Data sampled from a model together with their latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from pyro.distributions import Delta
from torch import Tensor

from pyro_vae.trace.call import Call, buffers_kept
from pyro_vae.trace.handlers import Recorder, Sampled
from pyro_vae.trace.layout import Layout
from pyro_vae.trace.terms import Terms
from pyro_vae.trace.tracing import pair

__all__ = ["SampleObserved", "Simulation", "simulate", "simulated_terms"]


class SampleObserved(Sampled):
    """Sample the observed sites too, in place of their values, which are in ``given``."""

    def __init__(self, replay: dict[str, Any] | None = None) -> None:
        super().__init__(replay)
        self.given: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        if msg["is_observed"]:
            self.given[msg["name"]] = msg["value"]
            msg["done"], msg["value"] = True, msg["fn"].sample()

    @property
    def observed(self) -> dict[str, Any]:
        """The messages of observed sites by name."""
        return {name: site for name, site in self.sites.items() if site["is_observed"]}

    @property
    def latent(self) -> dict[str, Any]:
        """The messages of latent sites by name."""
        return {name: site for name, site in self.sites.items() if not site["is_observed"]}


@dataclass(frozen=True)
class Simulation:
    """Simulated data ``(x, *context)``, and the run of the model that made them."""

    batch: tuple[Any, ...]
    run: SampleObserved


def simulate(model: Callable[..., Any], batch: Sequence[Any], given: dict[str, Any] | None = None) -> Simulation:
    """Sample new data from the model, with the shape, missing entries and masks of a batch.

    Arguments that the model observes are replaced by what it samples; the others stay. Latent sites have the values of
    ``given`` messages; all others are sampled from the model.

    Args:
        model: ``model(x, *context)``
        batch: its arguments
        given: messages of latent sites by name

    Raises:
        ValueError: a likelihood cannot be sampled, or a site observes neither an argument nor a view of one.
    """
    # an argument that shares memory with no other is known from a view of it
    batch = tuple([column.clone() if isinstance(column, Tensor) else column for column in batch])
    record = SampleObserved(given)
    with torch.no_grad():
        try:
            with record:
                model(*batch)
        except NotImplementedError as error:
            raise ValueError(f"program: expected a model that can be sampled, got an error: {error}") from error
        new = substituted(batch, record)
    return Simulation(new, record)


def substituted(batch: Sequence[Any], record: SampleObserved) -> tuple[Any, ...]:
    """Return the arguments with simulated values in place of observed ones, except for missing and masked entries."""
    new, layout, observed = list(batch), Layout.of(record.sites), record.observed
    for name, message in observed.items():
        value, given, mask = message["value"], record.given[name], message["mask"]
        if isinstance(mask, Tensor) and mask.dim():
            seen = mask.reshape(*mask.shape, *[1] * message["fn"].event_dim)
            value = torch.where(seen, value, given)
        value = torch.where(torch.isnan(given), given, value)
        i = next((i for i, c in enumerate(batch) if given is c or given._base is c), None)
        if i is None and len(observed) == 1 and layout.name is not None:  # such as x with 0 for missing entries
            value = value.movedim(layout.dim - message["fn"].event_dim, 0)
            if value.shape == batch[0].shape:
                new[0] = torch.where(torch.isnan(batch[0]), batch[0], value).to(batch[0].dtype)
                continue
        if i is None or value.shape != given.shape or repeats(given, batch[i]):
            raise ValueError(
                "program: expected a model that observes x alone, or arguments as they are (obs=y), to simulate data, "
                f"got site {name!r} of shape {tuple(value.shape)} with another value, for x of shape "
                f"{tuple(batch[0].shape)}. Compute what the model observes outside of it, and pass it as an argument"
            )
        if new[i] is batch[i]:
            new[i] = batch[i].clone()
        new[i].as_strided(given.shape, given.stride(), given.storage_offset()).copy_(value)
    return tuple(new)


def repeats(view: Tensor, x: Tensor) -> bool:
    """Whether entries of a view may share memory."""
    expanded = any(step == 0 and size > 1 for step, size in zip(view.stride(), view.shape, strict=True))
    return expanded or view.numel() > x.numel()


def simulated_terms(call: Call) -> Terms:
    """Return the terms of one simulation per row: the guide at simulated data scores the latents that made them.

    Nothing has a gradient but the density of the guide.

    Raises:
        ValueError: the data cannot be simulated, or the guide computes a latent from another draw.
    """
    call = replace(call, num_particles=1)
    with buffers_kept(call):
        made = simulate(partial(call.model, **call.kwargs), call.args)
    call = replace(call, args=made.batch)
    drawn = call.trace(call.guide, Recorder({**made.run.latent, **made.run.subsamples}))
    for name, site in made.run.latent.items():
        if name not in drawn.sites and site["infer"].get("enumerate") == "parallel":  # the model sums over it
            del made.run.sites[name]
    terms = pair(call, drawn, made.run)
    check_scored(terms)
    return terms


def check_scored(terms: Terms) -> None:
    """Raise if the guide has no density of a latent, to score one that the model samples."""
    for site in terms.latent:
        if site.local and (site.auxiliary or isinstance(site.guide["fn"], Delta)):
            raise ValueError(
                f"guide: expected a density of each latent, to score simulated ones, but site {site.name!r} is "
                f"{'a draw from which another latent is' if site.auxiliary else 'a Delta, which is'} computed. Use "
                "another estimator, or a guide that samples each latent from a density"
            )
