"""Latents that examples share, second and nested plates: every value and gradient against a sum over all values."""

import functools
import math

import pyro
import pytest
import torch
from helpers.brute_force import draws_of, exact_elbo, gradient_of
from helpers.checks import within
from pyro import distributions as dist
from pyro import poutine
from torch import nn

import pyro_vae as pv

E = pv.estimators
X = torch.tensor([0.7, -1.2, 1.9]).double()
GRID = torch.tensor([[0.7, -1.2], [0.1, 2.0]]).double()


def parameters(*names):
    """Return named scalars with random values."""
    g = torch.Generator().manual_seed(1)
    return nn.ParameterDict({n: nn.Parameter(torch.randn((), dtype=torch.float64, generator=g)) for n in names})


def bit(name, logits):
    return pyro.sample(name, dist.Bernoulli(logits=logits))


def switch(p, size=3):
    """A switch that all examples share, and a bit of each example that depends on it."""

    def plate(x):
        return pyro.plate("data", size, subsample=torch.arange(len(x)), dim=-1)

    def model(x):
        s = bit("s", p["s"])
        with plate(x):
            z = bit("z", p["z"] * s)
            pyro.sample("x", dist.Normal(p["x"] * z + s, 0.8), obs=x)

    def guide(x):
        s = bit("s", p["qs"])
        with plate(x):
            bit("z", p["qz"] * x + p["qzs"] * s)

    return model, guide, X


def summary(p):
    """A bit and an observation of the whole batch, both of which depend on the bits of the examples."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = bit("z", p["z"])
            pyro.sample("x", dist.Normal(p["x"] * z, 0.8), obs=x)
        s = bit("s", p["s"] + z.sum(-1, keepdim=True))
        pyro.sample("y", dist.Normal(p["qzs"] * z.sum(-1, keepdim=True) + s, 1.0), obs=torch.tensor(0.3).double())

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            z = bit("z", p["qz"] * x)
        bit("s", p["qs"] + z.mean(-1, keepdim=True))

    return model, guide, X


def nested(p):
    """A bit for each row and one for each entry of a table."""

    def model(x):
        with pyro.plate("rows", 2, dim=-1):
            s = bit("s", p["s"])
            with pyro.plate("columns", 2, dim=-2):
                z = bit("z", p["z"] * s)
                pyro.sample("x", dist.Normal(p["x"] * z, 0.8), obs=x)

    def guide(x):
        with pyro.plate("rows", 2, dim=-1):
            s = bit("s", p["qs"] * x.sum(0))
            with pyro.plate("columns", 2, dim=-2):
                bit("z", p["qz"] * x + p["qzs"] * s)

    return model, guide, GRID


def crossed(p):
    """A bit for each row and one for each column, without a latent of each entry."""

    def model(x):
        rows, columns = pyro.plate("rows", 2, dim=-1), pyro.plate("columns", 2, dim=-2)
        with rows:
            s = bit("s", p["s"])
        with columns:
            z = bit("z", p["z"])
        with rows, columns:
            pyro.sample("x", dist.Normal(p["x"] * z + s, 0.8), obs=x)

    def guide(x):
        with pyro.plate("rows", 2, dim=-1):
            bit("s", p["qs"] * x.sum(0))
        with pyro.plate("columns", 2, dim=-2):
            bit("z", p["qz"] * x.sum(1, keepdim=True))

    return model, guide, GRID


def apart(p):
    """Two plates with nothing in common but a parameter, one of them without data."""

    def model(x):
        with pyro.plate("rows", 3, dim=-1):
            s = bit("s", p["s"])
            pyro.sample("x", dist.Normal(s, 0.8), obs=x)
        with pyro.plate("weights", 2, dim=-1):
            bit("z", p["z"])

    def guide(x):
        with pyro.plate("rows", 3, dim=-1):
            bit("s", p["qs"] * x)
        with pyro.plate("weights", 2, dim=-1):
            bit("z", p["qz"])

    return model, guide, X


def no_plate(p):
    """Two bits and one observation."""

    def model(x):
        s = bit("s", p["s"])
        z = bit("z", p["z"] * s)
        pyro.sample("x", dist.Normal(p["x"] * z + s, 0.8), obs=x[0])

    def guide(x):
        z = bit("z", p["qz"])
        bit("s", p["qs"] + p["qzs"] * z)

    return model, guide, X


def one_by_one(p):
    """A plate that is a loop over examples."""

    def model(x):
        s = bit("s", p["s"])
        for n in pyro.plate("data", len(x)):
            z = bit(f"z{n}", p["z"] * s)
            pyro.sample(f"x{n}", dist.Normal(p["x"] * z, 0.8), obs=x[n])

    def guide(x):
        s = bit("s", p["qs"])
        for n in pyro.plate("data", len(x)):
            bit(f"z{n}", p["qz"] * x[n] + p["qzs"] * s)

    return model, guide, X


def masked(p):
    """Bits without a density of their own in two examples, whose observations depend on them nevertheless."""
    keep = torch.tensor([True, False, False])

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            with poutine.mask(mask=keep):
                z = bit("z", p["z"])
            pyro.sample("x", dist.Normal(p["x"] * z, 0.8), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1), poutine.mask(mask=keep):
            bit("z", p["qz"] * x)

    return model, guide, X


def masked_switch(p):
    """The same with a switch that all examples share."""
    model, guide, x = masked(p)

    def with_switch(function, logit):
        def run(x):
            bit("s", p[logit])
            function(x)

        return run

    return with_switch(model, "s"), with_switch(guide, "qs"), x


def scaled(p):
    """Sites with scales of their own: a number, and one for each example."""
    weights = torch.tensor([0.5, 2.0, 3.0]).double()

    def model(x):
        with poutine.scale(scale=0.3):
            s = bit("s", p["s"])
        with pyro.plate("data", len(x), dim=-1), poutine.scale(scale=weights):
            z = bit("z", p["z"] * s)
            pyro.sample("x", dist.Normal(p["x"] * z + s, 0.8), obs=x)

    def guide(x):
        with poutine.scale(scale=0.3):
            s = bit("s", p["qs"])
        with pyro.plate("data", len(x), dim=-1), poutine.scale(scale=weights):
            bit("z", p["qz"] * x + p["qzs"] * s)

    return model, guide, X


def scaled_latent(p):
    """Latents of the examples on another scale than the data."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            with poutine.scale(scale=0.3):
                z = bit("z", p["z"])
            pyro.sample("x", dist.Normal(p["x"] * z, 0.8), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1), poutine.scale(scale=0.3):
            bit("z", p["qz"] * x)

    return model, guide, X


