"""The mixture-of-normals posterior."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import NormalMixture as Family
from pyro_vae.nets import MLP, NetBuilder, build
from pyro_vae.scales import positive

__all__ = ["MixtureOfNormals"]


class MixtureOfNormals(Conditional):
    r"""A mixture of diagonal normals with weights, means and scales from the encoder.

    .. math:: q(z \mid x) = \sum_k \pi_k \prod_j \mathcal N(z_j; \mu_{kj}, \sigma_{kj}^2)

    Samples are differentiable with respect to all parameters, including the weights, by implicit reparameterization.

    References:
        Implicit reparameterization gradients (Figurnov et al., 2018), https://arxiv.org/abs/1805.08498;
        Approximate inference for deep latent Gaussian mixtures (Nalisnick et al., 2016)

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (num_components * (2 * latent + 1),))``
        context: width of the context in addition to x
        num_components: number of mixture components

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``num_components`` is below 1.

    Example:
        >>> import torch
        >>> MixtureOfNormals((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self, shape: Sequence[int], latent: int, *, net: NetBuilder = MLP, context: int = 0, num_components: int = 5
    ) -> None:
        super().__init__(latent=latent, context=context)
        check_int("num_components", num_components)
        self.sizes = (num_components, num_components * latent, num_components * latent)
        self.net = build(net, shape, (sum(self.sizes),), context)

    def forward(self, x: Tensor, *context: Tensor) -> Family:
        """Return q(z given x)."""
        logits, loc, raw = self.net(x, *context).split(self.sizes, -1)
        each = (self.sizes[0], -1)
        return Family(loc.unflatten(-1, each), positive(raw.unflatten(-1, each)), logits)
