"""Schedules of beta and of the learning rate."""

import functools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import pyro_vae as pv
from pyro_vae.testing import LinearGaussian
from pyro_vae.training import Cosine, Cyclical, Linear, MultiStep, Sigmoid
from pyro_vae.training.schedules import BETA, LEARNING_RATE

E = pv.estimators


def loss_of(estimator, program, x, seed=0):
    torch.manual_seed(seed)
    return estimator.differentiable_loss(program.model, program.guide, x)


def test_values_of_schedules():
    linear = Linear(10, 1.0, 0.5)
    assert [linear(t) for t in (0, 5, 10, 99)] == [1.0, 0.75, 0.5, 0.5]
    cyclical = Cyclical(40, num_cycles=4, ratio=0.5, start=0.1, end=0.9)
    one = [0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 0.9, 0.9, 0.9, 0.9]
    assert [cyclical(t) for t in range(40)] == pytest.approx(4 * one)
    assert [cyclical(t) for t in (40, 45, 1000)] == [0.9] * 3
    sigmoid = Sigmoid(100, 20, start=0.2, end=1.2)
    exact = 0.2 + torch.sigmoid((torch.arange(300.0).double() - 100) / 20)
    assert [sigmoid(t) for t in range(300)] == pytest.approx(exact.tolist(), rel=1e-12)
    assert Sigmoid(100, 1e-3)(10**9) == 1.0
    assert Sigmoid(10**6, 1e-3)(0) == 0.0


def test_cycles_of_fractional_length():
    """Each of 3 cycles of 100 / 3 steps starts again, and none is lost to rounding."""
    beta = Cyclical(100, num_cycles=3, ratio=1.0)
    values = [beta(t) for t in range(101)]
    falls = [t for t in range(1, 101) if values[t] < values[t - 1]]
    assert falls == [34, 67]
    assert values[100] == 1.0
    assert Cyclical(22, num_cycles=20, ratio=1.0)(11) == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cyclical(3), "num_steps"),
        (lambda: Cyclical(10, num_cycles=0), "num_cycles"),
        (lambda: Cyclical(10, ratio=0.0), "ratio"),
        (lambda: Cyclical(10, ratio=1.1), "ratio"),
        (lambda: Cyclical(10, start=-0.1), "start"),
        (lambda: Sigmoid(10, 0), "width"),
        (lambda: Sigmoid(10, 1, end=float("nan")), "end"),
        (lambda: Linear(10, end=-1.0), "end"),
        (lambda: Linear(1.5), "num_steps"),
    ],
)
def test_invalid_schedules_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}: "):
        make()


def test_numbers_of_numpy_make_the_same_schedule():
    """A resumed run compares schedules by their repr."""
    assert repr(Linear(np.int64(3), end=np.float32(0.5))) == repr(Linear(3, end=0.5))
    assert repr(Cyclical(torch.tensor(8), np.array(2))) == repr(Cyclical(8, 2))


@pytest.mark.parametrize("beta", [Linear(4), Cyclical(8, num_cycles=2), Sigmoid(2, 1)])
def test_the_loss_uses_the_beta_of_its_step(beta):
    toy = LinearGaussian(off=0.2)
    x = toy.draw(10)
    estimator = E.ELBO(beta=beta)
    for step in range(6):
        estimator.step = step
        found = loss_of(estimator, toy.program, x)
        assert torch.allclose(found, loss_of(E.ELBO(beta=beta(step)), toy.program, x))


@pytest.mark.parametrize("estimator", [E.ELBO, E.IWAE, functools.partial(E.ELBO, free_bits=0.5)])
def test_the_error_for_a_negative_beta_names_the_step(estimator):
    toy = LinearGaussian(off=0.2)
    bound = estimator(beta=lambda step: 0.5 - 0.25 * step)
    with pytest.raises(ValueError, match="beta: .*at step 3"):
        pv.fit(toy.program, toy.draw(40), estimator=bound, batch_size=10, epochs=1, progress=False)


#: Schedules that end at step 12, by class; each class of the shelves needs one.
ENDS = {
    Linear: Linear(12),
    Cyclical: Cyclical(12),
    Sigmoid: Sigmoid(9.8, 1.0),
    MultiStep: MultiStep([3, 12]),
    Cosine: Cosine(12),
    E.Capacity: E.Capacity(2.0, 12),
}


@pytest.mark.parametrize("cls", dict.fromkeys([*BETA.values(), *LEARNING_RATE.values(), E.Capacity]))
def test_a_schedule_longer_than_the_training_warns_with_both_numbers(cls):
    schedule = ENDS[cls]
    name = "capacity" if cls is E.Capacity else "beta" if cls in BETA.values() else "lr_schedule"
    toy = LinearGaussian(off=0.2)

    def fit(epochs, data):
        own = {"lr_schedule": schedule} if name == "lr_schedule" else {"estimator": E.ELBO(**{name: schedule})}
        return pv.fit(toy.program, data, epochs=epochs, batch_size=5, progress=False, **own)

    with pytest.warns(UserWarning, match=rf"^{name}: .* 9 steps \(3 epochs of 3\).*step 12"):
        fit(3, toy.draw(15))
    fit(4, toy.draw(15))
    fit(1, DataLoader(Streamed(toy.draw(15)), batch_size=5))


class Streamed(IterableDataset):
    """A stream does not know its length."""

    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter(self.x)
