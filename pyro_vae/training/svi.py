"""The engine: ``pyro.infer.SVI`` with one optimizer and no synchronisation inside a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyro_vae.estimators import Estimator
from pyro_vae.programs.program import Program, announcements_off
from pyro_vae.rng import fork_rng
from pyro_vae.training.distributed import Ranks
from pyro_vae.training.optimizer import OneOptimizer

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
        ranks: the processes whose gradients are joined; this one alone by default

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
        ranks: Ranks | None = None,
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
            OneOptimizer(program, optimizer, clip_norm=clip_norm, estimator=self.beside),
            estimator,
        )
        self.ranks = Ranks(0, 1) if ranks is None else ranks
        self.steps = 0
        # on the CPU a look at a number is free; elsewhere it would wait for the device
        self.deferred = self.optim.parameters[0].device.type != "cpu"
        self._seen: set[Any] = set()
        self._weights: dict[int, float] = {}
        self._shares: dict[float, Tensor] = {}
        self._flags: list[Tensor] = []

    def update(self, *batch: Tensor, counts: bool = True) -> dict[str, Tensor]:
        """Take one step.

        Args:
            batch: x and context
            counts: False where a rank has no share of the joined batch and only keeps in step with the others

        Returns:
            Sums over the batch, in nats and on the device: ``loss`` (minus the bound), and where the estimator
            tells them ``reconstruction`` and ``kl``. With several ranks over their joined batch, and ``count``, the
            number of its data.

        Raises:
            NonFiniteError: loss or gradient is NaN or infinite; no weight was moved.
        """
        self.first_look(batch)
        self.optim.zero()
        # estimators of Pyro look for the parameters themselves and have to be told
        quiet = announcements_off() if isinstance(self.estimator, Estimator) else nullcontext()
        with pyro.validation_enabled(False), quiet:
            metrics = self.backward(batch)
        if self.ranks.size > 1:
            metrics = self.ranks.join(self.optim.parameters, metrics, n=batch[0].shape[0], counts=counts)
        norm = self.optim.norm()
        # NaN and infinity survive the sum: one look for both
        total = norm + metrics["loss"]
        if not self.freeze(torch.isfinite(total)) if self.deferred else not math.isfinite(total):
            raise NonFiniteError(self.diagnose(batch))
        self.optim.clip(norm)
        self.optim.torch.step()
        self.steps += 1
        return metrics

    def backward(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Fill the gradient of the mean over the batch, and return the sums over it."""
        estimator, weight = self.estimator, self._weights[batch[0].shape[0]]
        n = batch[0].shape[0]
        if isinstance(estimator, Estimator):
            estimator.step = self.steps
            loss, metrics = estimator.evaluate(estimator.terms(self.model, self.guide, *batch))
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

    def first_look(self, batch: tuple[Tensor, ...]) -> None:
        """Before a batch of a new shape: run it once under Pyro's validation, and weigh its plate."""
        key = tuple((x.shape, x.dtype) for x in batch)
        if key in self._seen:
            return
        n = batch[0].shape[0]
        with fork_rng(batch), torch.no_grad(), pyro.validation_enabled(True):
            with poutine.trace(param_only=True) as used:
                drawn = poutine.trace(self.guide).get_trace(*batch)
                scored = poutine.trace(poutine.replay(self.model, trace=drawn)).get_trace(*batch)
        if not self._seen:
            found = [site["value"].unconstrained() for site in used.trace.nodes.values() if site["type"] == "param"]
            self.optim.check(found if self.beside is None else [*found, *self.beside.parameters()])
        scales = [site["scale"] for site in scored.nodes.values() if site.get("is_observed")]
        self._weights[n] = n * float(torch.as_tensor(scales[0]).double().mean()) if scales else float(n)
        self._seen.add(key)

    def freeze(self, finite: Tensor) -> bool:
        """Have the fused kernel skip a bad step and all after it; return False if it cannot and this is one."""
        if not getattr(self.optim.torch, "_step_supports_amp_scaling", False):
            return bool(finite)
        self._flags.append(finite)
        ok = torch.stack(self._flags).all()
        self._flags = [ok]
        self.optim.torch.found_inf = (~ok).float()
        return True

    def settle(self, batch: tuple[Tensor, ...]) -> None:
        """Wait for the device and raise if a step since the last call was bad."""
        if self._flags and not self._flags[0].item():
            raise NonFiniteError(self.diagnose(batch))

    def diagnose(self, batch: tuple[Tensor, ...]) -> str:
        """Say where a non-finite number came from."""
        name, size = self.optim.largest()
        rank = f"rank {self.ranks.rank}, " if self.ranks.size > 1 else ""
        text = f"{rank}step {self.steps}: the loss or its gradient is not finite"
        with torch.no_grad(), fork_rng(batch), pyro.validation_enabled(False):
            drawn = poutine.trace(self.guide).get_trace(*batch)
            scored = poutine.trace(poutine.replay(self.model, trace=drawn)).get_trace(*batch)
            bad = [
                f"{site['name']!r} in the {where}"
                for where, trace in (("guide", drawn), ("model", scored))
                for site in trace.nodes.values()
                if site["type"] == "sample" and not finite_site(site)
            ]
        text += f"; site {' and '.join(bad)} is not finite" if bad else "; every site is finite by itself"
        return text + (
            f"; the largest gradient is that of {name!r} (norm {size:.3g}). "
            "Lower the learning rate, set clip_norm, or look at the data of this batch"
        )


def finite_site(site: dict[str, Any]) -> bool:
    """Whether value and log-density of a site are finite."""
    value, log_prob = site["value"], site["fn"].log_prob(site["value"])
    return bool(torch.isfinite(log_prob).all() and torch.isfinite(value).all())
