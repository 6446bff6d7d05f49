"""The categorical likelihood, for pixel levels or class codes."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import LogCategorical, OnGrid
from pyro_vae.nets import MLP, NetBuilder, Shape
from pyro_vae.nets.contract import build
from pyro_vae.nets.shapes import as_shape

__all__ = ["Categorical"]


class Categorical(Conditional):
    r"""Independent categorical entries with L levels and logits from the decoder.

    .. math:: p(x \mid z) = \prod_i \pi_{i, k_i}, \qquad \pi = \operatorname{softmax}(\mathrm{net}(z)), \quad
              x_i = \frac{k_i}{L - 1}

    References:
        Pixel recurrent neural networks (van den Oord et al., 2016), https://arxiv.org/abs/1601.06759

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), (levels, *shape))``
        context: width of the context in addition to z
        levels: number L of levels, at least 2
        grid: whether the data are pixels ``k / (levels - 1)`` (within 1e-4), or codes ``k = 0, 1, ..., levels - 1``

    Raises:
        ValueError: ``levels`` is below 2.

    Example:
        >>> import torch
        >>> Categorical(3, (28, 28), levels=16)(torch.zeros(5, 3)).event_shape
        torch.Size([28, 28])
    """

    hint = "Pixels are k / (levels - 1); codes k = 0, 1, ... need grid=False. Round the data, or use Normal."

    def __init__(
        self,
        latent: int,
        shape: Shape,
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        levels: int = 256,
        grid: bool = True,
    ) -> None:
        super().__init__(latent=latent, context=context)
        check_int("levels", levels, 2)
        self.shape = as_shape(shape)
        self.levels, self.step = levels, 1 / (levels - 1) if grid else 1.0
        self.net = build(net, (latent,), (levels, *self.shape), context)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        k = len(self.shape)
        # normalized before the dimension is moved: normalizing afterwards would copy
        logits = self.net(z, *context).log_softmax(-1 - k).movedim(-1 - k, -1)
        return OnGrid(LogCategorical(logits), self.levels, self.step).to_event(k)
