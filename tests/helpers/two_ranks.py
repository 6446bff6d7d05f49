"""The part of test_distributed.py that runs in two processes: one case after another, each with its own process group.

Run as ``python two_ranks.py FOLDER`` with the variables of torchrun; the results are saved as ``FOLDER/RANK.pt``.
"""

import functools
import os
import shutil
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyro
import torch
from pyro import distributions as dist
from torch.utils.data import DataLoader, Dataset, IterableDataset

import pyro_vae as pv
from pyro_vae.training import Callback
from pyro_vae.training.data.order import Shuffled
from pyro_vae.training.ranks import collectives

SGD = functools.partial(torch.optim.SGD, lr=0.05)
FIT = {"optimizer": SGD, "batch_size": 16, "seed": 3, "progress": False}


def make(seed=0):
    """A program without latents: its bound is its log-likelihood, without noise."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    net.register_buffer("buffer", torch.zeros(2))

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(net(x.flip(-1)), 1.0).to_event(1), obs=x)

    return pv.programs.FunctionProgram(model, lambda x: None, net=net)


def rows(n):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(n))


def weights(program):
    return {name: value.clone() for name, value in program.state_dict().items()}


def trained(data, *, program=None, **options):
    program = make() if program is None else program
    own = {"batch_size": None} if isinstance(data, DataLoader) else {}
    history = pv.fit(program, data, **{**FIT, **own, **options})
    return {"weights": weights(program), "rows": [{k: v for k, v in row.items() if k != "seconds"} for row in history]}


def in_small_buckets():
    """Gradients of 15 numbers, sent in messages of at most 16."""
    size, collectives.BUCKET = collectives.BUCKET, 16
    try:
        return trained(rows(39), epochs=2)
    finally:
        collectives.BUCKET = size


EQUAL = {
    "shares of different size": lambda: trained(rows(39), valid=rows(21), epochs=3),
    "clipped": lambda: trained(rows(40), clip_norm=0.1, epochs=2),
    "fewer rows than ranks": lambda: trained(rows(1), epochs=2),
    "estimator of Pyro": lambda: trained(rows(39), estimator=pyro.infer.Trace_ELBO(), epochs=2),
    "small buckets": in_small_buckets,
    "weights": lambda: trained(rows(39), weights=torch.arange(39), valid=rows(21), epochs=2),
    "tuple": lambda: trained((rows(35),), epochs=1),
}


class RecordNoise(Callback):
    """Draw noise after each epoch."""

    def __init__(self):
        self.noise = []

    def on_epoch_end(self, program, metrics):
        self.noise.append(torch.rand(3))
        return False


class OnRank(Callback):
    """Call a function on one rank after each epoch."""

    def __init__(self, rank, work):
        self.rank, self.work = rank, work

    def on_epoch_end(self, program, metrics):
        return bool(self.work(program)) if int(os.environ["RANK"]) == self.rank else False


class Faulty(Dataset):
    """Raise on rank 1 in the second epoch."""

    reads = 0

    def __len__(self):
        return 40

    def __getitem__(self, i):
        self.reads += 1
        if os.environ["RANK"] == "1" and self.reads > 20:
            raise OSError("the disk of rank 1 is gone")
        return rows(40)[i]


class Stream(IterableDataset):
    """More rows on rank 1 than on rank 0."""

    def __iter__(self):
        return iter(rows(20) if os.environ["RANK"] == "0" else rows(44))


def vae(seed):
    torch.manual_seed(seed)
    net = functools.partial(pv.nets.MLP, hidden=(4,))
    return pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (3,), net=net),
        posterior=pv.posteriors.MeanFieldNormal((3,), 2, net=net),
    )


def noise(folder):
    """The ranks start from different weights and random states; the bar is shown as in a terminal."""
    record, steps = RecordNoise(), []
    program = vae(int(os.environ["RANK"]))
    bars = sys.modules["pyro_vae._util.progress"]
    bars.can_show_bars = lambda: True
    pv.fit(
        program, rows(40), epochs=2, batch_size=16, progress=True, run_dir=folder / os.environ["RANK"],
        callbacks=[record, lambda metrics, step: steps.append(step)],
    )  # fmt: skip
    return {"weights": weights(program), "noise": record.noise, "steps": steps}


def resumed(folder):
    """Remove the last checkpoints of a run, up to the end of an epoch or within one, and resume it."""
    rank, found = os.environ["RANK"], {}
    options = {"epochs": 2, "batch_size": 8, "checkpoint_every": 0, "keep": 99, "resume": True, "progress": False}

    def run(name):
        record, program = RecordNoise(), vae(0)
        history = pv.fit(program, rows(32), run_dir=folder / name, callbacks=[record], **options)
        return weights(program), record.noise, history["loss"]

    sys.modules["pyro_vae.training.loop"].CHECK_STEPS = 1
    found["whole"] = run("whole")
    for kept in (3, 5, 7):  # of 10: four steps and an end, twice
        if rank == "0":
            shutil.copytree(folder / "whole", folder / f"from {kept}")
            for path in sorted((folder / f"from {kept}" / "checkpoints").iterdir())[kept:]:
                shutil.rmtree(path)
        found[kept] = run(f"from {kept}")
    return found


def interrupted(folder):
    """Only rank 1 receives a signal, after the first of two epochs."""
    send = OnRank(1, lambda program: os.kill(os.getpid(), signal.SIGTERM))
    try:
        pv.fit(vae(0), rows(40), epochs=2, batch_size=16, progress=False, run_dir=folder / "cut", callbacks=[send])
    except pv.training.Interrupted as end:
        return {"number": end.number, "checkpoint": end.checkpoint.name}


def damaged(folder):
    """Rank 0 reads a damaged checkpoint."""
    if os.environ["RANK"] == "0":
        for path in (folder / "cut" / "checkpoints").glob("*/state.json"):
            path.write_text("{}")
    return trained(rows(40), program=vae(0), run_dir=folder / "cut", resume=True)


def nudge(program):
    with torch.no_grad():
        program.parts["net"][0].bias[1] += 1e-6


def fill(program):
    """Change the buffer, in the first epoch."""
    if not program.parts["net"].buffer.any():
        program.parts["net"].buffer.fill_(float(os.environ["RANK"]) + 1)


def not_reduced():
    """Training without the all-reduce of the gradients."""
    svi = sys.modules["pyro_vae.training.svi"]
    original, svi.all_reduce_gradients = svi.all_reduce_gradients, lambda parameters, metrics, **options: metrics
    try:
        return trained(rows(40), epochs=2)
    finally:
        svi.all_reduce_gradients = original


def not_finite():
    """The second share of rank 1 contains a number whose square is infinite."""
    data = rows(40)
    data[Shuffled(40, seed=FIT["seed"], epoch=0).rows(np.arange(40))[30]] = 1e30
    return trained(data, epochs=1)


def late():
    """The user's own process group, whose timeout is shorter than what rank 1 does after an epoch."""
    torch.distributed.init_process_group(timeout=timedelta(seconds=0.5))
    assert len(pv.fit(make(), rows(40), **FIT, epochs=1)) == 1
    assert torch.distributed.is_initialized()
    try:
        return trained(rows(40), epochs=2, callbacks=[OnRank(1, lambda program: time.sleep(1.5))])
    finally:
        torch.distributed.destroy_process_group()


