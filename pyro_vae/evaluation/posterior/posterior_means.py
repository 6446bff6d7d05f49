"""Posterior means and variances of the latents of each example."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.evaluation.over import over
from pyro_vae.programs.program import Program
from pyro_vae.trace import Call, Sampled, Site
from pyro_vae.trace.call import outline

__all__ = ["guide_sites", "means", "posterior_means", "variances"]


def guide_sites(program: Program, batch: tuple[Tensor, ...], num_samples: int) -> list[Site]:
    """Return the guide's sites of each example, with ``num_samples`` samples per example."""
    call = Call(program.model, program.guide, batch, {}, num_samples)
    layout = outline(call).layout
    drawn = call.trace(program.guide, Sampled()).sites
    return [Site(name, None, message, layout) for name, message in drawn.items() if layout.contains(message)]


def means(sites: Iterable[Site]) -> dict[str, Tensor]:
    """Return by name the mean of each local latent given those sampled before it, ``(particles, batch, units)``.

    Samples replace a mean without a closed form. The average over particles is the posterior mean.

    Raises:
        ValueError: the guide has no local latents.
    """
    found = {}
    for site in sites:
        # missing entries that the guide samples are data, not latents
        drawn = site.guide
        hidden = drawn["infer"].get("is_auxiliary") or site.name == "missing"
        if not drawn["is_observed"] and not hidden:
            try:
                value = drawn["fn"].mean
            except NotImplementedError:
                value = drawn["value"]
            found[site.name] = site.per_row(value.expand(drawn["value"].shape))
    if not found:
        raise ValueError("program: expected latents for each example, but its guide samples none")
    return found


def variances(sites: Iterable[Site]) -> dict[str, Tensor]:
    """Return by name the posterior variance of each local latent, from at least two particles, ``(batch, units)``.

    By the law of total variance it is the mean over particles of the variance given the latents sampled before, plus
    the variance over particles of the mean given these. A variance without a closed form is that of the samples.
    """
    by_name, found = {site.name: site for site in sites}, {}
    for name, mean in means(by_name.values()).items():
        site, fn, value = by_name[name], by_name[name].guide["fn"], by_name[name].guide["value"]
        try:
            found[name] = site.per_row(fn.variance.expand(value.shape)).mean(0) + mean.var(0)
        except NotImplementedError:
            found[name] = site.per_row(value).var(0)
    return found


def posterior_means(
    program: Program, x: Any, *, num_samples: int = 16, seed: int = 0, progress: bool = False
) -> Tensor:
    """Return the posterior means of all latents of each example, of shape ``(n, units)``, on the CPU."""

    def mean(*batch: Tensor) -> Tensor:
        return torch.cat([m.mean(0) for m in means(guide_sites(program, batch, num_samples)).values()], -1).double()

    options: dict[str, Any] = {"num_particles": num_samples, "seed": seed, "by_row": True, "progress": progress}
    return over(program, x, mean, desc="posterior means", **options)
