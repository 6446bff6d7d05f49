"""Random numbers by row: their distribution, independence between rows and draws, and what they depend on."""

import math

import pytest
import torch
from pyro import distributions as dist

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.row_noise import RowNoise

N, K = 300, 200
X = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
P = torch.tensor([0.1, 0.6, 0.3])

#: Families that between them use every random operation; each has a mean and a variance.
FAMILIES = {
    "Normal": dist.Normal(1.0, 2.0),
    "Laplace": dist.Laplace(1.0, 2.0),
    "Exponential": dist.Exponential(2.0),
    "Gamma, shape below 1": dist.Gamma(0.3, 2.0),
    "Gamma": dist.Gamma(4.0, 2.0),
    "Beta": dist.Beta(0.5, 2.0),
    "Dirichlet": dist.Dirichlet(torch.tensor([0.2, 1.0, 3.0])),
    "Bernoulli": dist.Bernoulli(0.3),
    "OneHotCategorical": dist.OneHotCategorical(P),
    "Poisson, small": dist.Poisson(0.3),
    "Poisson": dist.Poisson(50.0),
    "NegativeBinomial": dist.NegativeBinomial(3.0, 0.4),
    "MultivariateNormal": dist.MultivariateNormal(torch.ones(2), 2 * torch.eye(2)),
    "StudentT": dist.StudentT(9.0),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_moments_of_each_family(name):
    """60,000 draws: mean within 4 standard errors, variance within 10%; means of rows and of draws vary by chance."""
    fn = FAMILIES[name].expand((K, N))
    with RowNoise((X,), 0):
        z = fn.sample().double()
    z = (z - fn.mean) / fn.stddev
    assert z.mean((0, 1)).abs().max() < 4 / math.sqrt(N * K)
    assert (z.var((0, 1)) - 1).abs().max() < 0.1
    for dim, count in ((0, K), (1, N)):  # the variance of means of independent numbers, within 5 standard errors
        spread = z.mean(dim).var(0) * count
        assert (spread - 1).abs().max() < 5 * math.sqrt(2 / (z.shape[1 - dim] - 1))


def test_uniform_numbers_are_uniform_and_uncorrelated():
    """600,000 numbers: chi-squared in 1,000 bins and correlations of neighbours within 4 standard errors."""
    with RowNoise((X,), 1):
        u, v = torch.rand(2 * K, N, 5), torch.rand(2 * K, N, 5)
    assert u.min() >= 0
    assert u.max() < 1
    expected = u.numel() / 1000
    chi = (torch.histc(u, 1000, 0, 1).double() - expected).square().sum() / expected
    assert abs(float(chi) - 999) < 4 * math.sqrt(2 * 999)
    a, b = u.double() - 0.5, v.double() - 0.5
    for product in (a * b, a[1:] * a[:-1], a[:, 1:] * a[:, :-1], a[..., 1:] * a[..., :-1]):
        assert abs(float(product.mean())) < 4 / 12 / math.sqrt(product.numel())


def test_numbers_of_a_row_depend_on_its_values_the_seed_and_the_draw():
    def draw(x, seed=0):
        with RowNoise((x,), seed):
            return torch.randn(4, len(x)), torch.randn(4, len(x))

    first, second = draw(X)
    assert torch.equal(draw(X[:7])[1], second[:, :7])
    assert not torch.equal(first, second)
    assert not torch.equal(draw(X, 1)[0], first)
    missing, zero = X.clone(), X.clone()
    missing[:, 0], zero[:, 0] = math.nan, 0.0
    assert torch.equal(draw(missing)[0], draw(missing)[0])
    assert not torch.equal(draw(missing)[0], draw(zero)[0])
    negative = torch.where(zero == 0, -0.0, zero)
    assert torch.equal(draw(negative)[0], draw(zero)[0])


def test_numbers_without_a_dimension_of_rows_are_shared():
    with RowNoise((X,), 0):
        shared = torch.randn(5)
    with RowNoise((X[:7],), 0):
        assert torch.equal(torch.randn(5), shared)


def test_categorical_draws_with_dimensions_inside_a_row():
    """The batch of Categorical is flattened to one dimension, in which the rows are in the middle."""
    fn = dist.Categorical(P)
    with RowNoise((X,), 0):
        whole = fn.expand((4, N, 5)).sample()
    with RowNoise((X[7:9],), 0):
        assert torch.equal(fn.expand((4, 2, 5)).sample(), whole[:, 7:9])


def test_gradients_are_those_of_torch():
    """The gradient of a gamma variable by its shape, at the same value."""
    shape = torch.full((N,), 2.0, requires_grad=True)
    with RowNoise((X,), 0):
        z = dist.Gamma(shape, 1.0).rsample()
    (found,) = torch.autograd.grad(z.sum(), shape)
    assert torch.allclose(found, torch._standard_gamma_grad(shape.detach(), z.detach()))


def test_fork_rng_restores_the_number_of_the_draw():
    with RowNoise((X,), 0):
        torch.randn(N)
        with fork_rng():
            first = torch.randn(N)
        with fork_rng(seed=3):
            seeded = torch.randn(N)
        assert torch.equal(torch.randn(N), first)
        with fork_rng(seed=3):
            assert torch.equal(torch.randn(N), seeded)
