"""The semi-amortized posterior: it refines, belongs to a program, and says what it cannot refine."""

import copy
import functools

import pytest
import torch
from helpers.small_parts import LINEAR, SMALL

import pyro_vae as pv
from pyro_vae import posteriors


@pytest.mark.parametrize("family", [posteriors.MeanFieldNormal, posteriors.FullRankNormal, posteriors.Laplace])
def test_refinement_increases_the_elbo_of_each_example(family):
    toy = pv.testing.LinearGaussian()
    program = toy.program
    amortized = family((5,), 2, net=LINEAR).double()
    refined = posteriors.SemiAmortized(
        amortized, prior=program.prior, likelihood=program.likelihood, num_steps=40, num_samples=16
    )
    x = toy.draw(6)
    names = set(dict(refined.named_parameters()))
    bounds = []
    for posterior in (amortized, refined):
        q = posterior(x)
        z = q.rsample((2000,))
        joint = program.likelihood(z).log_prob(x) + program.prior().log_prob(z)
        bounds.append((joint - q.log_prob(z)).mean(0).detach())
    exact = toy.log_evidence(x).detach()
    assert (bounds[1] > bounds[0]).all()
    assert ((exact - bounds[1]) < 0.3 * (exact - bounds[0]) + 0.15).all()
    # the model is referenced, not owned; and the encoder has its network back
    assert names == {f"posterior.{n}" for n, _ in amortized.named_parameters()}
    refined(x).mean.sum().backward()
    assert amortized.net.body[0].weight.grad.abs().sum() > 0


def test_copies_refer_to_the_model_of_their_program():
    prior, likelihood = pv.priors.StandardNormal(2), pv.likelihoods.Normal(2, (3,), net=SMALL)
    inner = posteriors.MeanFieldNormal((3,), 2, net=SMALL)
    posterior = posteriors.SemiAmortized(inner, prior=prior, likelihood=likelihood, num_steps=2)
    vae = pv.VAE(prior=prior, likelihood=likelihood, posterior=posterior)
    other = copy.deepcopy(vae)
    assert other.posterior.net._parts == (other.posterior.posterior, other.prior, other.likelihood)
    pv.testing.check_estimator(vae, pv.estimators.ELBO(num_particles=2), torch.randn(6, 3))


def test_wrong_arguments_are_refused():
    prior, likelihood = pv.priors.StandardNormal(2), pv.likelihoods.Normal(2, (3,), net=SMALL)
    make = functools.partial(posteriors.SemiAmortized, prior=prior, likelihood=likelihood)
    with pytest.raises(TypeError, match="posterior: .*StudentT"):
        make(posteriors.StudentT((3,), 2, net=SMALL))(torch.zeros(4, 3))
    with pytest.raises(TypeError, match="net"):
        make(prior)
    inner = posteriors.MeanFieldNormal((3,), 2, net=SMALL)
    for argument, value in (("num_steps", 0), ("num_samples", 3), ("learning_rate", 0.0)):
        with pytest.raises(ValueError, match=argument):
            make(inner, **{argument: value})
