"""Data loaders and streams, which choose their own batches."""

from __future__ import annotations

from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from pyro_vae._util.arrays import keep_masks

__all__ = ["as_loader", "check_batch_size"]

#: Rows per step where the user chooses none.
BATCH_SIZE = 128


def as_loader(data: DataLoader | IterableDataset, batch_size: int, *, ranks: int, weighted: bool) -> DataLoader:
    """Return a loader that keeps masks, or raise if it does not fit several ranks or weights of examples.

    Args:
        data: a loader, or a stream that gets one
        batch_size: examples per batch of a stream
        ranks: number of ranks
        weighted: whether examples have weights
    """
    if weighted:
        raise TypeError(
            f"weights: expected data with a fixed number of rows, got {type(data).__name__}. Pass arrays or the "
            "Dataset itself, or have the sampler of the loader draw rows by their weights "
            "(torch.utils.data.WeightedRandomSampler)"
        )
    loader = keep_masks(data if isinstance(data, DataLoader) else DataLoader(data, batch_size=batch_size))
    if ranks > 1:
        refuse_unshared(loader)
    return loader


def refuse_unshared(loader: DataLoader) -> None:
    """Raise if a loader would give all data to each rank."""
    own_batches = type(loader.batch_sampler) not in (BatchSampler, type(None))
    if type(loader.sampler) in (RandomSampler, SequentialSampler) and not own_batches:
        raise ValueError(
            "data: expected a DataLoader that gives each rank its own part, got one that gives all data to each. Pass "
            "the Dataset itself, which fit divides, or a DataLoader with "
            "sampler=torch.utils.data.DistributedSampler(dataset)"
        )


def check_batch_size(batch_size: int | None, data: Any) -> int:
    """Return the batch size of a training, or raise if a loader, which has its own, would ignore it."""
    rows = getattr(data, "x", data)
    if batch_size is not None and isinstance(rows, DataLoader) and rows.batch_size != batch_size:
        raise ValueError(
            f"batch_size: expected None for a DataLoader, which has its own ({rows.batch_size or 'its sampler'}), got "
            f"{batch_size}. Leave it out, or pass the Dataset itself"
        )
    return BATCH_SIZE if batch_size is None else batch_size
