"""One loop over data for every evaluator and task.

Each evaluator or task reads its data once, in one of three ways:

* A result that is an average over examples (``log_likelihood``, ``latents``, ``rate_distortion``, ``perplexity``, the
  threshold of a ``Detector``) takes data in any order, as does ``impute``, which returns the examples themselves.
* A result for each example (scores, ``embed``, ``classify``, ``reconstruct``, ...) is in the order of the data. A
  ``DataLoader`` that shuffles is refused: nobody could know to which example a result belongs.
* A function that needs all examples at once (:func:`one_batch`) refuses streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from pyro_vae._util.arrays import keep_masks
from pyro_vae._util.memory import enough_memory
from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.row_noise import RowNoise, apply_by_row
from pyro_vae._util.validation import check_int
from pyro_vae.data.read import arguments
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.data.lookahead import Batch

__all__ = ["BUDGET", "any_order", "at_once", "num_rows", "one_batch", "over", "passes", "read_once", "require_order"]

#: Numbers in memory at once, particles times entries of the examples: 8 MB of float32 fit into CPU caches (a third
#: faster than 64 MB) and into the memory of any accelerator.
BUDGET = 2**21

#: Latents and hidden layers take memory too: an example has at least this many numbers.
MIN_ENTRIES = 512

#: Rows that are read at once where the size of a row is not known in advance.
ROWS = 128


def over(
    program: Program,
    x: Any,
    function: Callable[..., Any],
    *,
    num_particles: int = 1,
    batch_size: int | None = None,
    seed: int = 0,
    by_row: bool = False,
    check: Callable[..., None] | None = None,
    desc: str = "evaluating",
    progress: bool = True,
) -> Any:
    """Apply a function to data batch by batch, and concatenate its results.

    The program runs in evaluation mode and without gradients. Its modes and the global random state are restored
    afterwards. Data in memory or in a file are checked before the work begins. A Dataset or stream is read exactly
    once, so each of its batches is checked when it arrives.

    Args:
        program: gives device and dtype of the batches
        x: rows of data in any form that ``fit`` takes, or a tuple ``(x, context)``, or a stream
        function: called as ``function(x, *context)`` for each batch; returns a tensor, or tuples, lists and
            dictionaries of tensors, whose first dimension runs over the examples of the batch
        num_particles: samples of the latents that ``function`` holds in memory per example
        batch_size: largest number of examples per call; by default as many as fit into :data:`BUDGET`
        seed: seed of the random state in which the data are read and ``function`` runs
        by_row: draw the random numbers of each example from its values and the seed (:class:`RowNoise`), so that its
            result does not depend on the other examples; examples with equal values then get equal results. Refuses
            a ``DataLoader`` that shuffles
        check: an additional check of the data, called like ``program.check``
        desc: label of the progress bar
        progress: show a progress bar

    Returns:
        The results of all batches concatenated along the first dimension, on the CPU.

    Raises:
        ValueError: the data do not fit the program, or there are none.
        TypeError: ``x`` has a type that cannot be read.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> over(toy.program, toy.draw(10), lambda x: toy.program.encode(x).mean, batch_size=4).shape
        torch.Size([10, 2])
    """
    batch_size = None if batch_size is None else check_int("batch_size", batch_size)
    if by_row:
        require_order(x)
    data, results = read(program, x, batch_size), []
    try:
        # a transform of the data may draw random numbers
        with fork_rng(data.device, seed):
            for _ in checked(data.chunks() if data.stored else (), program, check):
                pass
        with (
            evaluating(program),
            fork_rng(data.device, seed),
            progress_bar(total=len(data) or None, desc=desc, unit="example", progress=progress) as bar,
        ):
            chunks = data.chunks() if data.columns else data.epoch(0)
            for rows in chunks if data.stored else checked(chunks, program, check):
                size = int(batch_size or max(1, at_once(rows[0]) // num_particles))
                taken = {num_particles, *dimensions(program, rows)} if by_row else set()
                sizes = RowNoise.sizes(len(rows[0]), size, taken) if by_row else size
                for batch in zip(*(column.split(sizes) for column in rows), strict=True):
                    with enough_memory("batch_size", "Lower it or the number of particles or samples"):
                        found = apply_by_row(function, batch, seed) if by_row else [function(*batch)]
                    for result in found:
                        leaves, structure = tree_flatten(result)
                        results.append([leaf.cpu() for leaf in leaves])
                    bar.update(len(batch[0]))
    finally:
        data.close()
    if not results:
        raise ValueError("x: expected at least one example, got an empty stream")
    return tree_unflatten([torch.cat(leaves) for leaves in zip(*results, strict=True)], structure)


def one_batch(program: Program, x: Any, *, seed: int = 0) -> tuple[Tensor, ...]:
    """Return all data as one batch ``(x, *context)`` for functions that need all rows at once.

    Args:
        program: gives device and dtype of the batch
        x: rows of data, or a tuple ``(x, context)``
        seed: seed of the random state in which a transform of the data runs

    Raises:
        TypeError: ``x`` is a stream.
        ValueError: the data do not fit the program.
    """
    data = read(program, x, None)
    if not data.columns:
        raise TypeError("x: expected rows of data or a tuple (x, context), got a stream. Pass one batch of it.")
    try:
        with fork_rng(data.device, seed):
            batch = tuple(torch.cat(column) for column in zip(*data.chunks(), strict=True))
    finally:
        data.close()
    program.check(*batch)
    return batch


def num_rows(x: Any) -> int | None:
    """Return the number of examples of data, None for a stream, before anything is read."""
    first = arguments(x)[0]
    return len(first) if hasattr(first, "__len__") and not isinstance(first, DataLoader) else None


class AnyOrder(IterableDataset):
    """The batches of a ``DataLoader`` as a stream, in the order in which the loader reads them.

    Args:
        loader: the loader
    """

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


def any_order(x: Any) -> Any:
    """Return data that :func:`over` reads although their order is random, for results that do not depend on it."""
    if not shuffles(x):
        return x
    # with its own generator, because a loader takes its seed from the one it is given
    return DataLoader(AnyOrder(keep_masks(x)), batch_size=None, generator=torch.Generator())


def require_order(x: Any) -> None:
    """Raise if data have a random order.

    Raises:
        ValueError: ``x`` is a ``DataLoader`` with ``shuffle=True`` or a random sampler.
    """
    if shuffles(x):
        raise ValueError(
            "x: expected examples in a known order, as there is one result per example, got a DataLoader with "
            "shuffle=True, a random sampler or in_order=False. Pass one with shuffle=False, or the data set itself."
        )


def shuffles(x: Any) -> bool:
    """Whether this is a ``DataLoader`` with a random sampler, or with workers that return batches out of order."""
    if not isinstance(x, DataLoader):
        return False
    if x.num_workers > 1 and not getattr(x, "in_order", True):
        return True
    samplers = x.sampler, getattr(x.batch_sampler, "sampler", None)
    random = RandomSampler, SubsetRandomSampler, WeightedRandomSampler
    return any(isinstance(s, random) or getattr(s, "shuffle", False) is True for s in samplers)


def read_once(program: Program, x: Any, *, seed: int = 0) -> Any:
    """Return data that can be read several times: the rows of a stream or data set, all other data unchanged."""
    data = read(program, x, None)
    data.close()
    return x if data.stored else over(program, x, lambda *batch: batch, seed=seed, progress=False)


def at_once(x: Tensor) -> int:
    """Return how many examples like those of ``x``, times particles, fit into :data:`BUDGET`."""
    return max(1, BUDGET // max(x[0].numel(), MIN_ENTRIES))


def passes(x: Tensor, num_particles: int) -> list[int]:
    """Split particles of all examples of ``x`` into passes that fit into :data:`BUDGET`; return the size of each."""
    size = max(1, at_once(x) // len(x))
    return [min(size, num_particles - done) for done in range(0, num_particles, size)]


def dimensions(program: Program, rows: Batch) -> set[int]:
    """Return sizes that other dimensions of tensors may have.

    They are those of parameters and of an example, and one less, as of a simplex without its last entry.
    """
    shapes = [x.shape for x in (*program.parameters(), *program.buffers())] + [column.shape[1:] for column in rows]
    found = {size for shape in shapes for size in shape}
    return found | {size - 1 for size in found}


def read(program: Program, x: Any, batch_size: int | None) -> Batches:
    """Open the data in their own order, on the device and in the dtype of the program."""
    size = ROWS if batch_size is None else batch_size
    return Batches.of(program, x, batch_size=size, shuffle=False)


def checked(batches: Iterable[Batch], program: Program, check: Callable[..., None] | None) -> Iterator[Batch]:
    """Yield each batch after its check; errors give the row where the batch starts."""
    start = 0
    for batch in batches:
        try:
            program.check(*batch)
            if check is not None:
                check(*batch)
        except ValueError as error:
            if start:
                raise ValueError(f"{error} (counted from row {start:,} of the data)") from error
            raise
        start += len(batch[0])
        yield batch
