"""Laws of an estimator: the contract of ``pyro.infer.ELBO``, a pure formula, a state that evaluation leaves alone."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor, nn

from pyro_vae._util.random_state import fork_rng, random_state, set_random_state
from pyro_vae.estimators import Estimator
from pyro_vae.programs.program import Program
from pyro_vae.training import SVI, fit

__all__ = ["check_estimator"]


def check_estimator(program: Program, estimator: PyroELBO, x: Tensor, *others: Tensor) -> None:
    """Check that a pair of program and estimator obeys the laws of an estimator.

    The loss is finite, and the same from ``differentiable_loss``, stock ``SVI.step``, the training engine and ``fit``,
    given the same noise. All parameters change, and the global parameter store stays empty. The formula is pure: half
    of it plus half of it again has the same value and gradient. Evaluation changes nothing. Particles in several
    passes give a finite loss, whatever the formula reads.

    Args:
        program: a Program
        estimator: of this library
        x: a batch
        others: the other columns of the data, as in ``model(x, *others)``

    Raises:
        AssertionError: the message says which law is broken.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> check_estimator(toy.program, pv.estimators.ELBO(), toy.draw(8))
    """
    stored = set(pyro.get_param_store().keys())
    pair = f"{type(program).__name__} under {type(estimator).__name__}"
    with fork_rng([x], seed=0):
        check_losses(pair, program, estimator, x, *others)
        if isinstance(estimator, Estimator):
            check_purity(pair, program, estimator, x, *others)
            check_state(pair, program, estimator, x, *others)
            check_passes(pair, program, estimator, x, *others)
    assert set(pyro.get_param_store().keys()) == stored, f"{pair}: wrote into the global parameter store"


def check_losses(pair: str, program: Program, estimator: PyroELBO, *batch: Tensor) -> None:
    """The loss is the same from every way to train."""
    start = random_state(batch[0].device)

    def fresh() -> tuple[Program, PyroELBO]:
        set_random_state(start, batch[0].device)
        return copy.deepcopy(program), copy.deepcopy(estimator)

    own, bound = fresh()
    loss = float(bound.differentiable_loss(own.model, own.guide, *batch).detach())
    assert math.isfinite(loss), f"{pair}: the loss is {loss}"
    own, bound = fresh()
    stock = pyro.infer.SVI(own.model, own.guide, pyro.optim.Adam({"lr": 1e-3}), bound)
    set_random_state(start, batch[0].device)
    same_loss(pair, "SVI.step", stock.step(*batch), loss)
    all_changed(pair, program, own)
    own, bound = fresh()
    engine = SVI(own, bound, partial(torch.optim.Adam, lr=1e-3))
    same_loss(pair, "engine", float(engine.update(*batch)["loss"]), loss)
    all_changed(pair, program, own)
    # fit shuffles: the order of rows that are all alike does not matter
    alike = tuple(column[:1].expand_as(column) for column in batch)
    own, bound = fresh()
    loss = float(bound.differentiable_loss(own.model, own.guide, *alike).detach())
    own, bound = fresh()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a schedule is longer than this one step
        history = fit(own, alike, estimator=bound, epochs=1, batch_size=len(batch[0]), seed=0, progress=False)
    same_loss(pair, "fit", history["loss"][0] * len(batch[0]), loss)
    all_changed(pair, program, own)


def check_purity(pair: str, program: Program, estimator: Estimator, *batch: Tensor) -> None:
    """Calling the formula twice on the same terms gives the same value and gradient twice."""
    parameters = [p for p in program.parameters() if p.requires_grad]
    start = random_state(batch[0].device)
    found = []
    for times in (1, 2):
        set_random_state(start, batch[0].device)
        terms = estimator.terms(program.model, program.guide, *batch).split()[0]
        value = sum(estimator.bound(terms, 1.0) for _ in range(times)).sum() / times
        slopes = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
        found.append(torch.cat([value.detach().reshape(1), *(slope.flatten() for slope in slopes)]))
    scale = float(found[0].abs().max()) + 1.0
    assert torch.allclose(*found, rtol=1e-3, atol=1e-5 * scale), (
        f"{pair}: bound is not pure: half of it plus half of it again has another value or gradient"
    )


def check_state(pair: str, program: Program, estimator: Estimator, *batch: Tensor) -> None:
    """``per_datum`` and ``loss`` change neither the estimator nor the program."""
    before = snapshot(program, estimator)
    estimator.per_datum(program.model, program.guide, *batch)
    estimator.loss(program.model, program.guide, *batch)
    after = snapshot(program, estimator)
    changed = [name for name in before.keys() | after.keys() if not alike(before.get(name), after.get(name))]
    assert not changed, f"{pair}: evaluation changes {sorted(changed)}; override `update` for what training changes"


def check_passes(pair: str, program: Program, estimator: Estimator, *batch: Tensor) -> None:
    """A formula may read any quantity under ``particles_per_pass``."""
    if estimator.num_particles < 4 or estimator.num_particles % 2:
        return
    passes = copy.deepcopy(estimator)
    try:
        type(estimator).example(num_particles=4, particles_per_pass=2)
    except (TypeError, ValueError):  # refused by name
        return
    passes.particles_per_pass = 2
    loss = float(passes.differentiable_loss(program.model, program.guide, *batch).detach())
    assert math.isfinite(loss), f"{pair}: with particles_per_pass=2 the loss is {loss}"


def snapshot(program: Program, estimator: Estimator) -> dict[str, Any]:
    """Return copies of all tensors and plain values of program and estimator."""
    modules = {"program": program, "estimator.module": estimator.module}
    tensors = {
        f"{root}.{name}": value.detach().clone()
        for root, module in modules.items()
        if module is not None
        for name, value in module.state_dict().items()
    }
    kept = (int, float, str, bool, Tensor, Sequence)
    plain = {f"estimator.{k}": copy.deepcopy(v) for k, v in vars(estimator).items() if isinstance(v, kept)}
    return tensors | plain


def alike(a: Any, b: Any) -> bool:
    """Whether two values are equal."""
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b


def same_loss(pair: str, where: str, found: float, expected: float) -> None:
    """Check that two losses from the same noise agree."""
    assert math.isclose(found, expected, rel_tol=1e-5, abs_tol=1e-5), f"{pair}: {where} {found}, loss {expected}"


def all_changed(pair: str, before: nn.Module, after: nn.Module) -> None:
    """Check that every parameter has changed."""
    old = dict(before.named_parameters())
    still = [n for n, p in after.named_parameters() if p.requires_grad and torch.equal(p, old[n])]
    assert not still, f"{pair}: {still} did not change"
