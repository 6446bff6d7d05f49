"""Random numbers of each row of a batch that do not depend on the other rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_vae._util.row_draws import ATEN, DRAWS, Draws, mix_int, row_keys

__all__ = ["RowNoise", "fork_row_noise", "independent_noise"]

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
    torch's generator.

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
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func.overloadpacket
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
    """A handler that finds sample statements outside the plate over the rows, whose values all rows share.

    Args:
        size: number of rows
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.shared = size, False

    def _pyro_sample(self, msg: Any) -> None:
        self.shared = not any(frame.vectorized and frame.size == self.size for frame in msg["cond_indep_stack"])

    def _pyro_post_sample(self, msg: Any) -> None:
        self.shared = False


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
