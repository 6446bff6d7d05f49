"""``pyro.infer.SVI`` with one optimizer, and without waiting for the device inside a step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.estimators import Estimator
from pyro_vae.programs.program import Program
from pyro_vae.trace.layout import Layout
from pyro_vae.training.compile.compilers import Compiler
from pyro_vae.training.compile.flat_optimizer import Unsupported
from pyro_vae.training.compile.recorded_step import RecordedStep, described
from pyro_vae.training.data.column import OnDevice
from pyro_vae.training.estimator_checks import check_estimator
from pyro_vae.training.optimizer import OneOptimizer
from pyro_vae.training.ranks.collectives import all_reduce_gradients
from pyro_vae.training.ranks.distributed import Ranks
from pyro_vae.training.step import NonFiniteError, Step

__all__ = ["SVI", "NonFiniteError"]

#: How often a step is compiled again after parameters were frozen or unfrozen.
RECOMPILATIONS = 4


class SVI(pyro.infer.SVI):
    r"""Stochastic variational inference of a program by any ``pyro.infer.ELBO``.

    ``update(x, *context)`` takes one step and leaves its losses on the device. ``step``, inherited from Pyro, returns
    the loss as a number.

    Args:
        program: a Program
        estimator: estimator of this library or of ``pyro.infer``
        optimizer: the argument ``make`` of :class:`OneOptimizer`
        clip_norm: largest global norm of the gradient; None for no clipping
        lr_schedule: function from the step number to the factor of the learning rates
        skip_nonfinite: skip a step with a NaN or infinite loss or gradient instead of raising an error. It counts as
            a step, and ``update`` returns its rows as ``skipped``
        compiler: turns a recorded step into a fast function, such as ``pyro_vae.training.inductor``; None to run
            every step in Python
        ranks: the processes that train together; this one alone by default
        precision: context manager for loss and gradient, such as ``pyro_vae.training.Autocast(torch.bfloat16)``
        data: data set on the device; ``update(rows)`` then takes the row numbers of a batch
        weighted_layout: where the plate of the examples is; the last tensor of a batch then has their weights

    Raises:
        TypeError: the estimator is not an ELBO of this library or of Pyro, or one of Pyro that uses torch.jit or has
            no loss.

    Example:
        >>> import functools, torch, pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> adam = functools.partial(torch.optim.Adam, lr=1e-3)
        >>> svi = pv.training.SVI(toy.program, pv.estimators.ELBO(), adam)
        >>> sorted(svi.update(toy.draw(5)))
        ['kl', 'loss', 'reconstruction']
    """

    def __init__(
        self,
        program: Program,
        estimator: PyroELBO,
        optimizer: Callable[..., Any],
        *,
        clip_norm: float | None = None,
        lr_schedule: Callable[[int], float] | None = None,
        skip_nonfinite: bool = False,
        compiler: Compiler | None = None,
        ranks: Ranks | None = None,
        precision: AbstractContextManager[Any] | None = None,
        data: OnDevice | None = None,
        weighted_layout: Layout | None = None,
    ) -> None:
        check_estimator(estimator)
        self.program, self.estimator = program, estimator
        self.estimator_module = getattr(estimator, "module", None)
        if self.estimator_module is not None:
            self.estimator_module.to(next(program.parameters()).device)
        super().__init__(
            program.model,
            program.guide,
            OneOptimizer(
                program, optimizer, clip_norm=clip_norm, lr_schedule=lr_schedule, estimator=self.estimator_module
            ),
            estimator,
        )
        self.ranks = Ranks(0, 1) if ranks is None else ranks
        self.precision = nullcontext() if precision is None else precision
        self.skip_nonfinite, self.data = skip_nonfinite, data
        #: What compiles the next step; None if there is a compiled step, or none is wanted or possible.
        self.compiler = self.every_compiler = compiler
        self.recompiled = 0
        self.training_step = Step(program, estimator, self.precision, clip_norm, skip_nonfinite, data, weighted_layout)
        self.steps = 0
        #: Whether all steps so far were finite.
        self.alive = torch.ones((), dtype=torch.bool, device=self.optim.parameters[0].device)
        self.compiled: RecordedStep | None = None
        #: The shapes for which the step was compiled, and the names of the parameters that get a gradient.
        self.recording: dict[str, list[str]] = {}
        #: Which parameters are trained, and whether they were compared with those that Pyro finds.
        self.requires_grad, self.checked = self.optim.requires_grad, False

    def update(self, *batch: Tensor, counts: bool = True) -> dict[str, Tensor]:
        """Take one step.

        Args:
            batch: x and context; with ``data`` the row numbers of the batch, of shape ``(n,)`` and type int64
            counts: False if this rank has no share of the batch and only takes part in the communication

        Returns:
            Sums over the batch on the device, in nats: ``loss`` (minus the bound), and from estimators of this
            library ``reconstruction`` and ``kl``. Several ranks return those of their joined batch, and ``count``,
            its number of rows. With ``skip_nonfinite`` there is also ``skipped``, the number of rows of a skipped
            step, whose other sums are 0.

        Raises:
            NonFiniteError: loss or gradient is NaN or infinite; no parameter has changed. A compiled step, or one on
                another device than the CPU, leaves it to :meth:`raise_if_nonfinite`.
        """
        self.optim.set_learning_rates(self.steps)
        if isinstance(self.estimator, Estimator):
            self.estimator.step = self.steps
        if self.requires_grad != self.optim.requires_grad:
            self.change_trained()
        compiled = self.compiled is not None and self.compiled.fits(batch)
        if self.compiler is not None and self.recording.get("batch") == described(batch):
            compiled = self.compile(batch)  # a resumed run compiles where the interrupted run did
        metrics = self.compiled(batch) if compiled else self.eager(batch, counts)
        if self.compiler is not None and not self.recording:
            used = [name for name, p in self.optim.named.items() if p.grad is not None]
            if used:  # none if all parameters are frozen
                self.recording = {"batch": described(batch), "used": used}
                self.compile(batch)
        self.steps += 1
        return metrics

    def eager(self, batch: tuple[Tensor, ...], counts: bool) -> dict[str, Tensor]:
        """Take one step in Python."""
        join = partial(all_reduce_gradients, self.optim.parameters, counts=counts) if self.ranks.size > 1 else None
        self.optim.zero()
        check = None if self.checked else self.check
        metrics = self.training_step(batch, self.optim, self.alive, check=check, join=join)
        self.checked = True
        if not self.optim.deferred:
            self.raise_if_nonfinite(batch)
        return metrics

    def change_trained(self) -> None:
        """After parameters were frozen or unfrozen: check them in the next step, and compile it again."""
        self.requires_grad, self.checked = self.optim.requires_grad, False
        if self.compiled is not None:
            self.release()
            self.recompiled += 1
            self.compiler, self.recording = self.every_compiler, {}
            if self.recompiled > RECOMPILATIONS:
                self.compiler, self.recording = None, {"batch": [], "used": []}
                warnings.warn("compile: the step runs uncompiled, as parameters are frozen too often", stacklevel=3)

    def compile(self, batch: tuple[Tensor, ...]) -> bool:
        """Record and compile the step for batches of this shape, if that is possible; other shapes stay eager."""
        compiler, self.compiler = self.compiler, None
        used = [self.optim.named[name] for name in self.recording["used"]]
        try:
            if self.ranks.size > 1:
                raise Unsupported("several processes join their gradients in the middle of it")
            self.compiled = RecordedStep(
                self.training_step, self.optim.torch, batch, compiler, used=used, alive=self.alive
            )
        except Unsupported as error:
            warnings.warn(f"compile: the step runs uncompiled, as {error}", stacklevel=3)
        return self.compiled is not None

    def release(self) -> None:
        """Drop the compiled step, and give each parameter memory of its own."""
        if self.compiled is not None:
            self.compiled.release()
            self.compiled = None

    def backward(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Compute the gradient of the mean loss per example, and return the sums over the batch."""
        self.optim.zero()
        return self.training_step.differentiate(self.training_step.read(batch), self.optim)

    def check(self, parameters: Sequence[Tensor]) -> None:
        """Check in the first step that the program, the optimizer and Pyro hold the same parameters."""
        own = [] if self.estimator_module is None else self.estimator_module.parameters()
        self.optim.check([*parameters, *own])

    def raise_if_nonfinite(self, batch: tuple[Tensor, ...]) -> None:
        """Wait for the device, and raise an error if a step since the last call was not finite.

        Args:
            batch: the latest batch, on which the error message is based

        Raises:
            NonFiniteError: it names sites and gradients that are not finite.
        """
        if self.alive:
            return
        self.alive.fill_(True)
        with fork_rng(batch):
            if self.compiled is not None:  # which keeps no gradients
                self.backward(batch)
            bad = self.training_step.nonfinite_sites(batch)
        rank = f"rank {self.ranks.rank}, " if self.ranks.size > 1 else ""
        raise NonFiniteError(
            f"optimizer: the loss or its gradient is not finite in {rank}step {self.steps}: "
            + (f"site {' and '.join(bad)} is not finite" if bad else "each site on its own is finite")
            + f"; the largest gradient is {self.optim.largest_gradient()}. "
            "Lower the learning rate of the optimizer, set clip_norm or skip_nonfinite, or check the data of this "
            "batch"
        )

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, apart from the weights of the program."""
        module = self.estimator_module
        return {
            "steps": self.steps,
            # at the end of an epoch the schedule is read where the last step left it
            "at": self.estimator.step if isinstance(self.estimator, Estimator) else 0,
            "estimator": {} if module is None else dict(module.state_dict()),
            "optimizer": self.optim.get_state(),
            "recording": self.recording,
            "recompiled": self.recompiled,
            "requires_grad": self.requires_grad,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state`; call this before the first step."""
        self.steps, self.recording, self.recompiled = state["steps"], state["recording"], state["recompiled"]
        for p, requires_grad in zip(self.optim.parameters, state["requires_grad"], strict=True):
            p.requires_grad_(requires_grad)
        self.requires_grad = self.optim.requires_grad
        if isinstance(self.estimator, Estimator):
            self.estimator.step = state["at"]
        if self.estimator_module is not None:
            self.estimator_module.load_state_dict(state["estimator"])
        self.optim.set_state(state["optimizer"])
