"""The amortized guide of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pyro
from pyro import poutine
from pyro.poutine.indep_messenger import IndepMessenger
from torch import Tensor, nn

from pyro_vae.programs.amortized.inputs import Inputs
from pyro_vae.programs.amortized.inspection import Frame
from pyro_vae.programs.amortized.local import Encoder
from pyro_vae.programs.amortized.shared import Shared

__all__ = ["Guide", "seen_width"]


class Guide(nn.Module):
    """Sample the latents that all examples share, then those of each example from their encoders.

    Args:
        plate: the plate of the data; its ``full_size`` is 0 where it is the number of rows of the batch
        inputs: what the encoders see of the data
        encoders: by name of the site, in the order in which they are sampled
        parents: by name of the site, the sites whose values its encoder sees
        inner: by name of the site, the plate inside an example that it is in, None if there is none
        scales: by name of the site, its scale in the model
        shared: the posterior of the latents that all examples share, None if there are none
    """

    def __init__(
        self,
        plate: Frame,
        inputs: Inputs,
        encoders: Mapping[str, Encoder],
        parents: Mapping[str, Sequence[str]],
        inner: Mapping[str, Frame | None],
        scales: Mapping[str, float],
        shared: Shared | None = None,
    ) -> None:
        super().__init__()
        self.plate, self.inputs, self.parents, self.inner = plate, inputs, dict(parents), dict(inner)
        self.sites, self.scales = list(encoders), dict(scales)
        self.encoders = nn.ModuleList(encoders.values())
        self.shared = shared

    def forward(self, x: Tensor, *context: Tensor) -> dict[str, Tensor]:
        """Sample all latents and return their values by name."""
        rows = x.shape[0]
        values: dict[str, Tensor] = {} if self.shared is None else self.shared()
        features: dict[str, Tensor] = {}
        encoders: Any = self.encoders
        subsample = self.plate.full_size / rows if self.plate.full_size else 1.0
        # no `pyro.plate`, whose message would replace the rows that the model gives to its own
        with IndepMessenger(self.plate.name, rows, self.plate.dim):
            for name, encoder in zip(self.sites, encoders, strict=True):
                inner = self.inner[name]
                given, data = self.inputs(inner, x, *context)
                others = [seen_from(inner, self.inner[p], features[p]) for p in self.parents[name]]
                fn = encoder(given, *data, *others)
                plate = nullcontext() if inner is None else IndepMessenger(inner.name, inner.size, inner.dim)
                with plate, poutine.scale(scale=subsample * self.scales[name]):
                    values[name] = pyro.sample(name, fn)
                features[name] = encoder.features(values[name])
        return values


def seen_from(inner: Frame | None, other: Frame | None, features: Tensor) -> Tensor:
    """Return the features of a latent for a latent in another plate: those of all entries of its plate in one row."""
    if other is None or inner == other:
        return features
    row = features.movedim(other.dim - 1, -2).flatten(-2)
    return row if features.dim() == 1 - other.dim else row.unsqueeze(other.dim - 1)


def seen_width(inner: Frame | None, other: Frame | None, width: int) -> int:
    """Return the width of the result of :func:`seen_from`."""
    return width if other is None or inner == other else width * other.size