def kill(program):
    os.kill(os.getpid(), signal.SIGKILL)


def sampled():
    """A loader that gives each rank its own part."""
    data = rows(40)
    sampler = torch.utils.data.DistributedSampler(data, num_replicas=2, rank=int(os.environ["RANK"]))
    found = trained(DataLoader(data, batch_size=8, sampler=sampler), epochs=2)
    return {**found, "epoch": sampler.epoch}


def cases(folder):
    rank = os.environ["RANK"]
    yield from EQUAL.items()
    yield "noise", lambda: noise(folder)
    yield "resumed", lambda: resumed(folder)
    yield "interrupted", lambda: interrupted(folder)
    yield "damaged", lambda: damaged(folder)
    yield "buffers", lambda: trained(rows(40), epochs=2, callbacks=[OnRank(int(rank), fill)])
    yield "stream", lambda: trained(Stream(), epochs=1)
    yield "sampled", sampled
    yield "plain loader", lambda: trained(DataLoader(rows(40), batch_size=8, shuffle=True), epochs=1)
    yield "small batch", lambda: trained(rows(40), batch_size=1, epochs=1)
    yield "other settings", lambda: trained(rows(40 + int(rank)), epochs=1)
    yield "not reduced", not_reduced
    yield "nudged", lambda: trained(rows(40), epochs=4, callbacks=[OnRank(1, nudge)])
    yield "not finite", not_finite
    yield "stopped", lambda: trained(rows(40), epochs=4, callbacks=[OnRank(1, lambda program: True)])
    yield "callback fails", lambda: trained(rows(40), epochs=2, callbacks=[OnRank(0, lambda program: 1 / 0)])
    yield "rank fails", lambda: trained(Faulty(), epochs=2)
    yield "late", late
    yield "killed", lambda: trained(rows(40), epochs=2, callbacks=[OnRank(1, kill)])


def main(folder):
    found = {}
    os.fsync = lambda descriptor: None  # nothing must reach the disk
    for name, case in cases(folder):
        start = time.perf_counter()
        try:
            found[name] = case()
        except Exception as error:  # noqa: BLE001
            found[name] = {"error": type(error).__name__, "text": str(error)}
        found[name]["seconds"] = time.perf_counter() - start
        torch.save(found, folder / f"{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
