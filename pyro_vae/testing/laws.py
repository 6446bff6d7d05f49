"""Laws: each takes a part, program or estimator that it has never seen."""

from __future__ import annotations

import copy
import inspect
import math
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer import ELBO as PyroELBO
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_vae._util.random_state import fork_rng, random_state, set_random_state
from pyro_vae.conditional import Conditional
from pyro_vae.distributions.sphere import sphere
from pyro_vae.distributions.supports import Bags
from pyro_vae.programs.program import Program
from pyro_vae.testing.grids import simplex_grid, sphere_grid
from pyro_vae.testing.lines import array_grid, bag_grid
from pyro_vae.training import SVI, fit

__all__ = ["check_estimator", "check_part", "parts"]

BATCHES = [(), (5,), (7, 5)]


def parts(shelf: ModuleType) -> Iterator[type[Conditional]]:
    """Yield the classes of a shelf such as ``pyro_vae.priors``: whatever its folder exports.

    Args:
        shelf: a module such as ``pyro_vae.priors``

    Returns:
        An iterator over the classes.

    Example:
        >>> import pyro_vae as pv
        >>> pv.priors.VampPrior in parts(pv.priors)
        True
    """
    for name in shelf.__all__:
        found = getattr(shelf, name)
        if inspect.isclass(found) and issubclass(found, Conditional):
            yield found


def check_part(part: Conditional, *shapes: tuple[int, ...]) -> None:
    """Hold a part to the contract of :class:`Conditional`.

    Shapes at batch shapes (), (5,) and (7, 5); finite log-density at its own samples; every parameter gets a
    gradient; weights survive saving and loading; one- and two-dimensional densities have mass one.

    Args:
        part: a prior, likelihood or posterior
        shapes: the event shape of each of its contexts: none for a prior, that of z for a likelihood, that of x
            for a posterior

    Raises:
        AssertionError: it says which law is broken.

    Example:
        >>> import pyro_vae as pv
        >>> check_part(pv.likelihoods.Normal(3, (2, 2)), (3,))
    """
    with fork_rng(list(part.parameters()), seed=0):
        for batch in BATCHES if shapes else [()]:
            check_shapes(part, [torch.rand(*batch, *shape) for shape in shapes], batch)
        check_rows(part, shapes)
        check_gradients(part, [torch.rand(5, *shape) for shape in shapes])
        check_saving(part, [torch.rand(5, *shape) for shape in shapes])
        check_mass(part(*(torch.rand(*shape) for shape in shapes)), part)


def check_shapes(part: Conditional, context: list[Tensor], batch: tuple[int, ...]) -> None:
    """Batch shape, sample shape and finite log-density at own samples."""
    with pyro.validation_enabled(True):
        fn = part(*context)
        assert isinstance(fn, TorchDistributionMixin), f"{name(part)} returns {type(fn)}, no Pyro distribution"
        assert fn.batch_shape == batch, f"{name(part)}: batch shape {fn.batch_shape} for a context of batch {batch}"
        x = fn.sample((3,))
        assert x.shape == (3, *batch, *fn.event_shape), f"{name(part)}: a draw has shape {x.shape}"
        log_prob = fn.log_prob(x)
        assert log_prob.shape == (3, *batch), f"{name(part)}: a log-density has shape {log_prob.shape}"
        assert torch.isfinite(log_prob).all(), f"{name(part)}: log-density at its own draws is {log_prob}"
        assert fn.support.check(x).all(), f"{name(part)}: a draw outside its own support"


def check_rows(part: Conditional, shapes: tuple[tuple[int, ...], ...]) -> None:
    """What a datum gets does not depend on the leading dimensions it comes with, nor on its neighbours."""
    if not shapes:
        return
    part = copy.deepcopy(part).eval()
    context = [torch.rand(7, 5, *shape) for shape in shapes]
    x = part(*context).sample()
    together = part(*context).log_prob(x)
    alone = torch.stack([part(*(c[i] for c in context)).log_prob(x[i]) for i in range(7)])
    assert torch.allclose(together, alone, atol=1e-4, rtol=1e-4), f"{name(part)} mixes up leading dimensions"


def check_gradients(part: Conditional, context: list[Tensor]) -> None:
    """Every parameter gets a gradient from the log-density."""
    if not any(p.requires_grad for p in part.parameters()):
        return
    part.zero_grad()
    fn = part(*context)
    fn.log_prob(fn.sample()).sum().backward()
    lost = [n for n, p in part.named_parameters() if p.requires_grad and p.grad is None]
    assert not lost, f"{name(part)}: no gradient for {lost}"
    broken = [n for n, p in part.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not broken, f"{name(part)}: the gradient of {broken} is not finite"
    part.zero_grad()


def check_saving(part: Conditional, context: list[Tensor]) -> None:
    """Weights saved from one instance make another one the same."""
    other = copy.deepcopy(part)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.safetensors"
        save_file({k: v.clone() for k, v in part.state_dict().items()}, path)
        other.load_state_dict(load_file(path))
    part, other = copy.deepcopy(part).eval(), other.eval()
    x = part(*context).sample()
    assert torch.equal(part(*context).log_prob(x), other(*context).log_prob(x)), f"{name(part)}: load changes it"


def check_mass(fn: TorchDistributionMixin, part: Conditional, points: int = 2001) -> bool:
    """Mass one, where it can be computed: finite supports, and up to two real dimensions. Say whether it was."""
    grid = grid_of(fn, points)
    if grid is None:
        return False
    values, weight = grid
    with torch.no_grad():
        mass = (fn.log_prob(values).double().exp() * weight).sum().item()
    assert math.isclose(mass, 1.0, abs_tol=2e-3), f"{name(part)}: the density has mass {mass:.5f}"
    return True


def grid_of(fn: TorchDistributionMixin, points: int) -> tuple[Tensor, Tensor | float] | None:
    """Return values and weights of a sum over the support of one datum, None where it would be too large."""
    size = fn.event_shape.numel()
    support = fn.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if fn.has_enumerate_support:
        return fn.enumerate_support(), 1.0
    if support is constraints.simplex:
        return simplex_grid(size, points)
    if support is sphere:
        return sphere_grid(size, points)
    if isinstance(support, Bags):
        return bag_grid(support, fn.event_shape)
    return array_grid(support, fn.event_shape, points)


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


def name(part: Any) -> str:
    """Name a part in a message."""
    return type(part).__name__
