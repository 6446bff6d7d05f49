"""The categorical posterior."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.posteriors.per_latent import PerLatent

__all__ = ["OneHotCategorical"]


class OneHotCategorical(PerLatent):
    r"""One of ``latent`` classes as a one-hot vector, without reparameterized samples.

    .. math:: q(z = e_k \mid x) = \operatorname{softmax}(\mathrm{net}(x))_k

    Train it with score-function estimators or enumeration, or use ``StraightThroughOneHotCategorical`` or
    ``RelaxedOneHotCategorical``.

    References:
        Semi-supervised learning with deep generative models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298

    Args:
        shape: shape of one example
        latent: number of classes
        net: builds the encoder, ``net(shape, (latent,))``
        context: width of the context in addition to x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> OneHotCategorical((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    outputs = None

    def distribution(self, logits: Tensor) -> dist.OneHotCategorical:
        """Return q(z given x)."""
        return dist.OneHotCategorical(logits=logits)
