"""What a reader is: one kind of source, and how it becomes rows or columns."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

__all__ = ["Content", "Options", "Reader", "ending", "ends_in", "from_package", "is_path", "needs"]


@dataclass(frozen=True)
class Options:
    """The options of :func:`pyro_vae.data.read`, which documents them."""

    label: Any = None
    layout: str | None = None
    levels: int | None = None
    types: Mapping[Any, Any] | None = None
    columns: Sequence[Any] | None = None
    leave_out: Collection[Any] = ()
    classes: Sequence[Any] | None = None
    size: int | tuple[int, int] | None = None
    key: str | None = None
    covariates: Sequence[Any] = ()
    keep_empty: bool = False
    keep_index: bool = False

    @property
    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults, by name."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: v for name, v in found.items() if v is not None and v is not False and v != () and v != []}


@dataclass
class Content:
    """What a reader found: rows, or columns of a table, with labels where there are any.

    Attributes:
        rows: an array, tensor or memmap with one example per row, rows that are read by batch, or data of torch
        columns: a table: a data frame of pandas, or a dict of columns
        labels: one label per row
        context: covariates, one row per example
        covariates: the columns of the context
        levels: largest level of images in bytes; None if the values are numbers
        axes: layout of the images if the reader knows it
        counts: whether the rows are counts
        sequences: whether the rows are sequences: an array ``(n, steps, channels)``, or a list of arrays
        lengths: number of steps of each sequence in an array; None if they are those of the array
        inputs: inputs of each step of the sequences, in the form of the rows
        notes: what the reader chose, one sentence each
        text: whether all cells of the columns are text, as in a .csv
        ids: what identifies the rows, such as the names of images, by name
    """

    rows: Any = None
    columns: Any = None
    labels: Any = None
    context: Any = None
    covariates: tuple[Any, ...] = ()
    levels: int | None = None
    axes: str | None = None
    counts: bool = False
    sequences: bool = False
    lengths: Any = None
    inputs: Any = None
    notes: tuple[str, ...] = ()
    text: bool = False
    ids: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reader:
    """One kind of source.

    Args:
        source: the source in words, for the table of the documentation
        becomes: what is read from it, in words
        takes: whether an object or path is of this kind; imports nothing
        load: reads it; called as ``load(name, source, options)``
        options: names of the arguments of ``read`` that apply
        endings: endings of file names
        extra: the extra of this package that it needs
    """

    source: str
    becomes: str
    takes: Callable[[Any], bool]
    load: Callable[[str, Any, Options], Content]
    options: Sequence[str] = ()
    endings: Sequence[str] = ()
    extra: str = ""


def is_path(source: Any) -> bool:
    """Whether a source is the path of a file or folder."""
    return isinstance(source, (str, os.PathLike))


def ending(source: Any) -> str:
    """Return the ending of a path in lower case, with that of the file inside of a compressed one."""
    path = Path(source)
    found = path.suffix.lower()
    return Path(path.stem).suffix.lower() + found if found in (".gz", ".zst") else found


def ends_in(endings: Sequence[str]) -> Callable[[Any], bool]:
    """Return whether a source is a path with one of these endings."""
    return lambda source: is_path(source) and ending(source) in endings


def from_package(source: Any, package: str, *names: str) -> bool:
    """Whether an object is of a class of a package, of one of these names if there are any; imports nothing."""
    return any(
        cls.__module__.partition(".")[0] == package and (not names or cls.__name__ in names)
        for cls in type(source).__mro__
    )


def needs(name: str, module: str, extra: str) -> Any:
    """Return a module, or raise an ImportError that says what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"PIL": "pillow"}.get(module.partition(".")[0], module.partition(".")[0])
        install = f"pyro-vae[{extra}]" if extra else package
        raise ImportError(f"{name}: reading it needs {package}: pip install {install}") from error
