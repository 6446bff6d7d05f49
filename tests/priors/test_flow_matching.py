"""Flow matching: exact velocity fields, exact Jacobians at any number of steps, and a known mixture as the target."""

import functools
import math

import pytest
import torch
from helpers.small_parts import perturbed
from pyro import distributions as dist
from scipy import stats

import pyro_vae as pv

LOC, COVARIANCE = torch.tensor([1.0, -0.5]).double(), torch.tensor([[0.5, 0.3], [0.3, 0.8]]).double()


class NormalField(torch.nn.Module):
    """The best velocity on straight paths from N(0, I) to a normal, E[z - u given (1 - t) u + t z]."""

    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.loc = torch.nn.Parameter(LOC)

    def forward(self, point):
        x, t = point[..., :2], point[..., 2:, None]
        eye = torch.eye(2, dtype=x.dtype)
        gain = (t * COVARIANCE - (1 - t) * eye) @ torch.linalg.inv((1 - t) ** 2 * eye + t**2 * COVARIANCE)
        return self.loc + (gain @ (x - t[..., 0] * self.loc).unsqueeze(-1)).squeeze(-1)


def test_the_best_field_of_a_normal_gives_its_density_and_samples():
    prior = pv.priors.FlowMatching(2, num_steps=16, net=NormalField)
    exact = dist.MultivariateNormal(LOC, COVARIANCE)
    z = exact.sample((200,)) * 2
    assert torch.allclose(prior().log_prob(z), exact.log_prob(z), atol=1e-4)
    u = torch.randn(200, 2).double()
    distance = (prior.layers[0].inverse(u) - LOC) @ torch.linalg.inv(torch.linalg.cholesky(COVARIANCE)).T
    # the map is one of the square roots of the covariance, so it keeps the distance from the mean
    assert torch.allclose(distance.norm(dim=-1), u.norm(dim=-1), atol=1e-4)


def test_the_best_field_has_the_smallest_regression_loss():
    """It has a gradient of zero in expectation: 5 standard errors over 20,000 samples."""
    prior = pv.priors.FlowMatching(2, net=NormalField)
    z = dist.MultivariateNormal(LOC, COVARIANCE).sample((20_000,))
    loss, field = prior.regression_loss(z), prior.layers[0].net.body
    (slope,) = torch.autograd.grad(loss.mean(), field.loc)
    assert slope.abs().max() < 5 * 2 * float(loss.detach().mean()) ** 0.5 / math.sqrt(len(z))
    with torch.no_grad():
        field.loc += 1.0
    (slope,) = torch.autograd.grad(prior.regression_loss(z).mean(), field.loc)
    assert slope.abs().max() > 0.2


@pytest.mark.parametrize("num_steps", [1, 2])
def test_the_mass_is_one_at_few_steps(num_steps):
    """The trace of the Jacobian along these steps would be wrong by the error of integration."""
    prior = perturbed(pv.priors.FlowMatching.example(latent=1, num_steps=num_steps), 0.3).double()
    line = torch.linspace(-15, 15, 4001).double().unsqueeze(-1)
    with torch.no_grad():
        assert float(prior().log_prob(line).exp().sum()) * 30 / 4000 == pytest.approx(1.0, abs=1e-6)


def test_a_fit_to_a_known_mixture():
    """Within 0.03 nats of its entropy; mean, variance and a Kolmogorov-Smirnov test of 500 samples at level 1%."""
    torch.manual_seed(0)
    target = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.tensor([0.3, 0.7])),
        torch.distributions.Normal(torch.tensor([-1.5, 1.0]), torch.tensor([0.4, 0.6])),
    )
    prior = pv.priors.FlowMatching(1, net=functools.partial(pv.nets.MLP, hidden=(64, 64)))
    num_steps = 1500
    adam = torch.optim.Adam(prior.parameters(), lr=5e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, num_steps)
    for _ in range(num_steps):
        adam.zero_grad()
        prior.regression_loss(target.sample((256, 1))).mean().backward()
        adam.step()
        decay.step()
    with torch.no_grad():
        z = target.sample((5000, 1))
        divergence = target.log_prob(z).squeeze(-1) - prior().log_prob(z)
        assert abs(float(divergence.mean())) < 0.03
        found = prior().sample((500,)).squeeze(-1)
    assert abs(float(found.mean() - target.mean)) < 4 * float(target.stddev) / math.sqrt(500)
    assert abs(float(found.var() / target.variance) - 1) < 4 * math.sqrt(2 / 500)
    assert stats.kstest(found.numpy(), lambda v: target.cdf(torch.as_tensor(v)).numpy()).pvalue > 0.01


def test_invalid_number_of_steps():
    with pytest.raises(ValueError, match="num_steps"):
        pv.priors.FlowMatching(2, num_steps=0)
