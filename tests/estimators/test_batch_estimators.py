"""Estimators over the batch against closed forms, brute force, and faults put in."""

import copy
import functools
import math

import numpy as np
import pyro
import pytest
import torch
from helpers.checks import within
from pyro import poutine

import pyro_vae as pv
from pyro_vae.estimators import factor_vae, kernels, over_batch
from pyro_vae.testing import LinearGaussian, check_estimator

E = pv.estimators
ADAM = functools.partial(torch.optim.Adam, lr=1e-2)


def discriminator(latent=2):
    return pv.nets.MLP((latent,), (1,), hidden=(16,)).double()


MAKERS = {
    "InfoVAE": functools.partial(E.InfoVAE, alpha=0.5, lambda_=20.0),
    "MMD": functools.partial(E.MMD, lambda_=20.0),
    "WAE": functools.partial(E.WAE, lambda_=20.0),
    "BetaTC": functools.partial(E.BetaTC, data_size=100, beta=4.0),
    "DIP I": functools.partial(E.DIP, of_means=True),
    "DIP II": functools.partial(E.DIP, of_means=False),
    "FactorVAE": lambda **options: E.FactorVAE(discriminator=discriminator(), **options),
}
each_estimator = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def rows(estimator, program, x, seed=0):
    torch.manual_seed(seed)
    return estimator.per_datum(program.model, program.guide, x)


def local_terms(estimator, program, x, seed=0):
    torch.manual_seed(seed)
    return estimator.terms(program.model, program.guide, x).split()[0]


def vae(posterior=pv.posteriors.MeanFieldNormal, prior=None, latent=2):
    parts = {"prior": prior or pv.priors.StandardNormal(latent), "likelihood": pv.likelihoods.Normal(latent, (5,))}
    return pv.VAE(posterior=posterior((5,), latent), **parts).double()


def hierarchy():
    q = pv.posteriors.MeanFieldNormal
    return pv.programs.Hierarchical(
        prior=pv.priors.Normal(2),
        layers=[q((2,), 3)],
        likelihood=pv.likelihoods.Normal(3, (5,)),
        inference=pv.programs.TopDown([q((5,), 3, context=2), q((5,), 2)]),
    ).double()


# maximum mean discrepancy


def gaussian(mean, covariance):
    return torch.distributions.MultivariateNormal(mean, covariance)


def mean_kernel(kernel, p, q):
    """E[k(a, b)] for normal a and b in closed form; for the inverse multiquadratic by one quadrature of RBFs."""
    shift, total = p.mean - q.mean, p.covariance_matrix + q.covariance_matrix
    eye = torch.eye(len(shift), dtype=shift.dtype)

    def rbf(variance):
        spread = total / variance + eye
        return spread.det() ** -0.5 * torch.exp(-0.5 * shift @ torch.linalg.solve(variance * spread, shift))

    if isinstance(kernel, E.RBF):
        return rbf(kernel.variance or len(shift))
    # c / (c + r) is the integral of exp(-t) exp(-t r / c)
    c = kernel.c or 2 * len(shift)
    points, weights = np.polynomial.laguerre.laggauss(40)
    return sum(w * rbf(c / (2 * t)) for t, w in zip(points, weights, strict=True))


def exact_mmd(kernel, p, q):
    return mean_kernel(kernel, p, p) - 2 * mean_kernel(kernel, p, q) + mean_kernel(kernel, q, q)


def aggregate(toy):
    """The aggregate posterior of the model's own data, which is normal."""
    w, sigma = toy.decoder.weight.detach(), toy.program.likelihood.scale().detach()
    a, b = toy.encoder.weight[:2], toy.encoder.bias[:2]
    variance = toy.program.encode(torch.zeros(1, 5).double()).base_dist.variance[0]
    covariance = w @ w.T + sigma**2 * torch.eye(5)
    return gaussian(a @ toy.decoder.bias.detach() + b, a @ covariance @ a.T + variance.diag())


