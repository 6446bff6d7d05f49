"""Two processes that train one program, compared with one process on the joined batch."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import two_ranks
from torch.utils.data import DataLoader, TensorDataset

import pyro_vae as pv
from pyro_vae.training.data.loader import refuse_unshared
from pyro_vae.training.ranks import collectives
from pyro_vae.training.ranks.distributed import Ranks

TESTS = Path(two_ranks.__file__).parent
FAILURES = ("not reduced", "nudged", "not finite", "callback fails", "rank fails", "late", "killed")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The results of both ranks for all cases, from one pair of processes, as starting them takes seconds."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-W", "error", TESTS / "two_ranks.py", folder]
    ranks = [
        subprocess.Popen(command, env={**env, "RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    try:
        errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, -signal.SIGKILL], errors
    return folder, errors, [torch.load(folder / f"{rank}.pt") for rank in "01"]


def close(a, b, tolerance=1e-6):
    assert a["weights"].keys() == b["weights"].keys()
    for name, value in a["weights"].items():
        torch.testing.assert_close(value, b["weights"][name], rtol=tolerance, atol=tolerance)
    assert [row.keys() for row in a["rows"]] == [row.keys() for row in b["rows"]]
    for row, other in zip(a["rows"], b["rows"], strict=True):
        assert row == pytest.approx(other, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("case", two_ranks.EQUAL)
def test_equal_to_one_process_on_the_joined_batch(found, case):
    """Weights and history, also with shares of different size, clipping, and a rank without a share."""
    _, _, (first, second) = found
    alone = two_ranks.EQUAL[case]()
    close(first[case], alone)
    assert first[case]["rows"] == second[case]["rows"]
    assert all(torch.equal(v, second[case]["weights"][k]) for k, v in first[case]["weights"].items())


def test_streams_of_different_length(found):
    """Three batches on one rank and two on the other: each step uses the batches that there are."""
    first, second = two_ranks.rows(20), two_ranks.rows(44)
    steps = [torch.cat([first[i : i + 16], second[i : i + 16]]) for i in (0, 16, 32)]
    ends = np.cumsum([0, *map(len, steps)])
    batches = [list(range(a, b)) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    alone = two_ranks.trained(DataLoader(torch.cat(steps), batch_sampler=batches), epochs=1)
    for rank in found[2]:
        close(rank["stream"], alone)
        assert rank["stream"]["rows"][0]["step"] == 3


def test_the_ranks_have_equal_weights_and_different_noise(found):
    _, _, (first, second) = found
    assert all(torch.equal(v, second["noise"]["weights"][k]) for k, v in first["noise"]["weights"].items())
    for a, b in zip(first["noise"]["noise"], second["noise"]["noise"], strict=True):
        assert not torch.isclose(a, b).any()


def test_a_resumed_run_ends_like_an_uninterrupted_one(found):
    """Weights, noise of each rank and losses, bit for bit, from within epochs and from between them."""
    for rank in found[2]:
        wanted, noise, losses = rank["resumed"]["whole"]
        for kept in (3, 5, 7):
            weights, again, same = rank["resumed"][kept]
            assert all(torch.equal(value, weights[name]) for name, value in wanted.items())
            assert losses == same
            assert all(torch.equal(a, b) for a, b in zip(noise[-len(again) :], again, strict=True))
            assert len(again) == (1 if kept >= 5 else 2)


def test_a_signal_to_one_rank_stops_all(found):
    for rank in found[2]:
        assert rank["interrupted"]["number"] == signal.SIGTERM
        assert rank["interrupted"]["checkpoint"] == "step-00000003-epoch-0001"
    assert [rank["damaged"]["error"] for rank in found[2]] == ["CheckpointError", "LostRankError"]


def test_only_rank_0_writes_files_and_logs(found):
    folder, errors, (first, second) = found
    assert sorted(p.name for p in (folder / "0").iterdir()) == [
        "checkpoints",
        "config.json",
        "lock",
        "metrics.jsonl",
        "weights.safetensors",
    ]
    assert not (folder / "1").exists()
    assert "epoch 2/2" in errors[0]
    assert "epoch" not in errors[1]
    assert (first["noise"]["steps"], second["noise"]["steps"]) == ([3, 6], [])


def test_buffers_are_those_of_rank_0(found):
    for rank in found[2]:
        assert rank["buffers"]["weights"]["parts.net.buffer"].tolist() == [1.0, 1.0]


def test_a_sampler_receives_the_epoch(found):
    _, _, (first, second) = found
    assert first["sampled"]["epoch"] == second["sampled"]["epoch"] == 1
    assert [row["step"] for row in first["sampled"]["rows"]] == [3, 6]
    assert all(torch.equal(v, second["sampled"]["weights"][k]) for k, v in first["sampled"]["weights"].items())


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("plain loader", "data: .*DistributedSampler"),
        ("small batch", "batch_size: expected at least 2"),
        ("other settings", "amount of data or batch_size differ between the ranks"),
    ],
)
def test_refused_before_the_first_step(found, case, text):
    for rank in found[2]:
        assert rank[case]["error"] == "ValueError"
        with pytest.raises(ValueError, match=text):
            raise ValueError(rank[case]["text"])


@pytest.mark.parametrize("case", ["not reduced", "nudged"])
def test_different_weights_are_detected(found, case):
    """Without the all-reduce of the gradients, and if one rank changes a weight by a millionth."""
    for rank in found[2]:
        assert rank[case]["error"] == "RuntimeError"
        assert "parts.net.0.bias" in rank[case]["text"]
        assert "differ between the ranks" in rank[case]["text"]


def test_a_failure_or_stop_on_one_rank_ends_both(found):
    _, _, (first, second) = found
    assert len(first["stopped"]["rows"]) == len(second["stopped"]["rows"]) == 1
    assert first["not finite"]["error"] == second["not finite"]["error"] == "NonFiniteError"
    assert "rank 1, step 1" in second["not finite"]["text"]
    assert "'x' in the model" in second["not finite"]["text"]
    assert [rank["callback fails"]["error"] for rank in found[2]] == ["ZeroDivisionError", "LostRankError"]
    assert [rank["rank fails"]["error"] for rank in found[2]] == ["LostRankError", "OSError"]
    assert [rank["late"]["error"] for rank in found[2]] == ["LostRankError", "LostRankError"]
    assert first["killed"]["error"] == "LostRankError"
    assert "killed" not in second
    assert all(rank[case]["seconds"] < 15 for rank in found[2] for case in FAILURES if case in rank)


def test_the_command_with_torchrun(tmp_path):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train = ["-m", "pyro_vae", *"train --data digits --epochs 1 --num-particles 2 --quiet --run-dir run".split()]
    env = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(Path(pv.__file__).parents[1])}
    done = subprocess.run([*run, *train], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("log-likelihood") == 1
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "checkpoints", "config.json", "figures", "lock", "metrics.jsonl", "results.json", "weights.safetensors",
    ]  # fmt: skip
    assert pv.load(tmp_path / "run").sample(2).shape == (2, 8, 8)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [1, 2, 5, 33])
def test_shares_cover_each_batch_once(n, size):
    """Also a last batch with fewer rows than ranks: a rank without a share gets one row that does not count."""
    x = torch.arange(float(n))[:, None]
    alone = pv.training.Batches(x, batch_size=8, seed=5)
    parts = [list(pv.training.Batches(x, batch_size=8, seed=5, ranks=Ranks(r, size)).epoch(2)) for r in range(size)]
    for i, (batch,) in enumerate(alone.epoch(2)):
        shares = [part[i][0] for part in parts if part[i].counts]
        assert torch.equal(torch.cat(shares), batch)
        assert max(map(len, shares)) <= -(-len(batch) // size)
        assert all(len(part[i][0]) == 1 for part in parts if not part[i].counts)
    chunks = [torch.cat([c[0] for c in pv.training.Batches(x, batch_size=8, ranks=Ranks(r, size)).chunks()] or [x[:0]])
              for r in range(size)]  # fmt: skip
    assert torch.equal(torch.cat(chunks), x)


def test_buckets_have_one_dtype_and_a_limited_size(monkeypatch):
    monkeypatch.setattr(collectives, "BUCKET", 10)
    single, double = torch.float32, torch.float64
    parts = [torch.zeros(n, dtype=d) for n, d in ((4, single), (3, double), (5, single), (6, single), (30, single))]
    assert collectives.buckets(parts) == [[0, 2], [1], [3], [4]]


def test_cuda_is_one_device_for_each_rank_of_a_machine(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert Ranks(11, 16).local_device("cuda") == "cuda:3"
    assert Ranks(11, 16).local_device("cuda:0") == "cuda:0"
    assert Ranks(0, 1).local_device("cuda") == "cuda"


def test_a_loader_that_divides_the_data_is_accepted():
    data = TensorDataset(torch.zeros(8, 2))
    refuse_unshared(DataLoader(data, batch_sampler=[[0, 1], [2, 3]]))
    refuse_unshared(DataLoader(data, sampler=torch.utils.data.SubsetRandomSampler(range(4))))
    with pytest.raises(ValueError, match="data: "):
        refuse_unshared(DataLoader(data))
