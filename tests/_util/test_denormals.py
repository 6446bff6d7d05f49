"""Denormal numbers are flushed to zero during training, in every thread, and only then."""

import pytest
import torch

import pyro_vae as pv
from pyro_vae.training import flush_denormals


@pytest.fixture(autouse=True)
def _several_threads():
    """The workers of pytest-xdist have one thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def survive(n=2_000_000):
    """Whether denormal numbers, spread over the threads of torch, are nonzero after a product."""
    return torch.full((n,), 1e-39) * 1.5 > 0


def test_numbers_are_flushed_in_every_thread_and_not_afterwards():
    assert survive().all()
    with flush_denormals():
        assert not survive().any()
        with flush_denormals():
            assert not survive().any()
        assert not survive().any()
    assert survive().all()


def test_fit_flushes_and_restores_the_mode():
    seen = []
    toy = pv.testing.LinearGaussian()

    def look(metrics, step):
        seen.append(survive().any())

    pv.fit(toy.program, toy.draw(8), epochs=1, progress=False, callbacks=[look])
    assert seen == [False]
    assert survive().all()
