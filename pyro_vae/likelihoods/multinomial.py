"""The multinomial likelihood, for bags of words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import BagOfWords as Family
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build

__all__ = ["Multinomial"]


class Multinomial(Conditional):
    r"""Counts of words whose total differs from text to text, with word probabilities that the network makes from z.

    .. math:: p(x \mid z) = \frac{n!}{\prod_i x_i!} \prod_i \pi_i^{x_i}, \qquad n = \sum_i x_i, \quad
              \pi = \operatorname{softmax}(\mathrm{net}(z))

    References:
        Neural variational inference for text processing (Miao et al., 2016), https://arxiv.org/abs/1511.06038

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), shape)``
        context: how many numbers of context one datum brings beside z
        total: how many words a drawn text has; those of the data may have any number

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Raises:
        ValueError: a total below 1.

    Example:
        >>> import torch
        >>> Multinomial(3, (2000,))(torch.zeros(5, 3)).event_shape
        torch.Size([2000])
    """

    hint = "Words are counted 0, 1, 2, ...; frequencies are no counts, for them use Normal or Beta."

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        total: int = 100,
    ) -> None:
        super().__init__()
        self.context, self.shape = context, as_shape(shape)
        check_int("total", total)
        self.total = total
        self.net = build(net, (latent,), self.shape, context)

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2)) -> Multinomial:
        """Build a small instance, whose counts an encoder takes without scaling."""
        return cls(latent, shape, total=8)

    def forward(self, z: Tensor, *context: Tensor) -> Family:
        """Return p(x given z)."""
        return Family(self.net(z, *context), self.total, len(self.shape))