PRIOR = gaussian(torch.zeros(2).double(), torch.eye(2).double())
KERNELS = [E.RBF(), E.RBF(0.5), E.InverseMultiquadratic(), E.InverseMultiquadratic(1.0)]


def discrepancies(kernel, seed=0):
    """A thousand estimates from 12 and 9 draws of two normal distributions, and the truth."""
    torch.manual_seed(seed)
    p = gaussian(torch.tensor([0.5, -0.3]).double(), torch.tensor([[1.0, 0.4], [0.4, 0.8]]).double())
    return kernels.mmd(kernel, p.sample((1000, 12)), PRIOR.sample((1000, 9))), exact_mmd(kernel, p, PRIOR)


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_their_formulas(kernel):
    a, b = torch.randn(3, 7, 4).double(), torch.randn(3, 5, 4).double()
    square = (a.unsqueeze(-2) - b.unsqueeze(-3)).square().sum(-1)
    if isinstance(kernel, E.RBF):
        exact = torch.exp(-square / (2 * (kernel.variance or 4)))
    else:
        exact = (kernel.c or 8) / ((kernel.c or 8) + square)
    assert torch.allclose(kernel(a, b), exact)
    assert torch.allclose(kernel(a, a).diagonal(dim1=-2, dim2=-1), torch.ones(3, 7).double())


@pytest.mark.parametrize("kernel", KERNELS)
def test_discrepancy_of_normal_distributions(kernel):
    found, exact = discrepancies(kernel)
    assert exact > 0.01
    assert within(found, exact)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_draw_paired_with_itself_is_seen(kernel, monkeypatch):
    monkeypatch.setattr(kernels, "mean_of_pairs", lambda gram: gram.mean((-2, -1)))
    assert not within(*discrepancies(kernel))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_wrong_sign_of_the_cross_term_is_seen(kernel, monkeypatch):
    right = kernels.mmd
    monkeypatch.setattr(kernels, "mmd", lambda k, a, b: right(k, a, b) + 4 * k(a, b).mean((-2, -1)))
    assert not within(*discrepancies(kernel))


WEIGHTS = {"InfoVAE": (E.InfoVAE, {"alpha": 0.3}, -0.7), "MMD": (E.MMD, {}, 0.0), "WAE": (E.WAE, {}, 0.0)}


def normal_toy():
    """A guide off the posterior whose scale does not depend on x, so that its aggregate over the model is normal."""
    toy = LinearGaussian(off=0.3)
    with torch.no_grad():
        toy.encoder.weight[2:] = 0
    return toy


def penalties(estimator, toy, learned):
    """The penalty of 150 batches of 20 fresh data, with its gradient."""
    torch.manual_seed(0)
    found, gradients = [], []
    for _ in range(150):
        with torch.no_grad():
            x = toy.program.likelihood(torch.randn(20, 2).double()).sample()
        terms = estimator.terms(toy.program.model, toy.program.guide, x)
        penalty = (over_batch.reconstruction(terms) - estimator.bound(terms, 1.0)).mean()
        gradients.append(flat(torch.autograd.grad(penalty, learned)))
        found.append(penalty.detach())
    return torch.stack(found), torch.stack(gradients)


def flat(gradients):
    """The entries side by side, without those of the weights of the guide's scale, which no closed form has."""
    return torch.cat([(g[:2] if g.shape == (4, 5) else g).flatten() for g in gradients])


@pytest.mark.parametrize(("make", "particles", "learned_prior"), [(E.MMD, 2, False), (E.WAE, 1, True)])
def test_penalty_is_that_of_the_aggregate_posterior(make, particles, learned_prior):
    """Value, and gradient by the encoder or a learned prior: the mean over batches is the closed form."""
    toy, prior = normal_toy(), PRIOR
    learned = list(toy.encoder.parameters())
    if learned_prior:
        toy.program.prior = pv.priors.Normal(2).double()
        with torch.no_grad():
            for p in toy.program.prior.parameters():
                p += 0.3
        learned = list(toy.program.prior.parameters())
        fn = toy.program.prior().base_dist
        prior = gaussian(fn.loc, fn.scale.square().diag())
    estimator = make(lambda_=3.0, num_particles=particles)
    found, gradients = penalties(estimator, toy, learned)
    exact = 3.0 * exact_mmd(estimator.kernel, aggregate(toy), prior)
    gradient = flat(torch.autograd.grad(exact, learned))
    assert within(found, exact.detach())
    # up to fourteen entries: 4 standard errors, widened for the largest of them
    assert within(gradients, gradient, 4.5)
    assert not within(found, -exact.detach())
    assert not within(gradients, -gradient)


