"""The semi-amortized posterior: it refines, belongs to a program, and says what it cannot refine."""

import copy
import functools

import pytest
import torch
from helpers.missing import holes
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


def refined_program(num_steps, missing=False):
    """A linear-Gaussian program, with an encoder far from its exact posterior and with the refined one."""
    toy = pv.testing.LinearGaussian()
    parts = {"prior": toy.program.prior, "likelihood": toy.program.likelihood}
    amortized = posteriors.MeanFieldNormal((5,), 2, net=LINEAR).double()
    refined = posteriors.SemiAmortized(amortized, **parts, num_steps=num_steps)
    return toy, *(pv.VAE(**parts, posterior=q, missing=missing) for q in (amortized, refined))


def test_missing_entries_are_left_out_of_the_refinement():
    """An encoder that sees 0 for a missing entry is refined to the posterior given the observed entries alone."""
    toy, _, program = refined_program(100, missing=True)
    w, sigma = toy.decoder.weight.detach(), program.likelihood.scale().detach()
    x = holes(toy.draw(12))
    with torch.no_grad():
        found = program.encode(x).mean
        refilled = program.encode(torch.nan_to_num(x)).mean
    for row, mean, other in zip(x, found, refilled, strict=True):
        seen = ~row.isnan()
        precision = torch.eye(2).double() + w[seen].T @ w[seen] / sigma**2
        exact = torch.linalg.solve(precision, w[seen].T @ (row - toy.decoder.bias.detach())[seen] / sigma**2)
        # independent latents, and few points of integration: near the exact mean, and nearer than with zeros observed
        assert (mean - exact).abs().max() < 0.1
        assert seen.all() or (mean - exact).norm() < (other - exact).norm()


def test_gaps_and_regret_of_a_refined_posterior():
    """The best posterior of the family is that of the wrapped one; the refined one is nearer to it."""
    toy, amortized, refined = refined_program(3)
    x = toy.draw(8)
    gaps = [
        pv.evaluation.inference_gaps(p, x, evidence=toy.log_evidence, num_steps=200, progress=False)
        for p in (amortized, refined)
    ]
    errors = [gap.approximation.per_example_error for gap in gaps]
    difference = gaps[0].approximation.per_example - gaps[1].approximation.per_example
    assert (difference.abs() < 5 * torch.hypot(*errors) + 0.01).all()
    assert 0 < gaps[1].amortization.mean < gaps[0].amortization.mean / 2
    regret = [pv.tasks.LikelihoodRegret(num_steps=100)(p, x).mean() for p in (amortized, refined)]
    assert regret[1] < regret[0] / 2


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
