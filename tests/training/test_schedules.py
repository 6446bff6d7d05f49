"""Schedules, capacity and free bits against closed forms (linear-Gaussian VAE)."""

import functools

import pytest
import torch

import pyro_vae as pv
from pyro_vae.testing import LinearGaussian
from pyro_vae.training import Cyclical, Linear, Sigmoid

E = pv.estimators


def loss_of(estimator, program, x, seed=0):
    torch.manual_seed(seed)
    return estimator.differentiable_loss(program.model, program.guide, x)


# schedules


def test_values_of_the_schedules():
    linear = Linear(10, 1.0, 0.5)
    assert [linear(t) for t in (0, 5, 10, 99)] == [1.0, 0.75, 0.5, 0.5]
    cyclical = Cyclical(40, cycles=4, ratio=0.5, start=0.1, end=0.9)
    one = [0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 0.9, 0.9, 0.9, 0.9]
    assert [cyclical(t) for t in range(40)] == pytest.approx(4 * one)
    assert [cyclical(t) for t in (40, 45, 1000)] == [0.9] * 3
    sigmoid = Sigmoid(100, 20, start=0.2, end=1.2)
    exact = 0.2 + torch.sigmoid((torch.arange(300.0).double() - 100) / 20)
    assert [sigmoid(t) for t in range(300)] == pytest.approx(exact.tolist(), rel=1e-12)
    assert Sigmoid(100, 1e-3)(10**9) == 1.0
    assert Sigmoid(10**6, 1e-3)(0) == 0.0


def test_cycles_that_do_not_divide_the_steps():
    """Each of 3 cycles of 100 / 3 steps falls back at its own start, and none is lost to rounding."""
    beta = Cyclical(100, cycles=3, ratio=1.0)
    values = [beta(t) for t in range(101)]
    falls = [t for t in range(1, 101) if values[t] < values[t - 1]]
    assert falls == [34, 67]
    assert values[100] == 1.0
    assert Cyclical(22, cycles=20, ratio=1.0)(11) == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cyclical(0), "steps: expected at least one for each of 4 cycles, got 0"),
        (lambda: Cyclical(10, cycles=0), "cycles: expected at least 1, got 0"),
        (lambda: Cyclical(10, ratio=0.0), "ratio: expected a share of a cycle, above 0 and at most 1, got 0.0"),
        (lambda: Cyclical(10, start=-0.1), "start: expected a number of at least 0, got -0.1"),
        (lambda: Sigmoid(10, 0), "width: expected a positive number of steps, got 0"),
        (lambda: Sigmoid(10, 1, end=float("nan")), "end: expected a number of at least 0, got nan"),
        (lambda: Linear(10, end=-1.0), "end: expected a number of at least 0, got -1.0"),
    ],
)
def test_bad_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("beta", [Linear(4), Cyclical(8, cycles=2), Sigmoid(2, 1)])
def test_loss_reads_the_schedule_at_the_step(beta):
    toy = LinearGaussian(off=0.2)
    x = toy.draw(10)
    estimator = E.ELBO(beta=beta)
    for step in range(6):
        estimator.step = step
        found = loss_of(estimator, toy.program, x)
        assert torch.allclose(found, loss_of(E.ELBO(beta=beta(step)), toy.program, x))


@pytest.mark.parametrize("estimator", [E.ELBO, E.IWAE, functools.partial(E.ELBO, free_bits=0.5)])
def test_schedule_that_turns_negative_is_refused_with_its_step(estimator):
    toy = LinearGaussian(off=0.2)
    bound = estimator(beta=lambda step: 0.5 - 0.25 * step)
    with pytest.raises(ValueError, match="beta: expected a number of at least 0, got -0.25 at step 3"):
        pv.fit(toy.program, toy.draw(40), estimator=bound, batch_size=10, epochs=1, progress=False)
