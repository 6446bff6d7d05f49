"""Small programs: plates in all positions."""

import pyro
import torch
from pyro import distributions as dist

from helpers.small_programs import small_program
from helpers.small_programs_draws import START, TABLE, X, normal, observe


def elbo_of_one_plate(p, x):
    """Return the exact ELBO from the moments of the guide."""
    q = torch.distributions.Normal(p.a * x + p.d, p.t)
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(p.b, p.s))
    likelihood = torch.distributions.Normal(p.w * q.mean + p.c, 0.7).log_prob(x) - p.w**2 * q.variance / (2 * 0.7**2)
    return (likelihood - kl).sum()


def extended(in_model=None, in_guide=None, outside=None):
    """One plate of data with a further statement in it."""

    def model(p, x):
        if outside:
            outside(p, x)
        with pyro.plate("data", len(x)):
            z = normal("z", p.b, p.s)
            if in_model:
                in_model(p, z, x)
            observe("x", p.w * z + p.c, x)

    def guide(p, x):
        with pyro.plate("data", len(x)):
            z = normal("z", p.a * x + p.d, p.t)
            if in_guide:
                in_guide(p, z, x)

    return model, guide, {**START, "u": 0.7}, X


@small_program("one plate of data", exact=elbo_of_one_plate)
def one_plate():
    model, guide, _, x = extended()
    return model, guide, START, x


@small_program("plate of data at dim -2", nesting=2)
def plate_at_minus_two():
    def model(p, x):
        with pyro.plate("data", len(x), dim=-2):
            z = normal("z", p.b, p.s)
            with pyro.plate("columns", x.shape[1], dim=-1):
                observe("x", p.w * z + p.c, x)

    def guide(p, x):
        with pyro.plate("data", len(x), dim=-2):
            normal("z", p.a * x.mean(1, keepdim=True) + p.d, p.t)

    return model, guide, START, TABLE.T


@small_program("plate of data at dim -3 and nothing in between", nesting=3)
def plate_at_minus_three():
    def model(p, x):
        with pyro.plate("data", len(x), dim=-3):
            observe("x", p.w * normal("z", p.b, p.s) + p.c, x)

    def guide(p, x):
        with pyro.plate("data", len(x), dim=-3):
            normal("z", p.a * x + p.d, p.t)

    return model, guide, START, X[:, None, None]


@small_program("latents in a plate inside of the data", nesting=2)
def nested():
    def model(p, x):
        with pyro.plate("data", x.shape[1]):
            with pyro.plate("inner", len(x), dim=-2):
                z = normal("z", p.b, p.s)
                observe("x", p.w * z + p.c, x)

    def guide(p, x):
        with pyro.plate("data", x.shape[1]):
            with pyro.plate("inner", len(x), dim=-2):
                normal("z", p.a * x + p.d, p.t)

    return model, guide, START, TABLE


@small_program("a latent per example and one per entry of a plate inside", nesting=2)
def two_levels():
    def model(p, x):
        with pyro.plate("data", len(x), dim=-2):
            h = normal("h", p.b, p.s)
            with pyro.plate("inner", x.shape[1], dim=-1):
                z = normal("z", p.u * h, 0.9)
                observe("x", p.w * z + p.c, x)

    def guide(p, x):
        with pyro.plate("data", len(x), dim=-2):
            h = normal("h", p.a * x.sum(1, keepdim=True) + p.d, p.t)
            with pyro.plate("inner", x.shape[1], dim=-1):
                normal("z", p.a * x + p.v * h, p.t)

    return model, guide, {**START, "u": 0.7, "v": 0.4}, TABLE.T


@small_program("one plate entered several times")
def reused():
    def model(p, x):
        data = pyro.plate("data", len(x))
        with data:
            y = normal("y", p.b, p.s)
        with data:
            observe("x", p.w * y + p.c, x)

    def guide(p, x):
        with pyro.plate("data", len(x)):
            normal("y", p.a * x + p.d, p.t)

    return model, guide, START, X


@small_program("two separate plates of observations")
def separate():
    def model(p, x, y):
        with pyro.plate("data", len(x)):
            z = normal("z", p.b, p.s)
            observe("x", p.w * z + p.c, x)
        with pyro.plate("others", len(y)):
            v = normal("v", 0.0, 1.0)
            observe("y", p.w * v - p.c, y)

    def guide(p, x, y):
        with pyro.plate("data", len(x)):
            normal("z", p.a * x + p.d, p.t)
        with pyro.plate("others", len(y)):
            normal("v", p.a * y - p.d, p.t)

    return model, guide, START, X, TABLE[:, 0]


def subsampled(shared):
    def model(p, x):
        g = normal("g", p.b, 1.0) if shared else p.b
        with pyro.plate("data", 6, subsample=torch.arange(2)):
            z = normal("z", g, p.s)
            observe("x", p.w * z + p.c, x)

    def guide(p, x):
        if shared:
            normal("g", p.g, p.h)
        with pyro.plate("data", 6, subsample=torch.arange(2)):
            normal("z", p.a * x + p.d, p.t)

    return model, guide, {**START, "g": 0.4, "h": 0.8}, X


small_program("a subsampled plate")(lambda: subsampled(shared=False))
small_program("a subsampled plate and a shared latent")(lambda: subsampled(shared=True))


@small_program("rows of the guide that are not those of the model", valid=False)
def other_rows():
    def model(p, x):
        with pyro.plate("data", len(x), 1) as rows:
            z = normal("z", p.b, p.s)
            observe("x", p.w * z + p.c, x[rows])

    def guide(p, x):
        with pyro.plate("guide_data", len(x), 1) as rows:
            normal("z", p.a * x[rows] + p.d, p.t)

    return model, guide, START, X


@small_program("a plate of the guide alone, without a site", valid=False)
def empty_plate():
    def guide(p, x):
        for _ in pyro.plate("loop", 3):
            pass
        extended()[1](p, x)

    return extended()[0], guide, START, X


@small_program("six nested plates", data="plate_0", nesting=6)
def six_plates():
    sizes = (2, 1, 2, 1, 1, 2)

    def model(p, x):
        with pyro.plate_stack("plate", sizes):
            z = normal("z", p.b, p.s)
            observe("x", p.w * z + p.c, x)

    def guide(p, x):
        with pyro.plate_stack("plate", sizes):
            normal("z", p.a * x + p.d, p.t)

    x = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(sizes)
    return model, guide, START, x


@small_program("no plate", data=None, nesting=0)
def no_plate():
    def model(p, x):
        z = normal("z", p.b.expand(2), p.s, event_dim=1)
        pyro.sample("x", dist.Normal(p.w * z + p.c, 0.7).to_event(1), obs=x)

    def guide(p, x):
        normal("z", p.a * x + p.d, p.t, event_dim=1)

    return model, guide, START, X


@small_program("a sequential plate", data=None, nesting=0)
def sequential():
    def model(p, x):
        for i in pyro.plate("data", len(x)):
            z = normal(f"z{i}", p.b, p.s)
            observe(f"x{i}", p.w * z + p.c, x[i])

    def guide(p, x):
        for i in pyro.plate("data", len(x)):
            normal(f"z{i}", p.a * x[i] + p.d, p.t)

    return model, guide, START, X
