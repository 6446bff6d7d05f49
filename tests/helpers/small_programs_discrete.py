"""Small programs: discrete latents in all positions, enumerated or not."""

from functools import partial

import pyro
import torch

from helpers.small_programs import small_program
from helpers.small_programs_draws import TABLE, X, binary, choice, normal, observe

START = {"b": 0.3, "w": 1.4, "c": -0.2, "a": 0.7, "d": 0.1, "t": 0.6, "u": 0.8, "v": -0.5}


def local(**marks):
    """A binary latent per example, whose site in the guide has the given marks."""

    def model(p, x):
        with pyro.plate("data", len(x)):
            y = binary("y", p.b)
            observe("x", p.w * y + p.c, x)

    def guide(p, x):
        with pyro.plate("data", len(x)):
            binary("y", p.a * x + p.d, **marks)

    return model, guide, START, X


def evidence(p, x, shared=False):
    """Return the exact log evidence; the sum over a shared switch is outside of the product over examples."""
    prior = torch.distributions.Bernoulli(logits=p.b)
    y = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    likelihood = torch.distributions.Normal(p.w * y + p.c, 0.7).log_prob(x)
    if shared:
        likelihood = likelihood.sum(1, keepdim=True)
    return (prior.log_prob(y) + likelihood).logsumexp(0).sum()


small_program("a binary latent, enumerated", evidence=evidence)(lambda: local(marked=True))
small_program("a binary latent, drawn", evidence=evidence)(lambda: local())


@small_program("a class and a number that depends on it")
def mixture():
    def model(p, x):
        with pyro.plate("data", len(x)):
            y = choice("y", torch.stack([p.b, p.c, 0 * p.b]))
            z = normal("z", p.means[y], 0.8)
            observe("x", p.w * z, x)

    def guide(p, x):
        with pyro.plate("data", len(x)):
            y = choice("y", torch.stack([p.a * x, p.d - x, p.u * x**2], -1), marked=True)
            normal("z", p.v * x + p.shifts[y], p.t)

    return model, guide, {**START, "means": [-1.0, 0.2, 1.3], "shifts": [0.1, -0.3, 0.4]}, X


def switch(marked, extra=False):
    def model(p, x):
        s = binary("s", p.b)
        with pyro.plate("data", len(x)):
            y = binary("y", p.u * s - 0.2) if extra else 0.0
            observe("x", p.w * s + p.v * y + p.c, x)

    def guide(p, x):
        binary("s", p.a, marked=marked)
        if extra:
            with pyro.plate("data", len(x)):
                binary("y", p.u * x + p.d, marked=marked)

    return model, guide, START, X


evidence_of_switch = partial(evidence, shared=True)
small_program("a switch that all data share, enumerated", evidence=evidence_of_switch)(lambda: switch(True))
small_program("a switch that all data share, drawn", evidence=evidence_of_switch)(lambda: switch(False))
small_program("an enumerated switch and an enumerated latent per example")(lambda: switch(True, extra=True))
small_program("a drawn switch and a drawn latent per example")(lambda: switch(False, extra=True))


def inside(marked):
    def model(p, x):
        with pyro.plate("data", x.shape[1]):
            with pyro.plate("inner", len(x), dim=-2):
                y = binary("y", p.b)
                observe("x", p.w * y + p.c, x)

    def guide(p, x):
        with pyro.plate("data", x.shape[1]):
            with pyro.plate("inner", len(x), dim=-2):
                binary("y", p.a * x + p.d, marked=marked)

    return model, guide, START, TABLE[:2]


small_program("a binary latent in a plate inside of the data, enumerated", nesting=2)(lambda: inside(True))
small_program("a binary latent in a plate inside of the data, drawn", nesting=2)(lambda: inside(False))


def chained(marked):
    def model(p, x):
        with pyro.plate("data", len(x)):
            y = binary("y", p.b)
            r = binary("r", p.u * y - 0.2)
            observe("x", p.w * r + p.v * y + p.c, x)

    def guide(p, x):
        with pyro.plate("data", len(x)):
            r = binary("r", p.a * x + p.d, marked=marked)
            binary("y", p.u * r + p.v * x, marked=marked)

    return model, guide, START, X


small_program("two binary latents, one given the other, enumerated")(lambda: chained(True))
small_program("two binary latents, one given the other, drawn")(lambda: chained(False))


def mixed(marked):
    def model(p, x):
        with pyro.plate("data", len(x)):
            y = binary("y", p.b)
            z = normal("z", p.v * y, 0.9)
            observe("x", p.w * z + p.c, x)

    def guide(p, x):
        with pyro.plate("data", len(x)):
            z = normal("z", p.a * x + p.d, p.t)
            binary("y", p.u * z, marked=marked)

    return model, guide, START, X


@small_program("a drawn binary latent and a shared number")
def drawn_and_shared():
    def model(p, x):
        g = normal("g", p.b, 1.0)
        with pyro.plate("data", len(x)):
            y = binary("y", p.c)
            observe("x", p.w * y + g, x)

    def guide(p, x):
        normal("g", p.d, p.t)
        with pyro.plate("data", len(x)):
            binary("y", p.a * x)

    return model, guide, START, X


small_program("a drawn binary latent that depends on a number")(lambda: mixed(False))
small_program("an enumerated binary latent that depends on a number")(lambda: mixed(True))


def impossible(marked):
    def model(p, x):
        with pyro.plate("data", len(x)):
            y = choice("y", torch.stack([p.b, p.c, p.b.new_tensor(-torch.inf)]))
            observe("x", p.w * y + p.c, x)

    def guide(p, x):
        never = torch.full_like(x, -torch.inf)
        with pyro.plate("data", len(x)):
            choice("y", torch.stack([p.a * x, p.d - x, never], -1), marked=marked)

    return model, guide, START, X


small_program("a class of probability zero, enumerated")(lambda: impossible(True))
