"""Choice of the device."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["resolve_device"]


def resolve_device(device: Any) -> torch.device:
    """Return a torch device that this machine can compute on, or raise.

    Args:
        device: a name such as ``"cuda:1"``, or a torch device

    Raises:
        ValueError: this machine cannot compute on it.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    try:
        # the copy to the CPU fails on the device "meta", whose tensors have no data
        return torch.zeros((), device=device).cpu().to(device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(
            f"device: expected a device of this machine ({', '.join(available)}), cannot use {device}: "
            f"{str(error).splitlines()[0]}"
        ) from error
