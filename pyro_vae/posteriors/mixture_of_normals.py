"""The posterior that is a mixture of normals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import NormalMixture as Family
from pyro_vae.nets import MLP, Net, build
from pyro_vae.scales import positive

__all__ = ["MixtureOfNormals"]


class MixtureOfNormals(Conditional):
    r"""A mixture of diagonal normals whose weights, means and scales the network makes from x.

    .. math:: q(z \mid x) = \sum_k \pi_k \prod_j \mathcal N(z_j; \mu_{kj}, \sigma_{kj}^2)

    The draws are differentiable by all parameters, the weights among them, by implicit reparameterization.

    References:
        Implicit reparameterization gradients (Figurnov et al., 2018), https://arxiv.org/abs/1805.08498;
        Approximate inference for deep latent Gaussian mixtures (Nalisnick et al., 2016)

    Args:
        shape: shape of one datum
        latent: number of latents
        net: makes the encoder network, ``net(shape, (components * (2 * latent + 1),))``
        context: how many numbers of context one datum brings beside x
        components: number of components

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: there is no component.

    Example:
        >>> import torch
        >>> MixtureOfNormals((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        components: int = 5,
    ) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"components: expected at least 1, got {components}")
        self.context = context
        self.sizes = (components, components * latent, components * latent)
        self.net = build(net, shape, (sum(self.sizes),), context)

    def forward(self, x: Tensor, *context: Tensor) -> Family:
        """Return q(z given x)."""
        logits, loc, raw = self.net(x, *context).split(self.sizes, -1)
        each = (self.sizes[0], -1)
        return Family(loc.unflatten(-1, each), positive(raw.unflatten(-1, each)), logits)
