"""Capacity and free bits against closed forms (linear-Gaussian VAE)."""

import functools
import itertools

import pyro
import pytest
import torch
from helpers.brute_force import gradient_of
from helpers.checks import within
from pyro import distributions as dist
from pyro import poutine
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

import pyro_vae as pv
from pyro_vae.testing import LinearGaussian, check_estimator
from pyro_vae.training import Linear

E = pv.estimators


def loss_of(estimator, program, x, seed=0):
    torch.manual_seed(seed)
    return estimator.differentiable_loss(program.model, program.guide, x)


def kl_per_dimension(toy, x):
    """The divergence of each dimension of each example, (batch, latent)."""
    q = toy.program.encode(x).base_dist
    return 0.5 * (q.mean.square() + q.variance - 1 - q.variance.log())


def hierarchy(down):
    q = pv.posteriors.MeanFieldNormal
    if down:
        inference = pv.programs.TopDown([q((5,), 3, context=2), q((5,), 2)])
    else:
        inference = pv.programs.BottomUp([q((5,), 3), q((3,), 2)])
    return pv.programs.Hierarchical(
        prior=pv.priors.StandardNormal(2),
        layers=[q((2,), 3)],
        likelihood=pv.likelihoods.Normal(3, (5,)),
        inference=inference,
    ).double()


# capacity


@pytest.mark.parametrize("step", [0, 30, 100, 500])
def test_capacity_is_the_distance_from_the_target(step):
    """Loss = reconstruction + n gamma |mean KL - C_t|, value and gradient."""
    toy = LinearGaussian(off=0.2)
    x = toy.draw(10)
    parameters = list(toy.program.parameters())
    estimator = E.ELBO(capacity=E.Capacity(3.0, 100, gamma=7.0))
    estimator.step = step
    target = 3.0 * min(step / 100, 1)
    kl = kl_per_dimension(toy, x).sum(1).mean()
    assert (kl < target) == (step >= 100), "both signs of the distance must be tested"
    exact = loss_of(E.ELBO(beta=0.0), toy.program, x) + 10 * 7.0 * (kl - target).abs()
    found = loss_of(estimator, toy.program, x)
    assert torch.allclose(found, exact, rtol=1e-12)
    pairs = zip(torch.autograd.grad(found, parameters), torch.autograd.grad(exact, parameters), strict=True)
    assert all(torch.allclose(a, b) for a, b in pairs)


@pytest.mark.parametrize("estimator", [E.ELBO, E.IWAE, E.DReG])
def test_capacity_composes(estimator):
    toy = LinearGaussian(off=0.2)
    x = toy.draw(8)
    capacity = E.Capacity(3.0, 100, gamma=7.0)
    kl = kl_per_dimension(toy, x).sum(1).mean()
    plain = loss_of(estimator(num_particles=4, beta=0.0), toy.program, x)
    for per_pass in (None, 3):
        torch.manual_seed(0)
        found = estimator(num_particles=4, capacity=capacity, particles_per_pass=per_pass)
        terms = found.terms(toy.program.model, toy.program.guide, x)
        assert torch.allclose(found.penalty(terms, 0.0), 8 * 7.0 * kl)
        if per_pass is None:
            assert torch.allclose(loss_of(found, toy.program, x), plain + 8 * 7.0 * kl)
    check_estimator(toy.program, estimator(num_particles=4, capacity=capacity), x)


def test_capacity_holds_the_divergence_at_its_target():
    toy = LinearGaussian(off=0.2)
    x = toy.draw(200)
    assert kl_per_dimension(toy, x).sum(1).mean() < 1.5
    estimator = E.ELBO(capacity=E.Capacity(1.6, 1, gamma=100.0))
    for rate in (3e-2, 3e-3, 3e-4):
        adam = functools.partial(torch.optim.Adam, lr=rate)
        pv.fit(toy.program, x, estimator=estimator, optimizer=adam, epochs=30, batch_size=200, progress=False)
    assert float(kl_per_dimension(toy, x).detach().sum(1).mean()) == pytest.approx(1.6, abs=0.02)


# free bits

HINGES = [
    pytest.param(0.6, lambda kl: torch.relu(0.6 - kl.mean(0)).sum(), id="number"),
    pytest.param(E.PerDimension(0.6), lambda kl: torch.relu(0.6 - kl.mean(0)).sum(), id="PerDimension"),
    pytest.param(E.PerSite(1.7), lambda kl: torch.relu(1.7 - kl.sum(1).mean()), id="PerSite"),
]


def spread_toy():
    """One dimension below 0.6 nats on average, one above, and both together below 1.7, though not in each example."""
    toy = LinearGaussian(off=0.1)
    with torch.no_grad():
        toy.encoder.weight[1] *= 0.3
        toy.encoder.bias[3] += 0.8
    x = toy.draw(10)
    kl = kl_per_dimension(toy, x)
    assert kl[:, 1].mean() < 0.55
    assert kl[:, 0].mean() > 0.7
    assert kl.sum(1).mean() < 1.6
    return toy, x


