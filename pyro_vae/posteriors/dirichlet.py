"""The Dirichlet posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.nets import MLP, Net, build
from pyro_vae.scales import positive

__all__ = ["Dirichlet"]


class Dirichlet(Conditional):
    r"""Proportions that sum to 1, whose concentrations the network makes from x.

    .. math:: q(z \mid x) = \frac{\Gamma(\sum_k \alpha_k)}{\prod_k \Gamma(\alpha_k)} \prod_k z_k^{\alpha_k - 1}, \qquad
              \operatorname{softplus}^{-1} (\alpha - \alpha_0) = \mathrm{net}(x)

    The draws have implicit reparameterized gradients.

    References:
        Implicit reparameterization gradients (Figurnov et al., 2018), https://arxiv.org/abs/1805.08498

    Args:
        shape: shape of one datum
        latent: number of proportions
        net: makes the encoder network, ``net(shape, (latent,))``
        context: how many numbers of context one datum brings beside x
        least: alpha_0, the smallest concentration: far below 0.1 the draws are rounded to corners of the simplex,
            where the density has no finite value

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``least`` is not positive and finite.

    Example:
        >>> import torch
        >>> Dirichlet((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        least: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0 < least < float("inf"):
            raise ValueError(f"least: expected a positive number, got {least}")
        self.context = context
        self.least = least
        self.net = build(net, shape, (latent,), context)

    def forward(self, x: Tensor, *context: Tensor) -> dist.Dirichlet:
        """Return q(z given x)."""
        return dist.Dirichlet(self.least + positive(self.net(x, *context)))
