"""Latents that examples share, second and nested plates: every value and gradient against a sum over all values."""

import functools
import math

import pyro
import pytest
import torch
from helpers import shelf
from helpers.brute_force import draws_of, exact_elbo, gradient_of
from helpers.checks import slow_but, within
from pyro import distributions as dist
from pyro import poutine
from torch import nn
from torch.distributions import Normal, kl_divergence

import pyro_vae as pv
from pyro_vae.estimators import downstream

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


@pytest.mark.parametrize(("name", "beta"), [(name, 0.4 if i % 3 else 1.0) for i, name in enumerate(PROGRAMS)])
def test_reinforce_loo_has_the_gradient_of_the_sum_over_all_values(name, beta):
    p = parameters(*NAMES)
    assert unbiased(E.ReinforceLOO(num_particles=500, beta=beta), *PROGRAMS[name](p), p, beta, num_draws=30)


@pytest.mark.parametrize("name", slow_but({"switch"}, ["switch", "summary", "nested", "masked_switch"]))
def test_one_particle_at_a_time(name):
    p = parameters(*NAMES)
    assert unbiased(E.ReinforceLOO(num_particles=3, particles_per_pass=1), *PROGRAMS[name](p), p, num_draws=60)


class Fault(E.ReinforceLOO):
    """ReinforceLOO with one thing changed in the cost of each draw."""

    def __init__(self, change, **options):
        super().__init__(**options)
        self.change = change

    def sites_loss(self, terms, beta):
        original = downstream.Cost.onto
        downstream.Cost.onto = self.change(original)
        try:
            return super().sites_loss(terms, beta)
        finally:
            downstream.Cost.onto = original


@pytest.mark.parametrize(
    ("name", "change"),
    [
        # the terms of other plates are left out
        ("switch", lambda onto: lambda cost, plates: onto(cost, plates) * (len(cost.plates) == len(plates))),
        # the cost of each entry goes to the score of all entries
        ("nested", lambda onto: lambda cost, plates: onto(cost, cost.plates)),
        # terms of the model alone
        ("switch", lambda onto: lambda cost, plates: onto(cost, plates) * cost.run),
    ],
)
def test_a_wrong_cost_is_seen(name, change):
    p = parameters(*NAMES)
    assert not unbiased(Fault(change, num_particles=500), *PROGRAMS[name](p), p, num_draws=30)


def test_a_score_without_the_masked_draws_is_seen():
    class Masked(E.ReinforceLOO):
        def bound(self, terms, beta):
            for site in terms.latent:
                site.score_mask = site.guide["mask"]
            return super().bound(terms, beta)

    p = parameters(*NAMES)
    assert not unbiased(Masked(num_particles=500), *masked(p), p, num_draws=30)


def variance(estimator, model, guide, x, p, num_draws=300):
    return draws_of(estimator, model, guide, (x,), list(p.values()), num_draws)[1].var(0).sum()


@pytest.mark.parametrize("name", slow_but({"switch"}, ["switch", "nested", "crossed"]))
def test_variance_is_below_that_of_trace_elbo(name):
    """With as many particles, in plates of four rows: the baseline is worth more than it costs."""
    p = parameters(*NAMES)
    model, guide, x = PROGRAMS[name](p)
    stock = pyro.infer.Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=2)
    found = [variance(e, model, guide, x, p) for e in (E.ReinforceLOO(num_particles=4), stock)]
    print(f"variance of the gradient: {found[0]:.3g}, Trace_ELBO {found[1]:.3g}")
    assert found[0] < 0.8 * found[1]


# estimators that weight the draws of each example


@pytest.mark.parametrize("cls", [cls for cls in shelf.classes() if cls not in (E.ReinforceLOO, E.Enumeration)])
def test_others_refuse_a_discrete_latent_that_examples_share(cls):
    """The error names the site, and an estimator that takes the program."""
    model, guide, x = switch(parameters(*NAMES))
    with pytest.raises(ValueError, match="guide: .*'s'.*ReinforceLOO"):
        shelf.build(cls).loss(model, guide, x)
    assert math.isfinite(E.ReinforceLOO().loss(model, guide, x))


