"""Base of priors with a location and a scale per latent, fixed or learned.

A subclass defines ``forward`` from the attributes ``loc`` and ``raw``, of which ``positive(self.raw)`` is the scale.
"""

from __future__ import annotations

import torch
from torch import nn

from pyro_vae.conditional import Conditional
from pyro_vae.scales import FLOOR, check_positive, inverse_positive

__all__ = ["LocationScale"]


class LocationScale(Conditional):
    """Latents with location 0 and the same scale, which are where learning starts if they are learned.

    Args:
        latent: number of latents
        scale: scale of each latent
        learned: learn location and scale of each latent
    """

    def __init__(self, latent: int, *, scale: float = 1.0, learned: bool = False) -> None:
        super().__init__(latent=latent)
        check_positive("scale", scale, FLOOR)
        hold = nn.Parameter if learned else nn.Buffer
        self.loc = hold(torch.zeros(latent))
        self.raw = hold(inverse_positive(torch.full((latent,), float(scale))))
