"""Small training runs, the state they leave on disk, and ways to interrupt them; for the tests of checkpoints."""

import functools
import json
import os
import signal
import traceback
import warnings
from contextlib import contextmanager

import torch
from safetensors.torch import load_file

import pyro_vae as pv
from pyro_vae.training import checkpoint
from pyro_vae.training.checkpoint.packing import pack
from pyro_vae.training.checkpoint.weights import digest

X = torch.rand(20, 6, generator=torch.Generator().manual_seed(0)).round()
VALID = torch.rand(9, 6, generator=torch.Generator().manual_seed(1)).round()


def noisy_net(in_shape, out_shape):
    """A network with buffers that training changes, and with dropout."""
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
    """Train a small program, with checkpoints if a folder is given; the defaults are quick."""
    vae = options.pop("program", None) or program()
    defaults = {"data": X, "valid": VALID, "epochs": 2, "batch_size": 10, "seed": 3, "progress": False}
    saving = {} if folder is None else {"run_dir": folder, "checkpoint_every": 0, "resume": True}
    history = pv.fit(vae, **{**defaults, **saving, **options})
    return vae, history


def essence(state, weights):
    """Return the parts of a checkpoint that must be equal bit for bit, by name."""

    def without_seconds(rows):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    found = {"weights": digest(weights)}
    for name, value in ({**state, "rows": without_seconds(state["rows"]), "seconds": None}).items():
        tensors = {}
        found[name] = json.dumps(pack(value, tensors)) + digest(tensors)
    return found


def checkpoints(folder):
    """Return `essence` of each checkpoint in a folder."""
    found = map(checkpoint.read, checkpoint.complete(folder / "checkpoints"))
    return {one.path.name: essence(one.state, one.weights) for one in found}


def ending(folder):
    """Return `essence` of the last checkpoint of a finished run, with its metrics and final weights."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    name, last = list(checkpoints(folder).items())[-1]
    for row in rows:
        del row["seconds"]
    return {"name": name, **last, "metrics": rows, "final": digest(load_file(folder / "weights.safetensors"))}


def rubbish(folder):
    """Return the unfinished files and folders of a run."""
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp") or ".unfinished" in path.name]


def in_child(work):
    """Run a function in a forked process and return its exit status."""
    pid = fork(work)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork(work):
    """Start a function in a forked process and return its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's threads, which are idle
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        torch.set_num_threads(1)  # OpenMP's threads do not exist after a fork
        signal.alarm(120)  # end a process that hangs
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@contextmanager
def at_call(k, act, names=("fsync", "rename", "replace")):
    """Call ``act`` before the k-th call of these functions of ``os``; ``fsync`` does nothing."""
    own, calls = {name: getattr(os, name) for name in names}, []

    def counted(name):
        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) == k:
                act()
            return None if name == "fsync" else own[name](*args, **kwargs)

        return call

    for name in names:
        setattr(os, name, counted(name))
    try:
        yield calls
    finally:
        for name in names:
            setattr(os, name, own[name])
