"""The Bernoulli posterior with a straight-through gradient."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.distributions import StraightThroughBernoulli as Family
from pyro_vae.posteriors.per_latent import PerLatent

__all__ = ["StraightThroughBernoulli"]


class StraightThroughBernoulli(PerLatent):
    r"""Independent binary latents with straight-through gradients.

    .. math:: z = b + p - \operatorname{stop}(p), \qquad b_j \sim \mathrm{Bernoulli}(p_j), \quad
              \operatorname{logit} p = \mathrm{net}(x)

    Samples pass their gradient on to the probabilities, which is biased. Samples and densities are exactly those of a
    Bernoulli, so that it fits a Bernoulli prior.

    References:
        Estimating or propagating gradients through stochastic neurons for conditional computation
        (Bengio et al., 2013), https://arxiv.org/abs/1308.3432

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (latent,))``
        context: width of the context in addition to x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> StraightThroughBernoulli((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    outputs = None

    def distribution(self, logits: Tensor) -> dist.Independent:
        """Return q(z given x)."""
        return Family(logits=logits).to_event(1)
