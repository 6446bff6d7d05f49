"""Decoders of topic models: from topic proportions to the logits of words."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_vae.nets.contract import Net
from pyro_vae.nets.mlp import FlatLayers
from pyro_vae.nets.shapes import Shape, as_shape

__all__ = ["MixtureOfTopics", "ProductOfTopics"]


class ProductOfTopics(Net):
    r"""Logits of words as a linear function of the topics: a product of experts, as in ProdLDA.

    .. math:: \operatorname{logits}(z) = a \operatorname{normalize}(B z) + b

    Each logit is batch-normalized, without which most topics become alike, then scaled and shifted by learned numbers
    (the paper only shifts).

    Args:
        in_shape: ``(topics,)``
        out_shape: shape of one bag of words
        context: width of the context (labels, covariates); each of its numbers has logits of words like a topic
        counts: how often each word occurs in the data, of shape ``out_shape``: b starts at its logarithm, which saves
            the epochs in which only frequencies would be learned

    References:
        Autoencoding variational inference for topic models (Srivastava and Sutton, 2017),
        https://arxiv.org/abs/1703.01488

    Shape:
        ``(*batch, topics)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``counts`` does not have the shape ``out_shape``.

    Example:
        >>> ProductOfTopics((50,), (2000,))(torch.ones(5, 50) / 50).shape
        torch.Size([5, 2000])
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, *, context: int = 0, counts: Tensor | None = None) -> None:
        bias = log_frequencies(as_shape(out_shape), counts)
        linear = nn.Linear(math.prod(as_shape(in_shape)) + context, len(bias), bias=False)
        norm = nn.BatchNorm1d(len(bias))
        with torch.no_grad():
            norm.bias.copy_(bias)
        super().__init__(FlatLayers(linear, norm), in_shape, out_shape, context=context)


class MixtureOfTopics(Net):
    r"""Log-probabilities of words under a mixture of topics, as in latent Dirichlet allocation.

    .. math:: \operatorname{logits}(z) = \log \sum_k z_k \operatorname{softmax}(\operatorname{normalize}(B)_k + b)

    Each topic is a distribution over words; the logits of each word are normalized over the topics. The latents must
    be proportions, such as those of a Dirichlet or LogisticNormal.

    Args:
        in_shape: ``(topics,)``
        out_shape: shape of one bag of words
        counts: how often each word occurs in the data, as in :class:`ProductOfTopics`

    References:
        Latent Dirichlet allocation (Blei et al., 2003), https://www.jmlr.org/papers/v3/blei03a.html

    Shape:
        ``(*batch, topics)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``counts`` does not have the shape ``out_shape``.

    Example:
        >>> logits = MixtureOfTopics((50,), (2000,))(torch.ones(5, 50) / 50)
        >>> logits.shape, logits.exp().sum(-1).round()
        (torch.Size([5, 2000]), tensor([1., 1., 1., 1., 1.], grad_fn=<RoundBackward0>))
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, *, counts: Tensor | None = None) -> None:
        body = LogMixture(math.prod(as_shape(in_shape)), log_frequencies(as_shape(out_shape), counts))
        super().__init__(body, in_shape, out_shape)


def log_frequencies(shape: Shape, counts: Tensor | None) -> Tensor:
    """Return the logarithms of word frequencies, with one added to each count; zeros if there are no counts."""
    if counts is None:
        return torch.zeros(math.prod(shape))
    if counts.shape != shape:
        raise ValueError(f"counts: expected one number per word, of shape {tuple(shape)}, got {tuple(counts.shape)}")
    more = counts.detach().flatten().to(torch.get_default_dtype()) + 1.0
    return (more / more.mean()).log()


class LogMixture(nn.Module):
    """The logarithm of a mixture of topics."""

    def __init__(self, topics: int, bias: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(topics, len(bias)))
        self.bias = nn.Parameter(bias)

    def forward(self, z: Tensor) -> Tensor:
        """Return the log-probabilities of the words."""
        words = z @ self.topics.softmax(-1)
        # all terms of a word may underflow
        return words.clamp(min=torch.finfo(words.dtype).tiny).log()

    @property
    def topics(self) -> Tensor:
        """The logits of each topic, ``(topics, words)``."""
        std, mean = torch.std_mean(self.logits, 0)
        return (self.logits - mean) / (std + 1e-5) + self.bias
