"""Laws of all tasks, discovered: programs and the global state stay as they are, and results depend on the seed."""

import contextlib
import functools
import inspect
import math
import random

import numpy as np
import pyro
import pytest
import torch
from helpers.results import leaves
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae import tasks

g = torch.Generator().manual_seed(0)
X = (torch.rand(20, 4, 4, generator=g) < 0.4).float()
INCOMPLETE = torch.where(torch.rand(20, 4, 4, generator=g) < 0.1, torch.nan, X)
Y = torch.arange(20) % 2
MLP = functools.partial(pv.nets.MLP, hidden=(8,))
#: Functions and classes of programs with classes; all others get a VAE.
WITH_CLASSES = ("classify", "cluster", "init_clusters")
NORMAL, OTHER = (dist.Normal(torch.full((3, 2), m), 1.0).to_event(1) for m in (1.0, 2.0))
TABLE = {"a": [1.5, None, 2.5], "b": ["x", "y", None]}

#: Arguments by name. A new function with other arguments needs a line here.
VALUES = {
    "x": X,
    "start": X[:3],
    "end": X[3:6],
    "values": [0.0, 1.0],
    "y": Y,
    "fn": NORMAL,
    "t": 0.3,
    "temperature": 0.5,
    "score": tasks.NegativeBound(2),
    "normal": X,
    "train": X,
    "batch_size": 8,
    "burn_in": 1,
    "epochs": 1,
    "num_buckets": 16,
    "family": 2,
    "num_labelled": 4,
    "num_particles": 3,
    "num_samples": 3,
    "num_steps": 3,
    "progress": False,
}
#: Other arguments: the program, and optional ones with their defaults.
OTHERS = {"program", "compress", "context", "false_alarm_rate", "learning_rate", "levels", "mean", "path", "prior"}
OTHERS |= {"options", "seed", "thin", "units"}
SPECIAL = {
    "impute": {"x": INCOMPLETE},
    "pseudo_gibbs": {"x": INCOMPLETE},
    "forecast": {"x": X[:6]},  # sequences of 4 steps
    "generate": {"num_samples": 5},
    "labelled_batches": {"y": tasks.hide_labels(Y, 4)},
    "fill": {"data": TABLE, "table": pv.data.Table(TABLE), "x": torch.ones(3, 2)},
    **{name: {"start": NORMAL, "end": OTHER} for name in ("linear", "spherical", "geometric")},
}


def takes(function):
    return inspect.signature(function).parameters


def is_task(value):
    """Whether this is a function, or a class that works with a program; the others are results and errors."""
    return inspect.isfunction(value) or issubclass(value, tasks.Score) or "program" in takes(value.__init__)


#: `export` writes files, and has these laws in its own tests.
TASKS = [name for name in tasks.__all__ if is_task(getattr(tasks, name)) and name not in ("Score", "export")]


def encoder(in_shape, out_shape, context=0):
    """A network with state that a task could change: running statistics and dropout."""
    layers = torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.5), torch.nn.Linear(16, math.prod(out_shape))
    return torch.nn.Sequential(torch.nn.Flatten(), *layers, torch.nn.Unflatten(1, out_shape))


def make_program(name):
    torch.manual_seed(0)
    if name == "forecast":  # images as sequences of rows
        return pv.programs.SequenceVAE.example().train()
    likelihood = pv.likelihoods.Bernoulli(2, (4, 4), net=MLP)
    posterior = pv.posteriors.MeanFieldNormal((4, 4), 2, net=encoder)
    if name not in WITH_CLASSES:
        vae = pv.VAE(prior=pv.priors.StandardNormal(2), likelihood=likelihood, posterior=posterior, missing=True)
        next(vae.posterior.parameters()).requires_grad_(False)
        return vae.train()
    return pv.programs.MixtureVAE(
        classes=pv.priors.OneHotCategorical(2, learned=True),
        prior=pv.priors.ConditionalNormal(2, context=2, net=MLP),
        likelihood=likelihood,
        classifier=pv.posteriors.OneHotCategorical((4, 4), 2, net=encoder),
        posterior=posterior,
    ).train()


def call(function, **values):
    """Call a function with those values that it takes; integers of numpy are as good as those of Python."""
    found = {name: values[name] for name in takes(function) if name in values}
    return function(**{name: np.int64(v) if type(v) is int else v for name, v in found.items()})


def run(name, program, **own):
    """Call a function; build an object of a class and call its methods, a score as a function."""
    task, values = getattr(tasks, name), {**VALUES, **SPECIAL.get(name, {}), "program": program, **own}
    made = call(task, **values)
    if inspect.isfunction(task):
        return [made]
    methods = ["__call__"] if isinstance(made, tasks.Score) else [m for m in vars(task) if m[0] != "_"]
    results = [made]
    for method in (getattr(made, method) for method in methods):
        results.append(call(method, **values))
        values["data"] = results[-1]  # of compress, for decompress
    return results


def state(program):
    return {
        **{name: value.clone() for name, value in program.state_dict().items()},
        "modes": [module.training for module in program.modules()],
        "frozen": [p.requires_grad for p in program.parameters()],
        "gradients": [p.grad is None for p in program.parameters()],
        "modules": [(id(module), len(module._forward_hooks)) for module in program.modules()],
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.random.get_state()[1].copy()),
        "random": random.getstate(),
        "store": list(pyro.get_param_store().keys()),
        "settings": (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()),
    }


def equal(a, b):
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("name", TASKS)
def test_tasks_change_nothing_and_repeat_themselves(name):
    """Weights, buffers, modes, gradients, hooks and random state stay; results do not depend on the random state."""
    program = make_program(name)
    before = state(program)
    first = leaves(run(name, program))
    after = state(program)
    changed = {key for key in before if not equal(before[key], after[key])}
    if name == "init_clusters":  # sets these parameters, and no others
        assert changed
        changed = {key for key in changed if not key.startswith(("prior.", "classes."))}
        program = make_program(name)
    assert changed == set()
    torch.manual_seed(7)
    again = leaves(run(name, program))
    assert len(first) == len(again)
    assert all(
        torch.allclose(a, b, equal_nan=True) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(first, again, strict=True)
    )


class Stream(torch.utils.data.IterableDataset):
    """Examples without a known size, which counts how often they are read."""

    reads = 0

    def __iter__(self):
        self.reads += 1
        yield from X


def takes_data(name):
    task = getattr(tasks, name)
    entry = task if inspect.isfunction(task) else task.__call__ if issubclass(task, tasks.Score) else task.__init__
    return {"program", "x"} <= set(takes(entry))


@pytest.mark.parametrize("name", [name for name in TASKS if takes_data(name)])
def test_streams_are_read_once_or_refused(name):
    """Tasks that need all examples at once raise a TypeError before they read any."""
    stream, whole = Stream(), name in ("pseudo_gibbs", "traverse")
    with pytest.raises(TypeError, match="x: ") if whole else contextlib.nullcontext():
        run(name, make_program(name), x=stream)
    assert stream.reads == (0 if whole else 1)


def test_tasks_are_discovered():
    assert {"generate", "impute", "classify", "Detector", "embed", "cluster", "Compressor", "Typicality"} <= set(TASKS)


def test_arguments_have_the_same_names_everywhere():
    for name in TASKS:
        assert set(takes(getattr(tasks, name))) <= {*VALUES, *OTHERS, *SPECIAL.get(name, {})}, name
