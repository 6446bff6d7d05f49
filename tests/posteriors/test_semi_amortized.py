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


def refined_loss(through, num_steps=4, family=posteriors.MeanFieldNormal, learning_rate=0.1):
    """The ELBO of a linear-Gaussian program at one draw, as a function without arguments, and its parameters."""
    toy = pv.testing.LinearGaussian()
    parts = {"prior": toy.program.prior, "likelihood": toy.program.likelihood}
    torch.manual_seed(0)
    inner = family((5,), 2, net=LINEAR).double()
    options = {"num_steps": num_steps, "learning_rate": learning_rate, "through": through}
    program = pv.VAE(**parts, posterior=posteriors.SemiAmortized(inner, **parts, **options))
    x, estimator = toy.draw(3), pv.estimators.ELBO(analytic_kl=False)

    def loss():
        torch.manual_seed(1)
        return estimator.differentiable_loss(program.model, program.guide, x)

    return loss, list(program.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("learning_rate", [0.1, 2.0], ids=["small", "with undone steps"])
@pytest.mark.parametrize("family", [posteriors.MeanFieldNormal, posteriors.FullRankNormal])
def test_gradient_through_the_steps_is_that_of_differences(family, learning_rate):
    """Of encoder, decoder and scale; without `through` the gradient differs, and the value does not."""
    loss, parameters = refined_loss(True, family=family, learning_rate=learning_rate)
    found = torch.cat([g.flatten() for g in torch.autograd.grad(loss(), parameters)])
    differences = []
    for p in parameters:
        for i in range(p.numel()):
            values = []
            for step in (1e-6, -2e-6, 1e-6):
                p.data.view(-1)[i] += step
                values.append(float(loss().detach()))
            differences.append((values[0] - values[1]) / 2e-6)
    torch.testing.assert_close(found, torch.tensor(differences).double(), rtol=1e-4, atol=1e-5)
    constant, others = refined_loss(False, family=family, learning_rate=learning_rate)
    torch.testing.assert_close(constant(), loss())
    assert (torch.cat([g.flatten() for g in torch.autograd.grad(constant(), others)]) - found).abs().max() > 0.1


def test_a_step_that_diverges_is_undone_without_a_trace_in_the_gradient():
    loss, parameters = refined_loss(True, learning_rate=1e6)
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss(), parameters))


def test_a_program_refined_with_gradients_through_the_steps_obeys_the_laws():
    prior, likelihood = pv.priors.StandardNormal(2), pv.likelihoods.Normal(2, (3,), net=SMALL)
    parts = {"prior": prior, "likelihood": likelihood}
    inner = posteriors.MeanFieldNormal((3,), 2, net=SMALL)
    posterior = posteriors.SemiAmortized(inner, **parts, num_steps=2, through=True)
    vae = pv.VAE(**parts, posterior=posterior)
    pv.testing.check_estimator(vae, pv.estimators.ELBO(num_particles=2), torch.randn(6, 3))
    with torch.no_grad():  # evaluation needs no graph
        assert not vae.encode(torch.randn(2, 3)).mean.requires_grad
    vae.posterior.requires_grad_(False)
    vae.encode(torch.randn(2, 3)).mean.sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in likelihood.parameters())


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
