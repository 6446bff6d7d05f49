"""The wrapped normal posterior on the Poincaré ball."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.distributions import WrappedNormal as Family
from pyro_vae.distributions.poincare_ball import Radial
from pyro_vae.posteriors.per_latent import PerLatent
from pyro_vae.scales import positive

__all__ = ["WrappedNormal"]


class WrappedNormal(PerLatent):
    r"""A normal wrapped onto the Poincaré ball around a point from the encoder.

    .. math:: z = \mu \oplus \tanh(\lVert t \rVert / 2) \frac{t}{\lVert t \rVert}, \quad
              t \sim \mathcal N(0, \operatorname{diag} \sigma^2), \quad
              \mu = \tanh(\lVert m \rVert / 2) \frac{m}{\lVert m \rVert}, \quad
              (m, \operatorname{softplus}^{-1} \sigma) = \mathrm{net}(x)

    The density is with respect to the coordinates of z. The decoder gets points of the ball.

    References:
        Continuous hierarchical representations with Poincaré variational auto-encoders (Mathieu et al., 2019),
        https://arxiv.org/abs/1901.06033

    Args:
        shape: shape of one example
        latent: number of coordinates
        net: builds the encoder, ``net(shape, (2, latent))``
        context: width of the context in addition to x

    Example:
        >>> import torch
        >>> WrappedNormal((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    outputs = 2

    def distribution(self, loc: Tensor, raw: Tensor) -> Family:
        """Return q(z given x)."""
        return Family(Radial()(loc), positive(raw))