@pytest.mark.parametrize(("free_bits", "hinge"), HINGES)
@pytest.mark.parametrize("beta", [1.0, 0.3, Linear(10, end=2.0)])
@pytest.mark.parametrize("estimator", [E.ELBO, E.IWAE, E.DReG])
def test_free_bits_take_the_hinge_off(estimator, beta, free_bits, hinge):
    """Loss = loss without + n beta hinge, value and gradient, at the same draws."""
    toy, x = spread_toy()
    parameters = [*toy.encoder.parameters(), *toy.decoder.parameters()]
    options = {"num_particles": 3, "beta": beta}
    plain, free = estimator(**options), estimator(free_bits=free_bits, **options)
    plain.step = free.step = 4
    weight = beta(4) if callable(beta) else beta
    exact = loss_of(plain, toy.program, x) + 10 * weight * hinge(kl_per_dimension(toy, x))
    found = loss_of(free, toy.program, x)
    assert torch.allclose(found, exact, rtol=1e-12)
    pairs = zip(torch.autograd.grad(found, parameters), torch.autograd.grad(exact, parameters), strict=True)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in pairs)


@pytest.mark.parametrize(("free_bits", "hinge"), HINGES)
def test_a_hinge_for_each_example_is_seen(free_bits, hinge, monkeypatch):
    """The mean over the batch stands inside of the hinge: outside of it the value is another."""
    toy, x = spread_toy()

    def each_example(kl, sites, penalty, scores):
        return penalty(kl).mean(0).sum()

    monkeypatch.setattr(pv.estimators.penalties, "penalize_mean", each_example)
    exact = loss_of(E.ELBO(), toy.program, x) + 10 * hinge(kl_per_dimension(toy, x))
    assert not torch.allclose(loss_of(E.ELBO(free_bits=free_bits), toy.program, x), exact, rtol=1e-4)


@pytest.mark.parametrize(("free_bits", "hinge"), HINGES)
def test_free_bits_leave_the_reported_bound(free_bits, hinge):
    """``per_datum`` is the bound itself."""
    toy, x = spread_toy()
    rows = []
    for estimator in (E.ELBO(), E.ELBO(free_bits=free_bits)):
        torch.manual_seed(0)
        rows.append(estimator.per_datum(toy.program.model, toy.program.guide, x))
    assert torch.equal(*rows)


def test_below_its_free_bits_a_posterior_feels_no_prior():
    """Where all dimensions are below, the gradient of the ELBO is that of the reconstruction."""
    toy = LinearGaussian(off=0.1)
    x = toy.draw(10)
    parameters = list(toy.encoder.parameters())
    found = torch.autograd.grad(loss_of(E.ELBO(free_bits=50.0), toy.program, x), parameters)
    exact = torch.autograd.grad(loss_of(E.ELBO(beta=0.0), toy.program, x), parameters)
    assert all(torch.allclose(a, b) for a, b in zip(found, exact, strict=True))


@pytest.mark.parametrize("estimator", [E.ELBO, E.IWAE, E.DReG])
@pytest.mark.parametrize("free_bits", [0.6, E.PerSite(1.7)])
def test_free_bits_with_particles_in_passes(estimator, free_bits):
    """In passes, the hinge is the one of all particles at once (closed form: the same for any draws)."""
    toy, x = spread_toy()
    losses = []
    for free in (free_bits, 0.0):
        torch.manual_seed(0)
        bound = estimator(num_particles=5, particles_per_pass=2, free_bits=free)
        losses.append(bound.differentiable_loss(toy.program.model, toy.program.guide, x))
    hinge = next(p.values[1] for p in HINGES if p.id == ("PerSite" if isinstance(free_bits, E.PerSite) else "number"))
    assert torch.allclose(losses[0] - losses[1], 10 * hinge(kl_per_dimension(toy, x)))


