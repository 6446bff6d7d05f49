"""Random state: a seed inside of a context, and the state after it."""

import pytest
import torch

from pyro_vae._util.random_state import derive_seed, fork_rng


def test_a_seed_starts_the_stream_of_torch_and_the_state_is_restored():
    before = torch.get_rng_state()
    with fork_rng(seed=7):
        found = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    assert torch.equal(found, torch.rand(3))


def test_other_devices_are_not_seeded(monkeypatch):
    """With tensors on the CPU no other device is seeded, as its state would not be restored."""

    def seeded(seed):
        raise AssertionError("seeded all devices")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
    with pytest.raises(AssertionError):
        torch.manual_seed(7)
    with fork_rng([torch.zeros(1)], seed=7):
        assert torch.rand(1) < 1


def test_derived_seeds_differ_and_are_valid():
    seeds = {derive_seed(seed, index) for seed in (-1, 0, 1, 2**62) for index in (0, 1, 2, 2**32)}
    assert len(seeds) == 16
    assert all(0 <= seed < 2**63 for seed in seeds)