@pytest.mark.parametrize("name", WEIGHTS)
def test_weight_of_the_discrepancy(name):
    """Two weights apart, the objective of each example differs by the discrepancy of the batch, with its sign."""
    make, options, offset = WEIGHTS[name]
    toy = LinearGaussian(off=0.3)
    x = toy.draw(10)
    one, two = (make(lambda_=weight, **options) for weight in (1.0, 3.0))
    difference = rows(one, toy.program, x) - rows(two, toy.program, x)
    terms = local_terms(one, toy.program, x)
    expected = 2.0 * over_batch.mmd_to_prior(terms, one.kernel)
    assert torch.allclose(difference, expected.expand(10))
    terms = local_terms(one, toy.program, x)
    base = over_batch.reconstruction(terms) + offset * over_batch.divergence(terms)
    weight = 1.0 if not options else 0.3
    assert torch.allclose(rows(one, toy.program, x), base - weight * expected / 2)
    half = make(lambda_=1.0, beta=0.5, **options)
    halved = over_batch.reconstruction(terms) + 0.5 * (offset * over_batch.divergence(terms) - weight * expected / 2)
    torch.manual_seed(0)
    loss = half.differentiable_loss(toy.program.model, toy.program.guide, x)
    assert torch.allclose(loss, -halved.sum())


def test_special_cases_of_info_vae():
    toy = LinearGaussian(off=0.3)
    x = toy.draw(10)
    plain = E.InfoVAE(alpha=0.0, lambda_=1.0, num_particles=3)
    assert torch.allclose(rows(plain, toy.program, x), rows(E.ELBO(num_particles=3), toy.program, x))
    mmd = E.InfoVAE(alpha=1.0, lambda_=7.0)
    assert torch.allclose(rows(mmd, toy.program, x), rows(E.MMD(lambda_=7.0), toy.program, x))
    wae = E.MMD(lambda_=7.0, kernel=E.InverseMultiquadratic())
    assert torch.allclose(rows(wae, toy.program, x), rows(E.WAE(lambda_=7.0), toy.program, x))


@pytest.mark.parametrize("particles", [1, 3])
def test_prior_draws_of_a_hierarchy_are_those_of_the_model(particles):
    """Both layers side by side, the lower one given the draw of the prior above it and not that of the guide."""
    torch.manual_seed(3)
    program = hierarchy()
    with torch.no_grad():
        program.inference.posteriors[1].net.body[-1].bias += 1.0  # the guide is far from the prior
        program.layers[0].net.body[-1].weight *= 10
    x = torch.randn(1500, 5).double()
    terms = local_terms(E.MMD(num_particles=particles), program, x)
    found = over_batch.prior_draws(terms)
    assert found.shape == over_batch.draws(terms).shape == (particles, 1500, 5)
    names = [site.name for site in terms.latent]
    torch.manual_seed(1)
    top = program.prior().sample((1500,))
    z = {"z2": top, "z1": program.layers[0](top).sample()}
    own = torch.cat([z[name] for name in names], -1)

    def distances(given):
        return kernels.mmd(E.RBF(), given.reshape(-1, 20, 5)[:75].detach(), own.detach().reshape(75, 20, 5))

    assert within(distances(found), 0.0)
    # the fault: each layer from its density in the model, given the guide's draw of the layer above
    shape = (1500,) if particles == 1 else (particles, 1500)
    wrong = torch.cat([site.model["fn"].expand(shape).sample() for site in terms.latent], -1)
    assert not within(distances(wrong), 0.0)
    assert torch.equal(over_batch.draws(terms)[-1, :, :2], terms.latent[0].guide["value"].reshape(-1, 1500, 2)[-1])


