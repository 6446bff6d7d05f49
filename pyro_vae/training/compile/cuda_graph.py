"""A step on a GPU as a CUDA graph: all of its kernels are launched at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng

__all__ = ["CudaGraph"]

#: Calls before the capture, in which libraries set themselves up and kernels are chosen.
WARM_UPS = 3


class CudaGraph:
    """A function of tensors on a GPU, captured once and replayed.

    A batch is copied to where the graph reads it; all else stays where it is, and is read and changed in place. The
    numbers of torch's generator are those that the function would draw.

    Args:
        call: from a batch to tensors that it returns
        batch: an example of what is new in each call
        changed: what else the function changes, in place
    """

    def __init__(
        self, call: Callable[..., Sequence[Tensor]], batch: Sequence[Tensor], changed: Sequence[Tensor]
    ) -> None:
        self.batch = [x.clone() for x in batch]
        before = [t.clone() for t in changed]
        with torch.cuda.device(batch[0].device):
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with fork_rng(batch), torch.cuda.stream(beside):
                for _ in range(WARM_UPS):
                    call(*self.batch)
            torch.cuda.current_stream().wait_stream(beside)
            self.graph = torch.cuda.CUDAGraph()
            # of this thread: others may pin the memory of the batches to come, which a capture of all would forbid
            with torch.cuda.graph(self.graph, stream=beside, capture_error_mode="thread_local"):
                self.found = torch.stack(tuple(call(*self.batch)))
        # the warm-ups took steps
        for t, value in zip(changed, before, strict=True):
            t.copy_(value)

    def __call__(self, batch: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Replay; the results are copies, as the next call writes over the graph's own."""
        for own, x in zip(self.batch, batch, strict=True):
            own.copy_(x)
        self.graph.replay()
        return self.found.clone().unbind()
