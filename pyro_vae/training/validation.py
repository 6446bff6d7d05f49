"""The bound on held-out data after each epoch."""

from __future__ import annotations

from collections.abc import Callable

from pyro.infer import ELBO as PyroELBO

from pyro_vae._util.random_state import fork_rng
from pyro_vae.estimators import Estimator
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.data.check import check_batch

__all__ = ["mean_bound"]


def mean_bound(
    program: Program, estimator: PyroELBO, batches: Batches, after_batch: Callable[[], None] = lambda: None
) -> float:
    """Return the bound (beta 1) of held-out data in mean nats per example; the noise is the same at each call."""
    total, count = 0.0, 0
    with evaluating(program), fork_rng(batches.device, batches.ranks.seed(batches.seed)):
        for number, batch in enumerate(batches.epoch(0)):
            if not batch.counts:
                continue
            check_batch(program, batches, batch, number)
            if isinstance(estimator, Estimator):
                total += float(estimator.per_datum(program.model, program.guide, *batch).double().sum())
            else:
                total -= float(estimator.loss(program.model, program.guide, *batch))
            count += batch[0].shape[0]
            after_batch()
    total, count = batches.ranks.all_reduce_sum(total, count)
    return total / count
