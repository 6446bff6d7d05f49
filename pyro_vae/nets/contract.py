"""The contract of a network: ``net(in_shape, out_shape)`` maps ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae._util.describe import Described
from pyro_vae._util.validation import check_int
from pyro_vae.nets.shapes import Shape, as_shape, wide

__all__ = ["Net", "NetBuilder", "NetError", "build", "join_context"]


class NetError(ValueError):
    """An input, context or output of a network does not have the declared shape.

    Args:
        net: the network
        problem: what was expected and what was given
        advice: what to do
        part: the part that the network belongs to, once it is known
        given: the shape of the input, if that is wrong
    """

    def __init__(
        self, net: Net, problem: str, advice: str = "", *, part: str = "", given: torch.Size | None = None
    ) -> None:
        self.net, self.problem, self.advice, self.part, self.given = net, problem, advice, part, given
        module = net.body if type(net) is Net else net
        where = f"network {type(module).__name__}" + (f" of {part}" if part else "")
        super().__init__(f"{problem} ({where})" + (f". {advice}" if advice else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        return ValueError, (str(self),)  # without the network

    def of(self, part: str, advice: str = "") -> NetError:
        """Return the error with the name of the part, and with advice if it has none."""
        return NetError(self.net, self.problem, self.advice or advice, part=part, given=self.given)


class Net(Described, nn.Module):
    r"""A module that accepts any number of batch dimensions.

    Particles and enumerated values add dimensions on the left of the batch. Layers that count dimensions
    (convolution, ``Flatten``, ``BatchNorm``) would read them as channels or features, so they are folded into one
    batch dimension before ``body`` is called, and unfolded afterwards.

    The output of ``body`` must be one tensor ``(n, *out_shape)``, or the same numbers as ``(n, size)``, or with other
    dimensions of size 1. Any other shape is refused: reshaping it would mix examples or axes.

    Args:
        body: called with ``(n, *in_shape)`` and, unless ``context`` is 0, with ``(n, context)``
        in_shape: shape of one input
        out_shape: shape of one output
        context: width of the context (labels, covariates)

    Shape:
        ``(*batch, *in_shape)``, and context tensors ``(*batch, width)`` whose widths sum to ``context``, to
        ``(*batch, *out_shape)``.

    Raises:
        NetError: the input does not end in ``in_shape``, the context has another width, or the output of ``body`` has
            another shape or is not a tensor. This is a ValueError.

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
            raise NetError(self, f"input: expected shape ({expected}), got {tuple(x.shape)}", given=x.shape)
        batch = x.shape[:cut]
        if not self.context:
            x = x if cut == 1 else x.reshape(-1, *self.in_shape)
            y = self.body(x)
        else:
            if sum(c.shape[-1] if c.dim() else 0 for c in context) != self.context:
                raise NetError(
                    self,
                    f"context: expected {self.context} numbers per example (labels as one-hot floats), got shapes "
                    f"{[tuple(c.shape) for c in context]}",
                )
            joined = join_context([c.to(x.dtype) for c in context], batch)
            batch = joined.shape[:-1]
            x = x.expand(*batch, *self.in_shape).reshape(-1, *self.in_shape)
            y = self.body(x, joined.reshape(-1, self.context))
        shape = (*batch, *self.out_shape)
        if isinstance(y, Tensor) and y.shape == shape:
            return y
        self.check_output(y, x.shape[0])
        return y.reshape(shape)

    def check_output(self, y: Any, n: int) -> None:
        """Raise unless reshaping the output of ``body`` for ``n`` rows to ``(n, *out_shape)`` only renames axes."""
        out = self.out_shape
        if isinstance(y, Tensor) and y.dim() and y.shape[0] == n:
            rows = tuple(y.shape[1:])
            if rows == (math.prod(out),) or wide(rows) == wide(out):
                return
        expected = f"of shape {(n, *out)}, which is (rows, *out_shape)"
        if not isinstance(y, Tensor):
            many = isinstance(y, (tuple, list))
            shapes = [tuple(t.shape) if isinstance(t, Tensor) else type(t).__name__ for t in y] if many else ""
            advice = STACK if many else "Return the tensor alone"
            raise NetError(
                self, f"net: expected one tensor {expected}, got a {type(y).__name__} {shapes}".rstrip(), advice
            )
        if n == 1 and tuple(y.shape) == wide(out):
            return  # `squeeze` removes the dimension of a single row as well
        if not y.dim() or y.shape[0] != n:
            advice = "Row i of the output belongs to row i of the input: keep the first dimension"
        elif sorted(wide(y.shape[1:])) == sorted(wide(out)):
            advice = "Put the axes in the order of out_shape, for example by `movedim`"
        else:
            advice = "Its last layer must return out_shape"
        raise NetError(self, f"net: expected an output {expected}, got {tuple(y.shape)}", advice)


