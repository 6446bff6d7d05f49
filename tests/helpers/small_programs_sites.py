"""Small programs: layers, factors, unusual sites and arguments, and programs that are invalid."""

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine

from helpers.small_programs import small_program
from helpers.small_programs_draws import START, X, normal, observe
from helpers.small_programs_plates import extended, one_plate

KEEP = torch.tensor([True, False])


def two_layers(top_down):
    """Return z2 -> z1 -> x, linear and normal, with a guide in either direction."""

    def model(p, x):
        with pyro.plate("data", len(x)):
            z2 = normal("z2", p.b, 1.0)
            z1 = normal("z1", p.w * z2 + p.c, p.s)
            observe("x", p.u * z1, x)

    def guide(p, x):
        with pyro.plate("data", len(x)):
            if top_down:
                z2 = normal("z2", p.a * x + p.d, p.t)
                normal("z1", p.v * z2 + p.a * x, p.t)
            else:
                z1 = normal("z1", p.a * x + p.d, p.t)
                normal("z2", p.v * z1, p.t)

    return model, guide, {**START, "u": 0.7, "v": 0.4}, X


small_program("two linear layers, guide from the top")(lambda: two_layers(True))
small_program("two linear layers, guide from the bottom")(lambda: two_layers(False))


small_program("a factor in the plate of the data")(
    lambda: extended(in_model=lambda p, z, x: pyro.factor("extra", p.u * z - z**2))
)
small_program("a factor outside of any plate")(lambda: extended(outside=lambda p, x: pyro.factor("extra", p.u**2)))
small_program("a factor in the guide")(
    lambda: extended(in_guide=lambda p, z, x: pyro.factor("extra", p.u * z, has_rsample=True))
)
small_program("a deterministic site")(lambda: extended(in_model=lambda p, z, x: pyro.deterministic("double", 2.0 * z)))
small_program("a site that is not traced")(
    lambda: extended(
        in_model=lambda p, z, x: normal("hidden", z, 1.0, infer={"_do_not_trace": True, "is_auxiliary": True})
    )
)


@small_program("an auxiliary site per example")
def auxiliary():
    def guide(p, x):
        with pyro.plate("data", len(x)):
            r = normal("r", p.a * x + p.d, p.t, infer={"is_auxiliary": True})
            density = (-p.u).expand(r.shape)
            pyro.sample("z", dist.Delta(p.u.exp() * r + 0.1, log_density=density))

    return one_plate()[0], guide, {**START, "u": 0.3}, X


@small_program("an auxiliary site that all data share")
def auxiliary_shared():
    def model(p, x):
        g = normal("g", p.b, p.s)
        with pyro.plate("data", len(x)):
            observe("x", p.w * g + p.c, x)

    def guide(p, x):
        r = normal("r", p.d, p.t, infer={"is_auxiliary": True})
        pyro.sample("g", dist.Delta(p.u.exp() * r + 0.1, log_density=-p.u))

    return model, guide, {**START, "u": 0.3}, X


@small_program("a point estimate as guide")
def delta():
    def guide(p, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(p.a * x + p.d))

    return one_plate()[0], guide, START, X


@small_program("data with an obs_mask")
def partly_observed():
    def model(p, x):
        with pyro.plate("data", len(x)):
            z = normal("z", p.b, p.s)
            observe("x", p.w * z + p.c, x, obs_mask=KEEP)

    def guide(p, x):
        with pyro.plate("data", len(x)):
            z = normal("z", p.a * x + p.d, p.t)
            with poutine.mask(mask=~KEEP):
                normal("x_unobserved", p.u * z, 0.9)

    return model, guide, {**START, "u": 0.5}, X


@small_program("data as keyword argument x", kwargs={"x": X})
def keyword():
    return one_plate()[:3]


@small_program("no latent")
def no_latent():
    def model(p, x):
        with pyro.plate("data", len(x)):
            observe("x", p.c, x)

    return model, lambda p, x: None, START, X


@small_program("an empty model", data=None, nesting=0)
def empty():
    return lambda p: None, lambda p: None, START


@small_program("no observation", data=None)
def no_observation():
    def model(p, x):
        with pyro.plate("data", len(x)):
            normal("z", p.b, p.s)

    return model, one_plate()[1], START, X


def invalid(model_latents, guide_latents, plate_in_guide=True, twice=False):
    def model(p, x):
        with pyro.plate("data", len(x)):
            z = normal("z", p.b.expand(model_latents), p.s, event_dim=1)
            observe("x", p.w * z.sum(-1) + p.c, x)
            if twice:
                observe("x", p.w * z.sum(-1) + p.c, x)

    def guide(p, x):
        if plate_in_guide:
            with pyro.plate("data", len(x)):
                normal("z", (p.a * x + p.d).unsqueeze(-1).expand(len(x), guide_latents), p.t, event_dim=1)
        else:
            normal("z", (p.a * x + p.d).mean().expand(guide_latents), p.t, event_dim=1)

    return model, guide, START, X


small_program("three latents in the model, one in the guide", valid=False)(lambda: invalid(3, 1))
small_program("one latent in the model, three in the guide", valid=False)(lambda: invalid(1, 3))
small_program("a guide without the plate", valid=False)(lambda: invalid(1, 1, plate_in_guide=False))
small_program("two sites of one name", valid=False)(lambda: invalid(1, 1, twice=True))
small_program("a latent of the model that the guide lacks", valid=False)(
    lambda: extended(in_model=lambda p, z, x: normal("r", p.u, 1.0))
)
small_program("a latent of the guide that the model lacks", valid=False)(
    lambda: extended(in_guide=lambda p, z, x: normal("r", p.u, 1.0))
)
