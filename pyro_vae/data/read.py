"""Read data of every kind: files, folders and objects in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from pyro_vae._util.arrays import fill_masked
from pyro_vae._util.validation import check_unique
from pyro_vae.data.arrays import of_array
from pyro_vae.data.counts import of_counts
from pyro_vae.data.dataset import Dataset, Levels, Split
from pyro_vae.data.examples import Examples
from pyro_vae.data.readers import FRAME, Content, Options, find, is_packed, is_path
from pyro_vae.data.readers.columns import TABLE_OPTIONS
from pyro_vae.data.refusals import refuse
from pyro_vae.data.sequences import of_sequences
from pyro_vae.data.tables import Column, Table
from pyro_vae.data.tidy import numbers_of, of_table

__all__ = ["arguments", "content_of", "is_source", "matrix", "examples_of", "read", "to_fit"]

#: Name of the source in error messages where it is no path.
NAME = "source"


def read(
    source: Any,
    *,
    label: str | None = None,
    layout: str | None = None,
    levels: int | None = None,
    types: Mapping[Any, Any] | None = None,
    columns: Sequence[Column] | None = None,
    leave_out: Collection[Any] = (),
    classes: Sequence[Any] | None = None,
    size: int | tuple[int, int] | None = None,
    key: str | None = None,
    covariates: Sequence[str | Column] = (),
    keep_empty: bool = False,
    keep_index: bool = False,
    name: str | None = None,
) -> Examples:
    """Read examples from a file, a folder or an object in memory.

    The page "Inputs" of the documentation lists every kind of source. Nothing is standardized or shuffled. Integers
    stay integers, and become floating-point numbers when a batch is on its device.

    Args:
        source: a path, or an array, tensor, list of rows, data frame, dict of columns, or data of torch
        label: name of the column of a table with the labels
        layout: axes of one image in an array: ``"hw"``, ``"hwc"`` or ``"chw"``, or of one sequence: ``"tc"`` (steps
            and channels); detected from shape and values if None
        levels: largest level of images in bytes, by which they are divided: 255, or 1 for binary values; detected if
            None
        types: types of columns that are not inferred, as in :class:`Table`
        columns: columns of an earlier table, so that both have the same codes; inferred if None
        leave_out: names of columns that are not used
        classes: the labels in the order of their class numbers; sorted if None
        size: height and width (or one number for both) to which the images of a folder are resized
        key: name of the array in a file with several, or of a layer of AnnData
        covariates: columns of a table, or of the obs of AnnData, that programs get as context: labels as one-hot
            vectors, numbers standardized; or columns of earlier covariates, so that both have the same codes
        keep_empty: whether rows and columns of a table without any value are kept
        keep_index: whether a column with the row numbers of pandas (without a name, or ``Unnamed: 0``) is kept
        name: what error messages call the source; its path, or ``"source"``

    Returns:
        The examples; ``print`` shows what was read and chosen.

    Raises:
        TypeError: the source is of no kind that can be read; the message has the way out.
        ValueError: the source is damaged or cannot be used, or an option does not apply to it.
        OSError: a file cannot be read.
        ImportError: a package is missing; the message says what to install.

    Example:
        >>> read([[1.5, 2.0], [0.0, -3.0]]).x
        tensor([[ 1.5000,  2.0000],
                [ 0.0000, -3.0000]], dtype=torch.float64)
        >>> import numpy as np
        >>> read(np.zeros((10, 32, 32, 3), np.uint8), levels=255)
        Examples(source: 10 images; channels 3, height 32, width 32; stored as uint8)
    """
    name = name or (str(source) if is_path(source) else NAME)
    leave_out, covariates = ([v] if isinstance(v, str) else v for v in (leave_out, covariates))
    for option, names in {"leave_out": leave_out, "classes": classes or ()}.items():
        check_unique(option, names)
    if isinstance(source, Examples):
        return source
    if isinstance(source, Split):
        return Examples(source.x, source.y, source.transform, name=name)
    options = Options(
        label, layout, levels, types, columns, leave_out, classes, size, key, covariates, keep_empty, keep_index
    )
    content = content_of(name, source, options)
    check_options(name, source, content, options)
    if content.rows is source and not hasattr(source, "dtype"):
        return Examples(source, kind="stream", name=name)
    return examples_of(name, content, options)


def examples_of(name: str, content: Content, options: Options) -> Examples:
    """Return what a reader found as examples."""
    if content.sequences or (content.columns is None and options.layout == "tc"):
        return of_sequences(name, content, options)
    make = of_table if content.columns is not None else of_counts if content.counts else of_array
    return make(name, content, options)


def content_of(name: str, source: Any, options: Options) -> Content:
    """Return what the reader of a source finds: an array or columns as they are.

    Raises:
        TypeError: there is no reader.
        ValueError: see :func:`read`.
    """
    reader = None if isinstance(source, Dataset) else find(source)
    if reader is None:
        error = refuse(name, source)
        raise error
    return reader.load(name, source, options)


def check_options(name: str, source: Any, content: Content, options: Options) -> None:
    """Raise if an option does not apply to this kind of source, to a table, or to an array."""
    table, reader = content.columns is not None, find(source)
    own = {"label"} if content.labels is not None else {"keep_empty"} if content.counts else set()
    own |= {"covariates"} if content.context is not None else set()
    wrong = ("layout", "levels") if table else {*TABLE_OPTIONS} - own - ({"keep_empty"} if content.counts else set())
    what = "a table" if table else "an array"
    for option, value in options.given.items():
        if option in wrong or option not in (*reader.options, "classes"):
            raise ValueError(
                f"{option}: expected none for {name} ({what}: {reader.source}), got {value!r}. Leave it out"
            )


def to_fit(name: str, source: Any, columns: Sequence[Column] = ()) -> tuple[Any, ...]:
    """Return data as ``fit``, tasks and evaluators take them: one object with ``x`` and ``transform`` per argument.

    Arrays in memory keep their axes and values, except that images in bytes become numbers in [0, 1]: what a program
    gets must not depend on the other rows that are passed with an example. For the same reason labels of a table are
    codes only where the columns are known.

    Args:
        name: name of the argument, for error messages
        source: data of any kind
        columns: the columns of the table that the program was made for
    """
    if isinstance(source, Split) or (hasattr(source, "x") and hasattr(source, "transform") and not is_frame(source)):
        return with_context(source)
    if isinstance(source, Table):
        if columns and tuple(source.columns) != tuple(columns):
            wanted, got = next(p for p in zip_longest(columns, source.columns) if p[0] != p[1])
            raise ValueError(
                f"{name}: expected a table with the columns of the program, which has {wanted!r}, got {got!r}. Pass "
                "Table(data, columns) with the columns of the program"
            )
        return (Split(source.x),)
    content = content_of(name, source, Options())
    if content.columns is not None:
        return (Split(numbers_of(name, content, columns)),)
    if is_path(source) or content.counts or content.sequences:
        return with_context(examples_of(name, content, Options(keep_empty=True)))
    rows = content.rows
    bytes_ = "uint8" in str(getattr(rows, "dtype", "")) and len(rows.shape) in (3, 4) and len(rows)
    levels = Levels(255) if bytes_ and rows.max() > 1 else None
    return (Split(rows, None, levels),)


def matrix(name: str, source: Any) -> Any:
    """Return a path or split as an array ``(rows, entries)`` of numpy, other objects unchanged, with NaN for masks."""
    if not (is_path(source) or isinstance(source, Split)):
        return fill_masked(source)
    return to_fit(name, source)[0].batch().flatten(1).numpy()


def with_context(split: Any) -> tuple[Any, ...]:
    """Return examples, followed by their covariates, or by lengths and inputs of sequences, if they have some."""
    context = [getattr(split, name, None) for name in ("context", "lengths", "inputs")]
    return split, *(Split(column) for column in context if column is not None)


def arguments(data: Any) -> tuple[Any, ...]:
    """Return data as the arguments of a program, one source or several in a tuple."""
    return data if isinstance(data, tuple) and not is_packed(data) else (data,)


def is_source(path: str) -> bool:
    """Return whether a path is a folder of images, or has the ending of a file that can be read."""
    reader = find(path) if is_path(path) else None
    return reader is not None


def is_frame(source: Any) -> bool:
    """Whether an object is a data frame, which can have columns of any name."""
    return FRAME.takes(source)
