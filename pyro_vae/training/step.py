"""One training step: loss, gradient, clipping, the check for NaN, and the update.

It is written once, for an update rule that it is given: with an :class:`OneOptimizer` it runs eagerly, with a
``FlatUpdate`` it is recorded and compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO as PyroELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vae.estimators import Estimator
from pyro_vae.programs.primitives import announcements_off
from pyro_vae.programs.program import Program
from pyro_vae.trace.layout import Layout
from pyro_vae.trace.weighted import Weighted
from pyro_vae.training.data.column import OnDevice

__all__ = [
    "NonFiniteError",
    "Step",
    "Update",
    "clip_factor",
    "global_norm",
    "minus_bound",
]

Metrics = dict[str, Tensor]


class NonFiniteError(RuntimeError):
    """A loss or gradient is NaN or infinite; ``fit`` restores the last weights that gave a finite loss."""


class Update(Protocol):
    """The update rule of a step.

    Attributes:
        parameters: the tensors that it changes, whose gradients it reads
    """

    parameters: Sequence[Tensor]

    def backward(self, loss: Tensor, gradient: Tensor) -> None:
        """Backpropagate ``gradient``, the derivative with respect to the loss, to the parameters."""

    def apply(self, gradients: list[Tensor], factor: Tensor | None, good: Tensor) -> None:
        """Update by the gradients times a factor, unless ``good`` is False."""


@dataclass(frozen=True)
class Step:
    """A training step as a function of a batch and an update rule.

    Args:
        program: the program that is trained
        estimator: estimator of this library or of ``pyro.infer``
        precision: context manager for loss and gradient
        clip_norm: largest global norm of the gradient; None for no clipping
        skip_nonfinite: skip a step with a NaN or infinite loss or gradient, and count its rows as ``skipped``
        data: data set on the device, whose rows the step reads itself; None if each batch is passed as tensors
        weighted_layout: where the plate of the data is, if the last tensor of a batch has the weights of its examples
    """

    program: Program
    estimator: PyroELBO
    precision: AbstractContextManager[Any]
    clip_norm: float | None
    skip_nonfinite: bool
    data: OnDevice | None
    weighted_layout: Layout | None = None

    def __call__(
        self,
        batch: tuple[Tensor, ...],
        update: Update,
        alive: Tensor,
        *,
        check: Callable[[Sequence[Tensor]], None] | None = None,
        join: Callable[..., Metrics] | None = None,
        columns: Sequence[Tensor] | None = None,
    ) -> Metrics:
        """Take one step and return sums over the batch, in nats; nothing here waits for the device.

        Args:
            batch: x and context, or the row numbers of a batch of ``data``
            update: update rule and parameters
            alive: whether all steps so far were finite, a boolean of shape ``()``. It is changed in place. Once it is
                False no step changes a parameter; with ``skip_nonfinite`` it stays True
            check: called with the parameters that Pyro found in model and guide, before any of them changes
            join: sums gradients and metrics over all ranks, as ``all_reduce_gradients``; None for one process
            columns: tensors in place of those of ``data``
        """
        batch = self.read(batch, columns)
        n = batch[0].shape[0]
        metrics = self.differentiate(batch, update, check)
        if join is not None:
            metrics = join(metrics, n=n)
        gradients = [p.grad for p in update.parameters if p.grad is not None]
        norm = global_norm(gradients)
        # NaN and infinity survive the sum: one check for both
        finite = torch.isfinite(norm + metrics["loss"])
        good = finite if self.skip_nonfinite else alive.logical_and_(finite)
        update.apply(gradients, clip_factor(norm, self.clip_norm), good)
        return without_bad(metrics, finite, n) if self.skip_nonfinite else metrics

    def read(self, batch: tuple[Tensor, ...], columns: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """Return x, context and weights of a batch."""
        if self.data is None:
            return batch
        return self.data.read(*batch, self.data.columns if columns is None else columns)

    def unweighted(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return x and context of a batch."""
        batch = self.read(batch)
        return batch if self.weighted_layout is None else batch[:-1]

    def differentiate(
        self, batch: tuple[Tensor, ...], update: Update, check: Callable[[Sequence[Tensor]], None] | None = None
    ) -> Metrics:
        """Compute the gradient of the mean loss per example, and return the sums over the batch."""
        n, estimator = batch[0].shape[0], self.estimator
        weighting = None
        if self.weighted_layout is not None:
            *batch, weights = batch
            weighting = Weighted(weights, self.weighted_layout)
        run = self.program.model, self.program.guide, *batch
        ours = isinstance(estimator, Estimator)
        # estimators of Pyro find the parameters by their announcements, and do not return the scales
        collector = announcements_off() if ours and check is None else Collector()
        with pyro.validation_enabled(False), weighting or nullcontext(), collector, self.precision:
            if ours:
                loss, metrics, terms = estimator.training_loss(*run)
                scale = mean_scale(weighting.scales if weighting else [site.scale for site in terms.observed])
            else:
                loss, metrics = estimator.loss_and_grads(*run), {}
                scale = mean_scale((weighting or collector).scales)
            if check is not None:
                check(collector.parameters)
            if ours:
                update.backward(loss, unscaled(torch.full_like(loss, 1 / n), scale))
            else:
                loss = torch.as_tensor(minus_bound(loss), device=batch[0].device, dtype=self.program.dtype)
                gradients = [p.grad for p in update.parameters if p.grad is not None]
                if gradients:  # not if all parameters are frozen
                    torch._foreach_div_(gradients, n * scale)
        # without latent sites the divergence is the number 0
        metrics = {name: m if isinstance(m, Tensor) else torch.full_like(loss, m) for name, m in metrics.items()}
        return {"loss": unscaled(loss.detach(), scale), **metrics}

    def nonfinite_sites(self, batch: tuple[Tensor, ...]) -> list[str]:
        """Run model and guide once, and return which sites are NaN or infinite, in words."""
        batch, program = self.unweighted(batch), self.program
        with torch.no_grad(), pyro.validation_enabled(False):
            guide = poutine.trace(program.guide).get_trace(*batch)
            model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(*batch)
            return [
                f"{site['name']!r} in the {where}"
                for where, trace in (("guide", guide), ("model", model))
                for site in trace.nodes.values()
                if site["type"] == "sample"
                and not all(torch.isfinite(t).all() for t in (site["value"], site["fn"].log_prob(site["value"])))
            ]


