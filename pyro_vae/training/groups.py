"""From the argument ``optimizer`` of ``fit`` to a torch optimizer: all parameters alike, or groups by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import nn

__all__ = ["Make", "ParameterGroups", "build"]

#: Makes an optimizer from a list of parameters or of groups ``{"params": [...], "lr": ...}``.
Make = Callable[[list[Any]], torch.optim.Optimizer]


@dataclass(frozen=True)
class ParameterGroups:
    """Options of the optimizer by parameter name, such as another learning rate for the guide.

    Args:
        make: makes the optimizer, such as ``functools.partial(torch.optim.Adam, lr=1e-3)``; its options are those of
            the parameters that match no pattern
        patterns: from a pattern of names, such as ``"posterior.*"``, to options, such as ``{"lr": 1e-4}``. ``*``
            stands for any characters, ``?`` for one. The names are those of ``program.named_parameters()``, and
            ``estimator.*`` for what the estimator learns; the first pattern that matches applies

    Raises:
        ValueError: a pattern matches no parameter, or sets an option that the optimizer does not have; raised by
            ``fit``.

    Example:
        >>> import functools, torch, pyro_vae as pv
        >>> adam = functools.partial(torch.optim.Adam, lr=1e-3)
        >>> slow_guide = ParameterGroups(adam, {"posterior.*": {"lr": 1e-4}})
        >>> toy = pv.testing.LinearGaussian()
        >>> len(pv.fit(toy.program, toy.draw(64), optimizer=slow_guide, epochs=2, progress=False))
        2
    """

    make: Make | PyroOptim
    patterns: Mapping[str, Mapping[str, Any]]

    def groups(self, named: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
        """Return the parameter groups: one for each pattern, and one for all other parameters."""
        names: dict[str | None, list[str]] = {pattern: [] for pattern in (None, *self.patterns)}
        for name in named:
            names[next((pattern for pattern in self.patterns if fnmatchcase(name, pattern)), None)].append(name)
        for pattern in self.patterns:
            if not names[pattern]:
                raise ValueError(
                    f"optimizer: expected a pattern of parameter names, got {pattern!r}, which matches none that an "
                    f"earlier pattern has left. The names are {', '.join(named)}"
                )
        return [
            {"params": [named[name] for name in found], **(self.patterns[pattern] if pattern is not None else {})}
            for pattern, found in names.items()
            if found
        ]


def build(
    make: Make | ParameterGroups | torch.optim.Optimizer | PyroOptim, named: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    """Return a torch optimizer of parameters by name, fused where its class allows that, else capturable on a GPU."""
    if isinstance(make, torch.optim.Optimizer):
        return checked(make)
    parameters: list[Any] = list(named.values())
    device, groups = parameters[0].device, []
    if isinstance(make, ParameterGroups):
        parameters = groups = make.groups(named)
        make = make.make
    if isinstance(make, PyroOptim):
        make = of_pyro(make)
    if not callable(make):
        raise TypeError(
            "optimizer: expected a callable such as functools.partial(torch.optim.Adam, lr=1e-3), or an "
            f"optimizer, got {type(make).__name__}"
        )
    constructor = make.func if isinstance(make, partial) else make
    options = make.keywords if isinstance(make, partial) else {}
    known = set(inspect.signature(constructor).parameters) if inspect.isclass(constructor) else set()
    fast = {}
    if "fused" in known and not options.keys() & {"fused", "foreach", "differentiable"}:
        fast = {"fused": True}
    elif "capturable" in known and "capturable" not in options and device.type == "cuda":
        fast = {"capturable": True}  # counts its steps on the device, as a CUDA graph has to
    try:
        made = make(parameters, **fast)
    except (TypeError, ValueError) as error:
        name = getattr(constructor, "__name__", "the optimizer")
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"optimizer: cannot build {name} with {options}: {error}. Change its options") from error
    if not isinstance(made, torch.optim.Optimizer) or isinstance(made, torch.optim.LBFGS):
        raise TypeError(
            "optimizer: expected a callable that returns a torch optimizer whose step takes no closure, such as "
            f"functools.partial(torch.optim.Adam, lr=1e-3), got one that returns {type(made).__name__}"
        )
    unknown = sorted({option for group in groups for option in group if option != "params"} - made.defaults.keys())
    if unknown:
        raise ValueError(
            f"optimizer: expected options of {type(made).__name__} ({', '.join(made.defaults)}) for each pattern, got "
            f"{', '.join(unknown)}"
        )
    return checked(made)


def checked(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return an optimizer, or raise if it has an option that a training step cannot honour."""
    for group in optimizer.param_groups:
        if group.get("differentiable"):
            raise ValueError(
                "optimizer: expected differentiable=False, got True. A step of fit changes parameters in place, so no "
                "gradient goes through it"
            )
        if group.get("capturable") and all(p.device.type == "cpu" for p in group["params"]):
            raise ValueError(
                "optimizer: expected capturable=False for parameters on the CPU, got True. Leave it out: fit sets it "
                "where it is needed"
            )
    return optimizer


def of_pyro(optimizer: PyroOptim) -> Make:
    """Return what makes the torch optimizer of an optimizer of Pyro, or raise if that would lose something."""
    name, hint = getattr(optimizer.pt_optim_constructor, "__name__", "optimizer"), None
    if isinstance(optimizer, PyroLRScheduler):
        scheduler = optimizer.pt_scheduler_constructor.__name__
        hint = f"the scheduler {scheduler}. Pass the schedule as lr_schedule, such as pyro_vae.training.Cosine(10_000)"
    elif type(optimizer) is not PyroOptim:
        hint = f"a {type(optimizer).__name__}. Pass the torch optimizer that it uses"
    elif optimizer.pt_clip_args:
        clip = optimizer.pt_clip_args
        given = ", ".join(f"{key}={value}" for key, value in clip.items()) if isinstance(clip, dict) else "a function"
        hint = f"clip_args ({given}), which clip each parameter alone. Limit the global norm by clip_norm"
    elif not isinstance(optimizer.pt_optim_args, dict):
        hint = (
            "options by parameter name. Pass pyro_vae.training.ParameterGroups, or a torch optimizer with parameter "
            "groups"
        )
    elif optimizer._state_waiting_to_be_consumed:
        hint = "a state that was loaded into it. Resume a run of fit by run_dir and resume=True"
    if hint is not None:
        raise TypeError(f"optimizer: expected a plain pyro.optim optimizer, got {name} with {hint}")
    return partial(optimizer.pt_optim_constructor, **optimizer.pt_optim_args)
