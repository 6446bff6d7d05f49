"""The normal prior given a context."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.nets import MLP, NetBuilder, build
from pyro_vae.nets.contract import join_context
from pyro_vae.scales import positive

__all__ = ["ConditionalNormal"]


class ConditionalNormal(Conditional):
    r"""Independent normal latents with means and scales from a network over the context.

    .. math:: p(z \mid c) = \prod_j \mathcal N(z_j; \mu_j(c), \sigma_j(c)^2), \qquad
              (\mu, \operatorname{softplus}^{-1} \sigma) = \mathrm{net}(c)

    References:
        Learning structured output representation using deep conditional generative models (Sohn et al., 2015),
        https://proceedings.neurips.cc/paper/2015/hash/8d55a249e6baa5c06772297520da2051-Abstract.html

    Args:
        latent: number of latents
        context: width of the context (labels as one-hot floats, covariates), at least 1
        net: builds the network, ``net((context,), (2, latent))``

    Shape:
        context of ``(*batch, context)``, in one or more tensors, to batch shape ``batch`` and event shape
        ``(latent,)``.

    Raises:
        ValueError: ``context`` is below 1, or ``forward`` is called without a context.

    Example:
        >>> import torch
        >>> ConditionalNormal(3, context=2)(torch.zeros(5, 2)).batch_shape
        torch.Size([5])
    """

    def __init__(self, latent: int, *, context: int = 1, net: NetBuilder = MLP) -> None:
        super().__init__(latent=latent, context=context)
        if context < 1:
            raise ValueError(f"context: expected at least 1, got {context}. Use Normal for a prior without context.")
        self.net = build(net, (context,), (2, latent))

    def forward(self, *context: Tensor) -> dist.Independent:
        """Return p(z given c)."""
        if not context:
            raise ValueError(f"context: expected {self.context} numbers per example, got none (ConditionalNormal)")
        loc, raw = self.net(join_context(context)).unbind(-2)
        return dist.Normal(loc, positive(raw)).to_event(1)
