"""The PixelCNN prior: an autoregressive distribution over a grid of codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import OneHotAutoregressive
from pyro_vae.nets import MLP, NetBuilder, Shape, build
from pyro_vae.nets.masked_conv import GatedConvolutions
from pyro_vae.nets.shapes import as_shape

__all__ = ["PixelCNN"]


class PixelCNN(Conditional):
    r"""A grid of codes, each given all codes before it row by row, by gated masked convolutions.

    .. math:: p(z) = \prod_{i=1}^{hw} p(z_i \mid z_1, \dots, z_{i - 1})

    Each z_i is a one-hot vector over K codes, and z is their concatenation. A density takes one pass, a sample one
    pass per position. Train it with the program, or afterwards on the codes of data by
    :class:`pyro_vae.tasks.AggregatePosterior`.

    References:
        Neural discrete representation learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937;
        Conditional image generation with PixelCNN decoders (van den Oord et al., 2016),
        https://arxiv.org/abs/1606.05328

    Args:
        latent: length of z, positions of the grid times codes
        grid: height and width of the grid
        net: with a context, builds the network from the context to h, ``net((context,), (features, height, width))``;
            without one h is learned
        context: width of the context (labels, covariates)
        features: number of features of h and of each layer
        layers: number of gated layers after the first convolution
        kernel_size: width of the convolutions, odd

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``, position by position.

    Raises:
        ValueError: ``latent`` is not a multiple of the positions, ``grid`` has another length than 2, or an argument
            of the convolutions is invalid.

    Example:
        >>> PixelCNN(4 * 4 * 8, grid=(4, 4))().sample().sum()
        tensor(16.)
    """

    def __init__(
        self,
        latent: int,
        *,
        grid: Shape = (1, 1),
        net: NetBuilder = MLP,
        context: int = 0,
        features: int = 32,
        layers: int = 3,
        kernel_size: int = 5,
    ) -> None:
        super().__init__(latent=latent, context=context)
        self.grid = as_shape(grid, "grid")
        if len(self.grid) != 2:
            raise ValueError(f"grid: expected (height, width), got {grid!r}")
        self.positions = self.grid[0] * self.grid[1]
        if latent % self.positions:
            raise ValueError(f"grid: expected a divisor of latent = {latent} positions, got {self.grid}")
        self.num_codes = latent // self.positions
        shape = (check_int("features", features), *self.grid)
        if context:
            self.net = build(net, (context,), shape)
        else:
            self.position = nn.Parameter(0.1 * torch.randn(shape))
        self.convolutions = GatedConvolutions(
            self.num_codes, self.num_codes, groups=1, features=features, layers=layers, kernel_size=kernel_size
        )

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> PixelCNN:
        """Build a small instance, with two narrow layers."""
        return super().example(latent=latent, shape=shape, **{"features": 4, "layers": 2, **options})

    def forward(self, *context: Tensor) -> OneHotAutoregressive:
        """Return p(z), or p(z given c) if built with a context."""
        h = self.net(torch.cat(context, -1)) if self.context else self.position
        return OneHotAutoregressive(self.logits, h, self.positions, self.num_codes, condition_dim=3)

    def logits(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the logits of the code at each position given those before it.

        Args:
            z: of shape ``(*batch, latent)``
            h: of shape ``(*batch, features, height, width)``

        Returns:
            A tensor of shape ``(*batch, positions, codes)``.
        """
        batch = z.shape[:-1]
        codes = z.reshape(-1, *self.grid, self.num_codes).movedim(-1, 1)
        out = self.convolutions(codes, h.reshape(-1, *h.shape[-3:]))
        return out.flatten(2).movedim(1, 2).reshape(*batch, self.positions, self.num_codes)
