"""Parameters of modules in Pyro's handlers and optimizers, without its global parameter store.

This file holds all uses of private names of Pyro's parameter store and of ``PyroModule``.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pyro
from pyro.nn.module import PyroModule, _Context
from pyro.ops.jit import CompiledFunction
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.messenger import Messenger
from pyro.poutine.plate_messenger import PlateMessenger
from pyro.poutine.runtime import _PYRO_STACK, effectful
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn
from torch.distributions import constraints

__all__ = ["OwnContext", "PartContext", "entries", "isolate", "own_store", "send"]


def send(root: str, named: Mapping[str, Tensor]) -> None:
    """Send parameters to Pyro's handlers, as ``pyro.module`` does, without the global parameter store.

    Args:
        root: start of their names. Where a trace already holds other parameters of these names, such as those of a
            second program in the same model, it is ``root__1``, ``root__2``, ...
        named: the parameters; the name in the trace is ``root.name``, or ``root`` if the name is empty

    Raises:
        TypeError: ``torch.jit`` traces the program.
        ValueError: a handler replaces a parameter, which the modules would not use.
    """
    if named and compiled_by_jit():
        raise TypeError(
            "estimator: expected one without torch.jit, got one that looks for parameters in the global parameter "
            "store, which stays empty. Use the variant without Jit (or jit_compile=False), or an estimator of "
            "pyro_vae.estimators with compile=True"
        )
    for name, parameter in unique(root, named).items():
        # `.unconstrained()` is what `SVI.step` calls. It is set on a detached alias, because an attribute of the
        # parameter itself would be copied and pickled with it
        value: Any = parameter.detach()
        value.unconstrained = HandOver(parameter, name)
        answer = statement(value, name=name, constraint=constraints.real)
        if parameter_of(answer) is not parameter:
            raise ValueError(
                f"{name}: expected no handler that replaces a parameter of a module, because the module would not use "
                "the new value, got poutine.lift or poutine.substitute. Use pyro_vae.programs.BayesianDecoder for a "
                "distribution over the weights of a decoder, and load_state_dict for other values"
            )


def value_of(value: Tensor, **options: Any) -> Tensor:
    """Return a parameter, as the function of its statement."""
    return value


#: The statement of a parameter that is not in the store.
statement = effectful(value_of, type="param")


def unique(root: str, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return full names that no trace uses for other parameters."""
    nodes, start, count = traces(), root, 0
    while True:
        found = {f"{start}.{name}" if name else start: parameter for name, parameter in named.items()}
        if all(parameter_of(t[n]["value"]) is p for t in nodes for n, p in found.items() if n in t):
            return found
        count += 1
        start = f"{root}__{count}"


def traces() -> list[dict[str, Any]]:
    """Return the nodes of the traces that record at present."""
    return [handler.trace.nodes for handler in _PYRO_STACK if isinstance(handler, TraceMessenger)]


def parameter_of(value: Any) -> Any:
    """Return the parameter of the value of a parameter statement."""
    return getattr(value, "unconstrained", lambda: value)()


def compiled_by_jit() -> bool:
    """Whether ``pyro.ops.jit`` runs this program, as ``JitTrace_ELBO`` does."""
    frame: Any = sys._getframe()
    while frame is not None and frame.f_code is not CompiledFunction.__call__.__code__:
        frame = frame.f_back
    return frame is not None


class HandOver:
    """What ``SVI.step`` calls to get a parameter: it also lets ``pyro.optim`` find the name of the parameter.

    Optimizers of Pyro look the name up in the global parameter store, by which they save their state and choose
    options. There it is an entry without a value, so that the store stays empty, with a weak key, so that the
    parameter is freed as usual.
    """

    def __init__(self, parameter: Tensor, name: str) -> None:
        self.parameter, self.name = parameter, name

    def __call__(self) -> Tensor:
        """Return the parameter."""
        store: Any = pyro.get_param_store()
        known = store.param_name(self.parameter)
        if known != self.name and known not in store:  # the name of a `pyro.module` statement stays
            store._param_to_name[WeakKey(self.parameter)] = self.name
        return self.parameter


