"""A look at model and guide before they are trained on batches of a new shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.programs.program import keep_buffers

if TYPE_CHECKING:
    from pyro_vae.training.svi import SVI

__all__ = ["dry_run"]


def dry_run(svi: SVI, batch: tuple[Tensor, ...], *, check: bool) -> float:
    """Run model and guide once under Pyro's validation, moving nothing, and return the weight of the batch.

    Args:
        svi: the engine
        batch: x and context
        check: whether to prove that program, optimizer and traces hold the same parameters

    Returns:
        The number of data that the batch stands for: its size, times the scale of its plate.
    """
    n = batch[0].shape[0]
    with fork_rng(batch), keep_buffers(svi.program), torch.no_grad(), pyro.validation_enabled(True):
        with poutine.trace(param_only=True) as used:
            drawn = poutine.trace(svi.guide).get_trace(*batch)
            scored = poutine.trace(poutine.replay(svi.model, trace=drawn)).get_trace(*batch)
    if check:
        found = [site["value"].unconstrained() for site in used.trace.nodes.values() if site["type"] == "param"]
        svi.optim.check(found if svi.beside is None else [*found, *svi.beside.parameters()])
    scales = [site["scale"] for site in scored.nodes.values() if site.get("is_observed")]
    return n * float(torch.as_tensor(scales[0]).double().mean()) if scales else float(n)