def test_masked_draws_count_where_something_depends_on_them():
    """In every estimator with score functions."""
    p = parameters(*NAMES)
    model, guide, x = masked(p)
    nvil = E.NVIL(num_particles=500)
    nvil.module.double().mean.fill_(-1.0)
    nvil.module.update_moments = lambda residual, weights: None
    for estimator in (nvil, E.DisARM(num_particles=500)):
        assert unbiased(estimator, model, guide, x, p, num_draws=30)
    # the importance-weighted bound of two draws
    z = torch.tensor([0.0, 1.0]).double()
    log_q = dist.Bernoulli(logits=(p["qz"] * x)[:, None]).log_prob(z)
    keep = torch.tensor([True, False, False])[:, None]
    gap = torch.where(keep, dist.Bernoulli(logits=p["z"]).log_prob(z) - log_q, 0.0)
    log_w = dist.Normal(p["x"] * z, 0.8).log_prob(x[:, None]) + gap
    bounds = torch.logaddexp(log_w[:, :, None], log_w[:, None]) - math.log(2)
    exact = ((log_q[:, :, None] + log_q[:, None]).exp() * bounds).sum()
    values, gradients = draws_of(E.VIMCO(num_particles=2), model, guide, (x,), list(p.values()), 1000)
    assert within(values, exact.detach(), 4.5)
    assert within(gradients, gradient_of(exact, list(p.values())), 4.5)


class Total:
    """A number for each example, all of them normal, and an observation of their sum."""

    def __init__(self, discrete=False, first=False):
        self.discrete, self.first = discrete, first
        self.p = nn.Parameter(torch.tensor(0.4).double())
        self.y = torch.tensor(1.5).double()

    def draw(self, loc):
        return pyro.sample("z", dist.Bernoulli(logits=loc) if self.discrete else dist.Normal(loc, 0.8))

    def model(self, x):
        if self.first:
            pyro.sample("y", dist.Normal(self.p, 1.0), obs=self.y)
        with pyro.plate("data", len(x), dim=-1):
            z = self.draw(torch.zeros(()).double())
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        if not self.first:
            pyro.sample("y", dist.Normal(z.sum(-1, keepdim=z.dim() > 1), 1.0), obs=self.y)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            self.draw(self.p * x)

    def elbo(self, x):
        loc, var = self.p * x, torch.tensor(0.8**2).double()
        q, p = Normal(loc, 0.8), Normal(0.0, 0.8)
        bound = (Normal(loc, 1.0).log_prob(x) - var / 2 - kl_divergence(q, p)).sum()
        return bound + Normal(loc.sum(), 1.0).log_prob(self.y) - len(x) * var / 2


@pytest.mark.parametrize("options", [{}, {"particles_per_pass": 3}, {"particles_per_pass": 1}])
def test_an_observation_of_the_whole_batch_is_averaged_over_particles(options):
    toy = Total()
    exact = toy.elbo(X)
    values, gradients = draws_of(E.ELBO(num_particles=8, **options), toy.model, toy.guide, (X,), [toy.p], 60)
    assert within(values, exact.detach())
    assert within(gradients, gradient_of(exact, [toy.p]))


def test_importance_weights_that_leave_a_dependence_out_are_refused():
    """The weight of one example cannot hold an observation that depends on all examples."""
    toy = Total()
    for cls in (E.IWAE, E.DReG, E.Renyi, E.ReweightedWakeSleep):
        for options in ({}, {"particles_per_pass": 1}):
            with pytest.raises(ValueError, match="'y'"):
                cls(num_particles=4, **options).loss(toy.model, toy.guide, X)
    # with a single particle it is the ELBO
    values, _ = draws_of(E.IWAE(num_particles=1), toy.model, toy.guide, (X,), [toy.p], 400)
    assert within(values, toy.elbo(X).detach())
    bits = Total(discrete=True)
    for estimator in (E.NVIL(), E.VIMCO(), E.DisARM()):
        with pytest.raises(ValueError, match="'y'"):
            estimator.loss(bits.model, bits.guide, X)
    # a gradient through the draws needs no signal
    values, gradients = draws_of(E.NVIL(num_particles=20), toy.model, toy.guide, (X,), [toy.p], 40)
    assert within(values, toy.elbo(X).detach())
    assert within(gradients, gradient_of(toy.elbo(X), [toy.p]))
    # what comes before the latents cannot depend on them
    for discrete in (False, True):
        toy = Total(discrete, first=True)
        for estimator in (E.NVIL(), E.VIMCO(num_particles=4, particles_per_pass=1), E.ReweightedWakeSleep()):
            assert math.isfinite(estimator.loss(toy.model, toy.guide, X))


