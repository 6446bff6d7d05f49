"""Small training runs, what they leave behind, and ways to interrupt them, for the tests of checkpoints."""

import functools
import json
import os
import signal
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file

import pyro_vae as pv
from pyro_vae.training.checkpoint import checkpoint
from pyro_vae.training.checkpoint.serialization import digest, pack

X = torch.rand(20, 6, generator=torch.Generator().manual_seed(0)).round()
VALID = torch.rand(9, 6, generator=torch.Generator().manual_seed(1)).round()


def noisy_net(in_shape, out_shape):
    """A network with buffers that change and with noise of its own."""
    layers = [torch.nn.Linear(in_shape[0], 5), torch.nn.BatchNorm1d(5), torch.nn.Dropout(0.2)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(5, out_shape[0] if len(out_shape) == 1 else 4))


SMALL = functools.partial(pv.nets.MLP, hidden=(5,))


def program(net=SMALL):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return pv.VAE(
            prior=pv.priors.StandardNormal(2),
            likelihood=pv.likelihoods.Bernoulli(2, (6,), net=net),
            posterior=pv.posteriors.MeanFieldNormal((6,), 2, net=net),
        )


def train(folder=None, **options):
    """Train a small program in a folder, with a checkpoint after each step; all options have quick defaults."""
    vae = options.pop("program", None) or program()
    defaults = {"data": X, "valid": VALID, "epochs": 2, "batch_size": 10, "seed": 3, "progress": False}
    saving = {} if folder is None else {"run_dir": folder, "checkpoint_every": 0, "resume": True}
    history = pv.fit(vae, **{**defaults, **saving, **options})
    return vae, history


def essence(state, weights):
    """Everything that must be equal bit for bit, by name: all but the times."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in state["rows"]]
    found = {"weights": digest(weights)}
    for name, value in ({**state, "rows": rows, "seconds": None}).items():
        tensors = {}
        found[name] = json.dumps(pack(value, tensors)) + digest(tensors)
    return found


def checkpoints(folder):
    """The essence of each checkpoint in a folder, by name."""
    found = map(checkpoint.read, checkpoint.complete(folder / "checkpoints"))
    return {Path(one.path).name: essence(one.state, one.weights) for one in found}


def ending(folder):
    """The essence of a finished run: last checkpoint, metrics and weights."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = checkpoint.read(checkpoint.complete(folder / "checkpoints")[-1])
    for row in rows:
        del row["seconds"]
    final = digest(load_file(folder / "weights.safetensors"))
    return {"name": Path(last.path).name, **essence(last.state, last.weights), "metrics": rows, "final": final}


def leftovers(folder):
    """Temporary files, and checkpoints that were set aside as incomplete."""
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp") or ".unfinished" in path.name]


def in_child(work):
    """Run a function in a forked process; return its exit status."""
    pid = fork(work)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork(work):
    """Start a function in a forked process; return the process number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about the threads of torch, which stay idle
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        torch.set_num_threads(1)  # the threads of OpenMP do not survive a fork
        signal.alarm(120)  # ends a process that hangs
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@contextmanager
def at_call(k, act, names=("fsync", "rename", "replace")):
    """Act before the k-th call of these functions of ``os``; fsync is only counted, as nothing must reach the disk."""
    originals, calls = {name: getattr(os, name) for name in names}, []

    def counted(name):
        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) == k:
                act()
            return None if name == "fsync" else originals[name](*args, **kwargs)

        return call

    for name in names:
        setattr(os, name, counted(name))
    try:
        yield calls
    finally:
        for name in names:
            setattr(os, name, originals[name])
