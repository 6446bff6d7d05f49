"""The contract of a network: ``net(in_shape, out_shape)`` maps ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from pyro_vae._util.describe import Described
from pyro_vae._util.validation import check_int

__all__ = ["Net", "NetBuilder", "Shape", "as_shape", "build", "image_shape", "join_context"]

#: The shape of one example, input or output.
Shape = Sequence[int]


class Net(Described, nn.Module):
    r"""A module that accepts any number of batch dimensions.

    Particles and enumerated values add dimensions on the left of the batch. Layers that count dimensions
    (convolution, ``Flatten``, ``BatchNorm``) would read them as channels or features, so they are folded into one
    batch dimension before ``body`` is called, and unfolded afterwards.

    Args:
        body: called with ``(n, *in_shape)`` and, unless ``context`` is 0, with ``(n, context)``
        in_shape: shape of one input
        out_shape: shape of one output
        context: width of the context (labels, covariates)

    Shape:
        ``(*batch, *in_shape)``, and context tensors ``(*batch, width)`` whose widths sum to ``context``, to
        ``(*batch, *out_shape)``.

    Raises:
        ValueError: the input does not end in ``in_shape``, or the context has another width.

    Example:
        >>> net = Net(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), (1, 3, 3), (4,))
        >>> net(torch.zeros(5, 7, 1, 3, 3)).shape
        torch.Size([5, 7, 4])
    """

    def __init__(self, body: nn.Module, in_shape: Shape, out_shape: Shape, *, context: int = 0) -> None:
        super().__init__()
        check_int("context", context, 0)
        self.body = body
        self.in_shape, self.out_shape = as_shape(in_shape), as_shape(out_shape)
        self.context = context

    @property
    def takes_missing(self) -> bool:
        """Whether NaN may mark missing entries of the input: that of ``body``, False if it has no such attribute."""
        return getattr(self.body, "takes_missing", False)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Map ``x`` (and ``context``) with any number of batch dimensions."""
        cut = x.dim() - len(self.in_shape)
        if cut < 0 or x.shape[cut:] != self.in_shape:
            expected = ", ".join(["*batch", *map(str, self.in_shape)])
            raise ValueError(f"x: expected shape ({expected}), got {tuple(x.shape)} (network {type(self).__name__})")
        batch = x.shape[:cut]
        if not self.context:
            y = self.body(x if cut == 1 else x.reshape(-1, *self.in_shape))
        else:
            if sum(c.shape[-1] if c.dim() else 0 for c in context) != self.context:
                raise ValueError(
                    f"context: expected {self.context} numbers per example (labels as one-hot floats), got shapes "
                    f"{[tuple(c.shape) for c in context]} (network {type(self).__name__})"
                )
            joined = join_context([c.to(x.dtype) for c in context], batch)
            batch = joined.shape[:-1]
            x = x.expand(*batch, *self.in_shape).reshape(-1, *self.in_shape)
            y = self.body(x, joined.reshape(-1, self.context))
        shape = (*batch, *self.out_shape)
        return y if y.shape == shape else y.reshape(shape)


#: What ``net=`` takes everywhere: ``net(in_shape, out_shape)``, with ``context=`` if there is one, returns a module.
NetBuilder = Callable[[Shape, Shape], Net | nn.Module]


def build(net: NetBuilder, in_shape: Shape, out_shape: Shape, context: int = 0) -> Net:
    """Build a network that accepts any number of batch dimensions.

    Args:
        net: returns a module that takes ``(n, *in_shape)``; with a context it is called as
            ``net(in_shape, out_shape, context=context)``, and its module takes ``(n, context)`` as well
        in_shape: shape of one input
        out_shape: shape of one output
        context: width of the context

    Returns:
        The module, wrapped in :class:`Net` unless it is one.

    Raises:
        TypeError: ``net`` does not return a module.
        ValueError: a shape is not a tuple of positive ints.

    Example:
        >>> from pyro_vae.nets import MLP
        >>> build(MLP, (8, 8), (3,))(torch.zeros(5, 4, 8, 8)).shape
        torch.Size([5, 4, 3])
    """
    in_shape, out_shape = as_shape(in_shape), as_shape(out_shape)
    module = net(in_shape, out_shape, **({"context": context} if context else {}))
    if not isinstance(module, nn.Module):
        raise TypeError(
            "net: expected a callable net(in_shape, out_shape) that returns a torch.nn.Module, but it returned "
            f"{type(module).__name__}"
        )
    return module if isinstance(module, Net) else Net(module, in_shape, out_shape, context=context)


def as_shape(shape: Shape | int, name: str = "shape") -> tuple[int, ...]:
    """Return ``shape`` as a tuple of positive ints, or raise."""
    sizes = (shape,) if isinstance(shape, (int, Integral)) else tuple(shape)
    return tuple(check_int(f"{name} {sizes}", n) for n in sizes)


def image_shape(name: str, shape: Shape) -> tuple[int, ...]:
    """Return ``(channels, height, width)``, with all dimensions before the last two folded into channels."""
    shape = as_shape(shape, name)
    if len(shape) < 2:
        raise ValueError(
            f"{name}: expected an image, (height, width) or (channels, height, width), got {shape}. "
            "Use MLP for vectors."
        )
    return (math.prod(shape[:-2]), *shape[-2:])


def join_context(context: Sequence[Tensor], batch: Shape = ()) -> Tensor:
    """Concatenate context tensors ``(*batch, width)`` along their last dimension, broadcast to a common batch."""
    batch = torch.broadcast_shapes(tuple(batch), *(c.shape[:-1] for c in context))
    return torch.cat([c.expand(*batch, -1) for c in context], -1)
