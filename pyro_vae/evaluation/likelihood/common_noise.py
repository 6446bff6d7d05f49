"""The log-likelihood of rows that share the noise of their samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.evaluation.likelihood.log_likelihood import log_weights
from pyro_vae.programs.program import Program, evaluating

__all__ = ["log_likelihood_with_common_noise"]

#: Particles of all rows that are in memory at once.
PARTICLES = 2**15


def log_likelihood_with_common_noise(program: Program, x: Tensor, *, num_particles: int, seed: int) -> Tensor:
    """Estimate the log-likelihood of each row by importance sampling, with the same noise for all rows.

    The estimate of a row does not depend on the other rows, and the errors of the rows are correlated.

    Args:
        program: a Program
        x: rows, on the device and in the type of the program
        num_particles: samples per row
        seed: random seed

    Returns:
        Nats, float64, of shape ``(n,)``.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> x = toy.draw(10)
        >>> found = log_likelihood_with_common_noise(toy.program, x, num_particles=5, seed=0)
        >>> torch.equal(found[:3], log_likelihood_with_common_noise(toy.program, x[:3], num_particles=5, seed=0))
        True
    """

    def score(row: Tensor) -> Tensor:
        return log_weights(program, (row.unsqueeze(0),), num_particles).squeeze(1).double().logsumexp(0)

    with evaluating(program), fork_rng(seed=seed):
        start = torch.get_rng_state()
        try:
            found = torch.vmap(score, randomness="same", chunk_size=max(1, PARTICLES // num_particles))(x)
        except RuntimeError:  # a part whose control flow depends on the values of a row cannot be vectorized
            rows = []
            for row in x:
                torch.set_rng_state(start)
                rows.append(score(row))
            found = torch.stack(rows)
    return found - math.log(num_particles)
