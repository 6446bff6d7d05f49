"""The mean of each latent given each datum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.estimators.sites import in_data_plate
from pyro_vae.estimators.trace import Call, Record
from pyro_vae.evaluation.inputs import at_once, batches_of
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.rng import fork_rng

__all__ = ["Sampled", "codes", "means", "units"]


class Sampled(Record):
    """Draw every latent, also those marked for enumeration."""

    def enumerates(self, msg: Any) -> bool:
        """Whether a site gets all its values: none does."""
        return False


def units(site: Any, value: Tensor) -> Tensor:
    """Return values of a latent site as one row a particle and datum, (particles, batch, units)."""
    data = value.dim() - site["fn"].event_dim - 1
    return value.movedim(data, 1).flatten(2) if value.dim() > 2 else value.unsqueeze(-1)


def means(sites: Iterable[Any]) -> dict[str, Tensor]:
    """Return the mean of each local latent given what was drawn before it, or its draws where it has none.

    The mean over particles is the posterior mean of each datum.

    Args:
        sites: messages of the guide, drawn with particles

    Returns:
        By name, of shape (particles, batch, units).

    Raises:
        ValueError: there is none.
    """
    found = {}
    for site in sites:
        if in_data_plate(site) and not site["is_observed"] and not site["infer"].get("is_auxiliary"):
            try:
                value = site["fn"].mean
            except NotImplementedError:
                value = site["value"]
            found[site["name"]] = units(site, value.expand(site["value"].shape))
    if not found:
        raise ValueError("program: its guide draws no latents of the data, so that there is nothing to evaluate")
    return found


def codes(program: Program, x: Any, *, draws: int = 16, seed: int = 0) -> Tensor:
    """Return the posterior means of all latents of the data, (n, units), on the CPU."""
    batches = batches_of(program, x)
    batches.batch_size = max(1, at_once(batches) // draws)
    device = next(program.parameters(), torch.zeros(())).device
    rows = []
    with evaluating(program), fork_rng(device, seed):
        for batch in batches.epoch(0):
            drawn = Call(program.model, program.guide, batch, {}, draws).trace(program.guide, Sampled())
            rows.append(torch.cat([m.mean(0) for m in means(drawn.sites.values()).values()], -1).double().cpu())
    return torch.cat(rows)
