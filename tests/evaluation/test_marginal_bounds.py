"""Bounds on log p(x) by annealing, from below and from above, against exact values."""

import dataclasses
import functools
import math

import pytest
import torch
from helpers.classes import Toy, labels
from helpers.linear_hierarchy import evidence, linear
from helpers.missing import holes, marginal, with_missing
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.evaluation import marginal_bounds
from pyro_vae.evaluation.likelihood import annealing
from pyro_vae.testing import LinearGaussian

QUICK = {"num_chains": 32, "num_steps": 28, "num_leapfrog_steps": 3}


def agrees(found, exact, tolerance=0.02):
    """Whether the mean lower bound is the exact mean, within 4 Monte Carlo errors."""
    return abs(found.mean - float(exact.mean())) < 4 * found.monte_carlo_error + tolerance


def is_between(made, truth):
    """Whether the mean of the truth is between both bounds, within 4 Monte Carlo errors."""
    error = 4 * made.gap.monte_carlo_error
    return float(made.lower.mean()) - error < float(truth.mean()) < float(made.upper.mean()) + error


def test_bounds_of_a_linear_model():
    """Linear-Gaussian VAE, O1 and O12: a gap below 0.1 nats with the truth between both bounds."""
    toy = LinearGaussian()
    x = toy.draw(16)
    found = marginal_bounds(toy.program, x, num_chains=32, num_steps=56, num_simulated=64)
    made = found.simulated
    assert abs(made.gap.mean) + 2 * made.gap.monte_carlo_error < 0.1
    assert 0.5 < found.acceptance < 0.8
    assert agrees(found, toy.log_evidence(x).detach(), tolerance=0.0)
    assert is_between(made, toy.log_evidence(made.x).detach())


def test_the_guide_is_not_used():
    """A broken encoder does not change the bounds."""
    options = {"num_chains": 4, "num_steps": 8, "num_leapfrog_steps": 2, "num_simulated": 4}
    found = [
        marginal_bounds(toy.program, LinearGaussian().draw(4), **options)
        for toy in (LinearGaussian(), LinearGaussian(off=1.0))
    ]
    assert torch.equal(found[0].per_example, found[1].per_example)
    assert torch.equal(found[0].simulated.upper, found[1].simulated.upper)


def test_few_temperatures_open_the_gap_on_both_sides():
    toy = LinearGaussian(sigma=0.2)
    rough = marginal_bounds(toy.program, toy.draw(4), num_chains=8, num_steps=4, num_simulated=64).simulated
    truth = toy.log_evidence(rough.x).detach()
    assert float((truth - rough.lower).mean()) > 4 * rough.gap.monte_carlo_error
    assert float((rough.upper - truth).mean()) > 4 * rough.gap.monte_carlo_error


def decoder(likelihood, seed):
    """A random tanh network from two latents to 12 pixels, with weights twice as large as usual."""
    torch.manual_seed(seed)
    net = functools.partial(pv.nets.MLP, hidden=(20,), activation=torch.nn.Tanh)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=likelihood(2, (12,), net=net),
        posterior=pv.posteriors.MeanFieldNormal((12,), 2),
    ).double()
    with torch.no_grad():
        for p in vae.likelihood.net.parameters():
            p.mul_(2.0)
    return vae


