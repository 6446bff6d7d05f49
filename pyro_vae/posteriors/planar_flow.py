"""The planar flow posterior."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions.amortized_flow import AmortizedFlow, Step, tanh_root
from pyro_vae.nets import MLP, Net, build
from pyro_vae.scales import positive

__all__ = ["PlanarFlow"]


class PlanarFlow(Conditional):
    r"""A normal pushed through planar maps, all of whose parameters the network makes from x.

    .. math:: f(z) = z + \hat u \tanh(w^\top z + b), \qquad
              \log \lvert \det J \rvert = \log \left(1 + w^\top \hat u \, (1 - \tanh^2(w^\top z + b))\right)

    :math:`\hat u` is u with its part along w moved so that :math:`w^\top \hat u > -1`, which makes f invertible.
    Values other than the posterior's own draws are inverted along w, by bisection.

    References:
        Variational inference with normalizing flows (Rezende and Mohamed, 2015), https://arxiv.org/abs/1505.05770

    Args:
        shape: shape of one datum
        latent: number of latents
        net: makes the encoder network, ``net(shape, (n,))`` with
            n = 2 latent + layers (2 latent + 1)
        context: how many numbers of context one datum brings beside x
        layers: number of maps

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: there is no layer.

    Example:
        >>> import torch
        >>> PlanarFlow((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        layers: int = 4,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers: expected at least 1, got {layers}")
        self.context = context
        self.latent, self.layers = latent, layers
        self.net = build(net, shape, (2 * latent + layers * (2 * latent + 1),), context)

    def forward(self, x: Tensor, *context: Tensor) -> AmortizedFlow:
        """Return q(z given x)."""
        loc, raw, *steps = self.net(x, *context).split([self.latent] * (2 + 2 * self.layers) + [1] * self.layers, -1)
        n = self.layers
        steps = [Planar(u, w, b) for u, w, b in zip(steps[:n], steps[n : 2 * n], steps[2 * n :], strict=True)]
        return AmortizedFlow(loc, positive(raw), steps)


class Planar(Step):
    """A planar map."""

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        # a w of exactly 0 has no direction
        self.w, self.b = w + 1e-6, b
        square = self.w.square().sum(-1, keepdim=True)
        along = (u * self.w).sum(-1, keepdim=True)
        # 1 + w.u as it shall be: positive, and 1 where w.u was 0, so that a small network starts near the identity
        self.slope = positive(along + math.log(math.e - 1))
        self.u = u + (self.slope - 1 - along) / square * self.w

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and the log-determinant."""
        h = torch.tanh((z * self.w).sum(-1, keepdim=True) + self.b)
        flat = h.square()
        # 1 + w.u (1 - h^2), as a sum of what cannot cancel
        return z + self.u * h, torch.log(flat + self.slope * (1 - flat)).squeeze(-1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return what is mapped to ``z``."""
        along = (z * self.w).sum(-1, keepdim=True)
        root = tanh_root(self.slope - 1, torch.ones_like(self.slope), self.b, along)
        return z - self.u * torch.tanh(root + self.b)
