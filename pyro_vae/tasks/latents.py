"""What the tasks ask of a program before they work on its latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.data.tables import Categorical
from pyro_vae.evaluation.inputs import at_once, batches_of
from pyro_vae.programs import VAE
from pyro_vae.programs.program import Program, device_of, evaluating, mean_or_draw

__all__ = ["as_context", "decoded", "each_batch", "labels_of", "one_latent"]

#: Data decoded at once.
ROWS = 1000


def one_latent(program: Any) -> VAE:
    """Refuse a program whose data have no single latent z, decoded by one likelihood."""
    if not isinstance(program, VAE):
        raise TypeError(
            f"program: expected a VAE, whose data are decoded from one latent z, got {type(program).__name__}; "
            "its own method `sample`, where it has one, draws new data"
        )
    return program


def as_context(program: Program, context: Sequence[Any], n: int) -> tuple[Tensor, ...]:
    """Return rows of context where the program is, one a datum."""
    like = next(program.parameters(), torch.zeros(()))
    rows = tuple(torch.as_tensor(c).to(device=like.device, dtype=like.dtype) for c in context)
    for i, c in enumerate(rows):
        if len(c) != n:
            raise ValueError(f"context[{i}]: expected {n} rows, one a datum, got shape {tuple(c.shape)}")
    return rows


def decoded(program: VAE, z: Tensor, context: Sequence[Tensor], *, mean: bool) -> Tensor:
    """Return means or draws of p(x given z) for latents ``(n, latent)``, a bounded number at once."""
    parts = []
    for start in range(0, len(z), ROWS):
        rows = [c[start : start + ROWS] for c in context]
        fn: TorchDistributionMixin = program.decode(z[start : start + ROWS], *rows)
        parts.append(mean_or_draw(fn) if mean else fn.sample())
    return torch.cat(parts)


def each_batch(program: Program, x: Any, tell: Callable[..., Tensor], *, draws: int, seed: int) -> Tensor:
    """Return what ``tell(vae, z, x, *context)`` says of data and draws of their latents, a bounded number at once.

    Args:
        program: a VAE
        x: rows of data, or a tuple ``(x, context)``
        tell: given z of shape ``(draws, batch, latent)``; its rows of all batches are put together
        draws: of the latents of each datum
        seed: of the draws
    """
    vae = one_latent(program)
    batches = batches_of(vae, x)
    batches.batch_size = max(1, at_once(batches) // draws)
    with evaluating(vae), fork_rng(device_of(vae), seed):
        return torch.cat([tell(vae, vae.encode(*batch).sample((draws,)), *batch) for batch in batches.epoch(0)])


def labels_of(program: Program) -> list[tuple[int, int]]:
    """Return index and number of codes of each column that holds labels without an order."""
    columns = getattr(getattr(program, "likelihood", None), "columns", ())
    return [(j, len(c.values)) for j, c in enumerate(columns) if isinstance(c, Categorical)]
