"""The Student-t posterior."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import StudentT as Family
from pyro_vae.nets import MLP, Net, build
from pyro_vae.scales import positive

__all__ = ["StudentT"]

#: Added to the network's output, which is near 0 before training: the degrees of freedom start there plus 2.
START = 8.0


class StudentT(Conditional):
    r"""Independent Student-t latents, whose tails are wider than a normal's by as much as the network finds.

    .. math:: q(z \mid x) = \prod_j t_{\nu_j}(z_j; \mu_j, \sigma_j), \qquad
              (\mu, \operatorname{softplus}^{-1} \sigma, \operatorname{softplus}^{-1}(\nu - 2) - 8) = \mathrm{net}(x)

    The degrees of freedom stay above 2: below it the variance is infinite, and with it the divergence from a normal
    prior. They start near 10: below 4 the variance of one draw's estimate of that divergence is infinite, which is
    for the data to ask for.

    References:
        Student-t variational autoencoder for robust density estimation (Takahashi et al., 2018),
        https://doi.org/10.24963/ijcai.2018/374

    Args:
        shape: shape of one datum
        latent: number of latents
        net: makes the encoder network, ``net(shape, (3, latent))``
        context: how many numbers of context one datum brings beside x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> StudentT((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.context = context
        self.net = build(net, shape, (3, latent), context)

    def forward(self, x: Tensor, *context: Tensor) -> dist.Independent:
        """Return q(z given x)."""
        loc, raw, tail = self.net(x, *context).unbind(-2)
        return Family(2 + positive(tail + START), loc, positive(raw)).to_event(1)
