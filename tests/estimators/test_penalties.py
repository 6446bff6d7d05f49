"""Capacity and free bits against closed forms (linear-Gaussian VAE)."""

import functools

import pytest
import torch
from torch.distributions import Normal, kl_divergence

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
        local = terms.split()[0]
        assert torch.allclose(found.penalty(local, 0.0), 7.0 * kl)
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

    def each_example(self, terms):
        return torch.relu(self.nats - terms.latent[0].kl_per_dimension).sum(-1).mean()

    monkeypatch.setattr(E.PerDimension, "hinge", each_example)
    monkeypatch.setattr(E.PerSite, "hinge", lambda s, terms: torch.relu(s.nats - terms.kl(terms.latent[0])).mean())
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
