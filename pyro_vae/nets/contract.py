"""The contract of a network: ``net(in_shape, out_shape)`` maps ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["Net", "Shape", "as_shape", "build", "image_shape"]

Shape = tuple[int, ...]


class Net(nn.Module):
    r"""Wrap ``body`` so that it sees one batch dimension, however many there are.

    Particles and enumerated values arrive as dimensions on the left of the batch. Layers that count
    dimensions (convolution, ``Flatten``, ``BatchNorm``) would take them for channels or features:
    here they are folded into the batch before the call and unfolded after it.

    Args:
        body: called with ``(n, *in_shape)`` and, where ``context`` is not 0, with ``(n, context)``
        in_shape: shape of one input
        out_shape: shape of one output
        context: how many further numbers (labels, covariates) one datum brings

    Shape:
        ``(*batch, *in_shape)`` and ``(*batch, width)`` for each context, whose widths sum to
        ``context``; returns ``(*batch, *out_shape)``.

    Raises:
        ValueError: the input does not end in ``in_shape``, or the context has another width.

    Example:
        >>> net = Net(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), (1, 3, 3), (4,))
        >>> net(torch.zeros(5, 7, 1, 3, 3)).shape
        torch.Size([5, 7, 4])
    """

    def __init__(
        self,
        body: nn.Module,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.body = body
        self.in_shape, self.out_shape = as_shape(in_shape), as_shape(out_shape)
        self.context = context

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Map ``x`` (and ``context``) with any number of leading dimensions."""
        cut = x.dim() - len(self.in_shape)
        if cut < 0 or x.shape[cut:] != self.in_shape:
            raise ValueError(
                f"the network of in_shape {self.in_shape} got an input of shape {tuple(x.shape)}: "
                f"expected (*batch, {', '.join(map(str, self.in_shape))})"
            )
        batch = x.shape[:cut]
        if not self.context:
            flat = x if cut == 1 else x.reshape(-1, *self.in_shape)
            y = self.body(flat)
        else:
            width = sum(c.shape[-1] if c.dim() else 0 for c in context)
            if width != self.context:
                raise ValueError(
                    f"this network takes a context of {self.context} numbers a datum (labels as one-hot "
                    f"floats, say), got {[tuple(c.shape) for c in context]}"
                )
            batch = torch.broadcast_shapes(batch, *(c.shape[:-1] for c in context))
            flat = x.expand(*batch, *self.in_shape).reshape(-1, *self.in_shape)
            joined = torch.cat([c.to(x.dtype).expand(*batch, -1) for c in context], -1)
            y = self.body(flat, joined.reshape(-1, self.context))
        shape = (*batch, *self.out_shape)
        return y if y.shape == shape else y.reshape(shape)


def build(
    net: Callable[..., nn.Module],
    in_shape: Sequence[int],
    out_shape: Sequence[int],
    context: int = 0,
) -> Net:
    """Make a network by a user's ``net(in_shape, out_shape)`` and make it safe for leading dimensions.

    Args:
        net: returns a module that takes ``(n, *in_shape)``; with a context it is called as
            ``net(in_shape, out_shape, context=context)`` and its module takes ``(n, context)`` as well
        in_shape: shape of one input
        out_shape: shape of one output
        context: how many further numbers one datum brings

    Returns:
        The module, wrapped in :class:`Net` unless it is one.

    Raises:
        TypeError: what ``net`` returns is no module.
        ValueError: a shape is not a tuple of positive ints.

    Example:
        >>> build(MLP, (8, 8), (3,))(torch.zeros(5, 4, 8, 8)).shape
        torch.Size([5, 4, 3])
    """
    in_shape, out_shape = as_shape(in_shape), as_shape(out_shape)
    options = {"context": context} if context else {}
    module = net(in_shape, out_shape, **options)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"net: expected a callable net(in_shape, out_shape) that returns a torch.nn.Module, "
            f"but it returned {type(module).__name__}"
        )
    return module if isinstance(module, Net) else Net(module, in_shape, out_shape, context=context)


def as_shape(shape: Sequence[int] | int) -> Shape:
    """Return ``shape`` as a tuple of positive ints, or say what is wrong with it."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(not isinstance(n, int) or n < 1 for n in shape):
        raise ValueError(f"a shape is a tuple of positive ints, got {shape}")
    return shape


def image_shape(name: str, shape: Sequence[int]) -> Shape:
    """Fold all dimensions before the last two into channels."""
    shape = as_shape(shape)
    if len(shape) < 2:
        raise ValueError(
            f"{name}: a convolution needs an image (height, width) or (channels, height, width), got "
            f"{shape}; use MLP for vectors"
        )
    return (math.prod(shape[:-2]), *shape[-2:])
