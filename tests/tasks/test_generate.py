"""New data and ways through latent space, against the closed forms of a linear VAE."""

import math

import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.tasks import AggregatePosterior, generate, geometric, interpolate, linear, spherical, tempered, traverse
from pyro_vae.testing import LinearGaussian


def moments_agree(x, mean, covariance):
    """Whether mean and covariance of draws are within 4 standard errors of those of a normal."""
    n = len(x)
    error = (x.mean(0) - mean).abs() / (covariance.diagonal() / n).sqrt()
    var = covariance.diagonal()
    spread = (covariance**2 + var[:, None] * var[None]) / n
    off = (torch.cov(x.T) - covariance).abs() / spread.sqrt()
    # the largest of 5 + 15 entries: 4 standard errors
    return bool((error < 4).all() and (off < 4).all())


@pytest.mark.parametrize("temperature", [1.0, 0.25, 2.0])
def test_samples_at_a_temperature_have_the_moments_of_the_tempered_model(temperature):
    """x = W z + mu + noise with z of covariance T: mean and covariance of 20,000 draws."""
    toy = LinearGaussian()
    w, noise = toy.decoder.weight.detach(), 0.36 * torch.eye(5).double()
    x = generate(toy.program, 20000, temperature=temperature)
    assert moments_agree(x, toy.decoder.bias.detach(), temperature * w @ w.T + noise)
    assert torch.equal(generate(toy.program, 9, seed=3), generate(toy.program, 9, seed=3))


def test_tempering_by_choice_among_draws_agrees_with_the_closed_form():
    """A normal that does not look like one: variance T within 4 standard errors, 4,000 draws."""
    plain = dist.Normal(torch.zeros(4000, 2), 1.5).to_event(1)
    hidden = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(4000, 2)), dist.Normal(torch.zeros(4000, 2, 2), 1.5).to_event(1)
    )
    for fn in (plain, hidden):
        z = tempered(fn, 0.5)
        assert abs(float(z.mean())) < 4 * math.sqrt(2.25 * 0.5 / 8000)
        assert abs(float(z.var()) - 1.125) < 4 * 1.125 * math.sqrt(2 / 8000)
    with pytest.raises(ValueError, match="above 1, which only normal priors"):
        tempered(hidden, 1.5)


def test_conditional_samples_follow_their_context():
    """A decoder that adds ten times the context: every sample stands where its row of context says."""
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (3,), context=1, net=Shift),
        posterior=pv.posteriors.MeanFieldNormal((3,), 2, context=1),
    )
    c = torch.arange(50.0).reshape(50, 1)
    flat = AggregatePosterior(vae, (torch.randn(60, 3), torch.zeros(60, 1)), components=2)
    for options in ({}, {"temperature": 0.5}, {"prior": flat}):
        x = generate(vae, 50, context=[c], mean=True, **options)
        assert torch.allclose(x, 10 * c.expand(50, 3))
    with pytest.raises(ValueError, match=r"context\[0\]: expected 4 rows"):
        generate(vae, 4, context=[c])


class Shift(torch.nn.Module):
    """A network whose output is ten times its context."""

    def __init__(self, in_shape, out_shape, context=0):
        super().__init__()
        self.out_shape, self.zero = out_shape, torch.nn.Parameter(torch.zeros(()))

    def forward(self, z, c):
        return (10 * c).expand(*z.shape[:-1], *self.out_shape) + self.zero


def test_aggregate_posterior_is_the_average_of_posteriors():
    """Data far from the prior: the fitted density has their exact latent moments, and its samples stand there."""
    toy = LinearGaussian()
    x = toy.draw(4000) + 3 * toy.decoder.weight.detach()[:, 0]
    fitted = AggregatePosterior(toy.program, x, components=1, draws=5)
    mean, covariance = toy.posterior(x)
    exact = torch.cov(mean.detach().T) + covariance.detach()
    assert torch.allclose(fitted.loc[0], mean.detach().mean(0), atol=0.05)
    assert torch.allclose(fitted().components.covariance_matrix[0], exact, atol=0.05)
    made, own = (generate(toy.program, 4000, prior=prior, mean=True).mean(0) for prior in (fitted, None))
    there = (mean.mean(0) @ toy.decoder.weight.T + toy.decoder.bias).detach()
    # 4 standard errors of the mean of the widest latent
    assert (made - there).abs().max() < 4 * 1.5 / math.sqrt(4000)
    assert (own - there).abs().max() > 1
    again = pv.VAE(prior=fitted, likelihood=toy.program.likelihood, posterior=toy.program.posterior)
    wide = pv.evaluation.log_likelihood(again, x[:200], num_particles=200).mean
    assert wide > pv.evaluation.log_likelihood(toy.program, x[:200], num_particles=200).mean
    with pytest.raises(ValueError, match="components: expected at most 20"):
        AggregatePosterior(toy.program, x[:20], components=21)


