"""The laws of an estimator: each takes a program and an estimator that it has never seen."""

from __future__ import annotations

import copy
import math
from functools import partial

import pyro
import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor, nn

from pyro_vae._util.random_state import fork_rng, random_state, set_random_state
from pyro_vae.programs.program import Program
from pyro_vae.training import SVI, fit

__all__ = ["check_estimator"]


def check_estimator(program: Program, estimator: PyroELBO, x: Tensor) -> None:
    """Hold a pair of program and estimator to the contract of ``pyro.infer.ELBO``.

    Finite loss; the same loss from ``differentiable_loss``, stock ``SVI.step``, the engine and ``fit``, given the
    same noise; all parameters move; the global parameter store stays empty.

    Args:
        program: a Program
        estimator: of this library
        x: a batch

    Raises:
        AssertionError: it says which law is broken.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> check_estimator(toy.program, pv.estimators.ELBO(), toy.draw(8))
    """
    stored = set(pyro.get_param_store().keys())
    pair = f"{type(program).__name__} under {type(estimator).__name__}"

    with fork_rng([x], seed=0):
        start = random_state(x.device)

        def fresh() -> tuple[Program, PyroELBO]:
            set_random_state(start, x.device)
            return copy.deepcopy(program), copy.deepcopy(estimator)

        own, bound = fresh()
        loss = float(bound.differentiable_loss(own.model, own.guide, x).detach())
        assert math.isfinite(loss), f"{pair}: the loss is {loss}"
        own, bound = fresh()
        stock = pyro.infer.SVI(own.model, own.guide, pyro.optim.Adam({"lr": 1e-3}), bound)
        set_random_state(start, x.device)
        same(pair, "SVI.step", stock.step(x), loss)
        moved(pair, program, own)
        own, bound = fresh()
        engine = SVI(own, bound, partial(torch.optim.Adam, lr=1e-3))
        same(pair, "engine", float(engine.update(x)["loss"]), loss)
        moved(pair, program, own)
        # fit shuffles: with rows that are all alike the order does not matter
        alike = x[:1].expand_as(x)
        own, bound = fresh()
        loss = float(bound.differentiable_loss(own.model, own.guide, alike).detach())
        own, bound = fresh()
        history = fit(own, alike, estimator=bound, epochs=1, batch_size=len(x), seed=0, progress=False)
        same(pair, "fit", history["loss"][0] * len(x), loss)
        moved(pair, program, own)
    assert set(pyro.get_param_store().keys()) == stored, f"{pair}: wrote into the global parameter store"


def same(pair: str, where: str, found: float, expected: float) -> None:
    """Two losses from the same noise agree."""
    assert math.isclose(found, expected, rel_tol=1e-5, abs_tol=1e-5), f"{pair}: {where} {found}, loss {expected}"


def moved(pair: str, before: nn.Module, after: nn.Module) -> None:
    """Every parameter has moved."""
    old = dict(before.named_parameters())
    still = [n for n, p in after.named_parameters() if p.requires_grad and torch.equal(p, old[n])]
    assert not still, f"{pair}: {still} did not move"
