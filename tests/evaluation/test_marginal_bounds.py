"""Bounds on log p(x): importance weights with their diagnosis, and annealing from both sides."""

import functools
import math

import pytest
import torch
from helpers.classes import Toy, labels
from helpers.linear_hierarchy import evidence, linear
from helpers.missing import holes, marginal, with_missing
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.evaluation.likelihood import annealing
from pyro_vae.evaluation.likelihood.marginal_bounds import marginal_bounds
from pyro_vae.testing import LinearGaussian, parts


def test_sandwich_is_closer_than_a_tenth_of_a_nat_and_holds_the_truth():
    """Linear-Gaussian VAE, O1 and O12: the gap below 0.1 nat, the truth within 4 standard errors of both bounds."""
    toy = LinearGaussian()
    x = toy.draw(16)
    found = marginal_bounds(toy.program, x, chains=32, steps=80, simulated=32)
    exact, made = toy.log_evidence(x).detach(), found.simulated
    truth = toy.log_evidence(made.x).detach()
    print(f"given {float((found.per_example - exact).mean()):.4f}, below {float((truth - made.lower).mean()):.4f}, ")
    print(f"above {float((made.upper - truth).mean()):.4f}, gap {made.gap:.4f} +- {made.error:.4f}")
    print(f"accepted {found.acceptance:.2f}")
    assert abs(made.gap) + 2 * made.error < 0.1
    assert 0.5 < found.acceptance < 0.8
    assert abs(float((found.per_example - exact).mean())) < 4 * found.monte_carlo_error
    # an expectation of the lower bound lies below the truth, that of the upper bound above
    assert float((made.lower - truth).mean()) < 4 * made.error
    assert float((truth - made.upper).mean()) < 4 * made.error


def test_the_guide_is_not_used():
    """A ruined encoder changes nothing of the bounds, bit for bit."""
    found = [
        marginal_bounds(toy.program, LinearGaussian().draw(4), chains=4, steps=8, leapfrogs=2, simulated=4)
        for toy in (LinearGaussian(), LinearGaussian(off=1.0))
    ]
    assert torch.equal(found[0].per_datum, found[1].per_datum)
    assert torch.equal(found[0].simulated.upper, found[1].simulated.upper)


def test_few_temperatures_open_the_gap_on_both_sides():
    """With four temperatures the lower bound falls and the upper one rises, away from the truth."""
    toy = LinearGaussian(sigma=0.2)
    rough = marginal_bounds(toy.program, toy.draw(4), chains=8, steps=4, simulated=64).simulated
    truth = toy.log_evidence(rough.x).detach()
    assert float((truth - rough.lower).mean()) > 4 * rough.error
    assert float((rough.upper - truth).mean()) > 4 * rough.error


def decoder(likelihood, seed):
    """A random tanh network from two latents to 12 pixels, its weights twice as large as usual."""
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
def test_sandwich_holds_the_quadrature_of_a_nonlinear_decoder(likelihood):
    """O14: two sizes of the grid agree to 1e-3 nats, and their integral lies between the bounds."""
    vae = decoder(likelihood, seed=3)
    x = vae.sample(4)
    found = marginal_bounds(vae, x, chains=48, steps=80, simulated=12)
    made = found.simulated
    truth = quadrature(vae, made.x, 301)
    assert torch.allclose(truth, quadrature(vae, made.x, 201), atol=1e-3)
    print(f"{float((made.lower - truth).mean()):.4f} {float((made.upper - truth).mean()):.4f} +- {made.error:.4f}")
    assert abs(made.gap) + 2 * made.error < 0.1
    assert float((made.lower - truth).mean()) < 4 * made.error
    assert float((truth - made.upper).mean()) < 4 * made.error
    assert float((found.per_example - quadrature(vae, x, 201)).mean().abs()) < 4 * found.monte_carlo_error + 0.01


QUICK = {"chains": 32, "steps": 40, "leapfrogs": 3}


def agrees(found, exact, tolerance=0.02):
    return float((found.per_example - exact).mean().abs()) < 4 * found.monte_carlo_error + tolerance


