"""Rate and distortion of programs trained with several weights of the divergence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyro_vae._util.lock import in_turn
from pyro_vae.evaluation.over import read_once
from pyro_vae.evaluation.posterior.latents import Latents, latents
from pyro_vae.evaluation.result import Result
from pyro_vae.programs.program import Program

__all__ = ["RateDistortion", "rate_distortion"]


@dataclass(frozen=True)
class RateDistortion(Result, plot="rate_distortion"):
    """Points of the rate-distortion curve.

    Attributes:
        points: by beta, the latents of the program
    """

    points: dict[float, Latents]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per program, in nats per example."""
        return [
            {
                "beta": beta,
                "rate": sum(found.rate.values()),
                "distortion": found.distortion,
                "bound": -found.distortion - sum(found.rate.values()),
                "active": sum(found.active.values()),
            }
            for beta, found in self.points.items()
        ]


@in_turn
def rate_distortion(
    programs: Mapping[float, Program], x: Any, *, seed: int = 0, progress: bool = True
) -> RateDistortion:
    r"""Compute rate and distortion of trained programs.

    .. math:: R = \mathbb E_x\, \mathrm{KL}[q(z \mid x) \| p(z)], \quad
              D = -\mathbb E_x\, \mathbb E_q[\log p(x \mid z)], \qquad \text{ELBO} = -D - R

    A program trained with beta minimizes :math:`D + \beta R`, so the slope of the curve is minus beta.

    References:
        Fixing a broken ELBO (Alemi et al., 2018), https://arxiv.org/abs/1711.00464

    Args:
        programs: by beta, such as ``{beta: train(ELBO(beta=beta)) for beta in (0.5, 1, 2)}``
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        seed: random seed
        progress: show a progress bar for each program

    Returns:
        The points in order of beta.

    Raises:
        ValueError: there is no program, or the data do not fit one.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> found = rate_distortion({1.0: toy.program}, toy.draw(50))
        >>> [row["active"] for row in found.rows()]
        [2]
    """
    if not programs:
        raise ValueError("programs: expected at least one trained program by its beta, got none")
    options: dict[str, Any] = {"seed": seed, "progress": progress}
    x = read_once(next(iter(programs.values())), x, seed=seed)
    return RateDistortion({float(beta): latents(programs[beta], x, **options) for beta in sorted(programs)})
