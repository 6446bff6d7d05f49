"""Warnings about networks that cannot learn from the data as a user would expect."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyro_vae._util.random_state import fork_rng
from pyro_vae.conditional import Conditional
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.trace import run

__all__ = ["warn_of_networks"]

#: Rows of the run.
ROWS = 64
#: Root mean square of an input from which on it hides the others of order one.
LARGE = 1e3
#: Operations whose results have one sign.
ONE_SIGN = {"sigmoid", "_softmax", "softplus", "relu", "clamp_min", "hardsigmoid", "exp", "abs", "square"}
#: Operations that copy.
COPIES = {"clone", "_to_copy", "copy"}
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LastOperation(TorchDispatchMode):
    """Remember the operation that computed each tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[int, str] = {}
        self.alive: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and remember its name; views and copies keep that of their input."""
        found = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        inputs = [place(leaf) for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        for x in tree_leaves(found):
            if isinstance(x, Tensor) and (place(x) not in inputs or name.endswith("_")):
                copied = self.names.get(inputs[0], "") if name in COPIES and inputs else name.removesuffix("_")
                self.names[place(x)] = copied
                self.alive.append(x)  # or another tensor would get its memory
        return found


def place(x: Tensor) -> int:
    """Return a number of the memory of a tensor."""
    return x.untyped_storage()._cdata


def warn_of_networks(program: Program, *batch: Tensor) -> None:
    """Warn if a part cannot learn what it should, by a run of guide and model on the first rows.

    These are a network whose last operation gives outputs of one sign, where they are logits, and inputs of a network
    that are so large that they hide the others.
    """
    rows = [column[:ROWS] for column in batch]
    with evaluating(program), fork_rng(program.device, 0), ExitStack() as stack:
        operations, inputs = LastOperation(), Inputs()
        for name, part in program.named_modules():
            net = getattr(part, "net", None)
            if isinstance(part, Conditional) and isinstance(net, nn.Module):
                outputs: list[Tensor] = []
                hooks = [net.register_forward_hook(lambda module, given, y, out=outputs: out.append(y))]
                hooks.append(part.register_forward_hook(partial(check_output, name, operations, outputs)))
                hooks += [
                    layer.register_forward_pre_hook(partial(inputs.check, name))
                    for layer in net.modules()
                    if isinstance(layer, LAYERS)
                ]
                stack.callback(lambda hooks=hooks: [hook.remove() for hook in hooks])
        with operations:
            run(program.model, program.guide, rows)


def check_output(name: str, operations: LastOperation, outputs: list[Tensor], part: Any, given: Any, fn: Any) -> None:
    """Warn if logits have one sign."""
    base = fn
    while hasattr(base, "base_dist"):
        base = base.base_dist
    logits = "logits" in getattr(base, "arg_constraints", {})
    last = operations.names.get(place(outputs[-1]), "") if outputs and isinstance(outputs[-1], Tensor) else ""
    if logits and last in ONE_SIGN:
        warnings.warn(
            f"{name}: expected a network whose outputs are logits, which have any sign, got one that ends in "
            f"{last.strip('_')}, after which {type(part).__name__} cannot have all probabilities. Leave the last "
            "activation out",
            stacklevel=2,
        )


class Inputs:
    """Warn once if the first layer of a network gets large numbers: the latents of such an encoder are large too."""

    def __init__(self) -> None:
        self.checked: set[str] = set()
        self.warned = False

    def check(self, name: str, layer: Any, given: Sequence[Any]) -> None:
        """Check what a layer of the network of a part gets, unless an earlier layer of it was checked."""
        if self.warned or name in self.checked or not isinstance(given[0], Tensor):
            return
        self.checked.add(name)
        x = given[0].detach().double()
        axis = -1 if isinstance(layer, nn.Linear) else 1
        size = x.movedim(axis, -1).flatten(0, -2).square().mean(0).sqrt()
        if size.max() > LARGE:
            self.warned = True
            warnings.warn(
                f"{name}: expected a network with inputs of order one, got {float(size.max()):.2g} (root mean square "
                f"of input {int(size.argmax())}), which hides the other ones. Standardize the data, or for a table "
                "pass net=functools.partial(pyro_vae.data.tables.Features, columns)",
                stacklevel=2,
            )
