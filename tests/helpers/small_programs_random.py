"""Small programs whose samplers cannot be scripted, and means over random draws against quadrature."""

import math
from types import SimpleNamespace

import pyro
import torch
from pyro import distributions as dist
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.distributions.testing.rejection_gamma import RejectionGamma

from helpers.small_programs import small_program
from helpers.small_programs_draws import START, X, observe
from helpers.small_programs_estimators import build, formula_of
from pyro_vae.estimators.over_batch import OverBatch

#: Copies of each row of the data, whose draws are independent, and how many an estimator over a whole batch gets.
COPIES, FEW = 1000, 40
COUNTS = torch.tensor([1.0, 4.0], dtype=torch.float64)


def gamma_grid(p, q):
    """Return the log-densities of data, prior and guide on a grid of z, and the width of a step, ``(grid, 2)``."""
    u = torch.linspace(-18.0, 3.8, 361, dtype=torch.float64)[:, None]  # log z
    z, width = u.exp(), (u[1] - u[0]) * u.exp()
    log_q = torch.distributions.Gamma((q.a + q.d * COUNTS).exp(), q.r.exp()).log_prob(z)
    log_p = torch.distributions.Gamma(p.shape.exp(), 1.0).log_prob(z)
    return torch.distributions.Poisson(p.w.exp() * z).log_prob(COUNTS), log_p, log_q, width


@small_program("a guide that is reparameterized in part", random=gamma_grid)
def partly_reparameterized():
    def model(p, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(p.shape.exp(), 1.0))
            pyro.sample("x", dist.Poisson(p.w.exp() * z), obs=x)

    def guide(p, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", RejectionGamma((p.a + p.d * x).exp(), p.r.exp().expand(len(x))))

    return model, guide, {"shape": 0.4, "w": 0.2, "a": 0.02, "d": 0.02, "r": 0.3}, COUNTS.repeat(COPIES)


def normal_grid(p, q):
    """Likewise for normal densities."""
    z = torch.linspace(-9.0, 9.0, 361, dtype=torch.float64)[:, None]
    log_q = torch.distributions.Normal(q.a * X + q.d, q.t).log_prob(z)
    log_p = torch.distributions.Normal(p.b, p.s).log_prob(z)
    return torch.distributions.Normal(p.w * z + p.c, 0.7).log_prob(X), log_p, log_q, z[1] - z[0]


@small_program("a normal guide that is not reparameterized", random=normal_grid)
def not_reparameterized():
    def model(p, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(p.b, p.s))
            observe("x", p.w * z + p.c, x)

    def guide(p, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", NonreparameterizedNormal(p.a * x + p.d, p.t))

    return model, guide, START, X.repeat(COPIES)


def expectation(formula, particles, program):
    """Return the exact mean of a bound of one or two draws, and its gradient by name."""
    leaves = [
        {name: torch.tensor(value, dtype=torch.float64).requires_grad_() for name, value in program.parameters.items()}
        for _ in range(2)
    ]
    log_x, log_p, log_q, width = program.random(*(SimpleNamespace(**leaf) for leaf in leaves))
    mass, log_w = log_q.exp() * width, log_x + (1.0 if formula.local is None else formula.local) * (log_p - log_q)
    if particles == 1:
        value, weights = (mass * log_w).sum(), None
    else:
        pairs = torch.stack(torch.broadcast_tensors(log_w[:, None], log_w[None]))
        chance = mass[:, None] * mass[None]
        value = (chance * formula.value(pairs[None], torch.zeros_like(pairs[None]))).sum()
        weights = formula.weights
    parts = [value, value]
    if weights is not None:
        factors = weights(pairs.detach(), 1.0)
        parts = [(chance.detach() * factors[i] * pairs).sum() for i in (0, 2)]
    found = [
        torch.autograd.grad(part, list(leaf.values()), retain_graph=True, allow_unused=True)
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    sign = formula.guide_sign
    gradient = [(0.0 if a is None else a) + sign * (0.0 if b is None else b) for a, b in zip(*found, strict=True)]
    return torch.stack([value.detach(), *gradient])


def means(cls, program, num_particles, repeats, **options):
    """Return value and gradient of repeated runs, one row per run, per copy of the data."""
    rows, module = [], program.build()
    copies = COPIES if program.random else 1
    args = program.args
    if program.random and issubclass(cls, OverBatch):
        copies, args = FEW, tuple(arg[: FEW * len(COUNTS)] for arg in args)
    for seed in range(repeats):
        torch.manual_seed(seed)
        estimator = build(cls, num_particles, **options)
        loss = -estimator.differentiable_loss(module.model, module.guide, *args, **program.kwargs) / copies
        parameters = list(module.parameters())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        found = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        rows.append(torch.cat([loss.detach().reshape(1), *(g.flatten() for g in found)]))
    return torch.stack(rows)


def standard_errors(rows, exact):
    """Return how many standard errors the mean over the rows is away from the exact value, at most.

    The least error is that of rounding, or of the grid.
    """
    error = rows.std(0) / math.sqrt(len(rows)) + 1e-6 * exact.abs() + 1e-7
    return float(((rows.mean(0) - exact).abs() / error).max())


def distance(cls, program, **options):
    """Return the distance of an estimator from the exact mean, in standard errors."""
    formula = formula_of(cls)
    along_paths = formula.weights is not None and not formula.detached
    particles = 1 if along_paths else 2
    exact = expectation(formula, particles if formula.value is not None else 1, program)
    return standard_errors(means(cls, program, particles, 15, **options), exact)
