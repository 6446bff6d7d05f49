"""Random numbers of each row of a batch that do not depend on the other rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import VonMises
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_vae._util.row_draws import ATEN, DRAWS, Draws, OneByOneError, mix_int, row_keys

__all__ = ["RowNoise", "apply_by_row", "fork_row_noise", "independent_noise"]

#: Operations that change the shape of probabilities before a categorical draw.
VIEWS = {ATEN.view, ATEN._unsafe_view, ATEN.reshape, ATEN._reshape_alias}

_ACTIVE: ContextVar[RowNoise | None] = ContextVar("pyro_vae_row_noise", default=None)


class RowNoise(TorchDispatchMode):
    """Random numbers that are a function of the row, the seed and the number of the draw.

    Inside the context each random operation of torch whose result has a dimension of the size of the batch draws the
    numbers of a row by a counter-based generator (SplitMix64), whose key is a hash of the values of that row. So they
    are the same in any batch and at any position, and independent between rows with different values. All other
    results depend on seed and number of the draw alone. Gradients through draws are those of torch.

    The operations are those of normal, uniform, exponential, Bernoulli, categorical, gamma, Dirichlet and Poisson
    variables, and of distributions that are computed from these. Others, such as ``torch.binomial``, draw from
    torch's generator, and raise ``OneByOneError`` in a batch of several rows, as does a result with several dimensions
    of the size of the batch: :func:`apply_by_row` then passes the rows one by one.

    References:
        Fast splittable pseudorandom number generators (Steele et al., 2014), https://doi.org/10.1145/2660193.2660195;
        Parallel random numbers: as easy as 1, 2, 3 (Salmon et al., 2011), https://doi.org/10.1145/2063384.2063405

    Args:
        batch: tensors with one row per example
        seed: random seed

    Example:
        >>> x = torch.arange(6.0).reshape(3, 2)
        >>> with RowNoise((x,), 0):
        ...     z = torch.randn(5, 3, 2)
        >>> with RowNoise((x[2:],), 0):
        ...     torch.equal(torch.randn(5, 1, 2), z[:, 2:])
        True
    """

    def __init__(self, batch: Sequence[Tensor], seed: int) -> None:
        super().__init__()
        self.size, self.keys = len(batch[0]), row_keys(batch)
        self.seed, self.draw, self.paused = seed, 0, False
        self.sites = Sites(self.size)
        self.flattened: tuple[int, torch.Size, torch.Size] | None = None

    @staticmethod
    def sizes(n: int, most: int, taken: set[int]) -> list[int]:
        """Divide n rows into batches of at most ``most``, of sizes that no other dimension has.

        Example:
            >>> RowNoise.sizes(20, 8, {8, 6})
            [7, 7, 5, 1]
        """
        found: list[int] = []
        while n:
            found.append(next((size for size in range(min(n, most), 1, -1) if size not in taken), 1))
            n -= found[-1]
        return found

    def __enter__(self) -> RowNoise:
        self.token = _ACTIVE.set(self)
        self.sites.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.sites.__exit__(*error)
        _ACTIVE.reset(self.token)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = kwargs or {}, func.overloadpacket
        random = torch.Tag.nondeterministic_seeded in func.tags and packet not in DRAWS
        if random and self.size > 1 and not self.paused and kwargs.get("generator") is None:
            raise OneByOneError
        out = func(*args, **kwargs)
        if packet in VIEWS:  # Categorical flattens its batch
            self.flattened = (out.data_ptr(), out.shape, args[0].shape)
        elif packet in DRAWS and not self.paused and kwargs.get("generator") is None and isinstance(out, Tensor):
            keys = self.keys[:0] if self.sites.shared else self.keys
            draws = Draws(out, keys, mix_int(mix_int(self.seed) + self.draw), self.lead)
            out.copy_(DRAWS[packet](draws, *args))
            self.draw += 1
        return out

    def lead(self, x: Tensor) -> torch.Size:
        """Return the shape in front of the last dimension of probabilities before they were flattened to a table."""
        if self.flattened is not None and self.flattened[:2] == (x.data_ptr(), x.shape):
            return self.flattened[2][:-1]
        rows = x.shape[0]
        return x.shape[:1] if rows % self.size else torch.Size((rows // self.size, self.size))


class Sites(Messenger):
    """Finds the sample statements of Pyro outside the plate of the rows, whose values all rows share.

    The plate of the rows is the only one with their number. Proposals for a von Mises variable are drawn until all
    rows have accepted one, so that their number depends on the other rows.

    Args:
        size: number of rows
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.shared = size, False
        self.plates: set[str] = set()

    def _pyro_sample(self, msg: Any) -> None:
        own = {frame.name for frame in msg["cond_indep_stack"] if frame.vectorized and frame.size == self.size}
        self.plates |= own
        self.shared = not own
        fn = msg["fn"]
        while hasattr(fn, "base_dist"):
            fn = fn.base_dist
        if self.size > 1 and (len(self.plates) > 1 or isinstance(fn, VonMises)):
            raise OneByOneError

    def _pyro_post_sample(self, msg: Any) -> None:
        self.shared = False


def apply_by_row(function: Callable[..., Any], batch: Sequence[Tensor], seed: int) -> list[Any]:
    """Return the results of a function for a batch under :class:`RowNoise`, in one or several pieces.

    Rows are passed one by one, which is slow, where a dimension has the size of the batch, or where an operation draws
    random numbers that :class:`RowNoise` does not replace. The global random state changes.

    Args:
        function: called as ``function(*batch)``
        batch: tensors with one row per example
        seed: random seed
    """
    noise = RowNoise(batch, seed)
    if noise.size == 1:
        torch.manual_seed(mix_int(mix_int(seed) + int(noise.keys)))
    try:
        with noise:
            return [function(*batch)]
    except OneByOneError:
        rows = zip(*(column.split(1) for column in batch), strict=True)
        return [result for row in rows for result in apply_by_row(function, row, seed)]


@contextmanager
def independent_noise() -> Iterator[None]:
    """Draw from torch's generator inside :class:`RowNoise`, so that rows with equal values get different samples."""
    noise = _ACTIVE.get()
    if noise is None:
        yield
        return
    before, noise.paused = noise.paused, True
    try:
        yield
    finally:
        noise.paused = before


@contextmanager
def fork_row_noise(seed: int | None = None) -> Iterator[None]:
    """Restore seed and number of the next draw on exit, where :class:`RowNoise` is active; start at ``seed``."""
    noise = _ACTIVE.get()
    if noise is None:
        yield
        return
    before = noise.seed, noise.draw
    if seed is not None:
        noise.seed, noise.draw = seed, 0
    try:
        yield
    finally:
        noise.seed, noise.draw = before
