"""Optimizers and dispatch modes of torch without the import of torch's compiler, which takes a second of CPU time.

torch imports it at the first call of a function that it must not trace. Before that nothing can be traced, so that the
function can be called as it is. This file holds all uses of private names of ``torch._compile`` and ``torch.optim``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["DispatchMode", "plain_methods", "step"]

COMPILER = "torch._dynamo"
#: Methods of optimizers that must not be traced.
METHODS = (Optimizer.add_param_group, Optimizer.state_dict, Optimizer.load_state_dict)
#: Attribute in which torch looks for the form of a function that it does not trace.
FORM = "__dynamo_disable"


@contextmanager
def plain_methods() -> Iterator[None]:
    """Call methods of optimizers, the constructor included, without importing the compiler.

    Example:
        >>> with plain_methods():
        ...     torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1).state_dict()["state"]
        {}
    """
    methods = [] if COMPILER in sys.modules else [getattr(method, "__wrapped__", method) for method in METHODS]
    free = [method for method in methods if not hasattr(method, FORM)]
    for method in free:
        setattr(method, FORM, method)
    try:
        yield
    finally:
        for method in free:
            delattr(method, FORM)


def step(optimizer: Optimizer) -> None:
    """Take a step of an optimizer, with its hooks, without importing the compiler."""
    untraced = None if COMPILER in sys.modules or "step" in vars(optimizer) else untraced_step(type(optimizer))
    if untraced is None:
        optimizer.step()
        return
    with torch.no_grad():
        untraced(optimizer)


@cache
def untraced_step(cls: type[Optimizer]) -> Callable[[Optimizer], Any] | None:
    """Return ``step`` of a class without the layer that imports the compiler; None if it has no such layer."""
    layer = getattr(cls.step, "__wrapped__", None)  # below that of the hooks
    if getattr(getattr(layer, "__code__", None), "co_name", "") != "_use_grad":
        return None
    return Optimizer.profile_hook_step(layer.__wrapped__)


class DispatchMode(TorchDispatchMode):
    """A mode that sees each operation, without importing the compiler.

    Example:
        >>> class Names(DispatchMode):
        ...     def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        ...         print(func._overloadpacket.__name__)
        ...         return func(*args, **(kwargs or {}))
        >>> with Names():
        ...     found = torch.ones(2)
        ones
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Call ``__torch_dispatch__`` as it is until the compiler is imported."""
        plain = vars(cls).get("__torch_dispatch__")
        super().__init_subclass__(**options)
        if plain is None:
            return
        untraced = cls.__torch_dispatch__

        @wraps(plain)
        def dispatch(*args: Any, **kwargs: Any) -> Any:
            return (untraced if COMPILER in sys.modules else plain)(*args, **kwargs)

        cls.__torch_dispatch__ = dispatch
