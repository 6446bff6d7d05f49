"""What a CUDA graph needs around it, with a stand-in for CUDA: `tests/benchmarks/gpu_check.py` runs the real one."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from pyro_vae.training.compile.cuda_graph import CudaGraph


class Stream:
    def wait_stream(self, other):
        pass


class Recording:
    """Capturing runs nothing on a GPU: here it runs, and what it changed is put back."""

    def replay(self):
        self.results.copy_(torch.stack(self.call()))


@pytest.fixture
def cuda(monkeypatch):
    @contextmanager
    def capture(graph, stream, capture_error_mode):
        assert isinstance(stream, Stream)
        assert capture_error_mode == "thread_local"
        yield

    for name, value in {
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda stream: nullcontext(),
        "device": lambda device: nullcontext(),
        "CUDAGraph": Recording,
        "graph": capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


def step(x, weight):
    """A step that draws, changes a weight in place and tells two numbers."""
    weight += x.mean(0) + torch.randn(3)
    return [x.sum(), weight.sum()]


def test_steps_are_those_of_the_function(cuda):
    """Warm-ups move neither weights nor random numbers, each batch is read, no result is written over."""
    batches = torch.rand(4, 5, 3).unbind()
    torch.manual_seed(0)
    weight = torch.zeros(3)
    expected = [step(x, weight) for x in batches]
    torch.manual_seed(0)
    own = torch.zeros(3)
    state = torch.get_rng_state()
    graph = CudaGraph(lambda x: step(x, own), batches[:1], [own])
    assert torch.equal(own, torch.zeros(3))
    torch.set_rng_state(state)  # a capture draws nothing
    graph.graph.call, graph.graph.results = lambda: step(*graph.batch, own), graph.results
    found = [graph([x]) for x in batches]
    assert torch.equal(own, weight)
    assert [[float(value) for value in row] for row in found] == [[float(value) for value in row] for row in expected]
