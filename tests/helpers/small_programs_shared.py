"""Small programs: latents that all examples share, alone or in plates of their own."""

import pyro
import torch

from helpers.small_programs import small_program
from helpers.small_programs_draws import START, TABLE, X, normal, observe


def crossed(columns):
    def model(p, x):
        rows = pyro.plate("data", len(x), dim=-2)
        across = pyro.plate("columns", x.shape[1], dim=-1)
        with rows:
            u = normal("u", p.b, p.s)
        with across:
            v = normal("v", 0.0, 1.0)
        with rows, across:
            observe("x", p.w * u + v + p.c, x)

    def guide(p, x):
        with pyro.plate("data", len(x), dim=-2):
            normal("u", p.a * x.mean(1, keepdim=True) + p.d, p.t)
        with pyro.plate("columns", x.shape[1], dim=-1):
            normal("v", p.g * x.mean(0), p.h)

    return model, guide, {**START, "g": 0.4, "h": 0.8}, TABLE[:2] if columns == 2 else TABLE.T


small_program("crossed plates of the same size", nesting=2)(lambda: crossed(2))
small_program("crossed plates of different sizes", nesting=2)(lambda: crossed(3))


def weights(count, latent):
    features = torch.tensor([[1.0, 0.3], [-0.4, 0.8], [0.5, 1.1]], dtype=torch.float64)[:count]

    def model(p, x):
        with pyro.plate("weights", count):
            v = normal("v", p.b, p.s)
        with pyro.plate("data", len(x)):
            mean = v @ features if v.dim() == 1 else (v.unsqueeze(-2) @ features).squeeze(-2)
            if latent:
                mean = mean + normal("z", 0.0, 1.0)
            observe("x", p.w * mean + p.c, x)

    def guide(p, x):
        with pyro.plate("weights", count):
            normal("v", p.g, p.h)
        if latent:
            with pyro.plate("data", len(x)):
                normal("z", p.a * x + p.d, p.t)

    return model, guide, {**START, "g": 0.4, "h": 0.8}, X


small_program("a plate of weights as large as the data")(lambda: weights(2, latent=False))
small_program("a plate of weights of another size")(lambda: weights(3, latent=False))
small_program("a plate of weights and a latent per example")(lambda: weights(2, latent=True))


def shared_latent(local, entangled=False):
    def model(p, x):
        g = normal("g", p.b, p.s)
        with pyro.plate("data", len(x)):
            z = normal("z", 0.3 * g, 0.9) if local else 0.0
            observe("x", p.w * g + z + p.c, x)

    def guide(p, x):
        g = normal("g", p.g, p.h)
        if local:
            with pyro.plate("data", len(x)):
                normal("z", p.a * x + p.d + (p.v * g if entangled else 0.0), p.t)

    return model, guide, {**START, "g": 0.4, "h": 0.8, "v": 0.4}, X


small_program("a shared latent alone")(lambda: shared_latent(local=False))
small_program("a shared latent and one per example")(lambda: shared_latent(local=True))
small_program("a guide that depends on a shared latent", entangled=True)(lambda: shared_latent(True, entangled=True))
