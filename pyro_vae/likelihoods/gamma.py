"""The gamma likelihood, for positive data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import Gamma as Family
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import PerExample, Scale, as_scale, positive

__all__ = ["Gamma"]


class Gamma(Conditional):
    r"""Independent positive entries, whose means the network makes from z.

    .. math:: p(x \mid z) = \prod_i \frac{(k_i / \mu_i)^{k_i}}{\Gamma(k_i)} x_i^{k_i - 1} e^{-k_i x_i / \mu_i}, \qquad
              \mu = \operatorname{softplus}(\mathrm{net}(z)) + 10^{-4}

    References:
        Generalized linear models (Nelder and Wedderburn, 1972), https://www.jstor.org/stable/2344614

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), (rows, *shape))`` with a row for the mean
            and one for a concentration that is an output
        context: how many numbers of context one datum brings beside z
        concentration: k, one over the squared coefficient of variation: a number (fixed), or an object of
            ``pyro_vae.scales``; None for an output of the network

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> Gamma(3, (8, 8))(torch.zeros(5, 3)).event_shape
        torch.Size([8, 8])
    """

    hint = "For data that may be 0 or negative use Normal or StudentT; for counts NegativeBinomial."

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        concentration: Scale | float | None = None,
    ) -> None:
        super().__init__()
        self.context, self.shape = context, as_shape(shape)
        self.concentration = PerExample() if concentration is None else as_scale(concentration)
        self.net = build(net, (latent,), (1 + self.concentration.outputs, *self.shape), context)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        raw_mean, *raw = self.net(z, *context).unbind(-1 - len(self.shape))
        k = self.concentration(*raw)
        return Family(k, k / positive(raw_mean)).to_event(len(self.shape))