def quadrature(vae, x, points):
    """Return log p(x) by the trapezium rule on a square (O14)."""
    line = torch.linspace(-8, 8, points, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    with torch.no_grad():
        prior = vae.prior().log_prob(z)
        fn = vae.decode(z.unsqueeze(1))
        log_p = torch.stack([fn.log_prob(row.expand(len(z), 1, -1)).squeeze(1) for row in x])
    return (log_p + prior).logsumexp(1) + 2 * math.log(float(line[1] - line[0]))


@pytest.mark.parametrize(
    "likelihood", [pv.likelihoods.Bernoulli, pytest.param(pv.likelihoods.Normal, marks=pytest.mark.slow)]
)
def test_bounds_of_a_nonlinear_decoder(likelihood):
    """O14: two sizes of the grid agree to 1e-3 nats, and their integral is between the bounds."""
    vae = decoder(likelihood, seed=3)
    x = vae.sample(4)
    num_steps, num_leapfrog_steps = (48, 3) if likelihood is pv.likelihoods.Bernoulli else (80, 5)
    options = {"num_chains": 64, "num_steps": num_steps, "num_leapfrog_steps": num_leapfrog_steps}
    found = marginal_bounds(vae, x, num_simulated=12, **options)
    made = found.simulated
    truth = quadrature(vae, made.x, 161)
    assert torch.allclose(truth, quadrature(vae, made.x, 121), atol=1e-3)
    assert abs(made.gap.mean) + 2 * made.gap.monte_carlo_error < 0.1
    assert is_between(made, truth)
    assert agrees(found, quadrature(vae, x, 121), tolerance=0.01)


def test_missing_entries():
    """The bounds are on the density of the observed entries, and simulated data have the same missing entries."""
    toy = LinearGaussian(5, 2)
    x = holes(toy.draw(8))
    found = marginal_bounds(with_missing(toy), x, num_simulated=4, **QUICK)
    assert agrees(found, torch.stack([marginal(toy, row) for row in x]).detach())
    made = found.simulated
    assert torch.equal(torch.isnan(made.x), torch.isnan(x[:4]))
    truth = torch.stack([marginal(toy, row) for row in made.x]).detach()
    assert float((made.upper - truth).mean().abs()) < 4 * made.gap.monte_carlo_error + 0.02


def test_two_layers():
    """Both bounds agree with the exact evidence of a linear hierarchy."""
    program = linear(pv.programs.TopDown)
    with torch.random.fork_rng():
        x = program.sample(8)
    found = marginal_bounds(program, x, num_simulated=8, **QUICK)
    assert agrees(found, evidence(program, x).detach())
    made = found.simulated
    truth = evidence(program, made.x).detach()
    assert float((made.upper - truth).mean().abs()) < 4 * made.gap.monte_carlo_error + 0.02


def test_unknown_classes_are_summed_over():
    """O16: log p(x) without labels, log p(x, y) with them."""
    toy = Toy()
    x = toy.program.sample(9)
    y = labels(9, known=4)
    joint = toy.log_joint(x)
    exact = torch.cat([(joint * y.nan_to_num()).sum(-1)[:4], joint.logsumexp(-1)[4:]])
    options = {**QUICK, "num_steps": 24, "num_simulated": 0}
    assert agrees(marginal_bounds(toy.program, (x, y), **options), exact)
    assert agrees(marginal_bounds(toy.program, x, **options), joint.logsumexp(-1))


def test_constrained_latents():
    """Proportions with a Dirichlet prior and one sampled category: log p(x) is its share of the concentration."""
    concentration = torch.tensor([0.5, 1.0, 3.5], dtype=torch.float64)

    class Pick(pv.Conditional):
        def forward(self, z, *context):
            return dist.OneHotCategorical(logits=z.clamp(min=1e-30).log())

    class Flat(pv.Conditional):
        def forward(self, *context):
            return dist.Dirichlet(concentration)

    class Wide(pv.Conditional):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x, *context):
            return dist.Dirichlet(self.scale * torch.ones_like(x))

    vae = pv.VAE(prior=Flat(), likelihood=Pick(), posterior=Wide())
    options = {"num_chains": 64, "num_steps": 40, "num_leapfrog_steps": 3, "num_simulated": 6}
    found = marginal_bounds(vae, torch.eye(3, dtype=torch.float64), **options)
    exact = (concentration / concentration.sum()).log()
    assert float(found.per_example_error.max()) < 0.2
    assert ((found.per_example - exact).abs() < 4 * found.per_example_error).all()
    gap = found.simulated.gap
    assert abs(gap.mean) < 4 * gap.monte_carlo_error + 0.02


def pieces(prior):
    return {
        "prior": prior,
        "likelihood": pv.likelihoods.Normal(2, (3,)),
        "posterior": pv.posteriors.MeanFieldNormal((3,), 2),
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pv.programs.BayesianDecoder(num_examples=10, **pieces(pv.priors.StandardNormal(2))), "'weights'"),
        (
            lambda: pv.VAE(
                prior=pv.priors.Bernoulli(2),
                likelihood=pv.likelihoods.Normal(2, (3,)),
                posterior=pv.posteriors.Bernoulli((3,), 2),
            ),
            "continuous",
        ),
        (
            lambda: pv.VAE(
                prior=pv.priors.HypersphericalUniform(2),
                likelihood=pv.likelihoods.Normal(2, (3,)),
                posterior=pv.posteriors.VonMisesFisher((3,), 2),
            ),
            "'z'.*real numbers",
        ),
        (
            lambda: pv.programs.MissingNotAtRandom(
                mask=pv.programs.SelfMasking((3,)), **pieces(pv.priors.StandardNormal(2))
            ),
            "x alone",
        ),
    ],
)
def test_unsupported_programs_are_refused(make, message):
    """Shared weights, only discrete latents, latents on a sphere, more observed than x."""
    with pytest.raises(ValueError, match=f"^program.*{message}"):
        marginal_bounds(make(), torch.zeros(4, 3), num_chains=2, num_steps=8)


def test_temperatures_rise_from_zero_to_one():
    """There is one more temperature than steps, and they are dense at both ends."""
    t = annealing.temperatures(20, torch.zeros(1, dtype=torch.float64))
    assert float(t[0]) == 0.0
    assert float(t[-1]) == 1.0
    assert (t.diff() > 0).all()
    assert float(t.diff()[0]) < float(t.diff()[10]) > float(t.diff()[-1])


def test_bounds_that_cross_are_explained():
    """Both hold in expectation: of few chains the upper one can be below the lower one."""
    toy = pv.testing.LinearGaussian()
    found = pv.evaluation.marginal_bounds(toy.program, toy.draw(2), num_steps=4, num_simulated=2, progress=False)
    s = found.simulated
    crossed = dataclasses.replace(s, gap=dataclasses.replace(s.gap, per_example=-s.gap.per_example.abs() - 1))
    assert "upper is below lower by chance" in str(dataclasses.replace(found, simulated=crossed))
    apart = dataclasses.replace(s, gap=dataclasses.replace(s.gap, per_example=s.gap.per_example.abs() + 1))
    assert "by chance" not in str(dataclasses.replace(found, simulated=apart))
