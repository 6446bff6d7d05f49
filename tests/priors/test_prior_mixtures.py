"""Mixture priors and the resampled prior."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from helpers.small_parts import LINEAR, check_precision, perturbed
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.distributions import AcceptReject, Mixture
from pyro_vae.testing import check_mass, check_part


@pytest.mark.parametrize("full", [False, True])
def test_mixture_of_normals_matches_scipy(full):
    prior = perturbed(pv.priors.MixtureOfNormals(2, num_components=3, full=full), 1.0)
    with torch.no_grad():
        fn = prior()
        weights = torch.softmax(prior.logits, -1)
        if full:
            factor = prior.raw.tril(-1) + torch.diag_embed(
                torch.diagonal(prior.raw, dim1=-2, dim2=-1).exp().log1p() + 1e-4
            )
            covariances = factor @ factor.mT
        else:
            covariances = torch.diag_embed(fn.components.variance)
        z = 2 * torch.randn(7, 2)
        exact = sum(
            w * scipy.stats.multivariate_normal(m, s).pdf(z)
            for w, m, s in zip(weights.numpy(), prior.loc.numpy(), covariances.numpy(), strict=True)
        )
        assert np.allclose(fn.log_prob(z), np.log(exact), rtol=1e-4)
        x = fn.sample((40000,))
        assert ((x.mean(0) - fn.mean).abs() < 4 * x.std(0) / 200).all()
        assert torch.allclose(x.var(0), fn.variance, rtol=0.05)
    check_part(pv.priors.MixtureOfNormals(3, num_components=2, full=full))


def test_mixture_expands_and_samples_like_that_of_torch():
    logits, loc = torch.randn(5, 4), torch.randn(5, 4, 3)
    own = Mixture(logits, dist.Normal(loc, 0.1).to_event(1))
    other = dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, 0.1).to_event(1))
    z = torch.randn(7, 5, 3)
    for a, b in ((own, other), (own.expand((7, 5)), other.expand((7, 5)))):
        assert torch.allclose(a.log_prob(z), b.log_prob(z), atol=1e-4)
        assert torch.allclose(a.mean, b.mean, atol=1e-6)
        assert torch.allclose(a.variance, b.variance, atol=1e-6)
        assert a.sample((2,)).shape == b.sample((2,)).shape
    assert own.expand((7, 5)).components is own.components
    narrow = Mixture(logits[:1], dist.Normal(loc[:1], 0.1).to_event(1)).expand((6, 5))
    assert narrow.sample().shape == (6, 5, 3)
    assert narrow.log_prob(torch.zeros(3)).shape == (6, 5)
    assert own.sample((0,)).shape == (0, 5, 3)
    with pytest.raises(ValueError, match="logit"):
        Mixture(torch.zeros(3), dist.Normal(loc, 1.0).to_event(1))


def test_mixture_samples_in_passes_of_bounded_size(monkeypatch):
    monkeypatch.setattr("pyro_vae.distributions.mixture.VALUES_PER_PASS", 100)
    fn = Mixture(torch.tensor([0.0, math.log(3.0)]), dist.Normal(torch.tensor([[-5.0], [5.0]]), 1.0).to_event(1))
    z = fn.sample((4000,))
    assert abs(float((z > 0).float().mean()) - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 4000)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("raw", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("logit", [0.0, 1e4])
def test_mixture_at_its_extremes(full, raw, logit):
    part = pv.priors.MixtureOfNormals(2, num_components=3, full=full)
    with torch.no_grad():
        part.logits[0] = logit
        part.raw.fill_(0)
        (part.raw.diagonal(dim1=-2, dim2=-1) if full else part.raw).fill_(raw)
    for size in (1.0, 1e4):
        check_precision(part, torch.tensor([size, -size]))


# --- O7: a mixture prior with a linear decoder -----------------------------------------------------------------------


def linear_vae(prior, posterior):
    likelihood = pv.likelihoods.Normal(2, (3,), net=LINEAR, scale=0.6)
    return pv.VAE(prior=prior, likelihood=likelihood, posterior=posterior)


def exact_evidence(vae, x, weights, means, covariances):
    layer, sigma = vae.likelihood.net.body[0], vae.likelihood.scale()
    cov = layer.weight @ covariances @ layer.weight.T + sigma**2 * torch.eye(3)
    each = dist.MultivariateNormal(means @ layer.weight.T + layer.bias, cov).log_prob(x.unsqueeze(-2))
    return torch.logsumexp(weights.log() + each, -1)


def importance_sampled(vae, x, num_particles=40000):
    """The log-evidence of each example and its standard error in nats, with a wide normal as the proposal."""
    q = dist.Normal(torch.zeros(2), 3.0).to_event(1)
    z = q.sample((num_particles, 1))
    log_w = vae.prior().log_prob(z) + vae.decode(z).log_prob(x) - q.log_prob(z)
    evidence = torch.logsumexp(log_w, 0) - math.log(num_particles)
    return evidence, (log_w - evidence).exp().std(0) / math.sqrt(num_particles)


@pytest.mark.parametrize("kind", ["diagonal", "full", "vamp"])
def test_mixture_prior_has_the_exact_evidence(kind):
    posterior = perturbed(pv.posteriors.MeanFieldNormal((3,), 2, net=LINEAR), 0.2)
    if kind == "vamp":
        prior = pv.priors.VampPrior(posterior, num_components=4, learn_weights=True)
    else:
        prior = pv.priors.MixtureOfNormals(2, num_components=4, full=kind == "full")
    vae = linear_vae(perturbed(prior, 0.4), posterior)
    with torch.no_grad():
        if kind == "vamp":
            q = posterior(prior.inputs)
            means, covariances = q.mean, torch.diag_embed(q.variance)
            means = means - torch.softmax(prior.logits, -1) @ means  # the prior has mean 0
        else:
            components = prior().components
            means = components.mean
            covariances = components.covariance_matrix if kind == "full" else torch.diag_embed(components.variance)
        x = vae.sample(6)
        exact = exact_evidence(vae, x, torch.softmax(prior.logits, -1), means, covariances)
        found, error = importance_sampled(vae, x)
        assert ((found - exact).abs() < 4 * error + 1e-5).all(), (found, exact, error)
        assert error.max() < 0.05
        elbo = pv.estimators.ELBO(num_particles=2000)
        bound = elbo.per_datum(vae.model, vae.guide, x)
        assert (bound < exact + 1e-3).all()
        assert elbo.kl_forms(vae.model, vae.guide, x) == {"z": "Monte Carlo"}


def test_exact_posterior_of_a_mixture_prior_is_a_mixture():
    """Its components are the posteriors of those of the prior; log p(x, z) - log p(z given x) is constant in z."""
    posterior = perturbed(pv.posteriors.MeanFieldNormal((3,), 2, net=LINEAR))
    vae = linear_vae(perturbed(pv.priors.MixtureOfNormals(2, num_components=3, full=True)), posterior).double()
    with torch.no_grad():
        prior, x = vae.prior(), vae.sample(1)
        w, b, sigma = vae.likelihood.net.body[0].weight, vae.likelihood.net.body[0].bias, vae.likelihood.scale()
        precision = prior.components.precision_matrix + w.T @ w / sigma**2
        shift = (prior.components.precision_matrix @ prior.components.mean.unsqueeze(-1)).squeeze(-1)
        mean = torch.linalg.solve(precision, (shift + (x - b) @ w / sigma**2).unsqueeze(-1)).squeeze(-1)
        cov = w @ prior.components.covariance_matrix @ w.T + sigma**2 * torch.eye(3).double()
        joint = torch.log_softmax(prior.logits, -1) + dist.MultivariateNormal(
            prior.components.mean @ w.T + b, cov
        ).log_prob(x)
        exact = Mixture(joint, dist.MultivariateNormal(mean, precision_matrix=precision))
        z = exact.sample((50,))
        evidence = prior.log_prob(z) + vae.decode(z).log_prob(x) - exact.log_prob(z)
        assert torch.allclose(evidence, torch.logsumexp(joint, -1).expand(50), rtol=1e-9)


# --- the resampled prior ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truncation", [2, 5, 100])
def test_resampled_prior_samples_from_its_density(truncation):
    part = pv.priors.Lars(1, truncation=truncation, net=LINEAR)
    with torch.no_grad():
        part.net.body[-1].weight.fill_(3)
        part.net.body[-1].bias.fill_(-1)
        fn = part()
        assert check_mass(fn, part)
        z = fn.sample((20000,)).squeeze(-1)
        line = torch.linspace(-8, 8, 4001)
        density = fn.log_prob(line.unsqueeze(-1)).double().exp()
        cdf = torch.cumulative_trapezoid(density, dx=16 / 4000)
        at = np.interp(z.numpy(), line[1:].numpy(), cdf.numpy())
    assert scipy.stats.kstest(at, "uniform").statistic < 1.95 / math.sqrt(20000)
    assert float((density - dist.Normal(0.0, 1.0).log_prob(line).exp()).abs().max()) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [-1e4, -100.0, -59.0, -20.0, -9.0, 0.0, 9.0, 30.0, 1e4])
def test_constant_acceptance_leaves_the_base(logit, dtype):
    base = dist.Normal(torch.zeros(2, dtype=dtype), 1.0).to_event(1)
    raw = torch.full((5,), logit, dtype=dtype, requires_grad=True)
    fn = AcceptReject(base, lambda z: raw[0] + 0 * z.sum(-1), raw)
    z = torch.randn(4, 2, dtype=dtype)
    assert torch.allclose(fn.log_prob(z), base.log_prob(z), rtol=1e-5, atol=2e-5)
    assert torch.autograd.grad(fn.log_prob(z).sum(), raw)[0].isfinite().all()


def test_resampled_prior_is_deterministic_and_keeps_the_random_state():
    state = torch.get_rng_state()
    pv.priors.Lars(2, net=lambda i, o: torch.nn.Identity())
    assert torch.equal(torch.get_rng_state(), state)
    part, z = pv.priors.Lars(2), torch.randn(3, 2)
    assert torch.equal(part().log_prob(z), part().log_prob(z))
