"""The multinomial likelihood, for bags of words."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import BagOfWords as Family
from pyro_vae.nets import MLP, NetBuilder, Shape
from pyro_vae.nets.contract import build
from pyro_vae.nets.shapes import as_shape

__all__ = ["Multinomial"]


class Multinomial(Conditional):
    r"""Word counts with any total per document, with logits of the words from the decoder.

    .. math:: p(x \mid z) = \frac{n!}{\prod_i x_i!} \prod_i \pi_i^{x_i}, \qquad n = \sum_i x_i, \quad
              \pi = \operatorname{softmax}(\mathrm{net}(z))

    References:
        Neural variational inference for text processing (Miao et al., 2016), https://arxiv.org/abs/1511.06038

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), shape)``
        context: width of the context in addition to z
        total: number of words of a sampled document; observed documents may have any number

    Raises:
        ValueError: ``total`` is below 1.

    Example:
        >>> import torch
        >>> Multinomial(3, (2000,))(torch.zeros(5, 3)).event_shape
        torch.Size([2000])
    """

    hint = "Word counts are 0, 1, 2, ...; for frequencies use Normal or Beta."

    def __init__(
        self, latent: int, shape: Shape, *, net: NetBuilder = MLP, context: int = 0, total: int = 100
    ) -> None:
        super().__init__(latent=latent, context=context)
        check_int("total", total)
        self.shape, self.total = as_shape(shape), total
        self.net = build(net, (latent,), self.shape, context)

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> Multinomial:
        """Build a small instance, with counts that an encoder reads without scaling."""
        return super().example(latent=latent, shape=shape, **{"total": 8, **options})

    def forward(self, z: Tensor, *context: Tensor) -> Family:
        """Return p(x given z)."""
        return Family(self.net(z, *context), self.total, len(self.shape))
