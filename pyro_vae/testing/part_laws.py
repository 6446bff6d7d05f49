"""Laws of parts: each takes a prior, likelihood or posterior that it has never seen."""

from __future__ import annotations

import copy
import inspect
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, overload

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from safetensors.torch import load_file, save_file
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.conditional import Conditional
from pyro_vae.testing.grids import grid_of

__all__ = ["check_mass", "check_part", "parts"]

Shapes = tuple[tuple[int, ...], ...]

#: Batch shapes of the contexts that a part is tested with.
BATCHES = [(), (5,), (7, 5)]


@overload
def parts(shelf: ModuleType) -> Iterator[type[Conditional]]: ...
@overload
def parts(shelf: ModuleType, kind: type[Any]) -> Iterator[type[Any]]: ...
def parts(shelf: ModuleType, kind: type[Any] = Conditional) -> Iterator[type[Any]]:
    """Yield the concrete classes that a module such as ``pyro_vae.priors`` exports.

    Args:
        shelf: a module with ``__all__``
        kind: base class of the classes to yield

    Returns:
        An iterator over the classes.

    Example:
        >>> import pyro_vae as pv
        >>> pv.priors.VampPrior in parts(pv.priors)
        True
        >>> pv.estimators.IWAE in parts(pv.estimators, pv.estimators.Estimator)
        True
    """
    for name in shelf.__all__:
        found = getattr(shelf, name)
        if inspect.isclass(found) and issubclass(found, kind) and not inspect.isabstract(found):
            yield found


def check_part(part: Conditional, *shapes: tuple[int, ...]) -> None:
    """Check that a part obeys the contract of :class:`pyro_vae.Conditional`.

    The laws, at the batch shapes (), (5,) and (7, 5):

    * ``forward`` contains no Pyro statement and leaves its context unchanged;
    * batch shape, sample shape and support are right, and the log-density at the part's own samples is finite;
    * the distribution can be expanded, as a plate does with a prior;
    * rows do not influence each other;
    * every parameter gets a finite gradient, through the sample as well if the distribution has ``rsample``;
    * every tensor is a parameter or a buffer, and saving and loading the weights reproduces the part;
    * one- and two-dimensional densities have mass one.

    Args:
        part: a prior, likelihood or posterior
        shapes: the event shape of each context: none for a prior, the shape of z for a likelihood, the shape of x
            for a posterior; after it ``(width,)`` for labels or covariates

    Raises:
        AssertionError: a law is broken; the message names it.

    Example:
        >>> import pyro_vae as pv
        >>> check_part(pv.likelihoods.Normal(3, (2, 2)), (3,))
    """
    check_buffers(part)
    with fork_rng(list(part.parameters()), seed=0):
        for batch in BATCHES if shapes else [()]:
            check_shapes(part, contexts(shapes, *batch), batch)
        check_pure(part, contexts(shapes, 5))
        check_rows(part, shapes)
        check_gradients(part, contexts(shapes, 5))
        check_saving(part, contexts(shapes, 5))
        check_mass(part(*contexts(shapes)), part)


def contexts(shapes: Shapes, *batch: int) -> list[Tensor]:
    """Return one random context of each shape."""
    return [torch.rand(*batch, *shape) for shape in shapes]


def check_shapes(part: Conditional, context: list[Tensor], batch: tuple[int, ...]) -> None:
    """Check batch shape, sample shape, support, expansion and the log-density at the part's own samples."""
    with pyro.validation_enabled(True):
        fn = part(*context)
        assert isinstance(fn, TorchDistributionMixin), f"{name(part)} returns {type(fn)}, expected a Pyro distribution"
        assert fn.batch_shape == batch, f"{name(part)}: batch shape {fn.batch_shape} for a context of batch {batch}"
        x = fn.sample((3,))
        assert x.shape == (3, *batch, *fn.event_shape), f"{name(part)}: a sample has shape {x.shape}"
        log_prob = fn.log_prob(x)
        assert log_prob.shape == (3, *batch), f"{name(part)}: a log-density has shape {log_prob.shape}"
        assert torch.isfinite(log_prob).all(), f"{name(part)}: log-density at its own samples is {log_prob}"
        assert fn.support.check(x).all(), f"{name(part)}: a sample lies outside its own support"
        wide = fn.expand((3, *batch))
        assert wide.sample().shape == x.shape, f"{name(part)}: expanded, a sample has shape {wide.sample().shape}"
        assert torch.allclose(wide.log_prob(x), log_prob, atol=1e-5), f"{name(part)}: expand changes the density"