def test_missing_entries():
    """Holes in x: both bounds find the exact density of the observed entries, and simulated data keep the holes."""
    toy = LinearGaussian(5, 2)
    x = holes(toy.draw(8))
    found = marginal_bounds(with_missing(toy), x, simulated=4, **QUICK)
    assert agrees(found, torch.stack([marginal(toy, row) for row in x]).detach())
    assert torch.equal(torch.isnan(found.simulated.x), torch.isnan(x[:4]))
    truth = torch.stack([marginal(toy, row) for row in found.simulated.x]).detach()
    assert float((found.simulated.upper - truth).mean().abs()) < 4 * found.simulated.error + 0.02


def test_two_layers():
    """A linear hierarchy: both bounds find the exact evidence."""
    program = linear(pv.programs.TopDown)
    with torch.random.fork_rng():
        x = program.sample(8)
    found = marginal_bounds(program, x, simulated=8, **QUICK)
    assert agrees(found, evidence(program, x).detach())
    truth = evidence(program, found.simulated.x).detach()
    assert float((found.simulated.upper - truth).mean().abs()) < 4 * found.simulated.error + 0.02


def test_a_class_is_summed_over_where_it_is_not_known():
    """O16: log p(x) without labels, log p(x, y) with them."""
    toy = Toy()
    x = toy.program.sample(9)
    y = labels(9, known=4)
    joint = toy.log_joint(x)
    exact = torch.cat([(joint * y.nan_to_num()).sum(-1)[:4], joint.logsumexp(-1)[4:]])
    assert agrees(marginal_bounds(toy.program, (x, y), simulated=0, **QUICK), exact)
    assert agrees(marginal_bounds(toy.program, x, simulated=0, **QUICK), joint.logsumexp(-1))


def test_constrained_latents_move_on_the_whole_line():
    """Proportions: a Dirichlet prior and one draw of a category, whose evidence is its share of the concentration."""

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
    found = marginal_bounds(vae, torch.eye(3, dtype=torch.float64), chains=64, steps=60, leapfrogs=3, simulated=6)
    exact = (concentration / concentration.sum()).log()
    assert float(found.per_example_error.max()) < 0.2
    assert ((found.per_example - exact).abs() < 4 * found.per_example_error).all()
    assert abs(found.simulated.gap) < 4 * found.simulated.error + 0.02


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pv.programs.BayesianDecoder(size=10, **pieces(pv.priors.StandardNormal(2))), "'weights' is shared"),
        (
            lambda: pv.VAE(
                prior=pv.priors.Bernoulli(2),
                likelihood=pv.likelihoods.Normal(2, (3,)),
                posterior=pv.posteriors.Bernoulli((3,), 2),
            ),
            "this program has none",
        ),
        (
            lambda: pv.VAE(
                prior=pv.priors.HypersphericalUniform(2),
                likelihood=pv.likelihoods.Normal(2, (3,)),
                posterior=pv.posteriors.VonMisesFisher((3,), 2),
            ),
            "no map from the real numbers",
        ),
        (
            lambda: pv.programs.MissingNotAtRandom(
                mask=pv.programs.SelfMasking((3,)), **pieces(pv.priors.StandardNormal(2))
            ),
            "observes x alone",
        ),
    ],
)
def test_what_annealing_cannot_do_is_refused_by_name(make, message):
    """Shared weights, discrete latents alone, latents on a sphere, more observed than x: an error that says so."""
    with pytest.raises(ValueError, match=message):
        marginal_bounds(make(), torch.zeros(4, 3), chains=2, steps=8)


def pieces(prior):
    return {
        "prior": prior,
        "likelihood": pv.likelihoods.Normal(2, (3,)),
        "posterior": pv.posteriors.MeanFieldNormal((3,), 2),
    }