def test_paths_begin_and_end_at_the_posterior_means():
    """All three paths agree with the decoder at the ends; with one covariance the geometric path is straight."""
    toy = LinearGaussian()
    a, b = toy.draw(4, 1), toy.draw(4, 2)
    w, bias = toy.decoder.weight.detach(), toy.decoder.bias.detach()
    ends = [toy.posterior(x)[0].detach() @ w.T + bias for x in (a, b)]
    for path in (linear, spherical, geometric):
        found = interpolate(toy.program, a, b, steps=5, path=path)
        assert torch.allclose(found[0], ends[0])
        assert torch.allclose(found[-1], ends[1])
    straight = interpolate(toy.program, a, b, steps=5, path=linear)
    assert torch.allclose(straight[1], 0.75 * ends[0] + 0.25 * ends[1])
    assert torch.allclose(interpolate(toy.program, a, b, steps=5, path=geometric), straight)
    with pytest.raises(ValueError, match="end: expected 4 rows"):
        interpolate(toy.program, a, b[:2])


def test_arc_has_constant_length_and_speed():
    """Between means of one length: every point has it, and equal steps have equal angles."""
    start, end = torch.randn(6, 3).double(), torch.randn(6, 3).double()
    end = end * start.norm(dim=-1, keepdim=True) / end.norm(dim=-1, keepdim=True)
    normals = [dist.Normal(m, 1.0).to_event(1) for m in (start, end)]
    points = torch.stack([spherical(*normals, i / 4) for i in range(5)])
    assert torch.allclose(points.norm(dim=-1), start.norm(dim=-1).expand(5, 6))
    steps = (points[1:] - points[:-1]).norm(dim=-1)
    assert torch.allclose(steps, steps[:1].expand(4, 6))
    same = spherical(normals[0], normals[0], 0.3)
    assert torch.allclose(same, start)


def test_geometric_path_is_the_product_of_densities():
    """Full covariances: the mean of q0^(1-t) q1^t maximizes it, so that its gradient there is zero."""
    a, b = torch.randn(2, 3, 3).double(), torch.randn(2, 3, 3).double()
    full = [dist.MultivariateNormal(torch.randn(2, 3).double(), m @ m.mT + torch.eye(3).double()) for m in (a, b)]
    z = geometric(*full, 0.3).requires_grad_()
    (slope,) = torch.autograd.grad((0.7 * full[0].log_prob(z) + 0.3 * full[1].log_prob(z)).sum(), z)
    assert slope.abs().max() < 1e-10
    with pytest.raises(ValueError, match="geometric expects normal posteriors"):
        geometric(dist.Laplace(torch.zeros(1, 2), 1.0).to_event(1), full[1], 0.5)


def test_traversal_moves_one_latent():
    """The decoder is linear: moving unit j to v shifts x by (v - mean_j) times column j of W."""
    toy = LinearGaussian()
    x, values = toy.draw(3), [-1.0, 2.0]
    w, mean = toy.decoder.weight.detach(), toy.posterior(x)[0].detach()
    base = mean @ w.T + toy.decoder.bias.detach()
    found = traverse(toy.program, x, values)
    for j in range(2):
        for i, v in enumerate(values):
            assert torch.allclose(found[j, i], base + (v - mean[:, j : j + 1]) * w[:, j])
    assert torch.equal(traverse(toy.program, x, values, units=[1])[0], found[1])
    with pytest.raises(ValueError, match="units: expected indices below 2"):
        traverse(toy.program, x, values, units=[2])
