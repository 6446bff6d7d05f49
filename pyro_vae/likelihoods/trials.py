"""Base of likelihoods of counts out of a known number of trials.

A subclass sets ``outputs``, the number of decoder outputs per entry, and defines ``counts``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.distributions import OnGrid
from pyro_vae.likelihoods.per_entry import PerEntry
from pyro_vae.nets import MLP, NetBuilder

__all__ = ["Trials"]


class Trials(PerEntry):
    """Independent counts from 0 to ``total``, or proportions ``k / total``.

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder
        context: width of the context in addition to z
        total: number of trials, the largest count
        grid: whether the data are proportions ``k / total`` (within 1e-4) instead of counts
    """

    outputs: ClassVar[int | None]

    hint = (
        "Counts run from 0 to total; proportions k / total need grid=True. For counts without an upper bound use "
        "Poisson or NegativeBinomial."
    )

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        total: int = 255,
        grid: bool = False,
    ) -> None:
        super().__init__(latent, shape, net=net, context=context, outputs=self.outputs)
        check_int("total", total)
        self.total, self.step = total, 1 / total if grid else 1.0

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> Trials:
        """Build a small instance, with counts that an encoder reads without scaling."""
        return super().example(latent=latent, shape=shape, **{"total": 8, **options})

    @abstractmethod
    def counts(self, total: Tensor, *outputs: Tensor) -> TorchDistributionMixin:
        """Return the distribution of every count, given ``total`` of the shape of each decoder output."""

    def distribution(self, *outputs: Tensor) -> OnGrid:
        """Return the distribution of every entry."""
        return OnGrid(self.counts(torch.full_like(outputs[0], self.total), *outputs), self.total + 1, self.step)