@pytest.mark.parametrize("prior", [pv.priors.MixtureOfNormals, pv.priors.VampPrior])
def test_prior_without_a_reparameterized_sampler(prior):
    """Its draws are constants: no gradient, no error."""
    posterior = pv.posteriors.MeanFieldNormal((5,), 2)
    made = prior(2) if prior is pv.priors.MixtureOfNormals else prior(posterior, num_components=3)
    program = vae(prior=made)
    x = torch.randn(6, 5).double()
    loss = E.MMD().differentiable_loss(program.model, program.guide, x)
    loss.backward()
    assert all(p.grad is not None for p in program.posterior.parameters())
    assert over_batch.prior_draws(local_terms(E.MMD(), program, x)).requires_grad == made().has_rsample


# total correlation


def brute_force_parts(estimator, site, particle):
    """The three parts of the divergence by loops over rows and dimensions."""
    q, z = site.guide["fn"].base_dist, site.guide["value"].reshape(-1, *site.guide["value"].shape[-2:])[particle]
    loc, scale = (t.reshape(-1, *z.shape)[0] for t in (q.loc, q.scale))
    m, d = z.shape
    n = estimator.data_size

    def log_q(i, j, dims):
        return sum(torch.distributions.Normal(loc[j, e], scale[j, e]).log_prob(z[i, e]) for e in dims)

    def aggregate(i, dims):
        if not estimator.stratified:
            return torch.stack([log_q(i, j, dims).exp() / (n * m) for j in range(m)]).sum().log()
        others = torch.stack([log_q(i, j, dims).exp() for j in range(m) if j != i])
        return (log_q(i, i, dims).exp() / n + (n - 1) / n * others.mean()).log()

    parts = []
    for i in range(m):
        whole, product = aggregate(i, range(d)), sum(aggregate(i, [e]) for e in range(d))
        log_p = -0.5 * (z[i].square() + math.log(2 * math.pi)).sum()
        parts.append(torch.stack([log_q(i, i, range(d)) - whole, whole - product, product - log_p]))
    return torch.stack(parts, -1)


def parts_agree(estimator, particles=2):
    toy = LinearGaussian(latent=3, off=0.2)
    x = toy.draw(6)
    estimator.num_particles = particles
    site = local_terms(estimator, toy.program, x).latent[0]
    found = torch.stack(estimator.parts(site))
    exact = torch.stack([brute_force_parts(estimator, site, k) for k in range(particles)], 1)
    return torch.allclose(found, exact, rtol=1e-10)


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("data_size", [6, 50])
@pytest.mark.parametrize("particles", [1, 3])
def test_parts_of_the_divergence_by_loops(stratified, data_size, particles):
    assert parts_agree(E.BetaTC(data_size=data_size, stratified=stratified), particles)


@pytest.mark.parametrize("stratified", [True, False])
def test_a_missing_number_of_data_is_seen(stratified, monkeypatch):
    right = E.BetaTC.log_weights
    monkeypatch.setattr(E.BetaTC, "log_weights", lambda self, like: right(self, like) + math.log(50))
    assert not parts_agree(E.BetaTC(data_size=50, stratified=stratified))


def test_density_by_stratified_sampling_is_unbiased():
    """Over random batches with a given row, the mean density at its draw is that under all data."""
    toy = LinearGaussian(off=0.2)
    x = toy.draw(40)
    z = toy.program.encode(x).sample()
    log_q = toy.program.encode(x).base_dist.log_prob(z[:, None]).detach()  # (i, j, dims)
    exact = log_q.sum(-1).exp().mean(1)[0]
    found = {True: [], False: []}
    for _ in range(2000):
        batch = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(39)[:7]])
        each = log_q[batch][:, batch].permute(1, 2, 0).unsqueeze(0)  # (1, j, dims, i)
        for stratified, kept in found.items():
            weights = E.BetaTC(data_size=40, stratified=stratified).log_weights(each)
            kept.append((each.sum(2) + weights).logsumexp(1)[0, 0].exp())
    assert within(torch.stack(found[True]), exact)
    assert not within(torch.stack(found[False]), exact)


