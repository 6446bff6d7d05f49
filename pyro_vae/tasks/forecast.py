"""Forecasts of sequences, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vae._util.arrays import as_tensor
from pyro_vae._util.lock import in_turn
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.over import over
from pyro_vae.programs import SequenceVAE
from pyro_vae.tasks.imputation import central_interval, covered

__all__ = ["Forecast", "forecast"]


@dataclass(frozen=True)
class Forecast:
    r"""Samples of the steps after the end of each sequence.

    Attributes:
        samples: samples from :math:`p(x_{L+1:L+H} \mid x_{1:L})` of H steps, of shape ``(num_samples, n, H, *shape)``,
            on the CPU. Steps of one sample belong together
    """

    samples: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean of the samples, of shape ``(n, H, *shape)``."""
        return self.samples.mean(0)

    def interval(self, level: float) -> tuple[Tensor, Tensor]:
        """Return the ends of the central interval of each entry with probability ``level``, ``(n, H, *shape)`` each.

        Raises:
            ValueError: the level is not a probability, or there are too few samples to estimate the ends.
        """
        return central_interval(self.samples, level, "Forecast")

    def coverage(self, truth: Any, level: float) -> float:
        """Return the share of entries whose true value is in the interval; ``level`` if that is correct.

        Entries of ``truth``, of shape ``(n, H, *shape)``, that are NaN are left out.

        Raises:
            ValueError: the truth has another shape or no number.
        """
        truth = as_tensor(truth).to(self.samples)
        known = ~torch.isnan(truth)
        if truth.shape != self.samples.shape[1:] or not known.any():
            raise ValueError(
                f"truth: expected shape {tuple(self.samples.shape[1:])} with numbers, got {tuple(truth.shape)} with "
                f"{int(known.sum()):,} numbers"
            )
        return covered(truth, *self.interval(level), known)

    def __repr__(self) -> str:
        num_samples, n, steps = self.samples.shape[:3]
        return f"Forecast({n:,} sequences, {steps} steps ahead, {num_samples:,} samples)"


@in_turn
def forecast(
    program: SequenceVAE,
    x: Any,
    *,
    num_steps: int,
    num_samples: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> Forecast:
    r"""Forecast the steps after the end of each sequence.

    .. math:: p(x_{L+1:L+H} \mid x_{1:L}) \approx \int q(z_L \mid x_{1:L})
              \prod_{t=L+1}^{L+H} p(z_t \mid z_{t-1})\, p(x_t \mid z_t)\, dz

    Exact where the posterior is. The samples of a sequence do not depend on the other sequences.

    References:
        Structured inference networks for nonlinear state space models (Krishnan et al., 2017),
        https://arxiv.org/abs/1609.09869

    Args:
        program: a SequenceVAE
        x: sequences as ``fit`` takes them: what ``data.read`` returns, an array, ``(x, lengths)`` or
            ``(x, lengths, inputs)``, with inputs also of the steps after the end of each sequence
        num_steps: H, number of further steps
        num_samples: samples of each sequence, of which each runs the networks once per step
        seed: random seed
        progress: show a progress bar

    Returns:
        The samples, with means and intervals.

    Raises:
        TypeError: the program is no SequenceVAE.
        ValueError: the data do not fit the program, or inputs of the steps ahead are missing.

    Example:
        >>> import pyro_vae as pv
        >>> program = pv.programs.SequenceVAE.example()
        >>> x, lengths = torch.randn(3, 5, 4), torch.tensor([5, 5, 2])
        >>> found = forecast(program, (x, lengths), num_steps=6, num_samples=100)
        >>> lower, upper = found.interval(0.9)
        >>> lower.shape, found
        (torch.Size([3, 6, 4]), Forecast(3 sequences, 6 steps ahead, 100 samples))
    """
    if not isinstance(program, SequenceVAE):
        raise TypeError(f"program: expected a SequenceVAE, which has later steps, got {type(program).__name__}")
    num_steps, num_samples = check_int("num_steps", num_steps), check_int("num_samples", num_samples)

    def function(*batch: Tensor) -> Tensor:
        with pyro.plate("samples", num_samples, dim=-2):
            return program.decode_ahead(*batch, num_steps=num_steps).sample().transpose(0, 1)

    options: dict[str, Any] = {
        "seed": seed,
        "by_row": True,
        "check": partial(program.check_ahead, num_steps=num_steps),
    }
    found = over(program, x, function, num_particles=num_samples, desc="forecast", progress=progress, **options)
    return Forecast(found.transpose(0, 1))
