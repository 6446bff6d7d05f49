"""How unusual a datum is, and an alarm at a chosen rate of false ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.estimators import ELBO
from pyro_vae.evaluation.inputs import at_once, batches_of
from pyro_vae.evaluation.likelihood.log_likelihood import log_likelihood
from pyro_vae.evaluation.representation.codes import Sampled
from pyro_vae.programs.program import Program, device_of, evaluating
from pyro_vae.trace import run

__all__ = ["Detector", "ImportanceWeighted", "NegativeBound", "Reconstruction", "Score"]


class Score(ABC):
    """A number for each datum that is higher the more unusual the datum is, in nats.

    Example:
        >>> import torch, pyro_vae as pv
        >>> class Length(Score):
        ...     def __call__(self, program, x, *, seed=0):
        ...         return x.norm(dim=-1)
        >>> toy = pv.testing.LinearGaussian()
        >>> Detector(toy.program, Length(), toy.draw(200)).alarms(torch.full((1, 3), 50.0)).tolist()
        [True]
    """

    @abstractmethod
    def __call__(self, program: Program, x: Any, *, seed: int = 0) -> Tensor:
        """Return the score of each datum of ``x`` (rows, or a tuple ``(x, context)``), of shape ``(n,)``."""


@dataclass(frozen=True)
class ImportanceWeighted(Score):
    r"""Minus the log-likelihood, by importance sampling: :math:`-\log \frac1K \sum_k w_k`.

    Args:
        num_particles: K

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> ImportanceWeighted(10)(toy.program, toy.draw(4)).shape
        torch.Size([4])
    """

    num_particles: int = 500

    def __call__(self, program: Program, x: Any, *, seed: int = 0) -> Tensor:
        """Return minus the log-likelihood of each datum."""
        return -log_likelihood(program, x, num_particles=self.num_particles, seed=seed).per_datum


@dataclass(frozen=True)
class NegativeBound(Score):
    r"""Minus the evidence lower bound: :math:`-E_q[\log p(x \mid z)] + KL(q(z \mid x) \,\|\, p(z))`.

    Args:
        num_particles: draws over which it is averaged

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> NegativeBound()(toy.program, toy.draw(5)).shape
        torch.Size([5])
    """

    num_particles: int = 16

    def __call__(self, program: Program, x: Any, *, seed: int = 0) -> Tensor:
        """Return minus the bound of each datum."""

        def bound(batch: tuple[Tensor, ...], k: int) -> Tensor:
            # the value alone: without a gradient any posterior will do, also one that no gradient can go through
            terms = run(program.model, program.guide, batch, {}, num_particles=k).split()[0]
            return ELBO(num_particles=k).bound(terms, 1.0)

        return -averaged(bound, program, x, self.num_particles, seed)


@dataclass(frozen=True)
class Reconstruction(Score):
    r"""Minus the mean log-likelihood of a datum given its own latents: :math:`-E_q[\log p(x \mid z)]`.

    Args:
        num_particles: draws over which it is averaged

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> Reconstruction()(toy.program, toy.draw(5)).shape
        torch.Size([5])
    """

    num_particles: int = 16

    def __call__(self, program: Program, x: Any, *, seed: int = 0) -> Tensor:
        """Return minus the mean log-likelihood of each datum."""

        def log_p(batch: tuple[Tensor, ...], k: int) -> Tensor:
            terms = run(program.model, program.guide, batch, {}, num_particles=k, draws=Sampled).split()[0]
            return sum(site.log_p for site in terms.observed).mean(0)

        return -averaged(log_p, program, x, self.num_particles, seed)


def averaged(
    each: Callable[[tuple[Tensor, ...], int], Tensor], program: Program, x: Any, num_particles: int, seed: int
) -> Tensor:
    """Return a mean over particles for each datum, in passes whose memory is bounded whatever their number."""
    check_int("num_particles", num_particles)
    batches = batches_of(program, x)
    most = at_once(batches)
    batches.batch_size = max(1, most // num_particles)
    sizes = [min(most, num_particles - done) for done in range(0, num_particles, most)]
    with evaluating(program), fork_rng(device_of(program), seed):
        rows = [sum(each(batch, k) * (k / num_particles) for k in sizes) for batch in batches.epoch(0)]
    return torch.cat(rows).double().cpu()


class Detector:
    r"""An alarm where the score of a datum is above a threshold that few normal data reach.

    The threshold is the :math:`\lceil (n + 1)(1 - \alpha) \rceil`-th smallest score of n held-out normal data: for a
    new normal datum the probability of an alarm is then at most :math:`\alpha`, whatever the model is worth, and at
    least :math:`\alpha - 1/(n + 1)` if no scores are equal.

    References:
        Algorithmic learning in a random world (Vovk et al., 2005), https://doi.org/10.1007/b106715

    Args:
        program: a trained Program
        score: such as ``ImportanceWeighted()``
        normal: normal data that the program was not trained on: rows, or a tuple ``(x, context)``
        false_alarms: alpha
        seed: of all noise

    Attributes:
        threshold: above it is an alarm
        reference: the scores of the normal data, in order, of shape ``(n,)``

    Raises:
        ValueError: the data do not fit the program, or are too few for the rate.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> detector = Detector(toy.program, NegativeBound(), toy.draw(200))
        >>> detector.alarms(toy.draw(3) + 10.0).tolist()
        [True, True, True]
    """

    def __init__(
        self, program: Program, score: Score, normal: Any, *, false_alarms: float = 0.05, seed: int = 0
    ) -> None:
        if not 0 < false_alarms < 1:
            raise ValueError(f"false_alarms: expected a number between 0 and 1, got {false_alarms}")
        self.program, self.score, self.seed = program, score, seed
        self.reference = score(program, normal, seed=seed).sort().values
        if not torch.isfinite(self.reference).all():
            raise ValueError("normal: the score of a datum is not finite, so that no threshold can be found")
        n = len(self.reference)
        rank = math.ceil(round((n + 1) * (1 - false_alarms), 9))
        check_int("normal: number of data for this rate of false alarms", n, math.ceil(round(1 / false_alarms, 9)) - 1)
        self.threshold = float(self.reference[rank - 1])

    def scores(self, x: Any) -> Tensor:
        """Return the score of each datum, of shape ``(n,)``."""
        return self.score(self.program, x, seed=self.seed)

    def alarms(self, x: Any) -> Tensor:
        """Return whether each datum is above the threshold, of shape ``(n,)``."""
        return self.scores(x) > self.threshold

    def p_values(self, x: Any) -> Tensor:
        """Return for each datum the share of normal data with a score as high, itself counted among them."""
        above = len(self.reference) - torch.searchsorted(self.reference, self.scores(x))
        return (1 + above) / (1 + len(self.reference))
