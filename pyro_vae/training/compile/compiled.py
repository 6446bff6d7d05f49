"""A whole training step (bound, gradient, clipping, update) as one graph, compiled.

Pyro's handlers are Python that says which tensor operations a step has. They say the same in every step, so that one
step is recorded (``make_fx``: the graph holds neither Pyro nor autograd) and handed to a compiler. What changes
from step to step is an argument of the graph: the batch, the value of a schedule, the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pyro
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae.estimators import Estimator
from pyro_vae.programs.primitives import announcements_off
from pyro_vae.training.compile.compilers import Compiler
from pyro_vae.training.compile.cuda_graph import CudaGraph
from pyro_vae.training.compile.groups import ELEMENTWISE, Group, Unsupported, bundles

if TYPE_CHECKING:
    from pyro_vae.training.svi import SVI

__all__ = ["CompiledStep", "Unsupported", "leave_out"]


def leave_out(metrics: dict[str, Tensor], finite: Tensor, n: float | Tensor) -> dict[str, Tensor]:
    """Return the metrics of a step, zero if it is left out, and how many data it leaves out."""
    kept = {name: torch.where(finite, value, torch.zeros_like(value)) for name, value in metrics.items()}
    return {**kept, "skipped": torch.where(finite, 0.0, n)}


class CompiledStep:
    """One training step of an SVI as one compiled graph, for batches of one shape.

    Args:
        svi: which has taken a step, so that the optimizer has its state
        batch: what ``svi.update`` takes, as an example
        compiler: makes a fast function of the graph
        used: the parameters that get a gradient

    Raises:
        Unsupported: the step cannot be recorded; it says why.
    """

    def __init__(
        self, svi: SVI, batch: tuple[Tensor, ...], compiler: Compiler, *, used: Sequence[nn.Parameter]
    ) -> None:
        self.svi, self.estimator = svi, svi.estimator
        optimizer = svi.optim.torch
        if not isinstance(self.estimator, Estimator):
            raise Unsupported(f"{type(self.estimator).__name__} is not of pyro_vae.estimators")
        if (self.estimator.particles_per_pass or self.estimator.num_particles) < self.estimator.num_particles:
            raise Unsupported("particles_per_pass computes passes again, which a recorded step does not")
        if type(optimizer) not in ELEMENTWISE:
            raise Unsupported(f"optimizer {type(optimizer).__name__}: known are {[c.__name__ for c in ELEMENTWISE]}")
        if svi.ranks.size > 1:
            raise Unsupported("several processes join their gradients in the middle of it")
        if len({(p.dtype, p.device) for p in used}) > 1:
            raise Unsupported("the parameters have several dtypes or devices")
        self.module = Evaluation(svi)
        moved = {id(p) for p in used}
        self.groups = [
            Group(optimizer, group, together)
            for group in optimizer.param_groups
            for together in bundles([p for p in group["params"] if id(p) in moved])
        ]
        places = {id(p): name for name, p in self.module.named_parameters()}
        self.names = [places[id(p)] for group in self.groups for p in group.parameters]
        self.buffers = dict(self.module.named_buffers())
        self.columns = [] if svi.data is None else svi.data.columns
        device = used[0].device
        self.alive = torch.ones((), dtype=torch.bool, device=device)
        self.schedule = torch.zeros((), dtype=used[0].dtype, device=device)
        self.metrics: list[str] = []
        self.weight = svi._weights[batch[0].shape[0]]
        self.shape = [(x.shape, x.dtype, False) for x in batch]
        self.settings = list({id(g.options): (g.options, g.frozen) for g in self.groups}.values())
        self.arguments = [
            self.schedule,
            self.alive,
            *(group.lr for group in self.groups),
            *(t for group in self.groups for t in group.flat),
            *(column.detach() for column in self.columns),
            *self.buffers.values(),
        ]
        self.width = len(batch)
        if len({t.device for t in (*batch, *self.arguments)}) > 1:
            self.release()
            raise Unsupported(
                "not all that it reads is on one device: give the optimizer capturable=True or fused=True"
            )
        try:
            self.call = self.compile(compiler, self.record([*batch, *self.arguments]), batch)
        except Unsupported:
            self.release()
            raise

    def fits(self, batch: tuple[Tensor, ...]) -> bool:
        """Whether the graph is for batches of this shape that want no gradient, and for the settings of now."""
        return [(x.shape, x.dtype, x.requires_grad) for x in batch] == self.shape and all(
            options.items() >= constants.items() for options, constants in self.settings
        )

    def __call__(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Take one step and return the sums over the batch."""
        if self.estimator.scheduled:
            self.schedule.fill_(self.estimator.schedule_value())
        for group in self.groups:
            group.look()
        with self.svi.precision:
            return dict(zip(self.metrics, self.call(batch), strict=True))

    def record(self, example: list[Tensor]) -> GraphModule:
        """Run the step on tensors without data and return the operations that it is made of."""
        try:
            with pyro.validation_enabled(False), announcements_off(), self.svi.precision:
                graph = make_fx(self.step, tracing_mode="fake", _allow_non_fake_inputs=True)(*example)
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise Unsupported(f"its operations depend on values: {type(error).__name__}: {first}") from error
        constants = {node for node in graph.graph.nodes if node.op == "get_attr"}
        for node in graph.graph.nodes:
            schema = getattr(node.target, "_schema", None)
            if schema is not None and schema.is_mutable and constants & set(node.all_input_nodes):
                raise Unsupported(f"it changes a tensor that is no parameter or buffer of the program ({node.target})")
        return graph

    def compile(
        self, compiler: Compiler, graph: GraphModule, batch: tuple[Tensor, ...]
    ) -> Callable[[Sequence[Tensor]], Sequence[Tensor]]:
        """Hand a graph to the compiler, of which there may be none on this machine; return a function of the batch."""
        try:
            call = compiler(graph, [*batch, *self.arguments])
            if batch[0].device.type == "cuda":
                # the data, which may fill half of the device, are read only
                changed = [self.alive, *(t for group in self.groups for t in group.flat), *self.buffers.values()]
                with torch.no_grad(), self.svi.precision:
                    return CudaGraph(lambda *batch: call(*batch, *self.arguments), batch, changed)
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise Unsupported(f"the compiler failed: {type(error).__name__}: {first}") from error
        return lambda batch: call(*batch, *self.arguments)

    def step(self, *arguments: Tensor) -> list[Tensor]:
        """Take one step, as a function of tensors: what is recorded."""
        batch, rest = arguments[: self.width], list(arguments[self.width :])
        schedule, alive = rest.pop(0), rest.pop(0)
        rates = [rest.pop(0) for _ in self.groups]
        flats = [[rest.pop(0) for _ in group.flat] for group in self.groups]
        columns = [rest.pop(0) for _ in self.columns]
        pieces = [
            piece for group, flat in zip(self.groups, flats, strict=True) for piece in group.layout.split(flat[0])
        ]
        leaves = [piece.detach().requires_grad_() for piece in pieces]
        state = {**dict(zip(self.names, leaves, strict=True)), **dict(zip(self.buffers, rest, strict=True))}
        with torch.enable_grad(), self.estimator.scheduled_at(schedule):
            loss, metrics = functional_call(self.module, state, self.svi.read(batch, columns))
            gradients = torch.autograd.grad(loss, leaves, torch.full_like(loss, 1 / self.weight))
        n = batch[0].shape[0]
        loss = loss.detach() if self.weight == n else loss.detach() * (n / self.weight)
        # the norm of each part, while it is still in the cache
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        joined = self.join(list(gradients))
        finite = torch.isfinite(norm + loss)
        clip = self.svi.optim.clip_norm
        if clip is not None:
            factor = (clip / (norm + 1e-6)).clamp(max=1.0)
            joined = [g * factor for g in joined]
        take = finite & alive
        for group, flat, lr, gradient in zip(self.groups, flats, rates, joined, strict=True):
            for old, new in zip(flat, group.update(flat, lr, gradient), strict=True):
                old.copy_(torch.where(take, new, old))
        if self.svi.skip_nonfinite:
            metrics = leave_out({"loss": loss, **metrics}, finite, float(n))
        else:
            metrics = {"loss": loss, **metrics}
            alive.logical_and_(finite)
        self.metrics = list(metrics)
        return list(metrics.values())

    def join(self, gradients: list[Tensor]) -> list[Tensor]:
        """Return the flat gradient of each group."""
        return [group.layout.join([gradients.pop(0) for _ in group.parameters]) for group in self.groups]

    def release(self) -> None:
        """Give each parameter and each tensor of the optimizer's state memory of its own again."""
        for group in self.groups:
            for p in group.parameters:
                p.data = p.data.clone()
                state = self.svi.optim.torch.state[p]
                for key in (*group.moments, *group.counts):
                    state[key] = state[key].clone()


class Evaluation(nn.Module):
    """The loss of an estimator as a module that holds every parameter and buffer the step may use."""

    def __init__(self, svi: SVI) -> None:
        super().__init__()
        self.program, self.beside = svi.program, svi.beside
        self.svi = [svi]  # in a list: no module of this one

    def forward(self, *batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and metrics."""
        svi = self.svi[0]
        return svi.estimator.training_loss(svi.model, svi.guide, *batch)
