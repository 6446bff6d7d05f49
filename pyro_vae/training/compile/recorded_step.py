"""A whole training step (loss, gradient, clipping, update) as one compiled graph.

Pyro's handlers are Python code that decides which tensor operations a step consists of. They decide the same in every
step, so one step is recorded (by ``make_fx``: the graph contains neither Pyro nor autograd) and passed to a compiler.
Whatever changes between steps is an argument of the graph: the batch, the value of a schedule, the learning rates.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_vae._util.substitute import substituted, tensors_of
from pyro_vae.estimators import Estimator
from pyro_vae.training.compile.compilers import Compiler
from pyro_vae.training.compile.cuda_graph import CudaGraph
from pyro_vae.training.compile.flat_optimizer import FlatOptimizer, FlatUpdate, Unsupported
from pyro_vae.training.step import Step

__all__ = ["RecordedStep", "described"]

#: In a compiled graph a separate norm of each gradient is faster, as the gradient is still in the cache.
RULES = {torch.ops.aten._foreach_norm.Scalar: lambda gradients: [torch.linalg.vector_norm(g) for g in gradients]}


class RecordedStep:
    """A training step as one compiled graph, for batches of one shape.

    Args:
        step: the step
        optimizer: has taken a step, so that its state exists
        batch: what the step takes, as an example
        compiler: turns the graph into a fast function
        used: the parameters that get a gradient
        alive: whether all steps so far were finite, as in :class:`Step`

    Raises:
        Unsupported: the step cannot be recorded or compiled; the message says why.
    """

    def __init__(
        self,
        step: Step,
        optimizer: torch.optim.Optimizer,
        batch: tuple[Tensor, ...],
        compiler: Compiler,
        *,
        used: Sequence[nn.Parameter],
        alive: Tensor,
    ) -> None:
        estimator = step.estimator
        if not isinstance(estimator, Estimator):
            raise Unsupported(f"{type(estimator).__name__} is not an estimator of pyro_vae.estimators")
        if (estimator.particles_per_pass or estimator.num_particles) < estimator.num_particles:
            raise Unsupported("particles_per_pass repeats parts of a step, which a recorded step does not")
        self.step, self.alive = step, alive
        self.modules = [module for module in (step.program, estimator.module) if module is not None]
        ids = {id(p) for p in used}
        #: buffers, and parameters that no step changes
        self.others = [t for t in tensors_of(self.modules) if id(t) not in ids]
        memory = set(map(memory_of, used))
        if len(memory) < len(used) or memory & set(map(memory_of, self.others)):
            raise Unsupported("two parameters or buffers share memory: register one nn.Parameter in both modules")
        self.schedule = torch.zeros((), dtype=used[0].dtype, device=used[0].device)
        self.columns = [] if step.data is None else [column.detach() for column in step.data.columns]
        self.shape = [(x.shape, x.dtype, False) for x in batch]
        self.metrics: list[str] = []
        self.flat = FlatOptimizer(optimizer, used)
        try:
            others = [t.detach() for t in self.others]
            self.arguments = [self.schedule, alive, *self.flat.tensors(), *self.columns, *others]
            if len({t.device for t in (*batch, *self.arguments)}) > 1:
                raise Unsupported(
                    "the step reads tensors on several devices: give the optimizer capturable=True or fused=True"
                )
            self.call = self.compile(compiler, self.record([*batch, *self.arguments]), batch)
        except BaseException:
            self.release()
            raise

    def fits(self, batch: tuple[Tensor, ...]) -> bool:
        """Whether the graph is for this batch, which must not require a gradient, and its constants still hold."""
        return [(x.shape, x.dtype, x.requires_grad) for x in batch] == self.shape and self.flat.is_current()

    def __call__(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Take one step and return the sums over the batch."""
        if self.step.estimator.scheduled:
            self.schedule.fill_(self.step.estimator.schedule_value())
        for group in self.flat.groups:
            group.read_learning_rate()
        with self.step.precision:
            return dict(zip(self.metrics, self.call(batch), strict=True))

    def record(self, example: list[Tensor]) -> GraphModule:
        """Run the step on tensors without data and return the operations that it consists of."""
        try:
            with attributes_kept(self.modules):
                trace = make_fx(self.run, tracing_mode="fake", _allow_non_fake_inputs=True, decomposition_table=RULES)
                graph = trace(*example)
        except Unsupported:
            raise
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise Unsupported(f"its operations depend on values: {type(error).__name__}: {first}") from error
        constants = {node: getattr(graph, node.target) for node in graph.graph.find_nodes(op="get_attr")}
        flat = {t.untyped_storage()._cdata for t in self.flat.tensors()}
        if any(t.untyped_storage()._cdata in flat for t in constants.values() if isinstance(t, Tensor)):
            raise Unsupported("a parameter is read without its module: read it as an attribute of the module")
        for node in graph.graph.nodes:
            schema = getattr(node.target, "_schema", None)
            if schema is not None and schema.is_mutable and set(constants) & set(node.all_input_nodes):
                raise Unsupported(f"{node.target} changes a tensor other than parameters and buffers of the program")
        return graph

    def compile(
        self, compiler: Compiler, graph: GraphModule, batch: tuple[Tensor, ...]
    ) -> Callable[[Sequence[Tensor]], Sequence[Tensor]]:
        """Pass the graph to the compiler, which may be missing on this machine; return a function of the batch."""
        try:
            call = compiler(graph, [*batch, *self.arguments])
            if batch[0].device.type == "cuda":
                # without the data set, which is only read and may fill half of the device
                changed = [self.alive, *self.flat.tensors(), *self.others]
                with torch.no_grad(), self.step.precision:
                    return CudaGraph(lambda *batch: call(*batch, *self.arguments), batch, changed)
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise Unsupported(f"the compiler failed: {type(error).__name__}: {first}") from error
        return lambda batch: call(*batch, *self.arguments)

    def run(self, *arguments: Tensor) -> list[Tensor]:
        """Take one step as a function of tensors, all of which stand for the program's own."""
        sizes = [len(self.shape), 1, 1, len(self.flat.tensors()), len(self.columns), len(self.others)]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        batch, (schedule,), (alive,), flat, columns, others = (
            arguments[start : start + size] for start, size in zip(starts, sizes, strict=True)
        )
        update = FlatUpdate(self.flat.groups, flat)
        new = dict(zip((*self.flat.parameters, *self.others), (*update.parameters, *others), strict=True))
        with substituted(self.modules, new), torch.enable_grad(), self.step.estimator.scheduled_at(schedule):
            before = tensors_of(self.modules)
            metrics = self.step(batch, update, alive, columns=columns)
            if list(map(id, before)) != list(map(id, tensors_of(self.modules))):
                raise Unsupported("it assigns a new tensor to a buffer: change the buffer in place, as by copy_")
        self.metrics = list(metrics)
        return list(metrics.values())

    def release(self) -> None:
        """Give each parameter memory of its own again."""
        self.flat.release()


@contextmanager
def attributes_kept(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Undo what a run assigns to attributes of modules, such as a tensor without data that a layer caches."""
    before = [(module, dict(vars(module))) for root in modules for module in root.modules()]
    contents = [(c, copy.copy(c)) for _, kept in before for c in kept.values() if type(c) in (dict, list, set)]
    try:
        yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)
        for container, content in contents:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)


def memory_of(t: Tensor) -> tuple[int, int]:
    """Return what identifies the memory of a tensor."""
    return t.untyped_storage()._cdata, t.storage_offset()


def described(batch: tuple[Tensor, ...]) -> list[str]:
    """Return shapes and types of a batch in words."""
    return [f"{tuple(x.shape)} {x.dtype}" for x in batch]
