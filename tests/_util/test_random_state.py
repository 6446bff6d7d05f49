"""Noise of a seed, drawn on own account: the streams stand afterwards where they stood."""

import pytest
import torch

from pyro_vae._util.random_state import fork_rng


def test_a_seed_starts_the_stream_where_torch_does_and_gives_it_back():
    before = torch.get_rng_state()
    with fork_rng(seed=7):
        found = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    assert torch.equal(found, torch.rand(3))


def test_a_seed_moves_no_stream_of_another_device(monkeypatch):
    """For tensors of the CPU no device is seeded: its stream would not be given back."""

    def moved(seed):
        raise AssertionError("seeded all devices")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", moved)
    with pytest.raises(AssertionError):
        torch.manual_seed(7)
    with fork_rng([torch.zeros(1)], seed=7):
        assert torch.rand(1) < 1
