"""The Bernoulli posterior."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.posteriors.per_latent import PerLatent

__all__ = ["Bernoulli"]


class Bernoulli(PerLatent):
    r"""Independent binary latents, without reparameterized samples.

    .. math:: q(z \mid x) = \prod_j p_j^{z_j} (1 - p_j)^{1 - z_j}, \qquad \operatorname{logit} p = \mathrm{net}(x)

    Train it with score-function estimators or enumeration, or use ``StraightThroughBernoulli`` or
    ``RelaxedBernoulli``.

    References:
        Neural variational inference and learning in belief networks (Mnih and Gregor, 2014),
        https://arxiv.org/abs/1402.0030

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (latent,))``
        context: width of the context in addition to x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> Bernoulli((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    outputs = None

    def distribution(self, logits: Tensor) -> dist.Independent:
        """Return q(z given x)."""
        return dist.Bernoulli(logits=logits).to_event(1)
