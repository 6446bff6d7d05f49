"""A program made of two functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pyro
import torch
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import transform_to

from pyro_vae._util.parameters import OwnContext, entries, isolate, own_store
from pyro_vae.programs.primitives import announce
from pyro_vae.programs.program import Program
from pyro_vae.programs.vae import VAE

__all__ = ["FunctionProgram"]


class FunctionProgram(Program):
    """A program made of a user's own model and guide functions.

    ``pyro.param``, ``pyro.module`` and PyroModules (an ``AutoGuide``, say) work in the functions, with a parameter
    store of the program in place of the global one: two programs share nothing, and a deep copy is independent. What
    they create becomes a parameter of the program in the first run of its function, which ``check`` and ``fit`` do
    before anything else.

    The plate of the data is that of the observed sites, known by its name. Latents of an example belong in it too: a
    latent in a plate of another name counts as shared by all examples, even if that plate has as many rows.

    References:
        Pyro: deep universal probabilistic programming (Bingham et al., 2019), https://arxiv.org/abs/1810.09538

    Args:
        model: ``model(x, *context)``, a Pyro model
        guide: ``guide(x, *context)``, a Pyro guide
        modules: the ``nn.Module`` objects with the parameters of the two functions, by name

    Raises:
        RuntimeError: a function runs again with another parameter of the same name, of a module that is not passed.

    Example:
        >>> import pyro, torch, pyro_vae as pv
        >>> from pyro import distributions as dist
        >>> net = torch.nn.Linear(2, 1)
        >>> def model(x):
        ...     std = pyro.param("std", torch.tensor(1.0), constraint=dist.constraints.positive)
        ...     with pyro.plate("data", len(x), dim=-1):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(torch.stack([z, z], -1), std).to_event(1), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x), dim=-1):
        ...         pyro.sample("z", dist.Normal(net(x).squeeze(-1), 1.0))
        >>> program = pv.programs.FunctionProgram(model, guide, net=net)
        >>> len(pv.fit(program, torch.zeros(8, 2), epochs=1, progress=False))
        1
        >>> [name for name, _ in program.named_parameters()]
        ['parts.net.weight', 'parts.net.bias', 'statements.std']
    """

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.functions = {"model": model, "guide": guide}  # in a dictionary: no submodules
        own = {name: f for name, f in self.functions.items() if isinstance(f, nn.Module)}
        self.parts = nn.ModuleDict(modules | {name: f for name, f in own.items() if f not in modules.values()})
        isolate(self.parts, OwnContext)
        self.statements = nn.Module()
        self.constraints: dict[str, Any] = {}
        plain = [f for f in self.functions.values() if not (inspect.ismethod(f) or isinstance(f, nn.Module))]
        self.originals = Originals(self.parts) if plain and modules else None

    @classmethod
    def example(cls) -> FunctionProgram:
        """Build a program of the model and guide of a small VAE."""
        vae = VAE.example()
        return cls(vae.model, vae.guide, vae=vae)

    def model(self, x: Tensor, *context: Tensor) -> Any:
        """Run the user's model."""
        return self.run("model", x, *context)

    def guide(self, x: Tensor, *context: Tensor) -> Any:
        """Run the user's guide."""
        return self.run("guide", x, *context)

    def run(self, name: str, *args: Tensor) -> Any:
        """Run one of the functions with the parameters of this program."""
        announce(**self.parts)
        known = {own.replace("/", "."): p for own, p in self.statements.named_parameters()}
        store = ParamStoreDict()
        store.set_state({"params": dict(known), "constraints": dict(self.constraints)})
        with self.as_originals(), own_store(store) as own, CreateParameters(self.parts):
            found = self.functions[name](*args)
        ids = {id(p) for p in self.parts.parameters()}
        if foreign := [name for name, p in own.replaced.items() if id(p) not in ids]:
            raise RuntimeError(
                f"modules: expected one parameter named {foreign[0]!r}, got another one than in an earlier run, of a "
                "module that this program (or the program of which it is a copy) does not hold. Pass the module: "
                "FunctionProgram(model, guide, net=net)"
            )
        for key, (p, constraint) in entries(store).items():
            if key not in known and id(p) not in ids and isinstance(p, nn.Parameter):
                self.statements.register_parameter(key.replace(".", "/"), p)
                self.constraints[key] = constraint
        return found

    @contextmanager
    def as_originals(self) -> Iterator[None]:
        """In a deep copy, let the modules to which the functions refer be those of the copy."""
        swapped = []
        if self.originals is not None and self.originals.parts is not self.parts:
            mine = dict(self.parts.named_modules())
            given = self.originals.parts.named_modules()
            swapped = [(module, module.__dict__, mine[name].__dict__) for name, module in given if name in mine]
        try:
            for module, _, own in swapped:
                object.__setattr__(module, "__dict__", own)
            yield
        finally:
            for module, state, _ in swapped:
                object.__setattr__(module, "__dict__", state)


class CreateParameters(Messenger):
    """A handler that creates an ``nn.Parameter`` for each new ``pyro.param`` statement, so that a program can hold it.

    Args:
        parts: modules, for whose tensors there is nothing to create
    """

    def __init__(self, parts: nn.Module) -> None:
        super().__init__()
        self.existing = {id(p) for p in parts.parameters()}

    def _pyro_param(self, msg: Any) -> None:
        store, name, given = pyro.get_param_store(), msg["name"], msg["args"][1:]
        if name in store or not given or id(given[0]) in self.existing or isinstance(given[0], nn.Parameter):
            return
        constraint = msg["kwargs"]["constraint"]
        with torch.no_grad():
            value = given[0]() if callable(given[0]) else given[0]
            parameter = nn.Parameter(transform_to(constraint).inv(value.detach()).clone())
        store.set_state({"params": {name: parameter}, "constraints": {name: constraint}})


class Originals:
    """The modules to which plain functions refer, also in a deep copy of their program."""

    def __init__(self, parts: nn.ModuleDict) -> None:
        self.parts = parts

    def __deepcopy__(self, memo: Any) -> Originals:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "program: expected functions that are methods of its modules, got plain functions, which would refer to "
            "other modules after pickling. Save program.state_dict(), or make both functions methods of one module"
        )