# a normal latent that examples share


class Mean:
    """A mean that all examples share; the posterior is normal."""

    def __init__(self):
        self.p = nn.ParameterDict({n: nn.Parameter(torch.tensor(v).double()) for n, v in (("loc", 0.3), ("std", 0.6))})

    def model(self, x):
        w = pyro.sample("w", dist.Normal(torch.zeros(()).double(), 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def guide(self, x):
        pyro.sample("w", dist.Normal(self.p["loc"], self.p["std"]))

    def elbo(self, x):
        loc, std = self.p["loc"], self.p["std"]
        bound = (Normal(loc, 1.0).log_prob(x) - std**2 / 2).sum()
        return bound - kl_divergence(Normal(loc, std), Normal(torch.zeros(()).double(), 1.0))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (E.ELBO, {}),
        (E.ELBO, {"particles_per_pass": 7}),
        pytest.param(E.ELBO, {"particles_per_pass": 1}, marks=pytest.mark.slow),
        (E.Enumeration, {}),
        (E.ReinforceLOO, {}),
        (E.ReinforceLOO, {"particles_per_pass": 7}),
        (E.NVIL, {}),
    ],
)
def test_means_over_particles_draw_a_shared_latent_once_per_particle(make, options):
    toy = Mean()
    parameters, exact = list(toy.p.values()), toy.elbo(X)
    values, gradients = draws_of(make(num_particles=20, **options), toy.model, toy.guide, (X,), parameters, 60)
    assert within(values, exact.detach())
    assert within(gradients, gradient_of(exact, parameters))
    single = E.ELBO(analytic_kl=make in (E.ELBO, E.Enumeration))
    single, _ = draws_of(single, toy.model, toy.guide, (X,), parameters, 400)
    assert values.var() < 2 * single.var() / 20


@pytest.mark.parametrize("cls", [E.IWAE, E.VIMCO, E.StickingTheLanding, E.MIWAE])
def test_bounds_with_a_logarithm_have_one_draw_for_all_particles(cls):
    """With a draw per particle inside the logarithm the value would exceed the bound."""
    toy = Mean()
    values, _ = draws_of(shelf.build(cls, num_particles=50), toy.model, toy.guide, (X,), [*toy.p.values()], 100)
    assert within(values, toy.elbo(X).detach())


def test_the_divergence_of_a_shared_latent_has_its_closed_form():
    toy = Mean()
    elbo = E.ELBO()
    assert elbo.kl_forms(toy.model, toy.guide, X) == {"w": "closed form"}
    torch.manual_seed(0)
    drawn = elbo.terms(toy.model, toy.guide, X)
    exact = kl_divergence(Normal(toy.p["loc"], toy.p["std"]), Normal(0.0, 1.0))
    torch.testing.assert_close(elbo.evaluate(drawn)[0], exact - drawn.observed[0].log_p.sum())


def test_all_passes_see_the_same_minibatch():
    """Otherwise a weight would be a mean over particles of different examples."""
    seen = []

    def model(x):
        with pyro.plate("data", len(x), subsample_size=2, dim=-1) as rows:
            seen.append(rows)
            z = pyro.sample("z", dist.Normal(torch.zeros(()).double(), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=2, dim=-1) as rows:
            pyro.sample("z", dist.Normal(0.5 * x[rows], 0.7))

    x = torch.arange(100.0).double()
    estimator = E.IWAE(num_particles=6, particles_per_pass=2)
    estimator.loss(model, guide, x)  # with a dry run of its own
    for _ in range(2):
        seen.clear()
        estimator.loss(model, guide, x)
        assert len(seen) == 4
        assert all(torch.equal(rows, seen[0]) for rows in seen)
