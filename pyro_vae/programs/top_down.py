"""Top-down inference in a hierarchy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyro
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.programs.inference import Inference

__all__ = ["TopDown"]


class TopDown(Inference):
    r"""Top-down inference: :math:`q(z_L \mid x) \prod_{l < L} q(z_l \mid x, z_{l+1})`.

    The context of each posterior below the top is the layer above. The KL divergence of a layer is then one between
    conditionals given the same sample, which has a closed form for many families.

    References:
        Ladder variational autoencoders (Sonderby et al., 2016), https://arxiv.org/abs/1602.02282;
        Improving variational inference with inverse autoregressive flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934

    Args:
        posteriors: q of each layer from z1 to the top given x, built (except for the top) with ``context=`` the number
            of latents of the layer above

    Example:
        >>> import pyro_vae as pv
        >>> q = pv.posteriors.MeanFieldNormal
        >>> len(TopDown([q((8, 8), 5, context=2), q((8, 8), 2)]).posteriors)
        2
    """

    @classmethod
    def build(
        cls, sizes: Sequence[int], of_x: Callable[..., Conditional], of_layer: Callable[[int, int], Conditional]
    ) -> TopDown:
        """Build q of each layer given x and the layer above."""
        return cls([of_x(latent, context=above) for latent, above in zip(sizes, [*sizes[1:], 0], strict=True)])

    def sample(self, x: Tensor) -> list[Tensor]:
        """Sample the top given x, then each layer given x and the layer above."""
        z: list[Tensor] = []
        for i in range(len(self.posteriors), 0, -1):
            z.insert(0, pyro.sample(f"z{i}", self.posteriors[i - 1](x, *z[:1])))
        return z