def test_parts_sum_to_the_elbo():
    toy = LinearGaussian(off=0.2)
    x = toy.draw(10)
    plain = E.ELBO(num_particles=3, analytic_kl=False)
    for stratified in (True, False):
        found = E.BetaTC(data_size=100, num_particles=3, stratified=stratified)
        assert torch.allclose(rows(found, toy.program, x), rows(plain, toy.program, x))


def test_weights_of_the_parts():
    toy = LinearGaussian(off=0.2)
    x = toy.draw(10)
    estimator = E.BetaTC(data_size=100, alpha=0.5, beta=6.0, gamma=2.0)
    terms = local_terms(estimator, toy.program, x)
    weights = torch.tensor([0.5, 6.0, 2.0]).double()
    gap = (weights[:, None, None] * torch.stack(estimator.parts(terms.latent[0]))).sum(0)[0]
    exact = -(over_batch.reconstruction(terms) - gap).sum()
    torch.manual_seed(0)
    assert torch.allclose(estimator.differentiable_loss(toy.program.model, toy.program.guide, x), exact)


def correlated_toy():
    """A guide whose aggregate posterior is strongly correlated, and its total correlation in closed form."""
    toy = LinearGaussian()
    with torch.no_grad():
        toy.encoder.weight[1] += 1.2 * toy.encoder.weight[0]
    covariance = aggregate(toy).covariance_matrix.detach()
    return toy, float(0.5 * (covariance.diagonal().log().sum() - torch.logdet(covariance)))


def test_total_correlation_of_a_normal_aggregate():
    """With all of 1500 data in the batch: within 4 standard errors, and 0.02 for the finite number of data."""
    toy, exact = correlated_toy()
    assert exact > 0.3
    with torch.no_grad():
        estimator = E.BetaTC(data_size=1500)
        _, found, _ = estimator.parts(local_terms(estimator, toy.program, toy.draw(1500)).latent[0])
    assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / math.sqrt(1500) + 0.02


def test_batch_of_more_than_all_data_is_refused():
    toy = LinearGaussian()
    with pytest.raises(ValueError, match="data_size: .*12"):
        rows(E.BetaTC(data_size=10), toy.program, toy.draw(12))


# covariance


@pytest.mark.parametrize("posterior", [pv.posteriors.MeanFieldNormal, pv.posteriors.FullRankNormal])
@pytest.mark.parametrize("of_means", [True, False])
@pytest.mark.parametrize("particles", [1, 3])
def test_penalty_on_the_covariance(posterior, of_means, particles):
    program = vae(posterior, latent=3)
    x = torch.randn(7, 5).double()
    q = program.encode(x)
    covariance = torch.cov(q.mean.T)
    if not of_means:
        each = q.covariance_matrix if hasattr(q, "covariance_matrix") else torch.diag_embed(q.variance)
        covariance = covariance + each.mean(0)
    penalty = sum(
        (2.0 if i != j else 5.0) * (covariance[i, j] - float(i == j)) ** 2 for i in range(3) for j in range(3)
    )
    estimator = E.DIP(of_means=of_means, off_diagonal=2.0, diagonal=5.0, num_particles=particles, beta=0.5)
    torch.manual_seed(0)
    found = estimator.differentiable_loss(program.model, program.guide, x)
    torch.manual_seed(0)
    elbo = E.ELBO(num_particles=particles, beta=0.5)
    exact = elbo.differentiable_loss(program.model, program.guide, x) + 7 * penalty
    assert torch.allclose(found, exact)
    chosen = list(program.posterior.parameters())
    pairs = zip(torch.autograd.grad(found, chosen), torch.autograd.grad(exact, chosen), strict=True)
    assert all(torch.allclose(a, b) for a, b in pairs)


# discriminator


