"""Data sampled from a program together with their latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.programs.program import Program
from pyro_vae.trace import Sampled
from pyro_vae.trace.layout import Layout

__all__ = ["SampleObserved", "Simulation", "simulate"]


class SampleObserved(Sampled):
    """Sample the observed sites too, in place of their values."""

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        if msg["is_observed"]:
            msg["done"], msg["value"] = True, msg["fn"].sample()


@dataclass(frozen=True)
class Simulation:
    """Simulated data ``(x, *context)``, and the messages of the model's latent sites and of its observed site."""

    batch: tuple[Tensor, ...]
    sites: dict[str, Any]
    observed: Any


def simulate(program: Program, batch: Sequence[Tensor], given: dict[str, Any] | None = None) -> Simulation:
    """Sample new data from the model, with the shape, missing entries and context of a batch.

    Latent sites have the values of ``given`` messages; all others are sampled from the model.

    Raises:
        ValueError: the program observes more than x or a different shape, or a likelihood cannot be sampled.
    """
    record = SampleObserved(given)
    with torch.no_grad():
        try:
            with record:
                program.model(*batch)
        except NotImplementedError as error:
            raise ValueError(f"program: its model cannot be sampled: {error}") from error
    observed = [site for site in record.sites.values() if site["is_observed"]]
    x = batch[0]
    if len(observed) != 1 or observed[0]["value"].shape != x.shape or Layout.of(record.sites).name is None:
        seen = {site["name"]: tuple(site["value"].shape) for site in observed}
        raise ValueError(
            f"program: expected a model that observes x alone, of shape {tuple(x.shape)}, to simulate data; "
            f"{type(program).__name__} observes {seen}"
        )
    new = observed[0]["value"].to(x.dtype)
    new = torch.where(torch.isnan(x), x, new)
    latents = {name: site for name, site in record.sites.items() if not site["is_observed"]}
    return Simulation((new, *batch[1:]), latents, observed[0])
