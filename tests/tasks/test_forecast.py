"""Forecasts with intervals, against the exact predictive distribution of a linear-Gaussian state space model."""

import math

import pytest
import torch
from helpers.state_space import Toy

import pyro_vae as pv

STEPS, AHEAD = 6, 3


def simulated(n=60):
    """Return a toy with holes and inputs, sequences of different lengths, and what follows them."""
    toy, g = Toy(missing=True, inputs=1), torch.Generator().manual_seed(2)
    lengths = torch.arange(n) % STEPS + 1
    inputs = torch.randn(n, STEPS + AHEAD, 1, generator=g, dtype=torch.float64)
    whole = toy.program.sample(n, length=STEPS + AHEAD, inputs=inputs)
    steps = lengths[:, None] + torch.arange(AHEAD)
    truth = torch.take_along_dim(whole, steps.unsqueeze(-1), 1)
    x = torch.where(torch.rand(n, STEPS, 3, generator=g) < 0.3, math.nan, whole[:, :STEPS])
    x[:, 0, 0] = whole[:, 0, 0]
    return toy, (x, lengths, inputs), truth


def exact(toy, x, lengths, inputs):
    """Return exact means and standard deviations of each entry ahead."""
    rows = [toy.ahead(row[:n], AHEAD, u) for row, n, u in zip(x, lengths, inputs, strict=True)]
    return torch.stack([m for m, _ in rows]), torch.stack([c.diagonal(dim1=-2, dim2=-1).sqrt() for _, c in rows])


def test_intervals_are_those_of_the_kalman_filter():
    """Means within 4.5 standard errors (540 of them), ends of the 90% intervals within 5 of theirs."""
    toy, data, truth = simulated()
    num_samples = 1000
    found = pv.tasks.forecast(toy.program, data, num_steps=AHEAD, num_samples=num_samples, progress=False)
    mean, std = exact(toy, *data)
    assert found.samples.shape == (num_samples, *truth.shape)
    assert ((found.mean - mean).abs() < 4.5 * std / math.sqrt(num_samples)).all()
    # standard error of the 5% and 95% quantiles of a normal: sqrt(0.05 * 0.95 / n) / density
    error = std * math.sqrt(0.05 * 0.95 / num_samples) / 0.10314
    for end, z in zip(found.interval(0.9), (-1.64485, 1.64485), strict=True):
        assert ((end - mean - z * std).abs() < 5 * error).all()
    # 540 entries, which depend on each other within a sequence: about 4 standard errors of 180 independent ones
    assert abs(found.coverage(truth, 0.9) - 0.9) < 0.09


def test_samples_do_not_depend_on_other_sequences():
    toy, (x, lengths, inputs), _ = simulated(12)
    options = {"num_steps": AHEAD, "num_samples": 50, "seed": 3, "progress": False}
    whole = pv.tasks.forecast(toy.program, (x, lengths, inputs), **options).samples
    part = pv.tasks.forecast(toy.program, (x[4:7], lengths[4:7], inputs[4:7]), **options).samples
    assert torch.allclose(whole[:, 4:7], part, atol=1e-9)


def test_bad_arguments_are_refused():
    toy, data, truth = simulated(6)
    found = pv.tasks.forecast(toy.program, data, num_steps=AHEAD, num_samples=10, progress=False)
    with pytest.raises(ValueError, match="^level: .*num_samples"):
        found.interval(0.9)
    with pytest.raises(ValueError, match="^truth"):
        found.coverage(truth[:, :1], 0.5)
    assert 0 <= found.coverage(torch.where(truth > 0, truth, math.nan), 0.5) <= 1
    with pytest.raises(ValueError, match="^inputs: .*after the end"):
        pv.tasks.forecast(toy.program, data, num_steps=AHEAD + 1, progress=False)
    with pytest.raises(ValueError, match="^num_steps"):
        pv.tasks.forecast(toy.program, data, num_steps=0, progress=False)
    program, one = pv.programs.SequenceVAE.example(), torch.zeros(5, 4)
    for call in (lambda: pv.tasks.forecast(program, one, num_steps=2), lambda: program.forecast(one, num_steps=2)):
        with pytest.raises(ValueError, match=r"^x: .*\(5, 4\).*x\[None\]"):
            call()
    with pytest.raises(TypeError, match="^program: .*SequenceVAE"):
        pv.tasks.forecast(pv.VAE.example(), torch.zeros(3, 4), num_steps=2, progress=False)
