"""Whether data like the observed ones come out of the model: posterior predictive checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.inputs import one_batch
from pyro_vae.evaluation.laboratory.table import number
from pyro_vae.evaluation.posterior.simulate import simulate
from pyro_vae.evaluation.representation.codes import Sampled
from pyro_vae.evaluation.result import Result
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.trace import Call

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PredictiveCheck", "predictive_check"]


@dataclass(frozen=True)
class PredictiveCheck(Result):
    """Test statistics of the data beside those of data that the program made.

    Attributes:
        observed: by name, the statistic of the data
        replicated: by name, those of the replicates, of shape ``(replicates,)``
    """

    observed: dict[str, float]
    replicated: dict[str, Tensor]

    @property
    def p_values(self) -> dict[str, float]:
        """Two-sided shares of replicates as far out as the data; small where the model misses the statistic."""
        found = {}
        for name, value in self.observed.items():
            r = self.replicated[name]
            above, below = (int((r >= value).sum()), int((r <= value).sum()))
            found[name] = min(1.0, 2 * (1 + min(above, below)) / (1 + len(r)))
        return found

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a statistic."""
        return [
            {
                "statistic": name,
                "observed": value,
                "replicated": float(self.replicated[name].mean()),
                "deviation": float(self.replicated[name].std()),
                "p": self.p_values[name],
            }
            for name, value in self.observed.items()
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return the rows as they are printed."""
        return [
            {
                "statistic": row["statistic"],
                "observed": number(row["observed"], digits=4),
                "replicated (mean, deviation)": f"{number(row['replicated'], digits=4)}, {number(row['deviation'])}",
                "p": number(row["p"], digits=2),
            }
            for row in self.rows()
        ]

    def plot(self) -> Figure:
        """Draw each statistic of the data in the histogram of its replicates."""
        from pyro_vae.plots import predictive_checks

        return predictive_checks(self)


def predictive_check(
    program: Program,
    x: Any,
    statistics: Mapping[str, Callable[[Tensor], Tensor]],
    *,
    replicates: int = 200,
    prior: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> PredictiveCheck:
    r"""Compare statistics T of the data with those of replicated data.

    .. math:: x^{\text{rep}}_n \sim \int p(x \mid z)\, q(z \mid x_n)\, dz \quad\text{or}\quad
              x^{\text{rep}}_n \sim p(x), \qquad p = P(T(x^{\text{rep}}) \ge T(x)), \text{ two-sided}

    The replicates of the first kind have seen the data and agree with them too easily; with ``prior=True`` they are
    new data sets of the model, and the p-value is uniform if the model is true.

    References:
        Posterior predictive assessment of model fitness via realized discrepancies (Gelman et al., 1996)

    Args:
        program: a Program that observes x alone
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        statistics: by name, callables from a data set of the shape of ``x`` to one number
        replicates: how many data sets are made
        prior: whether the latents are drawn from the prior
        seed: of all noise
        progress: show a progress bar

    Returns:
        The statistics: they print, export and plot.

    Raises:
        ValueError: the data do not fit the program, it observes more than x, or a statistic is no single number.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> found = predictive_check(toy.program, toy.draw(50), {"spread": lambda x: x.std()}, prior=True)
        >>> found.p_values["spread"] > 0.01
        True
    """
    check_int("replicates", replicates)
    batch = one_batch(program, x)
    observed = {name: value_of(name, statistic, batch[0]) for name, statistic in statistics.items()}
    found: dict[str, list[float]] = {name: [] for name in statistics}
    with evaluating(program), fork_rng(batch, seed):
        call = Call(program.model, program.guide, batch, {})
        for _ in progress_bar(range(replicates), desc="replicates", unit="set", progress=progress):
            given = None if prior else call.trace(program.guide, Sampled()).sites
            made = simulate(program, batch, given)
            for name, statistic in statistics.items():
                found[name].append(value_of(name, statistic, made.batch[0]))
    return PredictiveCheck(observed, {name: torch.tensor(values) for name, values in found.items()})


def value_of(name: str, statistic: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Return a statistic as a number."""
    value = torch.as_tensor(statistic(x))
    if value.numel() != 1:
        raise ValueError(
            f"statistics: {name!r} gives shape {tuple(value.shape)} for a data set of shape {tuple(x.shape)}; "
            "expected one number, such as lambda x: x.std()"
        )
    return float(value)
