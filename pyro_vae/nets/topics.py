"""Networks of topic models: an encoder of bags of words, and two decoders from the shares of topics to words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_vae.nets.contract import Net, as_shape

__all__ = ["BagEncoder", "MixtureOfTopics", "ProductOfTopics"]


class BagEncoder(Net):
    r"""A perceptron over :math:`\log(1 + x)` with batch normalization of its outputs.

    The normalization keeps the outputs from being the same for all documents, where training would otherwise
    get stuck.

    Args:
        in_shape: shape of one bag of counts
        out_shape: shape of one output
        context: how many further numbers (labels, covariates) one document brings
        hidden: width of each hidden layer
        dropout: share of the last hidden layer that is left out in training

    References:
        Autoencoding variational inference for topic models (Srivastava and Sutton, 2017),
        https://arxiv.org/abs/1703.01488

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Example:
        >>> BagEncoder((2000,), (2, 50))(torch.ones(5, 2000)).shape
        torch.Size([5, 2, 50])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        context: int = 0,
        hidden: Sequence[int] = (100, 100),
        dropout: float = 0.2,
    ) -> None:
        in_shape, out_shape = as_shape(in_shape), as_shape(out_shape)
        widths, size = [math.prod(in_shape) + context, *hidden], math.prod(out_shape)
        layers: list[nn.Module] = []
        for i, o in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(i, o), nn.Softplus()]
        layers += [nn.Dropout(dropout), nn.Linear(widths[-1], size), nn.BatchNorm1d(size)]
        super().__init__(_Logarithmic(*layers), in_shape, out_shape, context=context)


class ProductOfTopics(Net):
    r"""Logits of words that are sums over topics: their product of experts, as in ProdLDA.

    .. math:: \operatorname{logits}(z) = a \operatorname{normalize}(B z) + b

    Each logit is normalized over the batch, without which most topics end up alike, then scaled and shifted by learned
    numbers (the paper has the shift alone).

    Args:
        in_shape: ``(topics,)``
        out_shape: shape of one bag of words
        context: how many further numbers (labels, covariates) one document brings, each with words of its own
        counts: how often each word occurs in the data, of shape ``out_shape``: b starts at its logarithm, which saves
            the epochs in which only frequencies would be learned

    References:
        Autoencoding variational inference for topic models (Srivastava and Sutton, 2017),
        https://arxiv.org/abs/1703.01488

    Shape:
        ``(*batch, topics)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``counts`` has another shape than ``out_shape``.

    Example:
        >>> ProductOfTopics((50,), (2000,))(torch.ones(5, 50) / 50).shape
        torch.Size([5, 2000])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        context: int = 0,
        counts: Tensor | None = None,
    ) -> None:
        in_shape, out_shape = as_shape(in_shape), as_shape(out_shape)
        body = _Product(math.prod(in_shape) + context, log_frequencies(out_shape, counts))
        super().__init__(body, in_shape, out_shape, context=context)


class MixtureOfTopics(Net):
    r"""Logarithms of a mixture of topics, each a distribution over words, as in latent Dirichlet allocation.

    .. math:: \operatorname{logits}(z) = \log \sum_k z_k \operatorname{softmax}(\operatorname{normalize}(B)_k + b)

    The logits of each word are normalized over the topics. The latents have to be shares, those of a Dirichlet or
    LogisticNormal.

    Args:
        in_shape: ``(topics,)``
        out_shape: shape of one bag of words
        counts: how often each word occurs in the data, as in :class:`ProductOfTopics`

    References:
        Latent Dirichlet allocation (Blei et al., 2003), https://www.jmlr.org/papers/v3/blei03a.html

    Shape:
        ``(*batch, topics)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``counts`` has another shape than ``out_shape``.

    Example:
        >>> logits = MixtureOfTopics((50,), (2000,))(torch.ones(5, 50) / 50)
        >>> logits.shape, logits.exp().sum(-1).round()
        (torch.Size([5, 2000]), tensor([1., 1., 1., 1., 1.], grad_fn=<RoundBackward0>))
    """

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], *, counts: Tensor | None = None) -> None:
        in_shape, out_shape = as_shape(in_shape), as_shape(out_shape)
        super().__init__(_Mixture(math.prod(in_shape), log_frequencies(out_shape, counts)), in_shape, out_shape)


def log_frequencies(shape: Sequence[int], counts: Tensor | None) -> Tensor:
    """Return the logarithms of the shares of words, one added to each count; zeros where none are known."""
    if counts is None:
        return torch.zeros(math.prod(shape))
    if counts.shape != shape:
        raise ValueError(f"counts: expected one number a word, of shape {tuple(shape)}, got {tuple(counts.shape)}")
    more = counts.detach().flatten().to(torch.get_default_dtype()) + 1.0
    return (more / more.mean()).log()


class _Logarithmic(nn.Sequential):
    """Layers over the logarithms of counts, joined with the context."""

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        return super().forward(torch.cat([x.flatten(1).log1p(), *context], -1))


class _Product(nn.Sequential):
    """A linear layer, each output of it normalized over the batch, then scaled and shifted."""

    def __init__(self, topics: int, bias: Tensor) -> None:
        super().__init__(nn.Linear(topics, len(bias), bias=False), nn.BatchNorm1d(len(bias)))
        with torch.no_grad():
            self[1].bias.copy_(bias)

    def forward(self, z: Tensor, *context: Tensor) -> Tensor:
        return super().forward(torch.cat([z, *context], -1))


class _Mixture(nn.Module):
    """The logarithm of a mixture of rows of probabilities, whose logits are normalized over the rows."""

    def __init__(self, topics: int, bias: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(topics, len(bias)))
        self.bias = nn.Parameter(bias)

    def forward(self, z: Tensor) -> Tensor:
        words = z @ self.topics.softmax(-1)
        # all shares of a word may underflow
        return words.clamp(min=torch.finfo(words.dtype).tiny).log()

    @property
    def topics(self) -> Tensor:
        spread, mean = torch.std_mean(self.logits, 0)
        return (self.logits - mean) / (spread + 1e-5) + self.bias
