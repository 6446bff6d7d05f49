"""A warning about latent sites that the program does not use."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.estimators import Estimator
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.trace import Terms
from pyro_vae.training.schedules import last_step

__all__ = ["is_due", "warn_of_collapse"]

#: Finished epochs and steps before latents are judged: the first steps often use none.
EPOCHS, STEPS = 3, 200

#: Nats per example below which a latent site is collapsed.
NATS = 0.01


def is_due(estimator: Any, rows: list[dict[str, Any]]) -> bool:
    """Return whether latents are judged after the last of these epochs: in one epoch of a run, resumed or not.

    It is the first epoch after the first steps and after the schedule of beta. A beta of 0 is not judged, and neither
    is a capacity, which sets the divergence.
    """

    def settled(row: dict[str, Any]) -> bool:
        started = row["epoch"] + 1 >= EPOCHS and row["step"] >= max(STEPS, last_step(estimator.beta))
        return started and "kl" in row and row["beta"] > 0

    return isinstance(estimator, Estimator) and settled(rows[-1]) and not any(map(settled, rows[:-1]))


def warn_of_collapse(program: Program, estimator: Estimator, batch: tuple[Tensor, ...]) -> None:
    """Warn if the mean divergence of a latent site over a batch is below 0.01 nats per example.

    Args:
        program: the program that is trained
        estimator: its estimator
        batch: x and context
    """

    def divergences(terms: Terms) -> dict[str, Tensor]:
        local = terms.split()[0]
        sites = [s for s in local.latent if not s.auxiliary and (s.marginal is None or not s.marginal.joint)]
        return {site.name: local.kl(site).mean() for site in sites}

    with torch.no_grad(), evaluating(program), fork_rng(batch):
        terms = estimator.terms_for(divergences, estimator.call(program.model, program.guide, batch, {}))
        found = {name: float(kl) for name, kl in divergences(terms).items()}
    collapsed = {name: kl for name, kl in found.items() if abs(kl) < NATS}
    if collapsed:
        warnings.warn(
            "program: expected latents that depend on the data, got a mean KL of "
            + ", ".join(f"{kl:.4f} nats per example at site {name!r}" for name, kl in collapsed.items())
            + " after the first epochs: the posterior is the prior (collapse). Try a KL warm-up "
            "(beta=pyro_vae.training.Linear(...)), free_bits, another activation such as SiLU, or a smaller learning "
            "rate. If the data need no such latent, leave it out",
            stacklevel=2,
        )
