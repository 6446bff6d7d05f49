"""The Householder flow posterior."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions.amortized_flow import AmortizedFlow, Step
from pyro_vae.distributions.sphere import direction
from pyro_vae.nets import MLP, NetBuilder, build
from pyro_vae.scales import positive

__all__ = ["HouseholderFlow"]


class HouseholderFlow(Conditional):
    r"""A normal pushed through Householder reflections from the encoder.

    .. math:: f(z) = \left(I - 2 \frac{v v^\top}{\lVert v \rVert^2}\right) z, \qquad \log \lvert \det J \rvert = 0

    q is a normal with covariance :math:`U \operatorname{diag}(\sigma^2) U^\top`; as many reflections as latents make
    any rotation U.

    References:
        Improving variational auto-encoders using Householder flow (Tomczak and Welling, 2016),
        https://arxiv.org/abs/1611.09630

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (2 + layers, latent))``
        context: width of the context in addition to x
        layers: number of reflections

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``layers`` is below 1.

    Example:
        >>> import torch
        >>> HouseholderFlow((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self, shape: Sequence[int], latent: int, *, net: NetBuilder = MLP, context: int = 0, layers: int = 4
    ) -> None:
        super().__init__(latent=latent, context=context)
        check_int("layers", layers)
        self.net = build(net, shape, (2 + layers, latent), context)

    def forward(self, x: Tensor, *context: Tensor) -> AmortizedFlow:
        """Return q(z given x)."""
        loc, raw, *axes = self.net(x, *context).unbind(-2)
        return AmortizedFlow(loc, positive(raw), [Reflection(direction(v)) for v in axes])


class Reflection(Step):
    """A reflection along a unit vector, which is its own inverse."""

    def __init__(self, axis: Tensor) -> None:
        self.axis = axis

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and the log-determinant, 0."""
        return self.inverse(z), z.new_zeros(())

    def inverse(self, z: Tensor) -> Tensor:
        """Return the preimage of ``z``."""
        return z - 2 * (z * self.axis).sum(-1, keepdim=True) * self.axis
