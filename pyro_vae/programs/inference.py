"""Base of the orders in which the guide of a hierarchy samples its layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pyro_vae._util.abstract import Abstract
from pyro_vae._util.describe import Described
from pyro_vae.conditional import Conditional

__all__ = ["Inference"]


class Inference(Described, Abstract, nn.Module):
    """The order in which the guide samples the layers, and what each layer depends on.

    Args:
        posteriors: one Conditional per layer, from the layer next to the data (z1) to the top
    """

    def __init__(self, posteriors: Sequence[Conditional]) -> None:
        super().__init__()
        self.posteriors = nn.ModuleList(posteriors)

    @classmethod
    @abstractmethod
    def build(
        cls, sizes: Sequence[int], of_x: Callable[..., Conditional], of_layer: Callable[[int, int], Conditional]
    ) -> Inference:
        """Build the posteriors of layers of these sizes.

        Args:
            sizes: numbers of latents, from z1 to the top
            of_x: makes q of a layer given x, ``of_x(latent, context=width)``
            of_layer: makes q of a layer given another one, ``of_layer(other, latent)``
        """

    @abstractmethod
    def sample(self, x: Tensor) -> list[Tensor]:
        """Sample ``z1``, ``z2``, ... by sample statements with these names and return them in this order."""
