"""What the tasks ask of a program before they work on its latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae.columns import Categorical
from pyro_vae.programs import VAE
from pyro_vae.programs.program import Program, mean_or_draw

__all__ = ["as_context", "decoded", "labels_of", "one_latent"]

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


def labels_of(program: Program) -> list[tuple[int, int]]:
    """Return index and number of codes of each column that holds labels without an order."""
    columns = getattr(getattr(program, "likelihood", None), "columns", ())
    return [(j, len(c.values)) for j, c in enumerate(columns) if isinstance(c, Categorical)]