subsampled = functools.partial(switch, size=12)
PROGRAMS = {
    "switch": switch,
    "subsampled": subsampled,
    "summary": summary,
    "nested": nested,
    "crossed": crossed,
    "apart": apart,
    "no_plate": no_plate,
    "one_by_one": one_by_one,
    "masked": masked,
    "masked_switch": masked_switch,
    "scaled": scaled,
    "scaled_latent": scaled_latent,
}
NAMES = ("s", "z", "x", "qs", "qz", "qzs")


def unbiased(estimator, model, guide, x, p, beta=1.0, num_draws=40):
    exact = exact_elbo(model, guide, x, beta=beta)
    values, gradients = draws_of(estimator, model, guide, (x,), list(p.values()), num_draws)
    found = within(values, exact.detach(), 4.5), within(gradients, gradient_of(exact, list(p.values())), 4.5)
    return all(found)


@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize("name", PROGRAMS)
def test_reinforce_loo_has_the_gradient_of_the_sum_over_all_values(name, beta):
    p = parameters(*NAMES)
    assert unbiased(E.ReinforceLOO(num_particles=500, beta=beta), *PROGRAMS[name](p), p, beta)


@pytest.mark.parametrize("name", PROGRAMS)
def test_one_particle_at_a_time(name):
    p = parameters(*NAMES)
    model, guide, x = PROGRAMS[name](p)
    assert unbiased(E.ReinforceLOO(num_particles=3, particles_per_pass=1), model, guide, x, p, num_draws=60)
