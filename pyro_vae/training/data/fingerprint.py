"""Fingerprints of data: what a resumed run compares instead of all rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset

from pyro_vae._util.code import checksum, sampled_rows
from pyro_vae._util.describe import describe
from pyro_vae._util.random_state import fork_rng
from pyro_vae.data.lazy import LazyRows
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.data.column import Column, place, to_tensors

__all__ = ["fingerprint", "weights_of"]

#: Rows of a data set that are read twice, to find out whether they are random.
TWICE = 2


def fingerprint(batches: Batches) -> dict[str, Any]:
    """Return a description of data that other data rarely have, without reading all of a file or data set.

    For each column it has shape and type of a row, a hash of 64 evenly spaced rows (fewer if there are fewer) and,
    for data in memory, two exact sums over all rows. An array, a file and a data set with the same rows agree.
    Weights of examples are left out.

    It can miss a change of other rows of a file or data set; of rows in memory only one that keeps both sums. The
    rows of a data set that draws them at random, and those of a stream, are not compared, nor is what a loader does
    with them other than batch size and kind of sampler.

    Args:
        batches: the data

    Example:
        >>> import torch
        >>> x = torch.arange(400.0).reshape(200, 2)
        >>> first, other = x.clone(), x.clone()
        >>> other[77] += 1
        >>> fingerprint(Batches(first, batch_size=8)) == fingerprint(Batches(x, batch_size=8))
        True
        >>> fingerprint(Batches(other, batch_size=8)) == fingerprint(Batches(x, batch_size=8))
        False
    """
    if batches.loader is not None:
        return of_loader(batches)
    columns = batches.examples(batches.columns)
    return {"rows": len(batches), "columns": [part for c in columns for part in of_column(c, batches.seed)]}


def weights_of(batches: Batches) -> str | None:
    """Return a hash of the weights of all examples, None without weights."""
    return checksum(batches.columns[-1].rows) if batches.weighted else None


def of_column(column: Column, seed: int) -> list[dict[str, Any]]:
    """Return the description of each tensor of a column."""
    index = np.array(sampled_rows(len(column)))
    if isinstance(column.rows, Tensor):
        found = [of_rows(column.rows, checksum(column.rows))]
    elif isinstance(column.rows, LazyRows):
        rows = place(column.rows.read(index), column.device, column.dtype)
        found = [of_rows(rows, checksum(rows, whole=False))]
    else:
        found = of_sample(lambda rows: column.take(np.array(rows)), index.tolist(), seed)
    if column.transform is not None:
        found[0]["transform"] = describe(column.transform)
    return found


def of_sample(read: Any, index: list[int], seed: int) -> list[dict[str, Any]]:
    """Return the description of each tensor that ``read`` returns for these rows, some of which are read twice."""
    with fork_rng(seed=seed):
        again = read(index[:TWICE])
    with fork_rng(seed=seed + 1):
        tensors = read(index)
    same = all(checksum(a) == checksum(t[: len(a)]) for a, t in zip(again, tensors, strict=True))
    return [of_rows(t, checksum(t, whole=False) if same else None) for t in tensors]


def of_rows(rows: Tensor, values: str | None) -> dict[str, Any]:
    """Return the description of a tensor with one example per row."""
    found = {"tensor": list(rows.shape[1:]), "dtype": str(rows.dtype).removeprefix("torch.")}
    return found if values is None else {**found, "values": values}


def of_loader(batches: Batches) -> dict[str, Any]:
    """Return the description of a loader or stream."""
    loader, dataset = batches.loader, batches.loader.dataset
    found = {
        "rows": len(batches),
        "batch_size": loader.batch_size,
        "drop_last": loader.drop_last,
        "sampler": type(loader.sampler).__name__,
        "batch_sampler": type(loader.batch_sampler).__name__,
        "dataset": describe(type(dataset)),
    }
    if isinstance(dataset, IterableDataset) or not len(batches) or loader.batch_size is None:
        return found

    def read(rows: list[int]) -> tuple[Tensor, ...]:
        return to_tensors(loader.collate_fn([dataset[i] for i in rows]), batches.device, batches.dtype)

    return {**found, "columns": of_sample(read, sampled_rows(len(dataset)), batches.seed)}
