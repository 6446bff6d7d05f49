"""Weights on disk, with a digest of their own, and copies to go back to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pyro_vae.programs.program import Program

__all__ = ["CheckpointError", "LastGood", "read_weights", "unshared", "weights_file"]


class CheckpointError(ValueError):
    """What was saved is damaged; the message names it, what is wrong, and the last good checkpoint."""


def weights_file(program: Program) -> bytes:
    """Return the weights of a program as a safetensors file, whose header holds the digest of the numbers."""
    state = unshared(program.state_dict())
    return save(state, metadata={"sha256": digest(state)})


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of :func:`weights_file`.

    Raises:
        CheckpointError: it is damaged, or was not written by this package.
    """
    data = path.read_bytes()
    try:
        state = load(data)
        size = int.from_bytes(data[:8], "little")
        told = json.loads(data[8 : 8 + size]).get("__metadata__", {}).get("sha256")
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged, or no safetensors file: {error}") from error
    if told != digest(state):
        raise CheckpointError(f"{path}: damaged: the digest in its header is not that of the numbers")
    return state


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and numbers."""
    total = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


def unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory (a VampPrior holds the posterior), which the file format refuses."""
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


class LastGood:
    """Copies of the weights, to go back to those that are known to give a finite loss.

    A step that was finite can lead to weights that are not: a copy is good once a later step was finite.

    Args:
        program: whose weights
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.good = self.candidate = (0, unshared(program.state_dict()))

    def keep(self, step: int) -> None:
        """Copy the weights after ``step`` finite steps."""
        if step > self.candidate[0]:
            self.good, self.candidate = self.candidate, (step, unshared(self.program.state_dict()))

    def restore(self) -> None:
        """Go back to the last good weights."""
        self.program.load_state_dict(self.good[1])
