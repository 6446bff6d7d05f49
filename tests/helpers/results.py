"""What is inside of the results of evaluations and tasks, to compare two of them."""

import dataclasses

import torch

from pyro_vae import tasks


def leaves(value):
    """Return tensors, numbers and bytes of a result."""
    if isinstance(value, torch.nn.Module):
        return list(value.state_dict().values())
    if isinstance(value, dict | list | tuple):
        return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in leaves(part)]
    if dataclasses.is_dataclass(value):
        return leaves([getattr(value, field.name) for field in dataclasses.fields(value)])
    if isinstance(value, tasks.Detector):
        return [value.reference]
    return [value] if isinstance(value, torch.Tensor | int | float | bytes) else []
