"""Data drawn from a program, together with the latents that they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.programs.program import Program
from pyro_vae.trace import Recorder
from pyro_vae.trace.layout import in_data_plate

__all__ = ["Drawn", "Simulation", "simulate"]


class Drawn(Recorder):
    """Draw what the model observes, too."""

    def _pyro_sample(self, msg: Any) -> None:
        super()._pyro_sample(msg)
        if msg["is_observed"]:
            msg["done"], msg["value"] = True, msg["fn"].sample()


@dataclass(frozen=True)
class Simulation:
    """Data of a program and where they came from.

    Attributes:
        batch: x and context, as the program takes them
        sites: the messages of the model's latent sites
        observed: that of the observed one
    """

    batch: tuple[Tensor, ...]
    sites: dict[str, Any]
    observed: Any


def simulate(program: Program, batch: Sequence[Tensor], given: dict[str, Any] | None = None) -> Simulation:
    """Draw new data from the model, as many as there are rows in a batch.

    Args:
        program: is run without gradients, in the mode in which it is
        batch: x, for its shape and missing entries (which stay missing), and the context, which is kept
        given: messages of latent sites whose values are taken; all others are drawn from the model

    Returns:
        The data and their latents.

    Raises:
        ValueError: the program observes more than x, or something of another shape, so that it is not known how new
            data are made of its draws; or a likelihood has no sampler.
    """
    record = Drawn(given)
    with torch.no_grad():
        try:
            with record:
                program.model(*batch)
        except NotImplementedError as error:
            raise ValueError(f"program: no data can be drawn from its model: {error}") from error
    observed = [site for site in record.sites.values() if site["is_observed"]]
    x = batch[0]
    if len(observed) != 1 or observed[0]["value"].shape != x.shape or not in_data_plate(observed[0]):
        seen = {site["name"]: tuple(site["value"].shape) for site in observed}
        raise ValueError(
            f"program: data are simulated where the model observes x alone, of shape {tuple(x.shape)}, but "
            f"{type(program).__name__} observes {seen}"
        )
    new = observed[0]["value"].to(x.dtype)
    new = torch.where(torch.isnan(x), x, new)
    latents = {name: site for name, site in record.sites.items() if not site["is_observed"]}
    return Simulation((new, *batch[1:]), latents, observed[0])
