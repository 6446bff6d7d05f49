"""Learning-rate schedules: equal to those of torch, but functions of the step number alone."""

import functools

import pytest
import torch
from helpers.programs import make_vae
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

import pyro_vae as pv
from pyro_vae.training import SVI, Cosine, MultiStep

X = torch.rand(12, 8, 8, generator=torch.Generator().manual_seed(0)).round()
SGD = functools.partial(torch.optim.SGD, lr=0.1)


def steps(svi, n, after=lambda: None):
    """Return the learning rate of each step, and the final weights."""
    torch.manual_seed(2)
    rates = []
    for _ in range(n):
        svi.update(X)
        rates.append(svi.optim.torch.param_groups[0]["lr"])
        after()
    return rates, [p.detach().clone() for p in svi.program.parameters()]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (MultiStep([3, 5, 5], 0.5), functools.partial(MultiStepLR, milestones=[3, 5, 5], gamma=0.5)),
        (Cosine(9, end=0.2), functools.partial(CosineAnnealingLR, T_max=9, eta_min=0.02)),
    ],
)
def test_equal_to_the_schedulers_of_torch(ours, theirs):
    torch.manual_seed(1)
    found, weights = steps(SVI(make_vae(), pv.estimators.ELBO(), SGD, lr_schedule=ours), 9)
    torch.manual_seed(1)
    other = SVI(make_vae(), pv.estimators.ELBO(), SGD)
    expected, wanted = steps(other, 9, after=theirs(other.optim.torch).step)
    assert found == pytest.approx(expected, rel=1e-12)
    for a, b in zip(weights, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


def test_steps_of_pyro_are_counted():
    """``step``, which Pyro implements, follows the same schedule."""
    svi = SVI(make_vae(), pv.estimators.ELBO(), SGD, lr_schedule=MultiStep([1, 3], 0.5))
    rates = []
    for _ in range(4):
        svi.step(X)
        rates.append(svi.optim.torch.param_groups[0]["lr"])
    assert rates == [0.1, 0.05, 0.05, 0.025]


def test_each_parameter_group_keeps_its_own_rate():
    def two(parameters):
        return torch.optim.SGD([{"params": parameters[:1], "lr": 0.4}, {"params": parameters[1:]}], lr=0.1)

    svi = SVI(make_vae(), pv.estimators.ELBO(), two, lr_schedule=MultiStep([1], 0.5))
    steps(svi, 2)
    assert [group["lr"] for group in svi.optim.torch.param_groups] == [0.2, 0.05]


def test_a_factor_of_zero_changes_nothing():
    """The first step of Adam is as long as the learning rate, so 0 with a factor of 0."""
    torch.manual_seed(1)
    vae = make_vae()
    before = [p.detach().clone() for p in vae.parameters()]
    pv.fit(vae, X, epochs=2, batch_size=6, lr_schedule=lambda step: 0.0, progress=False)
    assert all(torch.equal(p, q) for p, q in zip(vae.parameters(), before, strict=True))
    pv.fit(vae, X, epochs=2, batch_size=6, lr_schedule=pv.training.Linear(3), progress=False)
    assert not any(torch.equal(p, q) for p, q in zip(vae.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiStep([3, 1]), "milestones"),
        (lambda: MultiStep([0.5]), "milestones"),
        (lambda: MultiStep([True]), "milestones"),
        (lambda: MultiStep([1], 0.0), "factor"),
        (lambda: Cosine(0), "num_steps"),
        (lambda: Cosine(5, end=1.5), "end"),
        (lambda: pv.fit(make_vae(), X, lr_schedule=0.5), "lr_schedule: .*got 0.5"),
        (lambda: pv.fit(make_vae(), X, lr_schedule=lambda step: -1.0), "lr_schedule: .*at step 0"),
        (
            lambda: pv.fit(make_vae(), X, lr_schedule=lambda step: 1.0 if step < 3 else float("nan"), progress=False),
            "lr_schedule: .*at step 3",
        ),
    ],
)
def test_invalid_schedules_are_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
