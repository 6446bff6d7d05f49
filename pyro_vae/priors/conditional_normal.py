"""The normal prior given a context."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.nets import MLP, Net, build
from pyro_vae.scales import positive

__all__ = ["ConditionalNormal"]


class ConditionalNormal(Conditional):
    r"""Independent normal latents, whose means and scales a network makes from the context.

    .. math:: p(z \mid c) = \prod_j \mathcal N(z_j; \mu_j(c), \sigma_j(c)^2), \qquad
              (\mu, \operatorname{softplus}^{-1} \sigma) = \mathrm{net}(c)

    References:
        Learning structured output representation using deep conditional generative models (Sohn et al., 2015),
        https://proceedings.neurips.cc/paper/2015/hash/8d55a249e6baa5c06772297520da2051-Abstract.html

    Args:
        latent: number of latents
        context: how many numbers of context (labels as one-hot floats, covariates) one datum brings, at least 1
        net: makes the network, ``net((context,), (2, latent))``

    Shape:
        context of ``(*batch, context)``, in one or more columns, to batch shape ``batch`` and event shape
        ``(latent,)``.

    Raises:
        ValueError: ``context`` is below 1, or no context came.

    Example:
        >>> import torch
        >>> ConditionalNormal(3, context=2)(torch.zeros(5, 2)).batch_shape
        torch.Size([5])
    """

    def __init__(
        self,
        latent: int,
        *,
        context: int = 1,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
    ) -> None:
        super().__init__()
        if context < 1:
            raise ValueError(f"context: expected at least one number (without any use Normal), got {context}")
        self.context = context
        self.net = build(net, (context,), (2, latent))

    def forward(self, *context: Tensor) -> dist.Independent:
        """Return p(z given c)."""
        if not context:
            raise ValueError(f"ConditionalNormal needs a context of {self.context} numbers a datum, got none")
        batch = torch.broadcast_shapes(*(c.shape[:-1] for c in context))
        joined = torch.cat([c.expand(*batch, -1) for c in context], -1)
        loc, raw = self.net(joined).unbind(-2)
        return dist.Normal(loc, positive(raw)).to_event(1)
