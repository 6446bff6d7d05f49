"""Where to compute."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["resolve_device"]


def resolve_device(device: Any) -> torch.device:
    """Return a device, or say that this machine has no such one.

    Args:
        device: a name such as ``"cuda:1"``, or a torch device

    Raises:
        ValueError: nothing can be computed there.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    try:
        # a meta tensor holds no numbers to compute with
        return torch.zeros((), device=device).cpu().to(device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise ValueError(
            f"device: expected one that this machine has ({', '.join(['cpu', *gpus])}), cannot use {device}: "
            f"{str(error).splitlines()[0]}"
        ) from error
