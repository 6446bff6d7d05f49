"""Anomaly detection at a chosen false alarm rate, and the entries that make an example unusual."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.validation import check_int, check_number
from pyro_vae.distributions.missing import factorized, hide_missing
from pyro_vae.evaluation.over import any_order, over
from pyro_vae.programs.program import Program
from pyro_vae.tasks.decoding import require_vae
from pyro_vae.tasks.scores import Score

__all__ = ["Detector", "attribution"]


class Detector:
    r"""An anomaly detector: raise an alarm where the score of an example exceeds a threshold.

    The threshold is the :math:`\lceil (n + 1)(1 - \alpha) \rceil`-th smallest score of n held-out normal examples
    (split conformal prediction). A new normal example then raises an alarm with probability at most :math:`\alpha`,
    whatever the quality of the model, and at least :math:`\alpha - 1/(n + 1)` if no scores are equal. How many
    anomalies raise one depends on the model: for tables, :class:`pyro_vae.training.AnomalyDefaults` has settings that
    find more than those of a model with the best likelihood.

    References:
        Algorithmic learning in a random world (Vovk et al., 2005), https://doi.org/10.1007/b106715

    Args:
        program: a trained Program
        score: an anomaly score, such as ``ImportanceWeighted()``
        normal: normal data that the program was not trained on: rows, or a tuple ``(x, context)``
        false_alarm_rate: alpha, between 0 and 1
        seed: random seed of the scores

    Attributes:
        threshold: scores above it raise an alarm
        reference: sorted scores of the normal data, of shape ``(n,)``

    Raises:
        ValueError: the data do not fit the program, or are too few for the false alarm rate.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> detector = Detector(toy.program, pv.tasks.NegativeBound(), toy.draw(200))
        >>> detector.alarms(toy.draw(3) + 10.0).tolist()
        [True, True, True]
    """

    @in_turn
    def __init__(
        self, program: Program, score: Score, normal: Any, *, false_alarm_rate: float = 0.05, seed: int = 0
    ) -> None:
        check_number("false_alarm_rate", false_alarm_rate, above=0, below=1)
        self.program, self.score, self.seed = program, score, seed
        self.reference = score(program, any_order(normal), seed=seed).sort().values
        if not torch.isfinite(self.reference).all():
            raise ValueError("normal: expected finite scores to find a threshold, got NaN or infinite ones")
        # rounded, so that 19 examples are enough for a rate of 0.05
        n, least = len(self.reference), math.ceil(round(1 / false_alarm_rate, 9)) - 1
        if n < least:
            raise ValueError(
                f"normal: expected at least {least} examples for a false alarm rate of {false_alarm_rate}, got {n}"
            )
        rank = math.ceil(round((n + 1) * (1 - false_alarm_rate), 9))
        self.threshold = float(self.reference[rank - 1])

    def scores(self, x: Any) -> Tensor:
        """Return the score of each example, of shape ``(n,)``."""
        return self.score(self.program, x, seed=self.seed)

    def alarms(self, x: Any) -> Tensor:
        """Return whether the score of each example exceeds the threshold, of shape ``(n,)``."""
        return self.scores(x) > self.threshold

    def p_values(self, x: Any) -> Tensor:
        """Return the conformal p-value of each example: the share of it and the normal data with scores as high."""
        above = len(self.reference) - torch.searchsorted(self.reference, self.scores(x))
        return (1 + above) / (1 + len(self.reference))


@in_turn
def attribution(program: Program, x: Any, *, num_particles: int = 64, seed: int = 0, progress: bool = True) -> Tensor:
    r"""Return the contribution of each entry to the reconstruction score of its example.

    .. math:: a_i = -E_{q(z \mid x)}[\log p(x_i \mid z)], \qquad \sum_i a_i = -E_q[\log p(x \mid z)]

    Subtract the mean contribution over normal data to discount entries that are always noisy.

    Args:
        program: a VAE whose likelihood is a product over entries
        x: rows of data, or a tuple ``(x, context)``
        num_particles: samples per example for the expectation
        seed: random seed
        progress: show a progress bar

    Returns:
        Nats, of the shape of ``x``, on the CPU; 0 for a missing entry.

    Raises:
        ValueError: the data do not fit the program, or its likelihood is not a product over entries.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> x = toy.draw(3)
        >>> x[1, 2] += 20.0
        >>> attribution(toy.program, x)[1].argmax()
        tensor(2)
    """
    num_particles = check_int("num_particles", num_particles)
    vae = require_vae(program)

    def entries(x: Tensor, *context: Tensor) -> Tensor:
        fn = vae.decode(vae.encode(x, *context).sample((num_particles,)), *context)
        if not factorized(fn):
            raise ValueError(
                f"program: expected a likelihood that is a product over entries, got {type(vae.likelihood).__name__}"
            )
        _, filled = hide_missing(fn, x)
        return torch.where(torch.isnan(x), 0.0, -fn.base_dist.log_prob(filled).mean(0))

    options: dict[str, Any] = {"num_particles": num_particles, "seed": seed, "by_row": True, "progress": progress}
    return over(vae, x, entries, desc="attribution", **options)
