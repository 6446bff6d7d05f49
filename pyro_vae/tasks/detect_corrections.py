"""Scores of anomalies that correct the likelihood for what makes it high."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.estimators import ELBO
from pyro_vae.evaluation.inputs import batches_of
from pyro_vae.evaluation.posterior.local import Local
from pyro_vae.programs.program import Program, device_of, evaluating
from pyro_vae.tasks.detect import Score

__all__ = ["InputComplexity", "LikelihoodRegret", "Typicality"]

#: Data whose posterior is optimised at once.
ROWS = 200


@dataclass(frozen=True)
class LikelihoodRegret(Score):
    r"""How much the bound rises once the posterior of the datum is optimised for it alone.

    .. math:: \max_q L(x, q) - L(x, q(z \mid x))

    The encoder was trained on normal data and serves them well; for others there is more to gain. Here the numbers of
    the posterior are optimised, which the encoder made, and not the encoder itself.

    References:
        Likelihood regret: an out-of-distribution detection score for variational auto-encoder (Xiao et al., 2020),
        https://arxiv.org/abs/2003.02977

    Args:
        steps: of Adam
        rate: its learning rate, which falls to zero
        num_particles: draws of each bound

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> LikelihoodRegret(steps=20)(toy.program, toy.draw(5)).shape
        torch.Size([5])
    """

    steps: int = 200
    rate: float = 0.05
    num_particles: int = 16

    def __call__(self, program: Program, x: Any, *, seed: int = 0) -> Tensor:
        """Return the rise of the bound of each datum."""
        batches = batches_of(program, x, ROWS)
        bound = ELBO(num_particles=self.num_particles)
        rows = []
        with evaluating(program), fork_rng(device_of(program), seed):
            for batch in batches.epoch(0):
                before = bound.per_datum(program.model, program.guide, *batch)
                local = Local(program, batch)
                local.optimize(
                    lambda p, batch=batch: bound.per_datum(p.model, p.guide, *batch),
                    self.steps,
                    self.rate,
                    lambda: None,
                )
                rows.append(bound.per_datum(local.model, local.guide, *batch) - before)
        return torch.cat(rows).double().cpu()


@dataclass(frozen=True)
class InputComplexity(Score):
    r"""A score less the length of the datum under a general compressor, :math:`s(x) - L(x)`, in nats.

    Simple images get a high likelihood whatever they show, and short codes as well.

    References:
        Input complexity and out-of-distribution detection with likelihood-based generative models (Serra et al.,
        2020), https://arxiv.org/abs/1909.11480

    Args:
        score: such as ``ImportanceWeighted()``
        compress: from bytes to bytes
        levels: data between 0 and 1 are rounded to so many grey levels before

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
        """Return the corrected score of each datum."""
        data = torch.cat([batch[0] for batch in batches_of(program, x, ROWS).epoch(0)])
        if data.min() < 0 or data.max() > 1 or not 2 <= self.levels <= 256:
            raise ValueError(
                f"x: expected data between 0 and 1 and 2 to 256 levels of them, got {float(data.min()):.3g} to "
                f"{float(data.max()):.3g} and {self.levels}"
            )
        grey = (data * (self.levels - 1)).round().to(torch.uint8).cpu().numpy()
        length = torch.tensor([8 * math.log(2) * len(self.compress(row.tobytes())) for row in grey]).double()
        return self.score(program, x, seed=seed) - length


@dataclass(frozen=True)
class Typicality(Score):
    r"""How far a score is from its mean over training data, to either side.

    .. math:: \left| s(x) - \tfrac1N \sum_n s(x_n) \right|

    Data of a higher likelihood than any training datum are as unusual as those of a lower one.

    References:
        Detecting out-of-distribution inputs to deep generative models using typicality (Nalisnick et al., 2019),
        https://arxiv.org/abs/1906.02994

    Args:
        score: such as ``ImportanceWeighted()``
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
        """Return the distance of each datum."""
        return (self.score(program, x, seed=seed) - self.score(program, self.train, seed=seed).mean()).abs()
