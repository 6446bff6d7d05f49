"""Training from a file larger than memory: resident memory, and speed compared with data in memory.

Run `python tests/benchmarks/out_of_core.py`. It writes a memory map (8 GiB in a temporary folder, if there is room),
checks it as `fit` does, and trains W1 (784-400-20-400-784, batch 128) in turn from the map and from 60,000 rows in
memory. Times are the minimum over rounds, as other work on the machine can only add time. The page cache may hold the
file after it was written; the last row is a round that starts with the file out of the cache.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

import pyro_vae as pv
from pyro_vae.training import SVI, Batches, flush_denormals

FEATURES, BATCH, IN_MEMORY = 784, 128, 60_000


def write(path: Path, rows: int) -> np.memmap:
    """Write rows of random bits as float32."""
    x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, FEATURES))
    draws = np.random.default_rng(0)
    for start in tqdm(range(0, rows, 8192), desc="writing"):
        block = x[start : start + 8192]
        bits = np.unpackbits(draws.integers(0, 256, -(-block.size // 8), dtype=np.uint8))
        block[:] = bits[: block.size].reshape(block.shape)
    x.flush()
    del x
    return np.load(path, mmap_mode="r")


class Resident:
    """Watch the memory of this process in a thread, in MiB."""

    def __init__(self) -> None:
        self.peak = dict.fromkeys(("VmRSS", "RssAnon", "RssFile"), 0.0)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self) -> None:
        while not self.over.wait(0.01):
            lines = Path("/proc/self/status").read_text().splitlines()
            for name, value in (line.split(":") for line in lines if line.split(":")[0] in self.peak):
                self.peak[name] = max(self.peak[name], int(value.split()[0]) / 1024)

    def __enter__(self) -> Resident:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()


def program() -> pv.VAE:
    net = functools.partial(pv.nets.MLP, hidden=(400,), activation=nn.ReLU)
    return pv.VAE(
        prior=pv.priors.StandardNormal(20),
        likelihood=pv.likelihoods.Bernoulli(20, (FEATURES,), net=net),
        posterior=pv.posteriors.MeanFieldNormal((FEATURES,), 20, net=net),
    )


def stepper(data: object) -> tuple[Iterator[tuple[torch.Tensor, ...]], SVI, Batches]:
    torch.manual_seed(0)
    batches = Batches(data, batch_size=BATCH)
    svi = SVI(program(), pv.estimators.ELBO(), functools.partial(torch.optim.Adam, lr=1e-3))
    return itertools.chain.from_iterable(map(batches.epoch, itertools.count())), svi, batches


def milliseconds(source: Iterator[tuple[torch.Tensor, ...]], svi: SVI, steps: int) -> float:
    start = time.perf_counter()
    # as fit does: Adam's moments of inactive units become denormal numbers within a few hundred steps
    with flush_denormals():
        for batch in itertools.islice(source, steps):
            svi.update(*batch)
    return (time.perf_counter() - start) / steps * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=8.0, help="size of the file")
    parser.add_argument("--steps", type=int, default=50, help="steps per round")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--folder", type=Path, default=None, help="folder for the file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        free, wanted = shutil.disk_usage(folder).free / 2**30, options.gib
        if free < wanted + 2:
            raise SystemExit(f"{folder}: {free:.1f} GiB free, {wanted + 2:.1f} needed; choose --gib or --folder")
        measure(Path(folder) / "x.npy", options)


def measure(path: Path, options: argparse.Namespace) -> None:
    mapped = write(path, int(options.gib * 2**30 / 4 / FEATURES))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {len(mapped):,} rows, {options.gib} GiB")
    with Resident() as before:
        from_map, svi, batches = stepper(mapped)
        milliseconds(itertools.repeat((torch.zeros(BATCH, FEATURES),)), svi, 20)
    with Resident() as resident:
        start = time.perf_counter()
        batches.check(svi.program, progress=True)
        check = time.perf_counter() - start
        milliseconds(from_map, svi, options.steps * options.rounds)
    for name, mib in resident.peak.items():
        print(f"peak {name} {mib:.0f} MiB ({before.peak[name]:.0f} without data)")
    print(f"check of all the data {check:.1f} s")
    from_memory, other, _ = stepper(torch.from_numpy(np.array(mapped[:IN_MEMORY])))
    best = {"memory": float("inf"), "map": float("inf")}
    for _ in range(options.rounds):
        best["memory"] = min(best["memory"], milliseconds(from_memory, other, options.steps))
        best["map"] = min(best["map"], milliseconds(from_map, svi, options.steps))
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    best["map, file out of the cache"] = milliseconds(from_map, svi, options.steps)
    print("| data | ms per step | speed relative to memory |\n|---|---|---|")
    for name, ms in best.items():
        print(f"| {name} | {ms:.2f} | {best['memory'] / ms:.2f} |")
    epoch = len(mapped) / BATCH * best["map"] / 1e3
    print(f"an epoch takes {epoch:.0f} s, the check {check / epoch:.0%} of that")
    batches.close()


if __name__ == "__main__":
    main()