@pytest.mark.parametrize("down", [False, True])
def test_free_bits_in_a_hierarchy(down):
    """Each layer has a hinge of its own; the closed form of a layer given the draws above it."""
    torch.manual_seed(1)
    program = hierarchy(down)
    x = torch.randn(6, 5).double()
    torch.manual_seed(0)
    plain = E.ELBO(num_particles=3)
    terms = plain.terms(program.model, program.guide, x)
    each = {}
    for site in terms.latent:
        q, p, z = site.guide["fn"].base_dist, site.model["fn"].base_dist, site.guide["value"]
        closed = site.name == "z2" or down
        drawn = q.log_prob(z) - p.log_prob(z)
        each[site.name] = kl_divergence(Normal(q.loc, q.scale), Normal(p.loc, p.scale)) if closed else drawn
    base = loss_of(plain, program, x)
    found = loss_of(E.ELBO(num_particles=3, free_bits=0.4), program, x)
    hinge = sum(torch.relu(0.4 - kl.expand(3, 6, -1).mean((0, 1))).sum() for kl in each.values())
    assert hinge > 0.01
    assert torch.allclose(found, base + 6 * hinge)
    found = loss_of(E.ELBO(num_particles=3, free_bits=E.PerSite(2.5)), program, x)
    hinge = sum(torch.relu(2.5 - kl.expand(3, 6, -1).sum(-1).mean()) for kl in each.values())
    assert hinge > 0.01
    assert torch.allclose(found, base + 6 * hinge)
    check_estimator(program, E.IWAE(num_particles=3, free_bits=0.4), x)


def test_free_bits_for_each_dimension_need_a_product():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (5,)),
        posterior=pv.posteriors.FullRankNormal((5,), 2),
    )
    x = torch.randn(4, 5)
    with pytest.raises(ValueError, match="free_bits: .*'z'.*PerSite"):
        E.ELBO(free_bits=0.1).differentiable_loss(vae.model, vae.guide, x)
    assert E.ELBO(free_bits=E.PerSite(0.1)).differentiable_loss(vae.model, vae.guide, x).isfinite()


@pytest.mark.parametrize("make", [E.PerSite, E.PerDimension, lambda nats: E.ELBO(free_bits=nats)])
@pytest.mark.parametrize("nats", [-0.1, float("inf"), float("nan")])
def test_bad_free_bits(make, nats):
    with pytest.raises(ValueError, match="free_bits: "):
        make(nats)


# scales

PENALTIES = [{"free_bits": 0.6}, {"free_bits": E.PerSite(1.7)}, {"capacity": E.Capacity(1.0, 1, gamma=3.0)}]


def penalty_of(options, model, guide, x, beta=1.0):
    estimator = E.ELBO(**options)
    estimator.step = 1
    return estimator.penalty(estimator.terms(model, guide, x), beta)


@pytest.mark.parametrize("options", PENALTIES, ids=lambda options: next(iter(options)))
def test_a_scale_multiplies_the_penalty(options):
    toy, x = spread_toy()
    model, guide = (poutine.scale(f, 0.3) for f in (toy.program.model, toy.program.guide))
    exact = penalty_of(options, toy.program.model, toy.program.guide, x)
    assert exact > 0.1
    torch.testing.assert_close(penalty_of(options, model, guide, x), 0.3 * exact)


@pytest.mark.parametrize("options", PENALTIES, ids=lambda options: next(iter(options)))
def test_an_example_of_weight_two_counts_as_two_examples(options):
    toy, x = spread_toy()
    weights = torch.tensor([1, 2, 0, 1, 3, 0, 0, 1, 1, 2])
    with pyro.validation_enabled(False):  # which allows no weight of 0
        model, guide = (poutine.scale(f, weights.double()) for f in (toy.program.model, toy.program.guide))
        # all weights zero, such as those of padding: no cost, and no NaN
        empty = [poutine.scale(f, torch.zeros(10).double()) for f in (toy.program.model, toy.program.guide)]
    exact = penalty_of(options, toy.program.model, toy.program.guide, x.repeat_interleave(weights, 0))
    assert exact > 0.1
    torch.testing.assert_close(penalty_of(options, model, guide, x), exact)
    assert penalty_of(options, *empty, x) == 0


@pytest.mark.parametrize("particles_per_pass", [None, 2])
@pytest.mark.parametrize("options", PENALTIES, ids=lambda options: next(iter(options)))
def test_a_masked_example_does_not_count(options, particles_per_pass):
    toy, x = spread_toy()
    mask = torch.arange(10) % 3 > 0
    options = {**options, "num_particles": 3, "particles_per_pass": particles_per_pass}
    exact = penalty_of(options, toy.program.model, toy.program.guide, x[mask])
    model, guide = (poutine.mask(f, mask) for f in (toy.program.model, toy.program.guide))
    torch.testing.assert_close(penalty_of(options, model, guide, x), exact)
    model, guide = (poutine.mask(f, False) for f in (toy.program.model, toy.program.guide))
    assert penalty_of(options, model, guide, x) == 0


