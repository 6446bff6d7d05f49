"""Compile a function of torch tensors to a list of array operations that array_program.js runs in a web page."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pyro
import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

__all__ = ["UnsupportedOperation", "array_program"]

#: Operations that only move entries. They run on the numbers of the entries, which gives the index of each result.
MOVES = frozenset(
    "alias cat clone copy detach expand lift_fresh_copy permute select slice split split_with_sizes squeeze stack t "
    "transpose unbind unsqueeze unsafe_view view _unsafe_view flip index repeat".split()
)

#: Elementwise operations by their names in array_program.js.
ENTRYWISE = {name: name for name in "abs ceil cos erf exp expm1 floor log log1p neg".split()}
ENTRYWISE |= {name: name for name in "reciprocal relu sigmoid sign sin sqrt tanh".split()}
ENTRYWISE |= {name: name for name in "add sub mul div pow maximum minimum where lt le gt ge eq ne".split()}
ENTRYWISE |= {"clamp_min": "maximum", "clamp_max": "minimum", "logical_and": "mul", "bitwise_and": "mul"}

REDUCTIONS = {"sum": "sum", "amax": "max", "mean": "mean"}

#: Operations to decompose in addition to those that torch decomposes by default.
COMPOSED = "_log_softmax _softmax elu gelu hardtanh leaky_relu".split()


class UnsupportedOperation(ValueError):
    """The function uses an operation that a list of array operations cannot express."""


def array_program(function: Callable[[Tensor], Tensor], x: Tensor) -> list[list[Any]]:
    """Compile a function to a list of steps.

    The first step is the input and the last one the result. Each step makes one flat array; its operands are the
    numbers of earlier steps. Weights are base64 of float32.

    Args:
        function: from a tensor of the shape of ``x`` to a tensor, without random numbers or branches on values
        x: an example on the CPU, of shape ``(1, *shape)``

    Returns:
        The steps, as JSON values.

    Raises:
        UnsupportedOperation: there is no step for an operation of the function.

    Example:
        >>> steps = array_program(lambda x: torch.sigmoid(x.T) + 1, torch.zeros(1, 3))
        >>> [step[0] for step in steps]
        ['input', 'sigmoid', 'constant', 'add']
    """
    with torch.no_grad(), pyro.validation_enabled(False):
        try:
            graph = make_fx(torch.func.functionalize(function), rules())(x)
        except RuntimeError as error:
            raise UnsupportedOperation(f"a branch on values: {error}") from error
        graph.graph.eliminate_dead_code()
        steps = Steps(torch.zeros_like(x))
        found: dict[torch.fx.Node, Any] = {}
        for node in graph.graph.nodes:
            args = torch.fx.map_arg(node.args, found.__getitem__)
            if node.op == "placeholder":
                found[node] = steps.input
            elif node.op == "get_attr":
                found[node] = getattr(graph, node.target)
            elif node.op == "call_function":
                found[node] = steps.call(node.target, args, dict(node.kwargs))
            else:
                steps.finish(args[0])
    return steps.steps


@cache
def rules() -> dict[Any, Callable[..., Any]]:
    """Return the decompositions of operations into simpler ones."""
    composed = [getattr(torch.ops.aten, name) for name in COMPOSED]
    return {**core_aten_decompositions(), **get_decompositions(composed)}


@dataclass(frozen=True)
class Array:
    """The result of a step: its number, and an empty tensor of its shape and type."""

    step: int
    like: Tensor

    @property
    def shape(self) -> torch.Size:
        """Shape of the array."""
        return self.like.shape


@dataclass
class Steps:
    """The steps so far; tensors that do not depend on the input are computed at once."""

    like: Tensor
    steps: list[list[Any]] = field(default_factory=lambda: [["input"]])
    written: dict[Any, int] = field(default_factory=dict)

    @property
    def input(self) -> Array:
        """The argument of the function."""
        return Array(0, self.like)

    def add(self, like: Tensor, name: str, *args: Any) -> Array:
        """Add a step."""
        self.steps.append([name, *args])
        return Array(len(self.steps) - 1, like)

    def constant(self, value: Any) -> int:
        """Return the number of the step of a constant; equal constants share a step."""
        raw = torch.as_tensor(value).detach().cpu().to(torch.float32).contiguous().numpy().tobytes()
        if raw not in self.written:
            self.written[raw] = self.add(torch.zeros(()), "constant", base64.b64encode(raw).decode()).step
        return self.written[raw]

    def call(self, target: Any, args: Any, options: dict[str, Any]) -> Any:
        """Add the step of one operation, or compute it if its operands are constants."""
        if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
            raise UnsupportedOperation(f"random numbers: {target}")
        inputs = [a for a in torch.utils._pytree.tree_leaves(args) if isinstance(a, Array)]
        if not inputs:
            return target(*args, **options)
        name = getattr(target, "__name__", str(target)).partition(".")[0]
        if name == "getitem":
            return args[0][args[1]]
        empty = torch.utils._pytree.tree_map(lambda a: a.like if isinstance(a, Array) else a, args)
        if name.endswith("_like") or name in ("new_zeros", "new_ones", "new_full", "arange"):
            return target(*empty, **options)
        if name in MOVES:
            return self.move(target, args, options)
        like = target(*empty, **options)
        if name in ("_to_copy", "index_put", "clamp"):
            return getattr(self, name.lstrip("_"))(*args, **options)
        if name in ENTRYWISE and not options:
            return self.add(like, ENTRYWISE[name], *(self.spread(a, like.shape) for a in args))
        if name in REDUCTIONS and not options:
            return self.reduce(name, like, *args)
        if name in ("addmm", "mm") and len(inputs) == 1 and inputs[0] is args[-2] and len(like) == 1 and not options:
            bias = args[0] if name == "addmm" else torch.zeros(like.shape[1])
            return self.add(like, "linear", inputs[0].step, self.constant(args[-1].T), self.constant(bias))
        if name == "convolution" and len(inputs) == 1 and inputs[0] is args[0] and args[-1] == 1:
            return self.convolve(like, *args)
        raise UnsupportedOperation(f"{target} on arrays of shape {[tuple(a.shape) for a in inputs]}")

    def move(self, target: Any, args: Any, options: dict[str, Any]) -> Any:
        """Move entries of one array, or of several concatenated ones."""
        sources: list[int] = []
        total = 0

        def numbered(value: Any) -> Any:
            nonlocal total
            if not isinstance(value, (Array, Tensor)) or (isinstance(value, Tensor) and name == "index"):
                return value
            first, total = total, total + value.shape.numel()
            sources.append(value.step if isinstance(value, Array) else self.constant(value))
            return torch.arange(first, total).reshape(value.shape)

        name = target.__name__.partition(".")[0]
        made = target(*torch.utils._pytree.tree_map(numbered, args), **options)
        if not isinstance(made, Tensor):
            return [self.take(sources, index, total) for index in made]
        return self.take(sources, made, total)

    def take(self, sources: list[int], index: Tensor, total: int) -> Array:
        """Take entries by their numbers, unless they are all entries in order."""
        flat, like = index.flatten().tolist(), self.like.new_zeros(index.shape)
        if len(sources) == 1 and flat == list(range(total)):
            return Array(sources[0], like)
        return self.add(like, "take", sources, flat)

    def spread(self, value: Any, shape: torch.Size) -> int:
        """Return the step of an operand expanded to the shape of the result; single numbers are not expanded."""
        if not isinstance(value, Array):
            alone = not isinstance(value, Tensor) or value.numel() == 1
            return self.constant(value if alone else value.expand(shape))
        if value.shape.numel() in (1, shape.numel()):
            return value.step
        number = torch.arange(value.shape.numel()).reshape(value.shape)
        return self.take([value.step], number.expand(shape), number.numel()).step

    def to_copy(self, x: Array, **options: Any) -> Array:
        """Return a float array unchanged: the page has one type of floats."""
        if not options.get("dtype", torch.float32).is_floating_point:
            raise UnsupportedOperation(f"a conversion to {options['dtype']}")
        return x

    def clamp(self, x: Array, low: Any = None, high: Any = None) -> Array:
        """Clamp entries between two bounds."""
        for name, bound in (("maximum", low), ("minimum", high)):
            if bound is not None:
                x = self.add(x.like, name, x.step, self.spread(bound, x.shape))
        return x

    def index_put(self, x: Array, indices: list[Any], value: Tensor) -> Array:
        """Write a value where a mask is true."""
        if len(indices) != 1 or not isinstance(indices[0], Tensor) or indices[0].dtype is not torch.bool:
            raise UnsupportedOperation("index_put without a mask")
        return self.add(x.like, "where", self.constant(indices[0].expand(x.shape)), self.constant(value), x.step)

    def reduce(self, name: str, like: Tensor, x: Array, dims: Any = None, keep: bool = False) -> Array:
        """Reduce along dimensions, which are moved to the end first."""
        dims = range(len(x.shape)) if not dims else [d % len(x.shape) for d in dims]
        number = torch.arange(x.shape.numel()).reshape(x.shape)
        rows = number.permute(*(d for d in range(len(x.shape)) if d not in dims), *dims)
        size = x.shape.numel() // max(1, like.numel())
        return self.add(like, REDUCTIONS[name], self.take([x.step], rows, number.numel()).step, size)

    def convolve(self, like: Tensor, x: Array, weight: Tensor, bias: Any, *how: Any) -> Array:
        """Add a convolution of one image."""
        stride, padding, dilation, transposed, _, _ = how
        bias = torch.zeros(like.shape[1]) if bias is None else bias
        form = {
            "from": list(x.shape[1:]),
            "to": list(like.shape[1:]),
            "kernel": list(weight.shape[2:]),
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "transposed": transposed,
        }
        if len(x.shape) != 4 or x.shape[0] != 1:
            raise UnsupportedOperation(f"a convolution of arrays of shape {tuple(x.shape)}")
        return self.add(like, "convolution", x.step, self.constant(weight), self.constant(bias), form)

    def finish(self, result: Any) -> None:
        """Make the result the last step, or raise if it is a constant."""
        if not isinstance(result, Array):
            raise UnsupportedOperation("the function does not depend on its input")
        if result.step != len(self.steps) - 1:
            self.add(result.like, "take", [result.step], list(range(result.shape.numel())))