def check_pure(part: Conditional, context: list[Tensor]) -> None:
    """Check that ``forward`` contains no Pyro statement and leaves its context unchanged."""
    before = [c.clone() for c in context]
    sites = poutine.trace(part).get_trace(*context)
    found = [n for n, site in sites.nodes.items() if site["type"] not in ("args", "return")]
    assert not found, f"{name(part)}: forward contains the Pyro statements {found}; they belong in a program"
    same = all(torch.equal(c, b) for c, b in zip(context, before, strict=True))
    assert same, f"{name(part)}: forward changes its context in place"


def check_rows(part: Conditional, shapes: Shapes) -> None:
    """Check that a row's density depends neither on its leading dimensions nor on the other rows."""
    if not shapes:
        return
    part = copy.deepcopy(part).eval()
    context = contexts(shapes, 7, 5)
    x = part(*context).sample()
    together = part(*context).log_prob(x)
    alone = torch.stack([part(*(c[i] for c in context)).log_prob(x[i]) for i in range(7)])
    assert torch.allclose(together, alone, atol=1e-4, rtol=1e-4), f"{name(part)} mixes rows or leading dimensions"


def check_gradients(part: Conditional, context: list[Tensor]) -> None:
    """Check that every parameter gets a finite gradient, and that ``rsample`` carries one."""
    if not any(p.requires_grad for p in part.parameters()):
        return
    part.zero_grad()
    fn = part(*context)
    fn.log_prob(fn.sample()).sum().backward()
    missing = [n for n, p in part.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing, f"{name(part)}: no gradient for {missing}"
    broken = [n for n, p in part.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not broken, f"{name(part)}: the gradient of {broken} is not finite"
    part.zero_grad()
    fn = part(*context)
    detached = fn.has_rsample and not fn.rsample().requires_grad
    assert not detached, f"{name(part)}: has_rsample is True, but rsample returns a sample without gradient"


def check_saving(part: Conditional, context: list[Tensor]) -> None:
    """Check that the saved weights of one instance reproduce it in another one."""
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
    same = torch.equal(part(*context).log_prob(x), other(*context).log_prob(x))
    assert same, f"{name(part)}: the log-density changes when the weights are saved and loaded"


def check_buffers(part: Conditional) -> None:
    """Check that every tensor is a parameter or a buffer, which ``to(device)`` moves and a checkpoint saves."""
    plain = [n for module in part.modules() for n, value in vars(module).items() if isinstance(value, Tensor)]
    assert not plain, f"{name(part)}: the tensors {plain} are neither parameters nor buffers; use register_buffer"


def check_mass(fn: TorchDistributionMixin, part: Conditional, points: int = 2001) -> bool:
    """Check that a density has mass one, if it has a finite support or at most two real dimensions.

    Args:
        fn: a distribution with batch shape ()
        part: the part that made it, for the message
        points: grid points per dimension

    Returns:
        Whether the mass could be computed.

    Raises:
        AssertionError: the mass differs from one.

    Example:
        >>> import pyro_vae as pv
        >>> prior = pv.priors.StandardNormal(2)
        >>> check_mass(prior(), prior)
        True
    """
    grid = grid_of(fn, points)
    if grid is None:
        return False
    values, weight = grid
    with torch.no_grad():
        mass = float((fn.log_prob(values).double().exp() * weight).sum())
    assert math.isclose(mass, 1.0, abs_tol=2e-3), f"{name(part)}: the density has mass {mass:.5f}"
    return True


def name(part: Any) -> str:
    """Return the name of a part in a message."""
    return type(part).__name__
