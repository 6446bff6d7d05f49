"""The planar flow posterior."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions.amortized_flow import AmortizedFlow, Step, tanh_root
from pyro_vae.nets import MLP, NetBuilder, build
from pyro_vae.scales import positive

__all__ = ["PlanarFlow"]


class PlanarFlow(Conditional):
    r"""A normal pushed through planar maps with parameters from the encoder.

    .. math:: f(z) = z + \hat u \tanh(w^\top z + b), \qquad
              \log \lvert \det J \rvert = \log \left(1 + w^\top \hat u \, (1 - \tanh^2(w^\top z + b))\right)

    :math:`\hat u` is u moved along w so that :math:`w^\top \hat u > -1`, which makes f invertible. Values other than
    the posterior's own samples are inverted along w, by bisection.

    References:
        Variational inference with normalizing flows (Rezende and Mohamed, 2015), https://arxiv.org/abs/1505.05770

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (n,))`` with n = 2 latent + layers (2 latent + 1)
        context: width of the context in addition to x
        layers: number of maps

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``layers`` is below 1.

    Example:
        >>> import torch
        >>> PlanarFlow((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self, shape: Sequence[int], latent: int, *, net: NetBuilder = MLP, context: int = 0, layers: int = 4
    ) -> None:
        super().__init__(latent=latent, context=context)
        check_int("layers", layers)
        self.latent, self.layers = latent, layers
        self.net = build(net, shape, (2 * latent + layers * (2 * latent + 1),), context)

    def forward(self, x: Tensor, *context: Tensor) -> AmortizedFlow:
        """Return q(z given x)."""
        n = self.layers
        loc, raw, *rest = self.net(x, *context).split([self.latent] * (2 + 2 * n) + [1] * n, -1)
        steps = [Planar(u, w, b) for u, w, b in zip(rest[:n], rest[n : 2 * n], rest[2 * n :], strict=True)]
        return AmortizedFlow(loc, positive(raw), steps)


class Planar(Step):
    """A planar map."""

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        # a w of exactly 0 has no direction
        self.w, self.b = w + 1e-6, b
        square = self.w.square().sum(-1, keepdim=True)
        along = (u * self.w).sum(-1, keepdim=True)
        # 1 + w.u made positive; it is 1 where w.u is 0, so that a small network starts near the identity
        self.slope = positive(along + math.log(math.e - 1))
        self.u = u + (self.slope - 1 - along) / square * self.w

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and the log-determinant."""
        h = torch.tanh((z * self.w).sum(-1, keepdim=True) + self.b)
        flat = h.square()
        # 1 + w.u (1 - h^2), as a sum of positive terms
        return z + self.u * h, torch.log(flat + self.slope * (1 - flat)).squeeze(-1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return the preimage of ``z``."""
        along = (z * self.w).sum(-1, keepdim=True)
        root = tanh_root(self.slope - 1, torch.ones_like(self.slope), self.b, along)
        return z - self.u * torch.tanh(root + self.b)
