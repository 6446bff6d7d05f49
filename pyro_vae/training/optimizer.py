"""One torch optimizer over all parameters, in the form that ``pyro.infer.SVI`` accepts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

__all__ = ["OneOptimizer"]

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class OneOptimizer(PyroOptim):
    """Update all parameters of a program by one fused optimizer.

    Pyro makes an optimizer for each tensor and passes them on as a set, whose order differs between
    processes. Here the order is that of ``module.named_parameters()``, so that a global norm is
    reproducible, and one kernel updates all.

    Args:
        module: the program
        make: ``functools.partial(torch.optim.AdamW, lr=1e-3)``, say; or an optimizer built over the program's
            parameters; or one of ``pyro.optim``
        clip_norm: largest global norm of the gradient; None for no clipping
        estimator: a module of the estimator, such as a baseline network, whose parameters are updated along
        lr_factor: from the number of the step to what the learning rates are multiplied by; None leaves them alone

    Raises:
        TypeError: ``lr_factor`` is no function.
        ValueError: it gives a negative number, or none.
        RuntimeError: the optimizer does not hold exactly the program's trainable parameters.
    """

    def __init__(
        self,
        module: nn.Module,
        make: Make | torch.optim.Optimizer | PyroOptim,
        *,
        clip_norm: float | None = None,
        estimator: nn.Module | None = None,
        lr_factor: Callable[[int], float] | None = None,
    ) -> None:
        if clip_norm is not None and not (isinstance(clip_norm, (int, float)) and clip_norm > 0):
            raise ValueError(f"clip_norm: expected a positive number or None, got {clip_norm!r}")
        named = dict(module.named_parameters())
        if estimator is not None:
            named |= {f"estimator.{name}": p for name, p in estimator.named_parameters()}
        self.named = {name: p for name, p in named.items() if p.requires_grad}
        self.parameters = list(self.named.values())
        if not self.parameters:
            raise ValueError("program: expected at least one parameter that requires a gradient, got none")
        self.torch = build(make, self.parameters)
        self.clip_norm = clip_norm
        self.lr_factor, self.rates = lr_factor, [group["lr"] for group in self.torch.param_groups]
        self.calls = 0  # by Pyro's own loop, which counts no steps
        if lr_factor is not None and not callable(lr_factor):
            raise TypeError(
                "lr_factor: expected a schedule such as pyro_vae.training.Cosine(10_000), or a function of the "
                f"number of the step, got {lr_factor!r}"
            )
        self.check(self.parameters)
        self.set_rates(0)

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        """Check that ``params``, as Pyro found them, are those held here, then update."""
        self.check(params)
        self.set_rates(self.calls)
        self.calls += 1
        self.clip(self.norm())
        self.torch.step()

    def check(self, params: Iterable[Tensor]) -> None:
        """Prove that the program's, the optimizer's and the given parameters are the same tensors."""
        known = {id(p): name for name, p in self.named.items()}
        held = {id(p) for group in self.torch.param_groups for p in group["params"]}
        given = {id(p) for p in params if p.requires_grad}
        for what, ids in (("the optimizer", held), ("Pyro's trace of model and guide", given)):
            missing = [name for i, name in known.items() if i not in ids]
            foreign = len(ids - set(known))
            if missing or foreign:
                raise RuntimeError(
                    f"{what} holds other parameters than the program: missing {missing or 'none'}, "
                    f"{foreign} that the program does not know (pyro.param statements, or modules not given to it). "
                    "What is to be trained has to be an nn.Parameter of the program, used in its model or guide"
                )

    def zero(self) -> None:
        """Forget all gradients, so that what gets none does not move by momentum."""
        for p in self.parameters:
            p.grad = None

    def norm(self) -> Tensor:
        """Return the global norm of the gradient, of shape ``()``."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))

    def set_rates(self, step: int) -> None:
        """Give each group its learning rate at a step: a function of the step alone, so that a resumed run has it."""
        if self.lr_factor is None:
            return
        factor = self.lr_factor(step)
        if not 0 <= factor < float("inf"):
            raise ValueError(f"lr_factor: expected a number of at least 0, got {factor} at step {step}")
        for group, rate in zip(self.torch.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def clip(self, norm: Tensor) -> None:
        """Scale the gradient down to ``clip_norm`` where its global norm is larger."""
        if self.clip_norm is not None:
            factor = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_([p.grad for p in self.parameters if p.grad is not None], factor)

    def step_if(self, good: Tensor) -> None:
        """Update unless a truth value on the device is false, and do not wait for it."""
        if getattr(self.torch, "_step_supports_amp_scaling", False):  # a fused kernel asks by itself
            self.torch.found_inf = (~good).float()
            self.torch.step()
            return
        moved = [p for p in self.parameters if p.grad is not None]
        if not all(self.torch.state.get(p) for p in moved):
            # without a state there is nothing to put back to: a look, in the first step of rules that keep one
            if good:
                self.torch.step()
            return
        kept = [t for p in moved for t in (p, *self.torch.state[p].values()) if is_on(good.device, t)]
        before = [t.detach().clone() for t in kept]
        self.torch.step()
        with torch.no_grad():
            for t, old in zip(kept, before, strict=True):
                t.copy_(torch.where(good, t, old))

    def largest(self) -> tuple[str, float]:
        """Return name and norm of the parameter with the largest (or a non-finite) gradient."""
        norms = {name: float(p.grad.norm()) for name, p in self.named.items() if p.grad is not None}
        if not norms:
            return "none", 0.0
        name = max(norms, key=lambda k: float("inf") if norms[k] != norms[k] else norms[k])
        return name, norms[name]

    def get_state(self) -> dict[str, Any]:
        """Return the state of the torch optimizer."""
        return self.torch.state_dict()

    def set_state(self, state_dict: dict[str, Any]) -> None:
        """Load the state of the torch optimizer.

        Raises:
            ValueError: it is that of other parameters: fused kernels would read past the end of its tensors.
        """
        held = [p for group in self.torch.param_groups for p in group["params"]]
        state = {i: {k: like(v, held[i]) for k, v in own.items()} for i, own in state_dict["state"].items()}
        if any(group.get("fused") for group in state_dict["param_groups"]):
            for i, own in state.items():
                for name, value in own.items():
                    if isinstance(value, Tensor) and value.dim() and value.shape != held[i].shape:
                        raise ValueError(f"{name} of parameter {i}: expected shape {tuple(held[i].shape)}")
        self.torch.load_state_dict({**state_dict, "state": state})


def is_on(device: torch.device, value: Any) -> bool:
    """Whether something is a tensor on a device: some rules count their steps on the CPU."""
    return isinstance(value, Tensor) and value.device == device


def like(value: Any, p: Tensor) -> Any:
    """Lay out a tensor of the optimizer's state in memory as its parameter is."""
    if not isinstance(value, Tensor) or value.shape != p.shape:
        return value
    return torch.empty_like(p, dtype=value.dtype, requires_grad=False).copy_(value)


def build(make: Make | torch.optim.Optimizer | PyroOptim, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return one torch optimizer over ``parameters``, fused or else capturable where its class has it."""
    if isinstance(make, torch.optim.Optimizer):
        return make
    if isinstance(make, PyroOptim):
        if not isinstance(make.pt_optim_args, dict):
            raise TypeError(
                "optimizer: a pyro.optim optimizer with options by parameter name cannot be one fused optimizer; "
                "pass a torch optimizer with parameter groups"
            )
        make = partial(make.pt_optim_constructor, **make.pt_optim_args)
    if not callable(make):
        raise TypeError(
            "optimizer: expected a callable such as functools.partial(torch.optim.Adam, lr=1e-3), or an "
            f"optimizer, got {type(make).__name__}"
        )
    constructor = make.func if isinstance(make, partial) else make
    options = make.keywords if isinstance(make, partial) else {}
    known = set(inspect.signature(constructor).parameters) if inspect.isclass(constructor) else set()
    quick = {}
    if "fused" in known and not options.keys() & {"fused", "foreach", "differentiable"}:
        quick = {"fused": True}
    elif "capturable" in known and "capturable" not in options and parameters[0].is_cuda:
        quick = {"capturable": True}  # steps are counted on the device, else a graph cannot hold the rule
    made = make(parameters, **quick)
    if not isinstance(made, torch.optim.Optimizer) or isinstance(made, torch.optim.LBFGS):
        raise TypeError(
            "optimizer: expected a callable that returns a torch optimizer which steps without a closure, such as "
            f"functools.partial(torch.optim.Adam, lr=1e-3), got one that returns {type(made).__name__}"
        )
    return made
