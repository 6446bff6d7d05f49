"""File formats of exported functions: torch.export programs and ONNX models."""

from __future__ import annotations

import importlib.util
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

__all__ = ["ExportFormat", "Onnx", "TorchExport", "as_tuple"]


class ExportFormat(ABC):
    """A file format of exported functions.

    Example:
        >>> class Renamed(TorchExport):
        ...     ending = ".model"
        >>> isinstance(Renamed(), ExportFormat)
        True
    """

    #: End of the names of files.
    ending: ClassVar[str]

    @abstractmethod
    def check_installed(self) -> None:
        """Raise an ImportError if a package is missing."""

    @abstractmethod
    def encode(self, graph: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
        """Return the content of a file.

        Args:
            graph: the recorded function
            inputs: names of its arguments
            outputs: names of its results
        """

    @abstractmethod
    def run(self, content: bytes, batches: Sequence[Mapping[str, Tensor]]) -> list[tuple[Tensor, ...]]:
        """Return the results of the exported function for each batch of inputs."""


class TorchExport(ExportFormat):
    """Programs of ``torch.export``, in files ``.pt2`` for ``torch.export.load``.

    ``torch.export.load`` can run code that somebody has hidden in a file, as it unpickles what the file declares as
    pickled: load only files whose origin you know. This library loads none.

    Example:
        >>> TorchExport().ending
        '.pt2'
    """

    ending = ".pt2"

    def check_installed(self) -> None:
        """Do nothing: torch is there."""

    def encode(self, graph: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
        """Return the content of a file."""
        buffer = io.BytesIO()
        graph.example_inputs = None  # rows of data
        torch.export.save(graph, buffer)
        return buffer.getvalue()

    def run(self, content: bytes, batches: Sequence[Mapping[str, Tensor]]) -> list[tuple[Tensor, ...]]:
        """Return the results of the function, from the bytes that were just made."""
        function = torch.export.load(io.BytesIO(content)).module()
        return [as_tuple(function(*inputs.values())) for inputs in batches]


class Onnx(ExportFormat):
    """ONNX models, in files ``.onnx`` for onnxruntime and others. They contain data and no code.

    Example:
        >>> Onnx().ending
        '.onnx'
    """

    ending = ".onnx"

    def check_installed(self) -> None:
        """Raise an ImportError if a package is missing."""
        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
        if missing:
            raise ImportError(f"format: ONNX needs {', '.join(missing)}. Run `pip install 'pyro-vae[onnx]'`")

    def encode(self, graph: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
        """Return the content of a file."""
        buffer, names = io.BytesIO(), {"input_names": list(inputs), "output_names": list(outputs)}
        torch.onnx.export(graph, dynamo=True, verbose=False, **names).save(buffer)
        return buffer.getvalue()

    def run(self, content: bytes, batches: Sequence[Mapping[str, Tensor]]) -> list[tuple[Tensor, ...]]:
        """Return the results of the model."""
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        # an input that the results do not depend on may be left out
        known = {node.name for node in session.get_inputs()}
        values = [{name: x.cpu().numpy() for name, x in inputs.items() if name in known} for inputs in batches]
        return [tuple(torch.from_numpy(np.asarray(y)) for y in session.run(None, each)) for each in values]


def as_tuple(results: Any) -> tuple[Tensor, ...]:
    """Return one or several results as a tuple."""
    return results if isinstance(results, tuple) else (results,)
