"""The wrapped normal prior on the Poincaré ball."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.distributions import WrappedNormal as Family
from pyro_vae.distributions.poincare_ball import Radial
from pyro_vae.priors.location_scale import LocationScale
from pyro_vae.scales import positive

__all__ = ["WrappedNormal"]


class WrappedNormal(LocationScale):
    r"""A normal wrapped onto the Poincaré ball, for latents in hyperbolic space, such as those of trees.

    .. math:: z = \tanh(\lVert t \rVert / 2) \, t / \lVert t \rVert, \qquad t_j \sim \mathcal N(0, \sigma^2)

    Volumes grow exponentially with the distance from the centre, as does the number of nodes of a tree with its
    depth. A larger scale has the same effect as a stronger curvature. Use it with the posterior WrappedNormal.

    References:
        Continuous hierarchical representations with Poincaré variational auto-encoders (Mathieu et al., 2019),
        https://arxiv.org/abs/1901.06033

    Args:
        latent: number of coordinates
        scale: standard deviation of the tangent vectors, an initial value if it is learned
        learned: learn the centre and the scales

    Example:
        >>> WrappedNormal(3)().event_shape
        torch.Size([3])
    """

    def forward(self, *context: Tensor) -> Family:
        """Return p(z), which ignores any context."""
        return Family(Radial()(self.loc), positive(self.raw))
