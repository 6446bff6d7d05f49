"""Bottom-up inference in a hierarchy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.programs.inference import Inference

__all__ = ["BottomUp"]


class BottomUp(Inference):
    r"""Bottom-up inference: :math:`q(z_1 \mid x)\, q(z_2 \mid z_1) \cdots q(z_L \mid z_{L-1})`.

    References:
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519

    Args:
        posteriors: q(z1 given x), then q of each layer given the layer below

    Example:
        >>> import pyro_vae as pv
        >>> q = pv.posteriors.MeanFieldNormal
        >>> len(BottomUp([q((8, 8), 5), q((5,), 2)]).posteriors)
        2
    """

    @classmethod
    def build(
        cls, sizes: Sequence[int], of_x: Callable[..., Conditional], of_layer: Callable[[int, int], Conditional]
    ) -> BottomUp:
        """Build q(z1 given x), and q of each layer given the layer below."""
        return cls([of_x(sizes[0]), *map(of_layer, sizes[:-1], sizes[1:])])

    def sample(self, x: Tensor) -> list[Tensor]:
        """Sample z1 given x, then each layer given the layer below."""
        z = [x]
        for i, posterior in enumerate(self.posteriors, 1):
            z.append(pyro.sample(f"z{i}", posterior(z[-1])))
        return z[1:]
