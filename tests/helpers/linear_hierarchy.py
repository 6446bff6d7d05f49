"""A hierarchy of two linear-Gaussian layers with a known evidence."""

import math

import torch
from pyro import distributions as dist

import pyro_vae as pv

SIGMA = 0.7


class Chain(pv.Conditional):
    """y given x: normal with mean `weight x + bias` and a fixed scale."""

    def __init__(self, weight, bias, scale, context=0):
        super().__init__()
        self.weight, self.bias, self.context = torch.nn.Parameter(weight), torch.nn.Parameter(bias), context
        self.scale = torch.nn.Parameter(torch.as_tensor(scale))

    def forward(self, *given):
        batch = torch.broadcast_shapes(*(g.shape[:-1] for g in given))
        given = [g.expand(*batch, -1) for g in given]
        return dist.Normal(torch.cat(given, -1) @ self.weight.T + self.bias, self.scale.exp()).to_event(1)


def linear(inference):
    """Return z2 -> z1 -> x, all linear and normal, with arbitrary guides."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape, size=0.5):
        return size * torch.randn(*shape, generator=g)

    likelihood = Chain(normal(4, 3), normal(4), math.log(SIGMA))
    layer = Chain(normal(3, 2), normal(3), math.log(0.8))
    if inference is pv.programs.BottomUp:
        posteriors = [
            Chain(normal(3, 4, size=0.1), normal(3, size=0), 0.2),
            Chain(normal(2, 3), normal(2, size=0), 0.1),
        ]
    else:
        posteriors = [
            Chain(normal(3, 6, size=0.1), normal(3, size=0), 0.2),
            Chain(normal(2, 4, size=0.1), normal(2), 0.1),
        ]
    program = pv.programs.Hierarchical(
        prior=pv.priors.StandardNormal(2), layers=[layer], likelihood=likelihood, inference=inference(posteriors)
    )
    return program.double()


def evidence(program, x):
    """Return the exact log p(x) per row."""
    w1, w2 = program.likelihood.weight, program.layers[0].weight
    inner = w2 @ w2.T + program.layers[0].scale.exp() ** 2 * torch.eye(3)
    covariance = w1 @ inner @ w1.T + program.likelihood.scale.exp() ** 2 * torch.eye(4)
    mean = w1 @ program.layers[0].bias + program.likelihood.bias
    return dist.MultivariateNormal(mean, covariance).log_prob(x)
