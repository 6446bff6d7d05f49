"""Where a number that is not finite came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae._util.random_state import fork_rng

if TYPE_CHECKING:
    from pyro_vae.training.svi import SVI

__all__ = ["diagnosis"]


def diagnosis(svi: SVI, batch: tuple[Tensor, ...]) -> str:
    """Return in words the step, the sites that are not finite, the largest gradient, and what to do."""
    name, size = svi.optim.largest()
    rank = f"rank {svi.ranks.rank}, " if svi.ranks.size > 1 else ""
    text = f"{rank}step {svi.steps}: the loss or its gradient is not finite"
    with torch.no_grad(), fork_rng(batch), pyro.validation_enabled(False):
        drawn = poutine.trace(svi.guide).get_trace(*batch)
        scored = poutine.trace(poutine.replay(svi.model, trace=drawn)).get_trace(*batch)
        bad = [
            f"{site['name']!r} in the {where}"
            for where, trace in (("guide", drawn), ("model", scored))
            for site in trace.nodes.values()
            if site["type"] == "sample" and not finite_site(site)
        ]
    text += f"; site {' and '.join(bad)} is not finite" if bad else "; every site is finite by itself"
    return text + (
        f"; the largest gradient is that of {name!r} (norm {size:.3g}). "
        "Lower the learning rate, set clip_norm, or look at the data of this batch"
    )


def finite_site(site: dict[str, Any]) -> bool:
    """Whether value and log-density of a site are finite."""
    value, log_prob = site["value"], site["fn"].log_prob(site["value"])
    return bool(torch.isfinite(log_prob).all() and torch.isfinite(value).all())
