"""Helpers for tasks that decode latents of a VAE."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.arrays import as_tensor
from pyro_vae.programs import VAE
from pyro_vae.programs.program import Program, mean_or_sample

__all__ = ["context_rows", "decode", "require_vae", "sample_takes_context"]

#: Examples decoded at once.
ROWS = 1000


def require_vae(program: Any) -> VAE:
    """Return the program, or raise if it has more than one latent z and one likelihood."""
    if not isinstance(program, VAE):
        raise TypeError(
            f"program: expected a VAE, which decodes each example from one latent z, got {type(program).__name__}. "
            "To draw new data, use the method `sample` of the program, if it has one."
        )
    return program


def context_rows(program: Program, context: Sequence[Any], n: int) -> tuple[Tensor, ...]:
    """Return context on the device and in the dtype of the program, after a check that it has ``n`` rows."""
    rows = tuple(as_tensor(c).to(program.device, program.dtype) for c in context)
    for i, c in enumerate(rows):
        if len(c) != n:
            raise ValueError(f"context[{i}]: expected {n} rows, one per example, got shape {tuple(c.shape)}")
    return rows


def sample_takes_context(program: Program) -> bool:
    """Return whether ``program.sample`` takes context in addition to its named arguments."""
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(program.sample).parameters.values())


def decode(program: VAE, z: Tensor, context: Sequence[Tensor], *, mean: bool) -> Tensor:
    """Return means or samples of p(x given z) for latents ``(n, latent)``, a bounded number at once."""
    batches = zip(*(column.split(ROWS) for column in (z, *context)), strict=True)
    fns = (program.decode(*batch) for batch in batches)
    return torch.cat([mean_or_sample(fn) if mean else fn.sample() for fn in fns])