def test_pareto_k_is_that_of_arviz():
    """Light, heavy and heavier tails, against another implementation, to 1e-6."""
    stats = pytest.importorskip("arviz_stats.base")
    for width in (0.5, 1.5, 3.0):
        log_w = width * torch.randn(
            2500, 5, dtype=torch.float64
        )  # a tail of 3 sqrt(2500) draws, whichever way it is rounded
        # it takes the negative of log-weights
        theirs = torch.as_tensor(stats.array_stats.psislw(-log_w.numpy(), axis=0)[1])
        assert torch.allclose(pv.evaluation.pareto_k(log_w), theirs, atol=1e-6)


def test_log_likelihood_tells_which_data_not_to_trust():
    """A guide far narrower than the posterior has heavy weights; the exact one has none; both are said in print."""
    toy = LinearGaussian()
    x = toy.draw(20)
    good = pv.evaluation.log_likelihood(toy.program, x, num_particles=500)
    with torch.no_grad():
        toy.encoder.bias[2:] -= 2.0  # narrower
    bad = pv.evaluation.log_likelihood(toy.program, x, num_particles=500)
    assert good.heavy == 0.0
    assert bad.heavy > 0.8
    assert (bad.pareto_k > 0.7).sum() == round(bad.heavy * 20)
    assert "Pareto k above 0.7 for" in str(bad)
    few = pv.evaluation.log_likelihood(toy.program, x, num_particles=10)
    assert few.pareto_k.isnan().all()
    assert math.isnan(few.heavy)
    assert len(few.rows()) == 20


def test_chunks_of_data_and_of_particles_agree(monkeypatch):
    """Any cut into data and particles gives the same distribution: for the exact posterior the same numbers."""
    from pyro_vae.evaluation import inputs

    toy = LinearGaussian()
    x = toy.draw(11)
    whole = pv.evaluation.log_likelihood(toy.program, x, num_particles=40)
    monkeypatch.setattr(inputs, "BUDGET", 512 * 7)  # seven particles of one datum at a time
    cut = pv.evaluation.log_likelihood(toy.program, x, num_particles=40, batch_size=2)
    assert torch.allclose(cut.per_example, whole.per_example, atol=1e-9)


@pytest.mark.parametrize("posterior", list(parts(pv.posteriors)), ids=lambda p: p.__name__)
def test_log_likelihood_of_every_posterior(posterior):
    """Each posterior with the first prior that it fits: finite values, an effective sample size of at least one."""
    torch.manual_seed(0)
    x = torch.rand(6, 2, 2)
    q = posterior.example()
    for prior in parts(pv.priors):
        vae = pv.VAE(prior=prior.example(), likelihood=pv.likelihoods.Normal.example(), posterior=q)
        try:
            vae.check(x)
        except ValueError:
            continue
        found = pv.evaluation.log_likelihood(vae, x, num_particles=30)
        assert found.per_example.isfinite().all()
        assert (found.ess >= 1 - 1e-6).all()
        return
    # its draws are relaxed: no prior of the shelf lives there
    assert posterior.__name__ in {"RelaxedBernoulli"}


@pytest.mark.parametrize("prior", list(parts(pv.priors)), ids=lambda p: p.__name__)
def test_log_likelihood_of_every_prior(prior):
    """Each prior with the first posterior that it fits."""
    torch.manual_seed(0)
    x = torch.rand(6, 2, 2)
    p = prior.example()
    for posterior in parts(pv.posteriors):
        vae = pv.VAE(prior=p, likelihood=pv.likelihoods.Normal.example(), posterior=posterior.example())
        if p.context:  # a class: in the test of the class above
            return
        try:
            vae.check(x)
        except ValueError:
            continue
        assert pv.evaluation.log_likelihood(vae, x, num_particles=30).per_example.isfinite().all()
        return
    raise AssertionError(f"{prior.__name__} fits no posterior")


def test_temperatures_rise_from_zero_to_one():
    """The ladder has one more rung than steps and is dense at both ends."""
    t = annealing.temperatures(20, torch.zeros(1, dtype=torch.float64))
    assert float(t[0]) == 0.0
    assert float(t[-1]) == 1.0
    assert (t.diff() > 0).all()
    assert float(t.diff()[0]) < float(t.diff()[10]) > float(t.diff()[-1])
