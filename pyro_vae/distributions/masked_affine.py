"""A masked network with autoregressive outputs (MADE), and an invertible layer made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_vae.distributions.flow import Layer

__all__ = ["MaskedAffine", "MaskedMLP"]


class MaskedLinear(nn.Linear):
    """A linear layer with a fixed mask on its weights."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(*batch, in)`` to ``(*batch, out)``."""
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


class MaskedMLP(nn.Module):
    r"""A multilayer perceptron whose j-th output depends only on the inputs before the j-th (MADE).

    References:
        MADE: masked autoencoder for distribution estimation (Germain et al., 2015),
        https://arxiv.org/abs/1502.03509

    Args:
        size: number of inputs
        outputs: number of outputs per input
        hidden: width of each hidden layer
        context: number of context values, on which all outputs may depend
        activation: makes the nonlinearity after each hidden layer

    Shape:
        ``(*batch, size)``, and ``(*batch, width)`` for each context, to ``(*batch, outputs, size)``.

    Example:
        >>> MaskedMLP(3, 2)(torch.zeros(5, 3)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        size: int,
        outputs: int,
        *,
        hidden: Sequence[int] = (256, 256),
        context: int = 0,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("hidden: expected at least one width, got none. Pass a sequence such as (256,)")
        self.size, self.outputs, self.width = size, outputs, context
        order = torch.arange(size)
        # a unit of degree d depends on inputs 0..d: degrees 0..size-2 are useful, spread evenly
        degrees = [order, *(torch.arange(width) * max(size - 1, 1) // width for width in hidden)]
        masks = [o[:, None] >= i for i, o in zip(degrees[:-1], degrees[1:], strict=True)]
        last = (order[:, None] > degrees[-1]).repeat(outputs, 1)
        self.layers = nn.ModuleList(MaskedLinear(mask.to(torch.get_default_dtype())) for mask in [*masks, last])
        self.activation = activation()
        self.of_context = nn.Linear(context, hidden[0], bias=False) if context else None

    def forward(self, z: Tensor, *context: Tensor) -> Tensor:
        """Return the outputs, one column per input."""
        h = self.layers[0](z)
        if self.of_context is not None:
            width = sum(c.shape[-1] for c in context)
            if width != self.width:
                raise ValueError(f"context: expected {self.width} numbers per example, got {width}")
            batch = torch.broadcast_shapes(*(c.shape[:-1] for c in context))
            h = h + self.of_context(torch.cat([c.expand(*batch, -1) for c in context], -1))
        for layer in self.layers[1:]:
            h = layer(self.activation(h))
        return h.unflatten(-1, (self.outputs, self.size))


class MaskedAffine(Layer):
    r"""An affine map of each coordinate, with parameters computed from the coordinates before it.

    .. math:: u_j = (z_j - \mu_j(z_{<j}))\, e^{-s_j(z_{<j})}, \qquad \lvert s_j \rvert < \mathrm{limit}

    Args:
        size: number of coordinates
        hidden: width of each hidden layer of the network
        context: number of context values of the network
        limit: bound of the log-scale, which keeps densities finite far from the data

    Example:
        >>> MaskedAffine(3)(torch.zeros(5, 3))[1].shape
        torch.Size([5])
    """

    def __init__(self, size: int, *, hidden: Sequence[int] = (256, 256), context: int = 0, limit: float = 3.0) -> None:
        super().__init__()
        self.net = MaskedMLP(size, 2, hidden=hidden, context=context)
        self.limit = limit

    def affine(self, z: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the location and log-scale of each coordinate."""
        loc, raw = self.net(z, *context).unbind(-2)
        return loc, self.limit * torch.tanh(raw / self.limit)

    def forward(self, z: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and the log-determinant, in one pass."""
        loc, log_scale = self.affine(z, *context)
        return (z - loc) * torch.exp(-log_scale), -log_scale.sum(-1)

    def inverse(self, u: Tensor, *context: Tensor) -> Tensor:
        """Return z, with one pass per coordinate."""
        z = torch.zeros_like(u)
        for _ in range(u.shape[-1]):
            # after pass j the first j coordinates are final, as they depend on no later one
            loc, log_scale = self.affine(z, *context)
            z = loc + u * torch.exp(log_scale)
        return z
