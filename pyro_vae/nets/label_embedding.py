"""Networks that see class numbers as learned vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.nets.contract import Net, NetBuilder, build
from pyro_vae.nets.mlp import MLP
from pyro_vae.nets.shapes import Shape

__all__ = ["LabelEmbedding"]


class LabelEmbedding(Net):
    r"""A network whose context holds class numbers, each of which is replaced by a vector that is learned.

    .. math:: \mathrm{net}(x, e_{c_1}, \dots, e_{c_k})

    This is the network of one-hot vectors times a matrix with the vectors as rows, in a context of width k instead of
    k times the number of classes. Any other number, such as -1 for a missing label, has the zero vector.

    Args:
        in_shape: shape of one input
        out_shape: shape of one output
        context: number of labels per example, k
        num_classes: number of classes of each label, which are numbered from 0
        width: length of the vector of a class
        net: builds the network inside, ``net(in_shape, out_shape, context=k * width)``

    References:
        A neural probabilistic language model (Bengio et al., 2003), https://www.jmlr.org/papers/v3/bengio03a.html

    Shape:
        ``(*batch, *in_shape)``, and class numbers as floating-point numbers ``(*batch, k)``, to
        ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``num_classes`` or ``width`` is not a positive int.

    Example:
        >>> net = LabelEmbedding((4,), (2,), context=1, num_classes=100)
        >>> net(torch.zeros(5, 4), torch.tensor([[7.0]] * 5)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        *,
        context: int = 0,
        num_classes: int = 10,
        width: int = 8,
        net: NetBuilder = MLP,
    ) -> None:
        num_classes, width = check_int("num_classes", num_classes), check_int("width", width)
        inner = build(net, in_shape, out_shape, context * width)
        body = Embedded(inner, context, num_classes, width) if context else inner
        super().__init__(body, in_shape, out_shape, context=context)


class Embedded(nn.Module):
    """Call a network with vectors in place of class numbers."""

    def __init__(self, net: Net, context: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.net = net
        self.vectors = nn.Parameter(torch.randn(context, num_classes, width))

    @property
    def takes_missing(self) -> bool:
        """Whether NaN may mark missing entries of the input."""
        return self.net.takes_missing

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the output of the network for labels ``(n, context)``."""
        classes = torch.arange(self.vectors.shape[1], device=labels.device)
        one_hot = (labels.unsqueeze(-1) == classes).to(self.vectors.dtype)
        return self.net(x, torch.einsum("nkc,kcw->nkw", one_hot, self.vectors).flatten(1))
