"""The engine: ``pyro.infer.SVI`` with one optimizer and no synchronisation inside a step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.estimators import Estimator
from pyro_vae.programs.primitives import announcements_off
from pyro_vae.programs.program import Program
from pyro_vae.training.compile.compiled import CompiledStep, leave_out
from pyro_vae.training.compile.compilers import Compiler
from pyro_vae.training.compile.groups import Unsupported
from pyro_vae.training.data.column import OnDevice
from pyro_vae.training.diagnosis import diagnosis
from pyro_vae.training.dry_run import dry_run
from pyro_vae.training.optimizer import OneOptimizer
from pyro_vae.training.ranks.collectives import all_reduce_gradients
from pyro_vae.training.ranks.distributed import Ranks

__all__ = ["SVI", "NonFiniteError"]


class NonFiniteError(RuntimeError):
    """A loss or gradient turned NaN or infinite; ``fit`` goes back to the last weights that gave a finite one."""


class SVI(pyro.infer.SVI):
    r"""Stochastic variational inference of a program, by any ``pyro.infer.ELBO``.

    ``update(x, *context)`` is one step that leaves its losses on the device. ``step`` is inherited from Pyro and
    does the same with a number as its result.

    Args:
        program: a Program
        estimator: of this library or of ``pyro.infer``
        optimizer: what :class:`OneOptimizer` takes
        clip_norm: largest global norm of the gradient
        lr_factor: schedule of the learning rate, as :class:`OneOptimizer` takes it
        skip_nonfinite: whether a step whose loss or gradient is NaN or infinite is left out instead of raising an
            error; it counts as a step, and ``update`` tells its data as ``skipped``
        compiler: makes a fast function of a recorded step, such as ``pyro_vae.training.inductor``; None to run every
            step in Python
        ranks: the processes whose gradients are joined; this one alone by default
        precision: a context manager within which bound and gradient are computed, such as
            ``pyro_vae.training.Autocast(torch.bfloat16)``
        data: which lie on the device as a whole; ``update(rows)`` then takes a batch of them within the step

    Raises:
        TypeError: the estimator is no ELBO of this library or of Pyro.

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
        lr_factor: Callable[[int], float] | None = None,
        skip_nonfinite: bool = False,
        compiler: Compiler | None = None,
        ranks: Ranks | None = None,
        precision: AbstractContextManager[Any] | None = None,
        data: OnDevice | None = None,
    ) -> None:
        if not isinstance(estimator, PyroELBO):
            raise TypeError(
                "estimator: expected an object of pyro_vae.estimators or pyro.infer, such as "
                f"pyro_vae.estimators.ELBO(), got {estimator!r}"
            )
        self.program, self.estimator = program, estimator
        self.beside = getattr(estimator, "module", None)
        if self.beside is not None:
            self.beside.to(next(program.parameters()).device)
        super().__init__(
            program.model,
            program.guide,
            OneOptimizer(program, optimizer, clip_norm=clip_norm, lr_factor=lr_factor, estimator=self.beside),
            estimator,
        )
        self.ranks = Ranks(0, 1) if ranks is None else ranks
        self.precision = nullcontext() if precision is None else precision
        self.data = data
        self.steps = 0
        self.skip_nonfinite, self.compiler = skip_nonfinite, compiler
        self.compiled: CompiledStep | None = None
        #: For which batches the step was recorded, and the names of the parameters that it moves.
        self.recorded: dict[str, list[str]] = {}
        # on the CPU a look at a number is free; elsewhere it would wait for the device
        self.deferred = self.optim.parameters[0].device.type != "cpu"
        self._seen: set[Any] = set()
        self._weights: dict[int, float] = {}
        self._shares: dict[float, Tensor] = {}
        self._flags: list[Tensor] = []

    def update(self, *batch: Tensor, counts: bool = True) -> dict[str, Tensor]:
        """Take one step.

        Args:
            batch: x and context; where the engine has the data, the rows of the batch among them, of shape
                ``(n,)`` and type int64
            counts: False where a rank has no share of the joined batch and only keeps in step with the others

        Returns:
            Sums over the batch, in nats and on the device: ``loss`` (minus the bound), and where the estimator
            tells them ``reconstruction`` and ``kl``. With several ranks over their joined batch, and ``count``, the
            number of its data. Under ``skip_nonfinite`` also ``skipped``, the number of data in a step that was left
            out, which has zeros for the others.

        Raises:
            NonFiniteError: loss or gradient is NaN or infinite; no weight was moved. Compiled, and on other devices
                than the CPU, it is :meth:`raise_if_nonfinite` that raises it.
        """
        self.optim.set_rates(self.steps)
        if self.compiler is not None and self.recorded and self.recorded["batch"] == described(batch):
            # a resumed run, which goes on as the one before it would have
            self.compile(batch)
        if self.compiled is not None:
            if self.compiled.fits(batch):
                self.estimator.step = self.steps
                self.steps += 1
                return self.compiled(batch)
            self.raise_if_nonfinite(batch)
        metrics = self.uncompiled(batch, counts)
        if self.compiler is not None and not self.recorded:
            used = [name for name, p in self.optim.named.items() if p.grad is not None]
            self.recorded = {"batch": described(batch), "used": used}
            self.compile(batch)
        return metrics

    def compile(self, batch: tuple[Tensor, ...]) -> None:
        """Record and compile the step for batches of this shape; others stay as they are."""
        compiler, self.compiler = self.compiler, None
        with fork_rng(batch):
            self.dry_run(self.read(batch))
        try:
            self.compiled = CompiledStep(
                self, batch, compiler, used=[self.optim.named[n] for n in self.recorded["used"]]
            )
        except Unsupported as error:
            warnings.warn(f"compile: the step runs uncompiled, as {error}", stacklevel=3)

    def release(self) -> None:
        """Forget the compiled step and give each parameter memory of its own."""
        if self.compiled is not None:
            self.compiled.release()
            self.compiled = None

    def read(self, batch: tuple[Tensor, ...], columns: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """Return x and context of a batch, which may be told by its rows alone."""
        if self.data is None:
            return batch
        return self.data.read(*batch, self.data.columns if columns is None else columns)

    def uncompiled(self, batch: tuple[Tensor, ...], counts: bool) -> dict[str, Tensor]:
        """Take one step in Python."""
        batch = self.read(batch)
        self.dry_run(batch)
        self.optim.zero()
        # estimators of Pyro look for the parameters themselves and have to be told
        quiet = announcements_off() if isinstance(self.estimator, Estimator) else nullcontext()
        with pyro.validation_enabled(False), quiet, self.precision:
            metrics = self.backward(batch)
        if self.ranks.size > 1:
            metrics = all_reduce_gradients(self.optim.parameters, metrics, n=batch[0].shape[0], counts=counts)
        norm = self.optim.norm()
        # NaN and infinity survive the sum: one look for both
        total = norm + metrics["loss"]
        finite = torch.isfinite(total)
        if self.skip_nonfinite:
            joined = {"count": metrics.pop("count")} if "count" in metrics else {}
            metrics = leave_out(metrics, finite, joined.get("count", float(batch[0].shape[0]))) | joined
        if self.deferred:
            self.optim.clip(norm)
            self.optim.step_if(finite if self.skip_nonfinite else self.so_far(finite))
        elif math.isfinite(total):
            self.optim.clip(norm)
            self.optim.torch.step()
        elif not self.skip_nonfinite:
            raise NonFiniteError(diagnosis(self, batch))
        self.steps += 1
        return metrics

    def backward(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Fill the gradient of the mean over the batch, and return the sums over it."""
        estimator, weight = self.estimator, self._weights[batch[0].shape[0]]
        n = batch[0].shape[0]
        if isinstance(estimator, Estimator):
            estimator.step = self.steps
            loss, metrics = estimator.training_loss(self.model, self.guide, *batch)
            loss.backward(self._share(loss, weight))
            loss = loss.detach()
            return {"loss": loss if weight == n else loss * (n / weight), **metrics}
        # an estimator of Pyro: its own road, with its own synchronisations
        loss = estimator.loss_and_grads(self.model, self.guide, *batch)
        if isinstance(loss, (tuple, list)):
            loss = sum(loss)
        grads = [p.grad for p in self.optim.parameters if p.grad is not None]
        torch._foreach_div_(grads, weight)
        return {"loss": torch.as_tensor(float(loss) * (n / weight), device=batch[0].device)}

    def _share(self, loss: Tensor, weight: float) -> Tensor:
        """Return 1 / weight, the gradient of the mean by the sum, made once for each size of a batch."""
        if weight not in self._shares:
            self._shares[weight] = torch.full_like(loss, 1 / weight, requires_grad=False)
        return self._shares[weight]

    def dry_run(self, batch: tuple[Tensor, ...]) -> None:
        """Before a batch of a new shape: run it once under Pyro's validation, and weigh its plate."""
        key = tuple((x.shape, x.dtype) for x in batch)
        if key in self._seen:
            return
        self._weights[batch[0].shape[0]] = dry_run(self, batch, check=not self._seen)
        self._seen.add(key)

    def so_far(self, finite: Tensor) -> Tensor:
        """Return whether all steps so far were finite; after a bad one none counts until an error is raised."""
        self._flags = [torch.stack([*self._flags, finite]).all()]
        return self._flags[0]

    def raise_if_nonfinite(self, batch: tuple[Tensor, ...]) -> None:
        """Wait for the device and raise if a step since the last call was bad."""
        alive = [*self._flags, *([self.compiled.alive] if self.compiled else [])]
        if not all(flag.item() for flag in alive):
            with fork_rng(batch), pyro.validation_enabled(False):
                batch = self.read(batch)
                if self.compiled is not None:  # whose gradients are not kept
                    self.optim.zero()
                    self.backward(batch)
            raise NonFiniteError(diagnosis(self, batch))

    def state(self) -> dict[str, Any]:
        """Return what another engine needs to go on from here, beside the weights of the program."""
        estimator = {} if self.beside is None else dict(self.beside.state_dict())
        # at the end of an epoch the schedule is read where the last step left it
        at = self.estimator.step if isinstance(self.estimator, Estimator) else 0
        return {
            "steps": self.steps,
            "at": at,
            "estimator": estimator,
            "optimizer": self.optim.get_state(),
            "recorded": self.recorded,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned; to be called before the first step."""
        self.steps = state["steps"]
        if isinstance(self.estimator, Estimator):
            self.estimator.step = state["at"]
        if self.beside is not None:
            self.beside.load_state_dict(state["estimator"])
        self.optim.set_state(state["optimizer"])
        self.recorded = state["recorded"]


def described(batch: tuple[Tensor, ...]) -> list[str]:
    """Return shapes and types of a batch in words."""
    return [f"{tuple(x.shape)} {x.dtype}" for x in batch]