def test_each_latent_has_the_scale_of_its_site():
    def model(x, scales=(0.3, 2.0)):
        with pyro.plate("data", len(x), dim=-1):
            for i, scale in enumerate(scales):
                with poutine.scale(scale=scale):
                    pyro.sample(f"z{i}", dist.Normal(torch.zeros(()).double(), 1.0))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x, scales=(0.3, 2.0)):
        with pyro.plate("data", len(x), dim=-1):
            for i, scale in enumerate(scales):
                with poutine.scale(scale=scale):
                    pyro.sample(f"z{i}", dist.Normal(0.1 * x, 0.9))

    x = torch.arange(4.0).double()
    hinge = torch.relu(0.3 - kl_divergence(Normal(0.1 * x, 0.9), Normal(0.0, 1.0)).mean())
    for free_bits in (0.3, E.PerSite(0.3)):
        torch.testing.assert_close(penalty_of({"free_bits": free_bits}, model, guide, x), 4 * 2.3 * hinge)
    with pytest.raises(ValueError, match="capacity: .*'z1'"):
        penalty_of({"capacity": E.Capacity(1.0, 1)}, model, guide, x)


# draws without a gradient


class Bits:
    """Two bits, of which the divergence of the second depends on the first; one for all examples or one for each."""

    def __init__(self, shared):
        self.shared = shared
        g = torch.Generator().manual_seed(0)
        self.p = nn.ParameterDict({n: nn.Parameter(torch.randn((), generator=g).double()) for n in "abcde"})
        self.x = torch.tensor([0.5, -1.0]).double()

    def first(self, logits, plate):
        if self.shared:
            return pyro.sample("s", dist.Bernoulli(logits=logits if logits.dim() == 0 else logits.mean()))
        with plate:
            return pyro.sample("s", dist.Bernoulli(logits=logits))

    def model(self, x):
        plate = pyro.plate("data", len(x), dim=-1)
        s = self.first(self.p["a"], plate)
        with plate:
            z = pyro.sample("z", dist.Bernoulli(logits=self.p["b"] * s))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x):
        plate = pyro.plate("data", len(x), dim=-1)
        s = self.first(self.p["c"] * (1.0 if self.shared else x), plate)
        with plate:
            pyro.sample("z", dist.Bernoulli(logits=self.p["d"] * x + self.p["e"] * s))

    def exact(self, nats, particles=2):
        """Return the mean of the penalty over all values of the first bit, of all particles and examples."""
        p, x = self.p, self.x
        q_s = Bernoulli(logits=p["c"] * (torch.ones(1).double() if self.shared else x))
        total = 0.0
        for bits in itertools.product([0.0, 1.0], repeat=particles * len(q_s.logits)):
            s = torch.tensor(bits).double().reshape(particles, -1)
            kl = kl_divergence(Bernoulli(logits=p["d"] * x + p["e"] * s), Bernoulli(logits=(p["b"] * s).expand(-1, 2)))
            penalty = torch.relu(nats - kl.mean())
            if not self.shared:
                penalty = penalty + torch.relu(nats - kl_divergence(q_s, Bernoulli(logits=p["a"])).mean())
            total = total + q_s.log_prob(s).sum().exp() * 2 * penalty
        return total


def scored(cls, **options):
    return cls(num_particles=2, free_bits=E.PerSite(0.25), **options)


@pytest.mark.parametrize(
    ("make", "shared"),
    [
        (lambda: scored(E.ReinforceLOO), False),
        pytest.param(lambda: scored(E.ReinforceLOO, particles_per_pass=1), False, marks=pytest.mark.slow),
        pytest.param(lambda: scored(E.VIMCO), False, marks=pytest.mark.slow),
        (lambda: scored(E.NVIL), False),
        pytest.param(lambda: scored(E.ReweightedWakeSleep), False, marks=pytest.mark.slow),
        (lambda: scored(E.ReinforceLOO), True),
    ],
)
def test_a_penalty_has_the_score_of_the_draws_that_it_depends_on(make, shared):
    toy, estimator = Bits(shared), make()
    parameters = list(toy.p.values())
    exact = gradient_of(toy.exact(0.25), parameters)

    def draws(num_draws=400):
        return torch.stack(
            [
                gradient_of(estimator.penalty(estimator.terms(toy.model, toy.guide, toy.x), 1.0), parameters)
                for _ in range(num_draws)
            ]
        )

    assert within(draws(), exact)


def test_a_penalty_without_a_baseline_is_refused():
    toy = Bits(shared=False)
    for estimator in (E.NVIL(free_bits=E.PerSite(0.25)), E.NVIL(capacity=E.Capacity(1.0, 1))):
        with pytest.raises(ValueError, match="free_bits or capacity: .*'z'"):
            estimator.differentiable_loss(toy.model, toy.guide, toy.x)
    # a single layer with a divergence in closed form needs none
    vae = pv.VAE(
        prior=pv.priors.Bernoulli(3),
        likelihood=pv.likelihoods.Normal(3, (2,)),
        posterior=pv.posteriors.Bernoulli((2,), 3),
    )
    for estimator in (E.NVIL(free_bits=0.1), E.DisARM(free_bits=0.1)):
        assert estimator.differentiable_loss(vae.model, vae.guide, torch.zeros(3, 2)).isfinite()
