"""The mean of each latent given each datum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae.evaluation.inputs import at_once, batches_of
from pyro_vae.programs.program import Program, device_of, evaluating
from pyro_vae.trace import Call, Recorder
from pyro_vae.trace.layout import in_data_plate

__all__ = ["Sampled", "codes", "drawn", "means", "units", "variances"]


class Sampled(Recorder):
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
        # entries of the data that are missing are drawn by the guide, and are no latents
        hidden = site["infer"].get("is_auxiliary") or site["name"] == "missing"
        if in_data_plate(site) and not site["is_observed"] and not hidden:
            try:
                value = site["fn"].mean
            except NotImplementedError:
                value = site["value"]
            found[site["name"]] = units(site, value.expand(site["value"].shape))
    if not found:
        raise ValueError("program: its guide draws no latents of the data, so that there is nothing to evaluate")
    return found


def variances(sites: Iterable[Any]) -> dict[str, Tensor]:
    """Return the posterior variance of each local latent, from at least two particles.

    By the law of total variance: the mean over particles of the variance given what was drawn before, and the variance
    over particles of the mean given that; of draws where there is no such variance in closed form.

    Args:
        sites: messages of the guide, drawn with particles

    Returns:
        By name, of shape (batch, units).
    """
    kept, found = {site["name"]: site for site in sites}, {}
    for name, mean in means(kept.values()).items():
        fn, value = kept[name]["fn"], kept[name]["value"]
        try:
            found[name] = units(kept[name], fn.variance.expand(value.shape)).mean(0) + mean.var(0)
        except NotImplementedError:
            found[name] = units(kept[name], value).var(0)
    return found


def drawn(
    program: Program,
    x: Any,
    summary: Callable[[list[Any]], Any],
    *,
    draws: int = 16,
    seed: int = 0,
    progress: bool = False,
) -> list[Any]:
    """Return a summary of the messages of the guide's sites for each batch, with so many draws of each datum."""
    batches = batches_of(program, x)
    batches.batch_size = max(1, at_once(batches) // draws)
    device = device_of(program)
    found = []
    with evaluating(program), fork_rng(device, seed):
        for batch in progress_bar(
            batches.epoch(0), total=batches.steps, desc="latents", unit="batch", progress=progress
        ):
            record = Call(program.model, program.guide, batch, {}, draws).trace(program.guide, Sampled())
            found.append(summary(list(record.sites.values())))
    return found


def codes(program: Program, x: Any, *, draws: int = 16, seed: int = 0) -> Tensor:
    """Return the posterior means of all latents of the data, (n, units), on the CPU."""

    def summary(sites: list[Any]) -> Tensor:
        return torch.cat([m.mean(0) for m in means(sites).values()], -1).double().cpu()

    return torch.cat(drawn(program, x, summary, draws=draws, seed=seed))
