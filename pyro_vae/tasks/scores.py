"""Anomaly scores: log-likelihoods and bounds, and corrections of them."""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.random_state import derive_seed, fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.estimators import ELBO
from pyro_vae.evaluation.likelihood.importance_sampling import importance_sampled
from pyro_vae.evaluation.over import any_order, over, passes, require_order
from pyro_vae.evaluation.posterior.local_guide import LocalGuide
from pyro_vae.programs.program import Program
from pyro_vae.trace import Sampled, run

__all__ = [
    "ImportanceWeighted",
    "InputComplexity",
    "LikelihoodRegret",
    "NegativeBound",
    "Reconstruction",
    "Score",
    "Typicality",
]


class Score(ABC):
    """An anomaly score in nats, higher for more unusual examples; it does not depend on the other examples.

    Example:
        >>> import torch, pyro_vae as pv
        >>> class Length(Score):
        ...     def __call__(self, program, x, *, seed=0):
        ...         return x.norm(dim=-1)
        >>> toy = pv.testing.LinearGaussian()
        >>> pv.tasks.Detector(toy.program, Length(), toy.draw(200)).alarms(torch.full((1, 3), 50.0)).tolist()
        [True]
    """

    @abstractmethod
    def __call__(self, program: Program, x: Any, *, seed: int = 0) -> Tensor:
        """Return the score of each example of ``x`` (rows, or a tuple ``(x, context)``), of shape ``(n,)``."""


@dataclass(frozen=True)
class ImportanceWeighted(Score):
    r"""Negative log-likelihood by importance sampling, :math:`-\log \frac1K \sum_k w_k`.

    Args:
        num_particles: K; fewer than the 1000 of ``evaluation.log_likelihood``, as every new row is scored

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> ImportanceWeighted(10)(toy.program, toy.draw(4)).shape
        torch.Size([4])
    """

    num_particles: int = 100

    def __call__(self, program: Program, x: Any, *, seed: int = 0) -> Tensor:
        """Return the negative log-likelihood of each example."""
        return -importance_sampled(program, x, self.num_particles, seed=seed, by_row=True, progress=False).per_example


@dataclass(frozen=True)
class NegativeBound(Score):
    r"""Negative evidence lower bound, :math:`-E_q[\log p(x \mid z)] + KL(q(z \mid x) \,\|\, p(z))`.

    Args:
        num_particles: samples per example for the expectation

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> NegativeBound()(toy.program, toy.draw(5)).shape
        torch.Size([5])
    """

    num_particles: int = 16

    def __call__(self, program: Program, x: Any, *, seed: int = 0) -> Tensor:
        """Return the negative bound of each example."""

        def bound(batch: tuple[Tensor, ...], k: int) -> Tensor:
            # only the value: posteriors without a gradient are allowed as well
            terms = run(program.model, program.guide, batch, {}, num_particles=k).split()[0]
            return ELBO(num_particles=k).bound(terms, 1.0)

        return -average(bound, program, x, self.num_particles, seed)


@dataclass(frozen=True)
class Reconstruction(Score):
    r"""Negative expected log-likelihood of an example given its own latents, :math:`-E_q[\log p(x \mid z)]`.

    Args:
        num_particles: samples per example for the expectation

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> Reconstruction()(toy.program, toy.draw(5)).shape
        torch.Size([5])
    """

    num_particles: int = 16

    def __call__(self, program: Program, x: Any, *, seed: int = 0) -> Tensor:
        """Return the negative expected log-likelihood of each example."""

        def log_p(batch: tuple[Tensor, ...], k: int) -> Tensor:
            terms = run(program.model, program.guide, batch, {}, num_particles=k, draws=Sampled).split()[0]
            return sum(site.log_p for site in terms.observed).mean(0)

        return -average(log_p, program, x, self.num_particles, seed)


def average(
    function: Callable[[tuple[Tensor, ...], int], Tensor], program: Program, x: Any, num_particles: int, seed: int
) -> Tensor:
    """Return the mean of ``function(batch, k)`` over particles for each example, in passes of bounded memory."""
    num_particles = check_int("num_particles", num_particles)

    def mean(*batch: Tensor) -> Tensor:
        return sum(function(batch, k) * (k / num_particles) for k in passes(batch[0], num_particles))

    return over(program, x, mean, num_particles=num_particles, seed=seed, by_row=True, progress=False).double()


