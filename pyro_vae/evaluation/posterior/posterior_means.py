"""Posterior means and variances of the latents of each example."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.evaluation.over import over
from pyro_vae.programs.program import Program
from pyro_vae.trace import Call, Sampled
from pyro_vae.trace.call import outline

__all__ = ["guide_sites", "means", "posterior_means", "units", "variances"]


def units(site: Any, value: Tensor) -> Tensor:
    """Return values of a latent site as one row per particle and example, of shape ``(particles, batch, units)``."""
    data = value.dim() - site["fn"].event_dim - 1
    return value.movedim(data, 1).flatten(2) if value.dim() > 2 else value.unsqueeze(-1)


def guide_sites(program: Program, batch: tuple[Tensor, ...], num_samples: int) -> list[Any]:
    """Return the messages of the guide's sites of each example, with ``num_samples`` samples per example."""
    call = Call(program.model, program.guide, batch, {}, num_samples)
    layout = outline(call).layout
    return [site for site in call.trace(program.guide, Sampled()).sites.values() if layout.contains(site)]


def means(sites: Iterable[Any]) -> dict[str, Tensor]:
    """Return by name the mean of each local latent given those sampled before it, ``(particles, batch, units)``.

    Samples replace a mean without a closed form. The average over particles is the posterior mean.

    Raises:
        ValueError: the guide has no local latents.
    """
    found = {}
    for site in sites:
        # missing entries that the guide samples are data, not latents
        hidden = site["infer"].get("is_auxiliary") or site["name"] == "missing"
        if not site["is_observed"] and not hidden:
            try:
                value = site["fn"].mean
            except NotImplementedError:
                value = site["value"]
            found[site["name"]] = units(site, value.expand(site["value"].shape))
    if not found:
        raise ValueError("program: expected latents for each example, but its guide samples none")
    return found


def variances(sites: Iterable[Any]) -> dict[str, Tensor]:
    """Return by name the posterior variance of each local latent, from at least two particles, ``(batch, units)``.

    By the law of total variance it is the mean over particles of the variance given the latents sampled before, plus
    the variance over particles of the mean given these. A variance without a closed form is that of the samples.
    """
    by_name, found = {site["name"]: site for site in sites}, {}
    for name, mean in means(by_name.values()).items():
        fn, value = by_name[name]["fn"], by_name[name]["value"]
        try:
            found[name] = units(by_name[name], fn.variance.expand(value.shape)).mean(0) + mean.var(0)
        except NotImplementedError:
            found[name] = units(by_name[name], value).var(0)
    return found


def posterior_means(
    program: Program, x: Any, *, num_samples: int = 16, seed: int = 0, progress: bool = False
) -> Tensor:
    """Return the posterior means of all latents of each example, of shape ``(n, units)``, on the CPU."""

    def mean(*batch: Tensor) -> Tensor:
        return torch.cat([m.mean(0) for m in means(guide_sites(program, batch, num_samples)).values()], -1).double()

    options: dict[str, Any] = {"num_particles": num_samples, "seed": seed, "by_row": True, "progress": progress}
    return over(program, x, mean, desc="posterior means", **options)