class WeakKey(weakref.ref):
    """A key of a dictionary that equals a tensor, and removes its entry with the tensor."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(tensor, forget)
        self.hash = hash(tensor)

    def __new__(cls, tensor: Tensor) -> WeakKey:
        return super().__new__(cls, tensor, forget)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        tensor = self()
        return self is other or (tensor is not None and tensor is (other() if isinstance(other, WeakKey) else other))


def forget(key: Any) -> None:
    """Remove the name of a parameter that no longer exists."""
    store: Any = pyro.get_param_store()
    store._param_to_name.pop(key, None)


class OwnParameters(Messenger):
    """A handler that hides parameter statements from outer handlers, and collects their names and parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, Tensor]] = []
        #: Parameters of modules for which the store returned another one of the same name.
        self.replaced: dict[str, Tensor] = {}

    def _pyro_param(self, msg: Any) -> None:
        msg["stop"] = True
        given = msg["args"][1] if len(msg["args"]) > 1 else None
        if isinstance(given, nn.Parameter) and not given.requires_grad:
            msg["value"], msg["done"] = given, True  # the store would unfreeze it

    def _pyro_post_param(self, msg: Any) -> None:
        parameter = parameter_of(msg["value"])
        self.found.append((msg["name"], parameter))
        given = msg["args"][1] if len(msg["args"]) > 1 else None
        if isinstance(given, nn.Parameter) and given is not parameter:
            self.replaced[msg["name"]] = given


@contextmanager
def own_store(store: ParamStoreDict) -> Iterator[OwnParameters]:
    """Let ``pyro.param``, ``pyro.module`` and PyroModules use a store of their own in place of the global one.

    The parameters are sent to the handlers outside at the end, by :func:`send`. Unlike ``ParamStoreDict.scope``, this
    leaves parameters of the global store as they are, which ``SVI.step`` still needs.

    Args:
        store: the store
    """
    shared: Any = pyro.get_param_store()
    outside = dict(vars(shared))
    vars(shared).update(vars(store))
    try:
        with OwnParameters() as own:
            yield own
    finally:
        vars(store).update(vars(shared))
        vars(shared).update(outside)
    known = [{id(parameter_of(n["value"])) for n in nodes.values() if n["type"] == "param"} for nodes in traces()]
    # frozen parameters are not sent, so that no optimizer changes them, as in `announce`
    for i, (name, parameter) in {id(p): (name, p) for name, p in reversed(own.found) if p.requires_grad}.items():
        if not known or not all(i in ids for ids in known):
            send(name, {"": parameter})


def entries(store: ParamStoreDict) -> dict[str, tuple[Tensor, constraints.Constraint]]:
    """Return parameters and constraints of a store; ``get_state`` would remove attributes that SVI.step needs."""
    return {name: (parameter, store._constraints[name]) for name, parameter in store.named_parameters()}


class OwnContext(_Context):
    """The context of PyroModules that belong to a program, or are a network of it.

    PyroModules read and write the global parameter store whenever they are called, so that those of two programs with
    equal names share parameters. Here each call has an empty store of its own, and the modules use the parameters
    that they hold.
    """

    def __enter__(self) -> None:
        if not self.active:
            self.store: AbstractContextManager[Any] = own_store(ParamStoreDict())
            self.store.__enter__()
        super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if not self.active:
            store = self.__dict__.pop("store")
            store.__exit__(*error)


class PartContext(OwnContext):
    """The context of PyroModules that are parts and networks, which are called inside the plate of the data."""

    def get(self, name: str) -> Tensor | None:
        """Return the sample of a ``PyroSample`` in this call; without one Pyro samples it."""
        value = super().get(name)
        plates = [h for h in _PYRO_STACK if isinstance(h, PlateMessenger) and (h.dim == -1 or type(h) is pyro.plate)]
        if value is None and plates:
            raise ValueError(
                f"{name}: expected a PyroSample to be sampled outside of all plates, got one inside the plate "
                f"{plates[-1].name!r}, where each example would have weights of its own. Use "
                "pyro_vae.programs.BayesianDecoder, or read the attribute before the plate"
            )
        return value


def isolate(module: nn.Module, kind: type[OwnContext] = PartContext, context: OwnContext | None = None) -> None:
    """Let the PyroModules inside a module leave the global parameter store alone.

    Args:
        module: the module
        kind: class of their contexts
        context: that of the PyroModule that contains the module
    """
    if not isinstance(module, PyroModule):
        context = None
    elif not isinstance(module._pyro_context, OwnContext):
        module._pyro_context = context = context or kind()
    else:
        context = module._pyro_context
    for child in module.children():
        isolate(child, kind, context)