@dataclass(frozen=True)
class LikelihoodRegret(Score):
    r"""Gain of the bound when the posterior of the example is optimised, :math:`\max_q L(x, q) - L(x, q(z \mid x))`.

    The encoder was trained on normal data and fits them well; other examples have more to gain. The parameters of q
    that the encoder computes for each example are optimised, not the weights of the encoder.

    References:
        Likelihood regret: an out-of-distribution detection score for variational auto-encoder (Xiao et al., 2020),
        https://arxiv.org/abs/2003.02977

    Args:
        num_steps: number of steps of Adam
        learning_rate: initial learning rate, which decays to zero
        num_particles: samples per example for each bound

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> LikelihoodRegret(num_steps=20)(toy.program, toy.draw(5)).shape
        torch.Size([5])
    """

    num_steps: int = 200
    learning_rate: float = 0.05
    num_particles: int = 16

    def __call__(self, program: Program, x: Any, *, seed: int = 0) -> Tensor:
        """Return the gain of the bound of each example."""
        num_steps, elbo = check_int("num_steps", self.num_steps), ELBO(num_particles=self.num_particles)

        def regret(*batch: Tensor) -> Tensor:
            def bound(program: Program) -> Tensor:
                return elbo.per_datum(program.model, program.guide, *batch)

            local = LocalGuide(program, batch)
            local.optimize(bound, num_steps, self.learning_rate)
            with fork_rng(batch, derive_seed(seed, 1)):
                after = bound(local)
            with fork_rng(batch, derive_seed(seed, 1)):  # the same noise
                return after - bound(program)

        options: dict[str, Any] = {"num_particles": self.num_particles, "seed": seed, "by_row": True}
        return over(program, x, regret, batch_size=200, progress=False, **options).double()


@dataclass(frozen=True)
class InputComplexity(Score):
    r"""A score minus the length of the compressed example, :math:`s(x) - L(x)`, in nats.

    Simple images have a high likelihood whatever they show, and are short under a general-purpose compressor as well.

    References:
        Input complexity and out-of-distribution detection with likelihood-based generative models (Serra et al.,
        2020), https://arxiv.org/abs/1909.11480

    Args:
        score: the score to correct, such as ``ImportanceWeighted()``
        compress: function from bytes to bytes
        levels: number of grey levels, 2 to 256, to which data between 0 and 1 are rounded before compression

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> InputComplexity(pv.tasks.NegativeBound())(toy.program, toy.draw(5).sigmoid()).shape
        torch.Size([5])
    """

    score: Score
    compress: Callable[[bytes], bytes] = zlib.compress
    levels: int = 256

    def __call__(self, program: Program, x: Any, *, seed: int = 0) -> Tensor:
        """Return the corrected score of each example."""
        require_order(x)
        levels = check_int("levels", self.levels, 2, 256)
        x, *context = over(program, x, lambda *batch: batch, seed=seed, progress=False)
        if x.min() < 0 or x.max() > 1:
            raise ValueError(f"x: expected data between 0 and 1, got {float(x.min()):.3g} to {float(x.max()):.3g}")
        grey = (x * (levels - 1)).round().to(torch.uint8).numpy()
        length = torch.tensor([8 * math.log(2) * len(self.compress(row.tobytes())) for row in grey]).double()
        return self.score(program, (x, *context), seed=seed) - length


@dataclass(frozen=True)
class Typicality(Score):
    r"""Distance of a score from its mean over training data, :math:`\left| s(x) - \tfrac1N \sum_n s(x_n) \right|`.

    Examples with a higher likelihood than all training data are unusual, too.

    References:
        Detecting out-of-distribution inputs to deep generative models using typicality (Nalisnick et al., 2019),
        https://arxiv.org/abs/1906.02994

    Args:
        score: an anomaly score, such as ``ImportanceWeighted()``
        train: training data, or some of them: rows, or a tuple ``(x, context)``

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> Typicality(pv.tasks.NegativeBound(), train=toy.draw(50))(toy.program, toy.draw(5)).shape
        torch.Size([5])
    """

    score: Score
    train: Any

    def __call__(self, program: Program, x: Any, *, seed: int = 0) -> Tensor:
        """Return the distance of each example."""
        mean = self.score(program, any_order(self.train), seed=seed).mean()
        return (self.score(program, x, seed=seed) - mean).abs()
