"""Priors that share the encoder with the posterior."""

import copy
import functools
import math

import pytest
import torch
from helpers.small_parts import SMALL
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.testing import check_part


def encoder():
    return pv.posteriors.MeanFieldNormal((2, 2), 3, net=SMALL)


def test_vamp_prior_trains_the_encoder_through_the_prior():
    posterior = encoder()
    prior = pv.priors.VampPrior(posterior, num_components=5)
    prior().log_prob(torch.zeros(3)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in posterior.parameters())
    assert prior.inputs.grad.abs().sum() > 0
    vae = pv.VAE(prior=prior, likelihood=pv.likelihoods.Bernoulli(3, (2, 2), net=SMALL), posterior=posterior)
    assert len(set(vae.parameters())) == len(list(vae.parameters()))
    twin = copy.deepcopy(vae)
    assert twin.prior.posterior is twin.posterior
    elbo = pv.estimators.ELBO()
    x = torch.rand(6, 2, 2).round()
    before = float(elbo.differentiable_loss(vae.model, vae.guide, x).detach())
    history = pv.fit(vae, x, epochs=100, batch_size=6, compile=False, progress=False)
    assert history["loss"][-1] * 6 < before
    pv.testing.check_estimator(vae, elbo, x)


def test_vamp_prior_is_the_posterior_at_its_inputs():
    posterior, data, z = encoder(), torch.rand(20, 2, 2), torch.randn(7, 3)
    prior = pv.priors.VampPrior(posterior, num_components=20, initial=data, learn_inputs=False, center=False)
    exact = posterior(data).log_prob(z.unsqueeze(-2)).logsumexp(-1) - math.log(20)
    assert torch.allclose(prior().log_prob(z), exact, atol=1e-5)
    assert "inputs" not in dict(prior.named_parameters())
    assert "inputs" in prior.state_dict()
    few = pv.priors.VampPrior(posterior, num_components=50, initial=data).inputs
    assert len(few.unique(dim=0)) == 20


def test_vamp_prior_squashes_only_on_request():
    posterior = encoder()
    data = torch.full((1, 2, 2), 7.0)
    free = pv.priors.VampPrior(posterior, num_components=1, initial=data)
    bounded = pv.priors.VampPrior(posterior, num_components=1, initial=data, squash=torch.nn.Hardtanh(0.0, 1.0))
    assert torch.equal(free().components.mean, posterior(data).mean)
    assert torch.equal(bounded().components.mean, posterior(torch.ones(1, 2, 2)).mean)


class Bare(pv.Conditional):
    """A posterior of another family, without a `net`."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        return dist.Laplace(self.layer(x.flatten(-2)), 1.0).to_event(1)


def test_vamp_prior_takes_any_posterior():
    prior = pv.priors.VampPrior(Bare(), num_components=5, shape=(2, 2))
    check_part(prior)
    assert isinstance(prior().components.base_dist, dist.Laplace)
    with pytest.raises(ValueError, match="shape"):
        pv.priors.VampPrior(Bare())


def test_exemplar_prior_is_a_kernel_density_of_posterior_means():
    posterior, data, z = encoder(), torch.rand(20, 2, 2), torch.randn(7, 3)
    prior = pv.priors.ExemplarPrior(posterior, data, scale=0.5, center=False)
    each = dist.Normal(posterior(data).mean, 0.5).to_event(1).log_prob(z.unsqueeze(-2))
    assert torch.allclose(prior().log_prob(z), each.logsumexp(-1) - math.log(20), atol=1e-4)
    part = pv.priors.ExemplarPrior(posterior, data, subset_size=3)
    assert part().logits.shape == (3,)
    assert part.eval()().logits.shape == (20,)


REAL = ("MeanFieldNormal", "FullRankNormal", "LowRankNormal", "Laplace", "StudentT", "MixtureOfNormals")


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("kind", ["vamp", "exemplar"])
def test_priors_made_of_the_posterior_are_its_mixture_shifted_to_mean_0(name, kind):
    posterior, data, z = getattr(pv.posteriors, name)((2, 2), 3, net=SMALL), torch.rand(8, 2, 2), torch.randn(7, 3)

    def prior(center):
        if kind == "vamp":
            return pv.priors.VampPrior(posterior, num_components=8, initial=data, center=center)
        return pv.priors.ExemplarPrior(posterior, data, center=center)

    with torch.no_grad():
        free = prior(False)
        # the pseudo-inputs are the same rows in another order
        centered = prior(True)()
        assert torch.allclose(centered.mean, torch.zeros(3))
        assert torch.allclose(centered.log_prob(z), free().log_prob(z + free().mean), atol=1e-4)
        assert torch.allclose(centered.expand([7]).log_prob(z), centered.log_prob(z), atol=1e-5)
        draws = centered.sample((20_000,))
    # five standard errors
    assert (draws.mean(0).abs() < 5 * draws.std(0) / 20_000**0.5).all()


@pytest.mark.slow
def test_saturating_networks_do_not_collapse_under_a_prior_made_of_the_posterior(digits):
    x = digits.train.x[:1000]
    net = functools.partial(pv.nets.MLP, hidden=(200, 200), activation=torch.nn.Tanh)

    def kl(center):
        torch.manual_seed(0)
        posterior = pv.posteriors.MeanFieldNormal((8, 8), 50, net=net)
        prior = pv.priors.VampPrior(posterior, num_components=200, initial=x, center=center)
        likelihood = pv.likelihoods.Bernoulli(50, (8, 8), net=net)
        vae = pv.VAE(prior=prior, likelihood=likelihood, posterior=posterior)
        return pv.fit(vae, x, epochs=25, batch_size=100, progress=False)["kl"][-1]

    assert kl(center=True) > 1.0
    with pytest.warns(UserWarning, match="site 'z'"):
        assert kl(center=False) < 0.05
