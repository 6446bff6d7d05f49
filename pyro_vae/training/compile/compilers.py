"""Compilers: from the graph of a recorded step and an example of its arguments to a function that takes the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor
from torch.fx import GraphModule

__all__ = ["Compiler", "eager_graph", "inductor"]

Compiler = Callable[[GraphModule, list[Tensor]], Callable[..., Sequence[Tensor]]]

#: Enough copies for inductor to loop over them instead of unrolling the loop.
COPIES = 16

#: Numbers that a step reads and writes, below which calls cost more than arithmetic.
SMALL = 100_000


def inductor(graph: GraphModule, example: list[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """Compile a graph with torch's inductor; the random numbers are those of the uncompiled step.

    Args:
        graph: a recorded step, which is changed
        example: its arguments

    Returns:
        The compiled function.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> len(pv.fit(toy.program, toy.draw(64), compile=inductor, epochs=1, progress=False))  # doctest: +SKIP
        1
    """
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner  # takes seconds to import

    options: dict[str, Any] = {"fallback_random": True}
    if example[0].device.type != "cpu":  # a CUDA graph leaves out the wrapper anyway
        with torch.no_grad():
            return compile_fx(graph, example, config_patches=options)
    compute_scalars_once(graph)
    add_biases_separately(graph)
    sample_directly(graph)
    # RecordedStep.fits compares the shapes once per step, so the code need not check them for each tensor
    options |= {"size_asserts": False}
    inputs = zip(graph.graph.find_nodes(op="placeholder"), example, strict=True)
    if sum(t.numel() for node, t in inputs if not is_indexed(node)) < SMALL:
        options |= {"cpp_wrapper": True, "memory_planning": True, "cpp.threads": 1}
    outputs, bare = num_outputs(graph), []

    def keep(lowered: GraphModule, inputs: Sequence[Tensor], **settings: Any) -> Callable[..., Any]:
        same = alike(inputs, example) and num_outputs(lowered) == outputs
        made = compile_fx_inner(lowered, inputs, **settings)
        bare.extend([getattr(made, "current_callable", made)] if same else [])
        return made

    # a whole result from torch's cache would not pass through keep
    with torch.no_grad(), torch._functorch.config.patch(enable_autograd_cache=False):
        whole = compile_fx(graph, example, inner_compile=keep, config_patches=options)
    if not bare:
        return whole
    return lambda *arguments: bare[0](list(arguments))


def eager_graph(graph: GraphModule, example: list[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """Return the graph as it is, for machines without a compiler. On a GPU it still becomes a CUDA graph.

    Args:
        graph: a recorded step
        example: its arguments

    Returns:
        The graph.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> len(pv.fit(toy.program, toy.draw(64), compile=eager_graph, epochs=1, progress=False))
        1
    """
    del example
    return graph


def compute_scalars_once(graph: GraphModule) -> None:
    """Make inductor compute each scalar once, and not again for each element of the tensors it is combined with.

    Inductor inlines the powers in Adam's bias correction, and the check of the step, into the loop over the
    parameters, where they take most of the time. It computes a reduction before the loop, so each such scalar is
    written as the largest of equal numbers.
    """
    nodes = graph.graph
    for node in list(nodes.nodes):
        if node.op != "call_function" or not is_scalar(node) or not node.all_input_nodes:
            continue
        largest = torch.ops.aten.any.default if node.meta["val"].dtype == torch.bool else torch.ops.aten.amax.default
        users = [user for user in node.users if isinstance(user.meta.get("val"), Tensor) and user.meta["val"].dim()]
        if users:
            with nodes.inserting_after(node):
                copies = nodes.call_function(torch.ops.aten.expand.default, (node, [COPIES]))
            with nodes.inserting_after(copies):
                once = nodes.call_function(largest, (copies,))
            for user in users:
                user.replace_input_with(node, once)
    graph.recompile()


def add_biases_separately(graph: GraphModule) -> None:
    """Add biases after the matrix products, in the same pass over memory as the operations that follow.

    On a CPU a product with a bias first writes the bias into each row of its result. Inductor would turn a sum of
    product and bias back into such a product, so the negative bias is subtracted, which rounds like the sum.
    """
    nodes = graph.graph
    for node in nodes.find_nodes(op="call_function", target=torch.ops.aten.addmm.default):
        if node.kwargs or node.meta["val"].dtype not in (torch.float32, torch.float64):
            continue  # half precision would be rounded twice
        bias, left, right = node.args
        with nodes.inserting_before(node):
            product = nodes.call_function(torch.ops.aten.mm.default, (left, right))
            negative = nodes.call_function(torch.ops.aten.neg.default, (bias,))
            total = nodes.call_function(torch.ops.aten.sub.Tensor, (product, negative))
        node.replace_all_uses_with(total)
        nodes.erase_node(node)
    graph.recompile()


def sample_directly(graph: GraphModule) -> None:
    """Sample standard normal noise into its final memory instead of copying it there; the numbers are the same."""
    nodes = graph.graph
    for node in nodes.find_nodes(op="call_function", target=torch.ops.aten.normal_.default):
        memory = node.args[0]
        if node.args[1:] or node.kwargs or len(memory.users) > 1:
            continue  # another mean or std, or a generator of its own
        if memory.target is torch.ops.aten.empty.memory_format:
            with nodes.inserting_before(node):
                drawn = nodes.call_function(torch.ops.aten.randn.default, memory.args, memory.kwargs)
            node.replace_all_uses_with(drawn)
            nodes.erase_node(node)
            nodes.erase_node(memory)
    graph.recompile()


def num_outputs(graph: GraphModule) -> int:
    """Return the number of tensors that a graph returns."""
    (output,) = graph.graph.find_nodes(op="output")
    return len(output.args[0])


def alike(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether two lists of tensors have the same shapes and types."""
    return [(t.shape, t.dtype) for t in some] == [(t.shape, t.dtype) for t in others]


def is_scalar(node: torch.fx.Node) -> bool:
    """Whether a node computes a single floating-point number or boolean from others."""
    value = node.meta.get("val")
    made = ("full", "zeros", "ones", "empty", "detach", "expand")
    return (
        isinstance(value, Tensor)
        and value.dim() == 0
        and (value.is_floating_point() or value.dtype == torch.bool)
        and not any(word in str(node.target) for word in made)
    )


def is_indexed(node: torch.fx.Node) -> bool:
    """Whether a step reads only some rows of an input."""
    return all(user.target is torch.ops.aten.index_select.default for user in node.users)
