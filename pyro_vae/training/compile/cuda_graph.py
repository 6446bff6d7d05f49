"""A step on a GPU as a CUDA graph: one launch for all of its kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng

__all__ = ["CudaGraph"]

#: Calls before the capture, in which libraries initialize and choose their kernels.
WARM_UPS = 3


class CudaGraph:
    """A function of tensors on a GPU, captured once and replayed.

    A batch is copied to the memory that the graph reads. All other tensors stay where they are, and are read and
    changed in place. The random numbers are those that the function would draw.

    Args:
        call: from a batch to the tensors that it returns
        batch: an example of the batch
        changed: the other tensors that the function changes in place
    """

    def __init__(
        self, call: Callable[..., Sequence[Tensor]], batch: Sequence[Tensor], changed: Sequence[Tensor]
    ) -> None:
        self.batch = [x.clone() for x in batch]
        before = [t.clone() for t in changed]
        with torch.cuda.device(batch[0].device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with fork_rng(batch), torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    call(*self.batch)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            # thread_local: a global capture would forbid other threads to pin the memory of the next batches
            with torch.cuda.graph(self.graph, stream=side, capture_error_mode="thread_local"):
                self.results = torch.stack(tuple(call(*self.batch)))
        # undo the steps of the warm-up
        for t, value in zip(changed, before, strict=True):
            t.copy_(value)

    def __call__(self, batch: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Replay the graph; return copies of the results, as the next call overwrites them."""
        for own, x in zip(self.batch, batch, strict=True):
            own.copy_(x)
        self.graph.replay()
        return self.results.clone().unbind()
