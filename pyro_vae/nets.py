"""Networks ``net(in_shape, out_shape)`` that map ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["MLP", "ConvDecoder", "ConvEncoder", "Net", "Shape", "build"]

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


class MLP(Net):
    r"""A multilayer perceptron: the input flattened, hidden layers, the output in ``out_shape``.

    Args:
        in_shape: shape of one input
        out_shape: shape of one output
        context: how many further numbers are joined to the input
        hidden: width of each hidden layer
        activation: class or function that makes the nonlinearity after each hidden layer

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: a shape is not a tuple of positive ints.

    Example:
        >>> MLP((28, 28), (2, 20), hidden=(400,))(torch.zeros(6, 5, 28, 28)).shape
        torch.Size([6, 5, 2, 20])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        context: int = 0,
        hidden: Sequence[int] = (500, 500),
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        in_shape, out_shape = as_shape(in_shape), as_shape(out_shape)
        widths = [math.prod(in_shape) + context, *hidden]
        layers: list[nn.Module] = []
        for i, o in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(i, o), activation()]
        layers.append(nn.Linear(widths[-1], math.prod(out_shape)))
        super().__init__(_Flat(*layers), in_shape, out_shape, context=context)


class ConvEncoder(Net):
    r"""Strided convolutions over an image ``(height, width)`` or ``(channels, height, width)``.

    Each layer halves height and width (rounded up) and is followed by the nonlinearity; a linear
    layer makes the output.

    Args:
        in_shape: shape of one image
        out_shape: shape of one output
        context: how many further numbers are joined to the features before the last layers
        channels: channels of each convolution
        hidden: width of the layer before the output
        activation: class or function that makes the nonlinearity

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``in_shape`` is no image.

    Example:
        >>> ConvEncoder((28, 28), (2, 20))(torch.zeros(5, 28, 28)).shape
        torch.Size([5, 2, 20])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        context: int = 0,
        channels: Sequence[int] = (32, 64),
        hidden: int = 256,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        image = image_shape("in_shape", in_shape)
        sizes = halvings(image[1:], len(channels))
        layers: list[nn.Module] = [_AsImage(image)]
        for i, o in zip((image[0], *channels), channels, strict=False):
            layers += [nn.Conv2d(i, o, 3, stride=2, padding=1), activation()]
        features = (channels[-1] if channels else image[0]) * math.prod(sizes[-1])
        head = _Flat(
            nn.Linear(features + context, hidden),
            activation(),
            nn.Linear(hidden, math.prod(as_shape(out_shape))),
        )
        super().__init__(_Trunk(nn.Sequential(*layers), head), in_shape, out_shape, context=context)


class ConvDecoder(Net):
    r"""Transposed convolutions to an image ``(..., height, width)``: the mirror of :class:`ConvEncoder`.

    All dimensions of ``out_shape`` before the last two are channels, so that a likelihood with two
    parameters a pixel asks for ``(2, height, width)``.

    Args:
        in_shape: shape of one input
        out_shape: shape of the image
        context: how many further numbers are joined to the input
        channels: channels before each transposed convolution
        hidden: width of the first layer
        activation: class or function that makes the nonlinearity

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: ``out_shape`` is no image.

    Example:
        >>> ConvDecoder((20,), (2, 28, 28))(torch.zeros(5, 20)).shape
        torch.Size([5, 2, 28, 28])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        *,
        context: int = 0,
        channels: Sequence[int] = (64, 32),
        hidden: int = 256,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        image = image_shape("out_shape", out_shape)
        sizes = halvings(image[1:], len(channels))[::-1]
        small = (channels[0] if channels else image[0], *sizes[0])
        layers: list[nn.Module] = [
            nn.Linear(math.prod(as_shape(in_shape)) + context, hidden),
            activation(),
            nn.Linear(hidden, math.prod(small)),
            nn.Unflatten(1, small),
        ]
        wide = [*channels, image[0]]
        for i, o, before, after in zip(wide[:-1], wide[1:], sizes[:-1], sizes[1:], strict=True):
            # a stride of 2 turns n into 2n - 1: the output padding adds the row that an even size needs
            extra = (after[0] - 2 * before[0] + 1, after[1] - 2 * before[1] + 1)
            up = nn.ConvTranspose2d(i, o, 3, stride=2, padding=1, output_padding=extra)
            layers += [activation(), up]
        super().__init__(_Flat(*layers), in_shape, out_shape, context=context)


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


def halvings(size: Shape, times: int) -> list[Shape]:
    """Sizes of an image halved ``times`` times, rounded up, the first one included."""
    sizes = [size]
    for _ in range(times):
        sizes.append(tuple((n + 1) // 2 for n in sizes[-1]))
    return sizes


class _Flat(nn.Sequential):
    """Layers over the flattened input, joined with the context."""

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        x = x if x.dim() == 2 else x.reshape(x.shape[0], -1)
        return super().forward(torch.cat([x, *context], -1) if context else x)


class _AsImage(nn.Module):
    """View ``(n, *shape)`` as ``(n, channels, height, width)``."""

    def __init__(self, image: Shape) -> None:
        super().__init__()
        self.image = image

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *self.image)


class _Trunk(nn.Module):
    """Image layers, then a head that sees their features joined with the context."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        return self.head(self.trunk(x), *context)
