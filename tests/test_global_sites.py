"""A latent shared by all data (weights of a Bayesian decoder, say) enters once, beside the scaled plate."""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv

N = 6


def programs(x, size):
    """w shared, z_i and x_i local, all normal; the guide is the exact posterior for a plate of size len(x)."""
    rows = torch.arange(len(x))
    precision = 1 + len(x) / 2
    mean = x.sum() / 2 / precision

    def plate():
        return pyro.plate("data", size, subsample=rows, dim=-1)

    def model(x):
        w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
        with plate():
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(w + z, 1.0), obs=x)

    def guide(x):
        w = pyro.sample("w", dist.Normal(mean, precision**-0.5))
        with plate():
            pyro.sample("z", dist.Normal((x - w) / 2, math.sqrt(0.5)))

    return model, guide


@pytest.mark.parametrize("num_particles", [1, 4])
def test_exact_posterior_gives_the_evidence_at_every_draw(num_particles):
    x = torch.randn(N, dtype=torch.float64)
    covariance = 2 * torch.eye(N).double() + torch.ones(N, N).double()
    exact = dist.MultivariateNormal(torch.zeros(N).double(), covariance).log_prob(x)
    elbo = pv.estimators.ELBO(num_particles=num_particles, analytic_kl=False)
    assert torch.allclose(elbo.differentiable_loss(*programs(x, N), x), -exact)


@pytest.mark.parametrize("analytic_kl", [False, True])
def test_subsampling_scales_the_data_and_not_what_they_share(analytic_kl):
    x = torch.randn(N, dtype=torch.float64)
    elbo = pv.estimators.ELBO(analytic_kl=analytic_kl)

    def loss(size):
        torch.manual_seed(0)
        return elbo.differentiable_loss(*programs(x, size), x)

    model, guide = programs(x, N)
    torch.manual_seed(0)
    w = pyro.poutine.trace(guide).get_trace(x).nodes["w"]
    shared = w["fn"].log_prob(w["value"]) - dist.Normal(0.0, 1.0).log_prob(w["value"])
    assert torch.allclose(loss(5 * N) - shared, 5 * (loss(N) - shared))


def test_loss_is_that_of_pyro():
    x = torch.randn(N, dtype=torch.float64)
    model, guide = programs(x, 5 * N)
    torch.manual_seed(0)
    ours = pv.estimators.ELBO(analytic_kl=False).loss(model, guide, x)
    torch.manual_seed(0)
    assert ours == pytest.approx(pyro.infer.Trace_ELBO().loss(model, guide, x), rel=1e-9)
