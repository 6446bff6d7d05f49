"""What the latents carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.estimators.trace import run
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.rng import fork_rng
from pyro_vae.training.batches import Batches

__all__ = ["Latents", "latents"]


@dataclass(frozen=True)
class Latents:
    r"""How the aggregate of all posteriors uses each latent.

    Attributes:
        variance: for each site, the variance over the data of the posterior mean of each latent
        threshold: a latent whose variance is above it is active
    """

    variance: dict[str, Tensor]
    threshold: float

    @property
    def active(self) -> dict[str, int]:
        """Number of active latents of each site."""
        return {name: int((v > self.threshold).sum()) for name, v in self.variance.items()}

    def __str__(self) -> str:
        return ", ".join(
            f"{self.active[name]} of {v.numel()} units of {name!r} active (variance of the posterior mean above "
            f"{self.threshold})"
            for name, v in self.variance.items()
        )


def latents(
    program: Program,
    x: Any,
    *,
    threshold: float = 0.01,
    batch_size: int = 500,
    draws: int = 64,
    seed: int = 0,
) -> Latents:
    r"""Count active units: latents whose posterior mean moves with the datum.

    .. math:: A_j = \operatorname{Var}_{x}\left(\mathbb E_{q(z \mid x)}[z_j]\right) > \text{threshold}

    References:
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519

    Args:
        program: a Program
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        threshold: of the variance, 0.01 as in the paper
        batch_size: data at a time
        draws: for a posterior without a mean in closed form, how many draws estimate it
        seed: of the draws

    Returns:
        The variances and counts; prints as one line.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> pv.evaluation.latents(toy.program, toy.draw(500)).active
        {'z': 2}
    """
    first = next(program.parameters(), torch.zeros(()))
    batches = Batches(x, batch_size=batch_size, shuffle=False, device=first.device, dtype=first.dtype)
    means: dict[str, list[Tensor]] = {}
    with evaluating(program), fork_rng(first.device, seed):
        for batch in batches.epoch(0):
            for site in run(program.model, program.guide, batch, {}).latent:
                if site.local:
                    means.setdefault(site.name, []).append(mean_of(site.guide["fn"], draws))
    joined = {name: torch.cat(parts).double().cpu() for name, parts in means.items()}
    return Latents({name: m.var(0, correction=0) for name, m in joined.items()}, threshold)


def mean_of(fn: Any, draws: int) -> Tensor:
    """Return the mean of a distribution, from draws where it has no closed form."""
    try:
        return fn.mean
    except NotImplementedError:
        return fn.sample((draws,)).mean(0)
