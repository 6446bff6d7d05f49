"""The inverse autoregressive flow posterior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions.amortized_flow import AmortizedFlow, Step
from pyro_vae.distributions.masked_affine import MaskedMLP
from pyro_vae.nets import MLP, NetBuilder, build
from pyro_vae.scales import positive

__all__ = ["InverseAutoregressiveFlow"]


class InverseAutoregressiveFlow(Conditional):
    r"""A normal pushed through gated autoregressive maps that depend on features of x.

    .. math:: f(z)_j = g_j z_j + (1 - g_j)\, m_j, \qquad g = \sigma(s), \quad
              (m_j, s_j) = \mathrm{made}(z_{<j}, h(x)), \qquad \log \lvert \det J \rvert = \sum_j \log g_j

    The order of the latents is reversed before each map. A sample and its density take one pass, the density of any
    other value ``latent`` passes. Gates start near 0.9 and stay above 0.001.

    References:
        Improved variational inference with inverse autoregressive flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (2 * latent + features,))``
        context: width of the context in addition to x
        layers: number of maps
        features: length of h(x)
        hidden: width of each hidden layer of the masked networks

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``layers`` or ``features`` is below 1, or there is no hidden layer.

    Example:
        >>> import torch
        >>> InverseAutoregressiveFlow((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        layers: int = 2,
        features: int = 32,
        hidden: Sequence[int] = (128,),
    ) -> None:
        super().__init__(latent=latent, context=context)
        check_int("layers", layers)
        check_int("features", features)
        self.sizes = (latent, latent, features)
        self.net = build(net, shape, (sum(self.sizes),), context)
        self.masked = nn.ModuleList(MaskedMLP(latent, 2, hidden=hidden, context=features) for _ in range(layers))

    def forward(self, x: Tensor, *context: Tensor) -> AmortizedFlow:
        """Return q(z given x)."""
        loc, raw, features = self.net(x, *context).split(self.sizes, -1)
        return AmortizedFlow(loc, positive(raw), [Gated(made, features) for made in self.masked])


class Gated(Step):
    """Reverse the order, then mix each coordinate with a value that depends on those before it."""

    def __init__(self, made: nn.Module, features: Tensor) -> None:
        self.made, self.features = made, features

    def gates(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values to mix in and the log-gates."""
        mean, raw = self.made(z, self.features).unbind(-2)
        return mean, (0.001 + 0.999 * logsigmoid(raw + 2).exp()).log()

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and the log-determinant."""
        z = z.flip(-1)
        mean, log_gate = self.gates(z)
        gate = log_gate.exp()
        return gate * z + (1 - gate) * mean, log_gate.sum(-1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return the preimage of ``z``, coordinate by coordinate."""
        found = torch.zeros_like(z)
        for _ in range(z.shape[-1]):
            # after pass j the first j coordinates are final: they do not depend on later ones
            mean, log_gate = self.gates(found)
            gate = log_gate.exp()
            found = (z - (1 - gate) * mean) / gate
        return found.flip(-1)