class Quadratic(torch.nn.Module):
    """A logit that is quadratic in z: the log-ratio of two normal densities is one of these."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(5, 1).double()

    def forward(self, z):
        a, b = z[..., :1], z[..., 1:]
        return self.net(torch.cat([a, b, a * a, b * b, a * b], -1))


def test_discriminator_finds_the_total_correlation():
    """At the minimum of its own loss, its mean is the closed form."""
    toy, exact = correlated_toy()
    estimator = E.FactorVAE(discriminator=Quadratic(), gamma=1.0)
    x = toy.draw(2000)
    optimizer = torch.optim.LBFGS(estimator.module.parameters(), max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        torch.manual_seed(0)
        z = toy.program.encode(x).sample().unsqueeze(0)
        loss = estimator.confusion(z, torch.rand_like(z).argsort(1)).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    fresh = toy.draw(4000, seed=7)
    with torch.no_grad():
        found = rows(E.ELBO(), toy.program, fresh) - rows(estimator, toy.program, fresh)
    # 4 standard errors of the mean logit, and 0.05 for a discriminator that has seen 2000 data
    assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / math.sqrt(4000) + 0.05


def factor_gradients(estimator, toy, x):
    torch.manual_seed(0)
    loss = estimator.differentiable_loss(toy.program.model, toy.program.guide, x)
    named = [*toy.program.posterior.parameters(), *toy.program.likelihood.parameters()]
    return (
        loss,
        torch.autograd.grad(loss, named, retain_graph=True),
        torch.autograd.grad(loss, list(estimator.module.parameters())),
    )


def factor_by_definition(estimator, toy, x):
    """The two losses apart, each with the gradient that it is to have."""
    torch.manual_seed(0)
    elbo = E.ELBO(num_particles=2)
    terms = elbo.terms(toy.program.model, toy.program.guide, x)
    z = terms.latent[0].guide["value"]
    frozen = copy.deepcopy(estimator.module).requires_grad_(False)
    loss = elbo.evaluate(terms)[0] + 3.0 * frozen(z).mean(0).sum()
    named = [*toy.program.posterior.parameters(), *toy.program.likelihood.parameters()]
    of_program = torch.autograd.grad(loss, named)
    order = torch.rand_like(z).argsort(1)
    shuffled = torch.stack([torch.stack([z[k, order[k, :, d], d] for d in range(2)], -1) for k in range(2)]).detach()
    binary = torch.nn.functional.binary_cross_entropy_with_logits
    real, false = estimator.module(z.detach()), estimator.module(shuffled)
    entropy = 0.5 * len(x) * (binary(real, torch.ones_like(real)) + binary(false, torch.zeros_like(false)))
    return loss, of_program, torch.autograd.grad(entropy, list(estimator.module.parameters()))


def factor_agrees(estimator):
    toy = LinearGaussian(off=0.2)
    x = toy.draw(9)
    a, b = factor_gradients(estimator, toy, x), factor_by_definition(estimator, toy, x)
    return all(torch.allclose(s, t) for s, t in zip([a[0], *a[1], *a[2]], [b[0], *b[1], *b[2]], strict=True))


def test_program_and_discriminator_each_follow_their_own_loss():
    assert factor_agrees(E.FactorVAE(discriminator=discriminator(), gamma=3.0, num_particles=2))


@pytest.mark.parametrize("fault", ["discriminator climbs", "draws not detached", "no shuffling", "wrong sign"])
def test_faults_of_the_discriminator_are_seen(fault, monkeypatch):
    right = E.FactorVAE.confusion
    estimator = E.FactorVAE(discriminator=discriminator(), gamma=3.0, num_particles=2)
    if fault == "discriminator climbs":
        monkeypatch.setattr(E.FactorVAE, "confusion", lambda self, z, order: -right(self, z, order))
    elif fault == "no shuffling":
        monkeypatch.setattr(torch.Tensor, "gather", lambda self, dim, index: self)
    elif fault == "wrong sign":
        estimator.gamma = -3.0
    else:
        drawn = []
        take = over_batch.draws
        monkeypatch.setattr(factor_vae, "draws", lambda terms: drawn.append(take(terms)) or drawn[-1])
        monkeypatch.setattr(E.FactorVAE, "confusion", lambda self, z, order: right(self, drawn[-1], order))
    assert not factor_agrees(estimator)


def test_discriminator_is_trained_by_the_engine_and_by_stock_svi():
    x = LinearGaussian().draw(8)
    for engine in (True, False):
        toy = LinearGaussian(off=0.2)
        estimator = E.FactorVAE(discriminator=discriminator())
        before = [p.detach().clone() for p in estimator.module.parameters()]
        if engine:
            pv.training.SVI(toy.program, estimator, ADAM).update(x)
        else:
            adam = pyro.optim.Adam({"lr": 1e-2})
            pyro.infer.SVI(toy.program.model, toy.program.guide, adam, estimator).step(x)
        assert not any(torch.equal(a, b) for a, b in zip(before, estimator.module.parameters(), strict=True))
    assert len(pyro.get_param_store()) == 0


def test_discriminator_of_several_numbers_is_refused():
    toy = LinearGaussian()
    with pytest.raises(ValueError, match="discriminator: "):
        rows(E.FactorVAE(discriminator=torch.nn.Linear(2, 2).double()), toy.program, toy.draw(6))
    with pytest.raises(TypeError, match="discriminator: "):
        E.FactorVAE(discriminator=torch.sum)


@pytest.mark.parametrize("net", [pv.nets.MLP((2,), (1,)), torch.nn.Linear(2, 1), torch.nn.Linear(3, 1)])
def test_discriminator_sees_the_latents_of_all_sites(net):
    program, x = pv.programs.Hierarchical.example(), torch.randn(6, 4)
    latents = pv.tasks.embed(program, x, progress=False).mean.shape[1]
    with pytest.raises(ValueError, match=f"discriminator: .*{latents} dimensions"):
        rows(E.FactorVAE(discriminator=net), program, x)
    assert rows(E.FactorVAE(discriminator=torch.nn.Linear(latents, 1)), program, x).isfinite().all()


# all of them


@each_estimator
@pytest.mark.parametrize("num_particles", [1, 3])
def test_laws(make, num_particles):
    """An AssertionError of `check_estimator` names the law that is broken: equal losses, weights that move."""
    toy = LinearGaussian(off=0.2)
    check_estimator(toy.program, make(num_particles=num_particles), toy.draw(6))


@pytest.mark.parametrize("name", ["InfoVAE", "MMD", "WAE", "FactorVAE"])
@pytest.mark.parametrize("num_particles", [1, 3])
def test_laws_with_several_sites(name, num_particles):
    torch.manual_seed(0)
    program = hierarchy()
    make = MAKERS[name] if name != "FactorVAE" else lambda **o: E.FactorVAE(discriminator=discriminator(5), **o)
    x = torch.randn(6, 5).double()
    assert len(local_terms(make(), program, x).latent) == 2
    check_estimator(program, make(num_particles=num_particles), x)


@each_estimator
def test_scale_multiplies_the_loss_and_free_bits_are_taken_off(make):
    toy = LinearGaussian(off=0.2)
    x = toy.draw(6)
    model, guide = toy.program.model, toy.program.guide
    estimator, free = make(), make(free_bits=5.0)
    if estimator.module is not None:
        free.module = estimator.module
    torch.manual_seed(0)
    plain = estimator.differentiable_loss(model, guide, x)
    torch.manual_seed(0)
    scaled = estimator.differentiable_loss(poutine.scale(model, 10.0), poutine.scale(guide, 10.0), x)
    assert torch.allclose(scaled, 10.0 * plain)
    kl = over_batch.divergence(local_terms(estimator, toy.program, x)).mean()
    torch.manual_seed(0)
    found = free.differentiable_loss(model, guide, x)
    assert torch.allclose(found, plain + 6 * free.current_beta() * (2 * 5.0 - kl))


@each_estimator
def test_each_estimator_trains_on_data_that_leave_one_row_over(make):
    """41 data in batches of 10, and as many held out."""
    toy = LinearGaussian(off=0.2)
    x = toy.draw(41)
    history = pv.fit(toy.program, x, valid=x, estimator=make(), batch_size=10, epochs=2, progress=False)
    assert all(math.isfinite(value) for value in history["loss"] + history["valid_bound"])


@each_estimator
def test_a_single_row_is_refused_before_the_first_step(make):
    toy = LinearGaussian(off=0.2)
    before = copy.deepcopy(toy.program.state_dict())
    with pytest.raises(ValueError, match="batch_size: "):
        pv.fit(toy.program, toy.draw(4), estimator=make(), batch_size=1, epochs=1, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in toy.program.state_dict().items())


@each_estimator
def test_what_has_no_draws_to_compare_is_refused(make):
    with pytest.raises(ValueError, match="particles_per_pass: "):
        make(num_particles=4, particles_per_pass=2)
    x = torch.rand(6, 5).double()
    discrete = pv.VAE(
        prior=pv.priors.OneHotCategorical(2),
        likelihood=pv.likelihoods.Normal(2, (5,)),
        posterior=pv.posteriors.OneHotCategorical((5,), 2),
    ).double()
    with pytest.raises(ValueError, match="guide: .*'z'.*OneHotCategorical"):
        rows(make(), discrete, x)
    enumerated = poutine.infer_config(discrete.guide, lambda m: {"enumerate": "parallel"} if m["name"] == "z" else {})
    with pytest.raises(ValueError, match="'z' is enumerated"):
        make().differentiable_loss(discrete.model, enumerated, x)
    program = vae()
    mask = torch.arange(6) < 4
    with pytest.raises(ValueError, match="'z' is masked"):
        make().differentiable_loss(poutine.mask(program.model, mask=mask), poutine.mask(program.guide, mask=mask), x)
    plain = pv.programs.Autoencoder(encoder=pv.nets.MLP((5,), (2,)), likelihood=pv.likelihoods.Normal(2, (5,)))
    with pytest.raises(ValueError, match="program: "):
        rows(make(), plain.double(), x)


def test_posteriors_without_the_densities_or_moments_needed_are_refused_by_name():
    x = torch.rand(6, 5).double()
    with pytest.raises(ValueError, match="posterior: .*'z'"):
        rows(E.BetaTC(data_size=10), vae(pv.posteriors.FullRankNormal), x)
    with pytest.raises(ValueError, match="posterior: DIP.*'z'"):
        rows(E.DIP(), vae(pv.posteriors.PlanarFlow), x)
    for estimator in (E.BetaTC(data_size=10), E.DIP()):
        with pytest.raises(ValueError, match=r"program: .*\['z2', 'z1'\]"):
            rows(estimator, hierarchy(), x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: E.InfoVAE(alpha=1.5), "alpha: expected a number of at most 1, got 1.5"),
        (lambda: E.InfoVAE(alpha=0.0, lambda_=0.5), "lambda_: expected a number of at least 1 - alpha = 1, got 0.5"),
        (lambda: E.MMD(lambda_=-1.0), "lambda_: expected a number of at least 0, got -1.0"),
        (lambda: E.WAE(lambda_=math.nan), "lambda_: expected a number of at least 0, got nan"),
        (lambda: E.BetaTC(data_size=1), "data_size: expected an int of at least 2, got 1"),
        (lambda: E.BetaTC(data_size=10, gamma=-1.0), "gamma: expected a number of at least 0, got -1.0"),
        (lambda: E.BetaTC(data_size=10, beta=-1.0), "beta: expected a number of at least 0, got -1.0"),
        (lambda: E.DIP(diagonal=-1.0), "diagonal: expected a number of at least 0, got -1.0"),
        (lambda: E.FactorVAE(discriminator=discriminator(), gamma=-1.0), "gamma: expected a number of at least 0"),
        (lambda: E.RBF(0.0), "variance: expected a positive number or None, got 0.0"),
        (lambda: E.InverseMultiquadratic(-1.0), "c: expected a positive number or None, got -1.0"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=f"^{message.partition(chr(58))[0]}: "):
        make()
