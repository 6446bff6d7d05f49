"""Training on data that contain anomalies."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int, check_number
from pyro_vae.estimators import ELBO
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.training.fit import fit
from pyro_vae.training.history import History

__all__ = ["fit_trimmed"]

#: Share of the epochs before rows are left out; samples per row for its bound, and rows at once.
FIRST, PARTICLES, ROWS = 0.25, 16, 1000


def fit_trimmed(
    program: Program, x: Tensor, *, trim: float = 0.2, epochs: int = 10, seed: int = 0, **options: Any
) -> History:
    r"""Train a program on rows of which some are anomalies, so that it does not learn them.

    A quarter of the epochs trains on all rows. The others train on the rows with the largest bounds at that time, the
    concentration step of trimmed likelihoods. The program remains a density of the other rows, but a poor one in the
    tails: pass ``trim=0``, or use ``fit``, where all rows count.

    References:
        A fast algorithm for the minimum covariance determinant estimator (Rousseeuw and Van Driessen, 1999),
        https://doi.org/10.1080/00401706.1999.10485670

    Args:
        program: a Program
        x: rows of data, of shape ``(n, *shape)``
        trim: share of the rows that are left out, from 0 to below 1
        epochs: passes over the rows
        seed: random seed of both trainings
        options: other options of ``fit``

    Returns:
        The history of all epochs.

    Raises:
        ValueError: ``trim`` is out of range, or what ``fit`` raises.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> len(fit_trimmed(toy.program, toy.draw(256), epochs=8, progress=False))
        8
    """
    trim, epochs = check_number("trim", trim, 0, below=1), check_int("epochs", epochs)
    first = max(1, round(FIRST * epochs))
    if not trim or first == epochs:
        return fit(program, x, epochs=epochs, seed=seed, **options)
    history = fit(program, x, epochs=first, seed=seed, **options)
    bound = partial(ELBO(num_particles=PARTICLES).per_datum, program.model, program.guide)
    with evaluating(program), fork_rng(program.device, seed):
        likely = torch.cat([bound(rows.to(program.device, program.dtype)) for rows in x.split(ROWS)])
    kept = likely.cpu().argsort(descending=True)[: max(1, round((1 - trim) * len(x)))].sort().values
    last = history[-1]
    for row in fit(program, x[kept], epochs=epochs - first, seed=seed, **options):
        history.append(row | {key: row[key] + last[key] + (key == "epoch") for key in ("epoch", "step", "seconds")})
    return history