class Collector(Messenger):
    """Collects the parameters and the scales of observed sites that a run of model and guide uses."""

    def __init__(self) -> None:
        super().__init__()
        self.parameters: list[Tensor] = []
        self.scales: list[float | Tensor] = []

    def _pyro_post_param(self, msg: Any) -> None:
        self.parameters.append(msg["value"].unconstrained())

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["is_observed"]:
            self.scales.append(msg["scale"])


def mean_scale(scales: Sequence[float | Tensor]) -> float | Tensor:
    """Return the scale of the first observed site, such as N/B of a subsampling plate; 1 without observations."""
    scale = scales[0] if scales else 1.0
    return scale.mean() if isinstance(scale, Tensor) else scale


def minus_bound(loss: Any) -> float:
    """Return the loss of an estimator of Pyro as a number; of the two of ReweightedWakeSleep that of the model."""
    return float(loss[0] if isinstance(loss, tuple) else loss)


def unscaled(value: Tensor, scale: float | Tensor) -> Tensor:
    """Return a value divided by a scale; means per example do not depend on the scale."""
    return value if not isinstance(scale, Tensor) and scale == 1 else value / scale


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the norm of all gradients together, of shape ``()``; 0 if there are none."""
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def clip_factor(norm: Tensor, clip_norm: float | None) -> Tensor | None:
    """Return the factor that brings a gradient down to ``clip_norm``; None without clipping."""
    return None if clip_norm is None else (clip_norm / (norm + 1e-6)).clamp(max=1.0)


def without_bad(metrics: Metrics, finite: Tensor, n: int) -> Metrics:
    """Return the metrics of a step, all 0 if it is skipped, and ``skipped``, the number of skipped rows."""
    count = {"count": metrics.pop("count")} if "count" in metrics else {}
    kept = {name: torch.where(finite, value, torch.zeros_like(value)) for name, value in metrics.items()}
    return {**kept, "skipped": torch.where(finite, 0.0, count.get("count", float(n))), **count}
