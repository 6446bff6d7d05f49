"""Which modalities are seen, and their shared and private latents."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import Normal

from pyro_vae.distributions.mixture import diagonal_normal

__all__ = ["is_seen", "normal", "private_site", "together"]


def is_seen(x: Tensor) -> Any:
    """Return which rows of a modality are not missing, ``(n,)``."""
    return ~torch.isnan(x).reshape(len(x), -1).all(-1)


def private_site(name: str) -> str:
    """Return the name of the site of the private latents of a modality."""
    return f"private_{name}"


def together(z: Tensor, w: Tensor) -> Tensor:
    """Return shared and private latents in one vector."""
    lead = torch.broadcast_shapes(z.shape[:-1], w.shape[:-1])
    return torch.cat([z.expand(*lead, -1), w.expand(*lead, -1)], -1)


def normal(name: str, part: nn.Module, fn: TorchDistributionMixin) -> Normal:
    """Return the distribution of a part as one of independent normals, or raise if it is another family."""
    found = diagonal_normal(fn)
    if found is None:
        raise ValueError(
            f"{name}: expected a diagonal normal, such as StandardNormal and MeanFieldNormal, got "
            f"{type(part).__name__}. Joint posteriors combine no other family"
        )
    return found
