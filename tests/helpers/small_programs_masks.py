"""Small programs: masks and scales around some sites or all."""

import pyro
import torch
from pyro import poutine

from helpers.small_programs import small_program
from helpers.small_programs_draws import START, X, binary, normal, observe

KEEP = torch.tensor([True, False])
WEIGHT = torch.tensor([1.5, 0.5], dtype=torch.float64)
NUMBER = torch.tensor(2.5, dtype=torch.float64)


def handled(model_site=None, model_data=None, guide_site=None, both=None, of="z"):
    """A program with handlers around a site of the model, the observation, the guide's site, and the whole program."""

    def inside(context, f):
        if context is None:
            return f()
        with context():
            return f()

    def model(p, x):
        with pyro.plate("data", len(x)):
            z = inside(model_site, lambda: normal("z", p.b, p.s) if of == "z" else binary("z", p.b))
            inside(model_data, lambda: observe("x", p.w * z + p.c, x))

    def guide(p, x):
        with pyro.plate("data", len(x)):
            if of == "z":
                inside(guide_site, lambda: normal("z", p.a * x + p.d, p.t))
            else:
                inside(guide_site, lambda: binary("z", p.a * x + p.d, marked=True))

    if both is not None:
        inner_model, inner_guide = model, guide

        def model(p, x):
            return both(inner_model)(p, x)

        def guide(p, x):
            return both(inner_guide)(p, x)

    return model, guide, START, X


def mask(value=KEEP):
    return lambda: poutine.mask(mask=value)


def scale(value):
    return lambda: poutine.scale(scale=value)


def around(value):
    return lambda f: poutine.scale(f, scale=value)


small_program("a mask on latent and observation")(lambda: handled(mask(), mask(), mask()))
small_program("a mask on the observation alone")(lambda: handled(model_data=mask()))
small_program("masks that differ between model and guide")(lambda: handled(mask(~KEEP), mask(), mask()))
small_program("a mask that is False")(lambda: handled(model_data=mask(False)))
small_program("a mask on an enumerated latent")(lambda: handled(mask(), mask(), mask(), of="y"))
small_program("a mask on an enumerated latent alone")(lambda: handled(mask(), None, mask(), of="y"))
small_program("a mask on the observation of an enumerated latent")(lambda: handled(model_data=mask(), of="y"))
small_program("a number as scale around everything")(lambda: handled(both=around(2.5)))
small_program("a tensor as scale around everything")(lambda: handled(both=around(NUMBER)))
small_program("a weight per example around everything")(lambda: handled(scale(WEIGHT), scale(WEIGHT), scale(WEIGHT)))
small_program("a scale on the observation alone")(lambda: handled(model_data=scale(2.5)))
small_program("a scale on the latent alone")(lambda: handled(scale(0.5), None, scale(0.5)))
small_program("a weight per example on the observation alone")(lambda: handled(model_data=scale(WEIGHT)))
small_program("a scale around an enumerated latent and its observation")(lambda: handled(both=around(2.5), of="y"))
small_program("a scale on the observation of an enumerated latent")(lambda: handled(model_data=scale(2.5), of="y"))
small_program("scales that differ between model and guide")(lambda: handled(scale(2.0), None, scale(0.5)))
small_program("scale tensors that differ between model and guide")(
    lambda: handled(scale(NUMBER), None, scale(2 * NUMBER))
)
