"""The amortized guide of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
from pyro import poutine
from pyro.poutine.indep_messenger import IndepMessenger
from torch import Tensor, nn

from pyro_vae.programs.amortized.inputs import Inputs
from pyro_vae.programs.amortized.inspection import Frame
from pyro_vae.programs.amortized.local import Encoder
from pyro_vae.programs.amortized.shared import Shared

__all__ = ["Guide"]


class Guide(nn.Module):
    """Sample the latents that all examples share, then those of each example from their encoders.

    Args:
        plate: the plate of the data; its ``full_size`` is 0 where it is the number of rows of the batch
        inputs: what the encoders see of the data
        encoders: by name of the site, in the order in which they are sampled
        parents: by name of the site, the sites whose values its encoder sees
        shared: the posterior of the latents that all examples share, None if there are none
    """

    def __init__(
        self,
        plate: Frame,
        inputs: Inputs,
        encoders: Mapping[str, Encoder],
        parents: Mapping[str, Sequence[str]],
        shared: Shared | None = None,
    ) -> None:
        super().__init__()
        self.plate, self.inputs, self.parents = plate, inputs, dict(parents)
        self.sites = list(encoders)
        self.encoders = nn.ModuleList(encoders.values())
        self.shared = shared

    def forward(self, x: Tensor, *context: Tensor) -> dict[str, Tensor]:
        """Sample all latents and return their values by name."""
        rows = len(x)
        values: dict[str, Tensor] = {} if self.shared is None else self.shared()
        features: dict[str, Tensor] = {}
        given, data = self.inputs(-1 - self.plate.dim, x, *context)
        encoders: Any = self.encoders
        scale = self.plate.full_size / rows if self.plate.full_size else 1.0
        # no `pyro.plate`, whose message would replace the rows that the model gives to its own
        with IndepMessenger(self.plate.name, rows, self.plate.dim), poutine.scale(scale=scale):
            for name, encoder in zip(self.sites, encoders, strict=True):
                fn = encoder(given, *data, *(features[parent] for parent in self.parents[name]))
                values[name] = pyro.sample(name, fn)
                features[name] = encoder.features(values[name])
        return values
