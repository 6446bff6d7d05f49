"""One torch optimizer for all parameters, in the form that ``pyro.infer.SVI`` accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyro_vae._util.validation import check_number
from pyro_vae.training.groups import Make, ParameterGroups, build
from pyro_vae.training.step import clip_factor, global_norm

__all__ = ["OneOptimizer"]


class OneOptimizer(PyroOptim):
    """Update all parameters of a program with one optimizer, fused where torch has a fused kernel.

    Pyro makes one optimizer per tensor and passes the tensors as a set, whose order differs between processes. Here
    the order is that of ``module.named_parameters()``, so that the global norm is reproducible. The optimizer holds
    frozen parameters too (``requires_grad=False``), which may be unfrozen between two steps; it does not change them.

    Args:
        module: the program
        make: makes the optimizer from a list of parameters, such as ``functools.partial(torch.optim.AdamW, lr=1e-3)``;
            or :class:`ParameterGroups`; or a torch optimizer of the program's parameters; or an optimizer of
            ``pyro.optim``
        clip_norm: largest global norm of the gradient; None for no clipping
        estimator: module of the estimator, such as a baseline network, which is trained together with the program
        lr_schedule: function from the step number to the factor of the learning rates; None for a constant 1

    Raises:
        TypeError: ``lr_schedule`` is not callable, ``make`` does not make a torch optimizer, or is one of
            ``pyro.optim`` with a scheduler or ``clip_args``.
        ValueError: ``lr_schedule`` returns a negative or infinite number or does not set the learning rate alone, an
            option cannot be honoured, or nothing can be trained.
        RuntimeError: the optimizer does not hold exactly the trainable parameters of the program.
    """

    def __init__(
        self,
        module: nn.Module,
        make: Make | ParameterGroups | torch.optim.Optimizer | PyroOptim,
        *,
        clip_norm: float | None = None,
        estimator: nn.Module | None = None,
        lr_schedule: Callable[[int], float] | None = None,
    ) -> None:
        if clip_norm is not None:
            clip_norm = check_number("clip_norm", clip_norm, above=0)
        if lr_schedule is not None and not callable(lr_schedule):
            raise TypeError(
                "lr_schedule: expected a schedule such as pyro_vae.training.Cosine(10_000), or a function of the "
                f"step number, got {lr_schedule!r}"
            )
        named = dict(module.named_parameters())
        if estimator is not None:
            named |= {f"estimator.{name}": p for name, p in estimator.named_parameters()}
        #: All parameters that can have a gradient, the frozen ones included.
        self.named = {name: p for name, p in named.items() if p.is_floating_point() or p.is_complex()}
        self.parameters = list(self.named.values())
        if not any(self.requires_grad):
            raise ValueError("program: expected at least one parameter that requires a gradient, got none")
        self.torch, self.made = build(make, self.named), not isinstance(make, torch.optim.Optimizer)
        self.clip_norm, self.lr_schedule = clip_norm, lr_schedule
        #: The learning rates of the groups at a factor of 1, and those that were set last.
        self.learning_rates = [group.get("lr") for group in self.torch.param_groups]
        self.rates = list(self.learning_rates)
        if lr_schedule is not None and None in self.learning_rates:
            raise ValueError(
                f"lr_schedule: expected None, as {type(self.torch).__name__} has no option lr, got {lr_schedule!r}"
            )
        self.calls = 0  # by pyro.infer.SVI, which does not count its steps
        # on the CPU it is cheap to look at a number; elsewhere Python would wait for the device
        self.deferred = self.parameters[0].device.type != "cpu"
        self.check(self.parameters)
        self.set_learning_rates(0)

    @property
    def requires_grad(self) -> list[bool]:
        """Whether each parameter is trained at present."""
        return [p.requires_grad for p in self.parameters]

    def __call__(self, params: Iterable[Tensor], *args: Any, **kwargs: Any) -> None:
        """Check that ``params``, as Pyro found them, are the parameters of this optimizer, and update them."""
        self.check(params)
        self.set_learning_rates(self.calls)
        self.calls += 1
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        factor = clip_factor(global_norm(gradients), self.clip_norm)
        if factor is not None:
            torch._foreach_mul_(gradients, factor)
        self.torch.step()

    def check(self, params: Iterable[Tensor]) -> None:
        """Check that the program, the optimizer and ``params`` hold the same parameters that require a gradient."""
        known = {id(p): name for name, p in self.named.items() if p.requires_grad}
        frozen = {id(p) for p in self.parameters if not p.requires_grad}
        optimized = {id(p) for group in self.torch.param_groups for p in group["params"]} - frozen
        given = {id(p) for p in params if p.requires_grad}
        for holder, ids in (("the optimizer", optimized), ("Pyro's trace of model and guide", given)):
            missing = [name for i, name in known.items() if i not in ids]
            foreign = len(ids - set(known))
            if missing or foreign:
                raise RuntimeError(
                    f"program: expected the same parameters as {holder}, which lacks {missing or 'none'} and has "
                    f"{foreign} others (pyro.param statements, or modules that the program does not hold). Make all "
                    "that is trained an nn.Parameter of the program, and use it in the model or the guide. Replace "
                    "pyro.module by pyro_vae.programs.announce, or call pyro.clear_param_store() before this program"
                )

    def zero(self) -> None:
        """Drop all gradients, so that momentum does not move a parameter that gets none."""
        for p in self.parameters:
            p.grad = None

    def backward(self, loss: Tensor, gradient: Tensor) -> None:
        """Backpropagate to all tensors that require a gradient, such as a batch that another model made."""
        if loss.requires_grad:  # not if all parameters are frozen
            loss.backward(gradient)

    def largest_gradient(self) -> str:
        """Return name and norm of the largest gradient in words; one that is NaN is the largest."""
        norms = {name: float(p.grad.norm()) for name, p in self.named.items() if p.grad is not None}
        name = max(norms, key=lambda k: float("inf") if norms[k] != norms[k] else norms[k], default="none")
        return f"that of {name!r} (norm {norms.get(name, 0.0):.3g})"

    def apply(self, gradients: list[Tensor], factor: Tensor | None, good: Tensor) -> None:
        """Update the parameters in place, unless ``good`` is False."""
        if not self.deferred and not good:
            return
        if factor is not None:
            torch._foreach_mul_(gradients, factor)
        if self.deferred:
            self.step_if(good)
        else:
            self.torch.step()

    def set_learning_rates(self, step: int) -> None:
        """Set the learning rate of each group, a function of the step number alone, so that a resumed run agrees."""
        if self.lr_schedule is None:
            return
        factor = self.lr_schedule(step)
        if not 0 <= factor < float("inf"):
            raise ValueError(f"lr_schedule: expected a number of at least 0, got {factor} at step {step}")
        for i, (group, learning_rate) in enumerate(zip(self.torch.param_groups, self.learning_rates, strict=True)):
            if group["lr"] is not self.rates[i] and group["lr"] != self.rates[i]:
                raise ValueError(
                    f"lr_schedule: expected that nothing else sets the learning rate, got {group['lr']} in place of "
                    f"{self.rates[i]} at step {step} (from a callback, a scheduler, or {type(self.torch).__name__} "
                    "itself). Use one of them"
                )
            group["lr"] = self.rates[i] = learning_rate * factor

    def step_if(self, good: Tensor) -> None:
        """Update unless a boolean on the device is False, without waiting for it."""
        if getattr(self.torch, "_step_supports_amp_scaling", False):  # a fused kernel reads found_inf itself
            self.torch.found_inf = (~good).float()
            self.torch.step()
            return
        used = [p for p in self.parameters if p.grad is not None]
        states = [self.torch.state.get(p) for p in used]
        if not all(states) or any(isinstance(value, (int, float)) for state in states for value in state.values()):
            # nothing can be restored without a state, and no number of Python: wait for the device
            if good:
                self.torch.step()
            return
        kept = [t for p in used for t in (p, *self.torch.state[p].values()) if is_on(good.device, t)]
        before = [t.detach().clone() for t in kept]
        self.torch.step()
        with torch.no_grad():
            for t, old in zip(kept, before, strict=True):
                t.copy_(torch.where(good, t, old))

    def get_state(self) -> dict[str, Any]:
        """Return the state of the torch optimizer."""
        return self.torch.state_dict()

    def set_state(self, state_dict: dict[str, Any]) -> None:
        """Load the state of the torch optimizer.

        Raises:
            ValueError: a tensor has another shape than its parameter; a fused kernel would read past its end.
        """
        optimized = [p for group in self.torch.param_groups for p in group["params"]]
        state = {i: {k: like(v, optimized[i]) for k, v in own.items()} for i, own in state_dict["state"].items()}
        if any(group.get("fused") for group in state_dict["param_groups"]):
            for i, own in state.items():
                for name, value in own.items():
                    if isinstance(value, Tensor) and value.dim() and value.shape != optimized[i].shape:
                        raise ValueError(f"{name} of parameter {i}: expected shape {tuple(optimized[i].shape)}")
        self.torch.load_state_dict({**state_dict, "state": state})
        self.rates = [group.get("lr") for group in self.torch.param_groups]


def is_on(device: torch.device, value: Any) -> bool:
    """Whether a value is a tensor on a device: some optimizers count their steps on the CPU."""
    return isinstance(value, Tensor) and value.device == device


def like(value: Any, p: Tensor) -> Any:
    """Return a tensor of the optimizer's state in the memory format of its parameter."""
    if not isinstance(value, Tensor) or value.shape != p.shape:
        return value
    return torch.empty_like(p, dtype=value.dtype, requires_grad=False).copy_(value)
