"""A law of compiled training: it does what uncompiled training does, and leaves the parameters what they are."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from safetensors.torch import load_file
from torch import Tensor, nn
from torch._subclasses import FakeTensor

import pyro_vae as pv
from pyro_vae import estimators as E

#: Under Adam a gradient that is zero up to rounding would change its weight by a full step in either direction.
SGD = functools.partial(torch.optim.SGD, lr=1e-3)
#: Largest difference of a loss or bound, relative if it is above 1 nat.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """A program, its data and an estimator, built again for each training."""

    make: Callable[[], pv.Program]
    data: tuple[Tensor, ...]
    estimator: Callable[[], E.Estimator] = E.ELBO


def train(case: Case, compile: Any, folder: Path) -> tuple[list[float], dict[str, Tensor]]:
    """Train, validate, save, load, sample and train again; return losses and bounds in nats, and the weights.

    Raises:
        AssertionError: the training replaced a parameter, or left a tensor without data in a module.
        UserWarning: the step could not be compiled.
    """
    torch.manual_seed(0)
    program, estimator = case.make(), case.estimator()
    modules = [module for module in (program, estimator.module) if module is not None]
    before = [dict(m.named_parameters(remove_duplicate=False)) for m in modules]
    settings = {"optimizer": SGD, "clip_norm": 1.0, "batch_size": 8, "compile": compile, "progress": False}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "compile: ")
        history = pv.fit(
            program, case.data, valid=case.data, estimator=estimator, epochs=3, run_dir=folder, **settings
        )
        for module, parameters in zip(modules, before, strict=True):
            check_ordinary(module, parameters)
        loaded = case.make()
        loaded.load_state_dict(load_file(folder / "weights.safetensors"))
        sample(loaded, case.data)
        loaded = copy.deepcopy(loaded)
        again = pv.fit(loaded, case.data, estimator=case.estimator(), epochs=2, seed=1, **settings)
    return [*history["loss"], *history["valid_bound"], *again["loss"]], loaded.state_dict()


def check_ordinary(module: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
    """Assert that all parameters are the same objects as before, and that all tensors have data."""
    after = dict(module.named_parameters(remove_duplicate=False))
    assert after.keys() == parameters.keys()
    for name, p in after.items():
        assert p is parameters[name], f"{name} is another object than before"
        assert type(p) is nn.Parameter, f"{name} is a {type(p).__name__}"
        assert type(p.data) is Tensor, f"{name} has a {type(p.data).__name__} as data"
    for name, part in module.named_modules():
        for key, value in (*vars(part).items(), *part.named_buffers(recurse=False)):
            assert not isinstance(value, FakeTensor), f"{name}.{key} has no data"


def sample(program: pv.Program, data: tuple[Tensor, ...]) -> None:
    """Sample from the model, and assert that all latents are finite."""
    with torch.no_grad():
        trace = poutine.trace(program.eval().model).get_trace(*data)
    values = [site["value"] for site in trace.nodes.values() if site["type"] == "sample" and not site["is_observed"]]
    assert all(torch.isfinite(value).all() for value in values)


def compare(case: Case, compiler: Any, folder: Path) -> float:
    """Return the largest difference of a loss or bound between compiled and uncompiled training, relative if above 1.

    Raises:
        AssertionError: a loss, bound or weight differs.
    """
    expected, weights = train(case, False, folder / "uncompiled")
    found, moved = train(case, compiler, folder / "compiled")
    largest = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(found, expected, strict=True))
    assert largest < TOLERANCE, f"losses and bounds {found}, uncompiled {expected}"
    for name, weight in weights.items():
        torch.testing.assert_close(moved[name], weight, rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    return largest
