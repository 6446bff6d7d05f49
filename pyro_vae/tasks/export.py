"""Export a trained program for use without this library: torch.export programs and ONNX models."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from pyro_vae._util.atomic_files import write_folder
from pyro_vae._util.lock import in_turn
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int, check_unique
from pyro_vae.evaluation.over import one_batch
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.tasks.export_formats import ExportFormat, TorchExport, as_tuple
from pyro_vae.tasks.graphs import GRAPHS, more_inputs

__all__ = ["export"]

#: Largest difference of an exported result from that of the program, relative where it is above 1.
TOLERANCE = 1e-5

#: Rows on which the functions are recorded and checked.
ROWS = 32


@in_turn
def export(
    program: Program,
    folder: str | Path,
    x: Any,
    *,
    parts: Sequence[str] | None = None,
    format: ExportFormat = TorchExport(),  # noqa: B008 (it has no state)
    num_particles: int = 100,
    seed: int = 0,
) -> dict[str, Path]:
    r"""Write encoder, decoder and anomaly score of a program to files that run without this library.

    * ``encoder(x, *context)`` returns mean and standard deviation of q(z given x), each of shape ``(n, latent)``. They
      are exact where they have a closed form, and equal those of :func:`embed`; otherwise they are those of
      ``num_particles`` samples.
    * ``decoder(z, *context)`` returns the mean of p(x given z), of shape ``(n, *shape)``. That of a ``CountVAE`` takes
      the library size of each example, ``(n,)``, as its last input.
    * ``score(x, *context)`` returns :math:`-\log \frac1K \sum_k w_k` in nats with K = ``num_particles``, of shape
      ``(n,)``: the value of :class:`ImportanceWeighted` with other random numbers.

    All are functions of their inputs alone: random numbers are drawn once, are the same for each row, and are stored
    in the file. The size of a batch is free. Each function is run on the given rows and on a single row, and compared
    with the program. Arguments and data are not checked by an exported function.

    The program, the global random state and the validation of distributions do not change, also in other threads.

    Args:
        program: a trained program
        folder: a new folder for the files
        x: a few rows of data, or a tuple ``(x, context)``
        parts: what to export: ``"encoder"`` (of a program with a method ``encode`` of the columns of ``x``),
            ``"decoder"`` (of one that also has ``decode``, with a mean) and ``"score"`` (of any program); by default
            all that the program has
        format: ``TorchExport()`` or ``Onnx()``
        num_particles: K, at least 2
        seed: seed of the stored random numbers

    Returns:
        The path of each file by the name of the part.

    Raises:
        ValueError: the folder exists, the data do not fit, or a part cannot be exported; the message names it.
        ImportError: a package that the format needs is not installed.

    Example:
        >>> import tempfile, pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> x = toy.draw(5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = export(toy.program, folder + "/exported", x)
        ...     score = torch.export.load(files["score"]).module()  # in any process with torch
        >>> torch.allclose(score(x), -toy.log_evidence(x), atol=1e-4)
        True
    """
    folder, num_particles = Path(folder), check_int("num_particles", num_particles, 2)
    if folder.exists():
        raise ValueError(f"folder: expected a new folder, but {folder} exists. Name another one, or remove it")
    wanted = tuple(GRAPHS) if parts is None else parts
    unknown = [part for part in wanted if part not in GRAPHS]
    if unknown or not wanted:
        raise ValueError(f"parts: expected some of {', '.join(GRAPHS)}, got {unknown or 'none'}")
    check_unique("parts", wanted)
    format.check_installed()
    batch = tuple(column[:ROWS] for column in one_batch(program, x, seed=seed))
    if len(batch[0]) == 1:  # torch.export takes a size of 1 for a constant
        batch = tuple(torch.cat([column, column]) for column in batch)
    with evaluating(program), fork_rng(program.device, seed):
        functions = {}
        for part in wanted:
            try:
                functions[part] = Function(part, program, batch, num_particles, seed)
            except MissingPartError:
                if parts is not None:
                    raise
        made = {part: function.write(format) for part, function in functions.items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_folder(folder, {part + format.ending: content for part, content in made.items()})
    return {part: folder / (part + format.ending) for part in made}


class MissingPartError(ValueError):
    """A program has no such function."""


class Function:
    """One function of a program that is exported.

    Args:
        part: ``"encoder"``, ``"decoder"`` or ``"score"``
        program: a program in evaluation mode
        batch: a few rows of data, and their context
        num_particles: samples of the latents per example
        seed: random seed of these samples

    Raises:
        MissingPartError: the program has no such function.
    """

    def __init__(self, part: str, program: Program, batch: tuple[Tensor, ...], num_particles: int, seed: int) -> None:
        parts = ", ".join(type(module).__name__ for module in program.children())
        self.what = f"{part} of {type(program).__name__} ({parts})"
        values = self.values(part, program, batch)
        self.inputs = dict(zip(GRAPHS[part].names(program, len(batch) - 1), values, strict=True))
        try:
            self.graph = GRAPHS[part](program, tuple(self.inputs.values()), num_particles, seed)
        except NotImplementedError:
            self.refuse("p(x given z) has no mean in closed form", MissingPartError)

    def values(self, part: str, program: Program, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return example inputs."""
        if part == "score":
            return batch
        for name in ("encode", "decode")[: 1 + (part == "decoder")]:
            if not hasattr(program, name):
                self.refuse(f"the program has no method `{name}`", MissingPartError)
        try:
            inspect.signature(program.encode).bind(*batch)
        except TypeError as error:
            self.refuse(f"`encode` takes other columns than x: {error}", MissingPartError)
        if part == "encoder":
            return batch
        z = program.encode(*batch)
        z = z if isinstance(z, Tensor) else z.sample()
        return z, *batch[1:], *(z.new_ones(len(z)) for _ in more_inputs(program))

    def refuse(self, why: str, kind: type[ValueError] = ValueError) -> NoReturn:
        """Raise an error that names the function."""
        raise kind(f"parts: expected functions that can be exported, got the {self.what}: {why}. Leave it out")

    def write(self, format: ExportFormat) -> bytes:
        """Record the function and return the content of its file, after a comparison with the program."""
        inputs = tuple(self.inputs.values())
        rows = (tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs),)
        some = [{name: x[:n] for name, x in self.inputs.items()} for n in (len(inputs[0]), 1)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                graph = torch.export.export(self.graph, inputs, dynamic_shapes=rows, strict=False)
                remove_unused(graph)
                content = format.encode(graph, list(self.inputs), self.graph.outputs)
                found = format.run(content, some)
            except Exception as error:
                self.refuse(f"{type(format).__name__} does not support it ({reason_of(error)})")
        for results, values in zip(found, some, strict=True):
            for a, b in zip(results, as_tuple(self.graph(*values.values())), strict=True):
                if not torch.allclose(a.to(b), b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                    gap = float((a.to(b) - b).abs().max())
                    self.refuse(f"its results differ by {gap:.2g} from those of the program")
        return content


def remove_unused(graph: ExportedProgram) -> None:
    """Remove tensors of the program that a function does not read, such as weights of the decoder in an encoder."""
    graph.graph.eliminate_dead_code()
    nodes = {node.name: node for node in graph.graph.find_nodes(op="placeholder")}
    specs = graph.graph_signature.input_specs
    for spec in list(specs):
        if spec.kind is not InputKind.USER_INPUT and not nodes[spec.arg.name].users:
            graph.graph.erase_node(nodes[spec.arg.name])
            specs.remove(spec)
            graph.state_dict.pop(spec.target, None)
            graph.constants.pop(spec.target, None)
    graph.graph_module.recompile()


def reason_of(error: BaseException) -> str:
    """Return the first line of the error at the start of a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
