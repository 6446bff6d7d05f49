"""The categorical posterior with a straight-through gradient."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.distributions import StraightThroughOneHotCategorical as Family
from pyro_vae.posteriors.per_latent import PerLatent

__all__ = ["StraightThroughOneHotCategorical"]


class StraightThroughOneHotCategorical(PerLatent):
    r"""One of ``latent`` classes as a one-hot vector, with straight-through gradients.

    .. math:: z = e_k + p - \operatorname{stop}(p), \qquad k \sim p = \operatorname{softmax}(\mathrm{net}(x))

    Samples pass their gradient on to the probabilities, which is biased. Samples and densities are exactly those of a
    categorical, so that it fits a categorical prior.

    References:
        Estimating or propagating gradients through stochastic neurons for conditional computation
        (Bengio et al., 2013), https://arxiv.org/abs/1308.3432

    Args:
        shape: shape of one example
        latent: number of classes
        net: builds the encoder, ``net(shape, (latent,))``
        context: width of the context in addition to x

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Example:
        >>> import torch
        >>> StraightThroughOneHotCategorical((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    outputs = None

    def distribution(self, logits: Tensor) -> Family:
        """Return q(z given x)."""
        return Family(logits=logits)
