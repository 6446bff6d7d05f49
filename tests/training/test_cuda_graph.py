"""The Python code around a CUDA graph, with a fake torch.cuda; `tests/benchmarks/gpu_check.py` runs the real one."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from pyro_vae.training.compile.cuda_graph import CudaGraph


class Stream:
    def wait_stream(self, other):
        pass


class Graph:
    """Nothing runs during a capture on a GPU; here it does, so the test restores the random state."""

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
        "CUDAGraph": Graph,
        "graph": capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


def step(x, weight):
    """A step that samples, changes a weight in place and returns two numbers."""
    weight += x.mean(0) + torch.randn(3)
    return [x.sum(), weight.sum()]


def test_replayed_steps_equal_those_of_the_function(cuda):
    """The warm-up changes neither weights nor random state, and no result is overwritten."""
    batches = torch.rand(4, 5, 3).unbind()
    torch.manual_seed(0)
    weight = torch.zeros(3)
    expected = [step(x, weight) for x in batches]
    torch.manual_seed(0)
    own = torch.zeros(3)
    state = torch.get_rng_state()
    graph = CudaGraph(lambda x: step(x, own), batches[:1], [own])
    assert torch.equal(own, torch.zeros(3))
    torch.set_rng_state(state)
    graph.graph.call, graph.graph.results = lambda: step(*graph.batch, own), graph.results
    found = [graph([x]) for x in batches]
    assert torch.equal(own, weight)
    assert [[float(value) for value in row] for row in found] == [[float(value) for value in row] for row in expected]
