"""Compilers of a recorded step: from a graph and examples of its arguments to what is called in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor
from torch.fx import GraphModule

__all__ = ["Compiler", "inductor", "recorded"]

Compiler = Callable[[GraphModule, list[Tensor]], Callable[..., Sequence[Tensor]]]

#: Enough copies for inductor to loop over them instead of writing them out.
COPIES = 16

#: Numbers a step reads and writes below which calls cost more than arithmetic.
SMALL = 100_000


def inductor(graph: GraphModule, example: list[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """Compile a graph by torch's inductor, with the random numbers that the uncompiled step would draw.

    Args:
        graph: a recorded step; it is changed
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
    if example[0].device.type != "cpu":  # what surrounds the code there is no part of the CUDA graph
        with torch.no_grad():
            return compile_fx(graph, example, config_patches=options)
    compute_once(graph)
    add_biases_apart(graph)
    draw_at_once(graph)
    # shapes are compared before the step is called (CompiledStep.fits), so not again for each tensor within it
    options |= {"size_asserts": False}
    inputs = zip(graph.graph.find_nodes(op="placeholder"), example, strict=True)
    if sum(t.numel() for node, t in inputs if not only_rows(node)) < SMALL:
        options |= {"cpp_wrapper": True, "memory_planning": True, "cpp.threads": 1}
    outputs, bare = results(graph), []

    def keep(lowered: GraphModule, inputs: Sequence[Tensor], **settings: Any) -> Callable[..., Any]:
        same = alike(inputs, example) and results(lowered) == outputs
        made = compile_fx_inner(lowered, inputs, **settings)
        bare.extend([getattr(made, "current_callable", made)] if same else [])
        return made

    # a whole result from torch's cache would come without a call of keep
    with torch.no_grad(), torch._functorch.config.patch(enable_autograd_cache=False):
        whole = compile_fx(graph, example, inner_compile=keep, config_patches=options)
    if not bare:
        return whole
    return lambda *arguments: bare[0](list(arguments))


def recorded(graph: GraphModule, example: list[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """Leave a graph as it was recorded, for machines without a compiler; on a GPU it becomes a CUDA graph even so.

    Args:
        graph: a recorded step
        example: its arguments

    Returns:
        The graph.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> len(pv.fit(toy.program, toy.draw(64), compile=recorded, epochs=1, progress=False))
        1
    """
    del example
    return graph


def compute_once(graph: GraphModule) -> None:
    """Have inductor compute single numbers once, not anew for each number of the tensors that they meet.

    It writes the powers in Adam's bias correction into the loop over the parameters, where they take most of its
    time, and the check of the step. What a reduction gives is computed before the loop: each such number becomes the
    largest of equal ones.
    """
    nodes = graph.graph
    for node in list(nodes.nodes):
        if node.op != "call_function" or not is_number(node) or not node.all_input_nodes:
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


def add_biases_apart(graph: GraphModule) -> None:
    """Have biases added by what follows the products, in the same pass over memory.

    On a CPU a product that adds a bias first writes the bias into its result, row by row. A sum of both would be made
    one such product again by inductor; so the negative is subtracted, which rounds as the sum does.
    """
    nodes = graph.graph
    for node in nodes.find_nodes(op="call_function", target=torch.ops.aten.addmm.default):
        if node.kwargs or node.meta["val"].dtype not in (torch.float32, torch.float64):
            continue  # half precision would be rounded twice
        bias, left, right = node.args
        with nodes.inserting_before(node):
            product = nodes.call_function(torch.ops.aten.mm.default, (left, right))
            less = nodes.call_function(torch.ops.aten.neg.default, (bias,))
            apart = nodes.call_function(torch.ops.aten.sub.Tensor, (product, less))
        node.replace_all_uses_with(apart)
        nodes.erase_node(node)
    graph.recompile()


def draw_at_once(graph: GraphModule) -> None:
    """Have standard normal noise drawn where it is to be, not copied there: the same numbers of the same stream."""
    nodes = graph.graph
    for node in nodes.find_nodes(op="call_function", target=torch.ops.aten.normal_.default):
        memory = node.args[0]
        if node.args[1:] or node.kwargs or len(memory.users) > 1:
            continue  # of another mean or width, or from a generator of its own
        if memory.target is torch.ops.aten.empty.memory_format:
            with nodes.inserting_before(node):
                drawn = nodes.call_function(torch.ops.aten.randn.default, memory.args, memory.kwargs)
            node.replace_all_uses_with(drawn)
            nodes.erase_node(node)
            nodes.erase_node(memory)
    graph.recompile()


def results(graph: GraphModule) -> int:
    """Return how many tensors a graph returns."""
    (output,) = graph.graph.find_nodes(op="output")
    return len(output.args[0])


def alike(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether tensors have the same shapes and types, one by one."""
    return [(t.shape, t.dtype) for t in some] == [(t.shape, t.dtype) for t in others]


def is_number(node: torch.fx.Node) -> bool:
    """Whether a node gives a single floating-point number, or truth, that was computed from others."""
    value = node.meta.get("val")
    made = ("full", "zeros", "ones", "empty", "detach", "expand")
    return (
        isinstance(value, Tensor)
        and value.dim() == 0
        and (value.is_floating_point() or value.dtype == torch.bool)
        and not any(word in str(node.target) for word in made)
    )


def only_rows(node: torch.fx.Node) -> bool:
    """Whether a step reads some rows of an input and no more."""
    return all(user.target is torch.ops.aten.index_select.default for user in node.users)