#: The adapter of a network that returns several tensors.
STACK = """Stack them in a module around it:
    class Stacked(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net
        def forward(self, *inputs):
            return torch.stack(self.net(*inputs), 1)
and pass net=lambda in_shape, out_shape: Stacked(...). A part turns an output r into a scale by softplus(r) + 1e-4, \
not by exp(r / 2) as for a log-variance: train the network with the part"""


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
        TypeError: ``net`` is not such a function, or does not return a module.
        ValueError: a shape is not a tuple of positive ints, or ``net`` returns a Net of other shapes.

    Example:
        >>> from pyro_vae.nets import MLP
        >>> build(MLP, (8, 8), (3,))(torch.zeros(5, 4, 8, 8)).shape
        torch.Size([5, 4, 3])
    """
    in_shape, out_shape = as_shape(in_shape), as_shape(out_shape)
    options = {"context": context} if context else {}
    call = f"net({in_shape}, {out_shape}{f', context={context}' if context else ''})"
    if isinstance(net, nn.Module) or not callable(net):
        module = f"the module {type(net).__name__}" if isinstance(net, nn.Module) else repr(net)
        raise TypeError(
            f"net: expected a function that builds the network, called as {call}, got {module}. Pass a class such as "
            "pyro_vae.nets.MLP, or net=lambda in_shape, out_shape: network"
        )
    try:
        module = net(in_shape, out_shape, **options)
    except TypeError as error:
        name = getattr(net, "__name__", None) or repr(net)
        raise TypeError(
            f"net: expected a function that builds the network, but {call} failed with {name}: {error}. Its arguments "
            f"are shapes (tuples){' and the width of the context' if context else ''}; write net=lambda in_shape, "
            f"out_shape{', context' if context else ''}: network"
        ) from error
    if not isinstance(module, nn.Module):
        raise TypeError(f"net: expected {call} to return a torch.nn.Module, but it returned {type(module).__name__}")
    if not isinstance(module, Net):
        return Net(module, in_shape, out_shape, context=context)
    found, asked = (module.in_shape, module.out_shape, module.context), (in_shape, out_shape, context)
    if found == asked:
        return module
    same = module.out_shape == (math.prod(out_shape),) or wide(module.out_shape) == wide(out_shape)
    if found[::2] != asked[::2] or not same:
        raise ValueError(
            f"net: expected a network with in_shape {in_shape}, out_shape {out_shape} and context {context}, got "
            f"{type(module).__name__} with {found[0]}, {found[1]} and {found[2]} from {call}. Pass these arguments"
        )
    return Net(module, in_shape, out_shape, context=context)


def join_context(context: Sequence[Tensor], batch: Shape = ()) -> Tensor:
    """Concatenate context tensors ``(*batch, width)`` along their last dimension, broadcast to a common batch."""
    batch = torch.broadcast_shapes(tuple(batch), *(c.shape[:-1] for c in context))
    return torch.cat([c.expand(*batch, -1) for c in context], -1)
