"""Distributions over levels, bags of words and correlated entries, and the scales of the normal likelihood."""

import math

import mpmath
import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from scipy import stats

import pyro_vae as pv
from pyro_vae.distributions import (
    CoupledLogisticMixture,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    LogCategorical,
    OnGrid,
)

L = pv.likelihoods
T = torch.tensor


@pytest.mark.parametrize("levels", [2, 3, 16, 256])
@pytest.mark.parametrize("loc", [-40.0, 0.0, 0.499, 1.0, 1e4])
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 0.3, 1e12])
def test_levels_sum_to_one(levels, loc, scale):
    fn = DiscretizedLogistic(T(loc), T(scale), levels)
    mixture = DiscretizedLogisticMixture(T([0.3, -1.0]), T([loc, 0.2]), T([scale, 0.1]), levels)
    for f in (fn, mixture):
        log_p = f.log_prob(f.support.values())
        assert torch.isfinite(log_p).all()
        assert abs(float(log_p.double().logsumexp(0))) < 1e-4
        mean = (log_p.double().exp() * f.support.values()).sum()
        assert math.isclose(f.mean, mean, rel_tol=1e-4, abs_tol=1e-4)


def test_coupled_mixture_sums_to_one_and_samples_from_its_density():
    torch.manual_seed(1)
    loc, coupling = torch.rand(3, 1, 2), torch.tensor([1.0, -2.0, 0.5]).reshape(3, 1, 1).expand(3, 1, 2)
    fn = CoupledLogisticMixture(T([[0.4, -0.2]]), loc, torch.full_like(loc, 0.1), coupling, (3, 1), 3)
    points = torch.cartesian_prod(*[torch.arange(3) / 2] * 3).reshape(-1, 3, 1)
    p = fn.log_prob(points).exp()
    assert math.isclose(p.sum(), 1, abs_tol=1e-5)
    codes = (fn.sample((20000,)).reshape(-1, 3) * 2).round().long() @ T([9, 3, 1])
    seen = torch.bincount(codes, minlength=27) / 20000
    assert ((seen - p).abs() < 4 * (p * (1 - p) / 20000).sqrt() + 1e-4).all()
    known = 0
    for weight, j in zip(T([0.4, -0.2]).softmax(0), range(2), strict=True):
        r, g, b = points[..., 0].unbind(-1)
        means = loc[0, 0, j], loc[1, 0, j] + 1.0 * r, loc[2, 0, j] - 2.0 * r + 0.5 * g
        each = zip(means, (r, g, b), strict=True)
        known = known + weight * sum(DiscretizedLogistic(m, T(0.1), 3).log_prob(v) for m, v in each).exp()
    assert torch.allclose(p, known, atol=1e-6)
    apart = CoupledLogisticMixture(T([[0.4, -0.2]]), loc, torch.full_like(loc, 0.1), 0 * coupling, (3, 1), 3)
    assert not torch.allclose(apart.log_prob(points).exp(), p, atol=1e-2)


def test_log_categorical_is_the_categorical_of_normalized_logits():
    """Density, gradient, mean of samples and support are those of Pyro's, which normalizes again."""
    torch.manual_seed(0)
    raw = torch.randn(4, 2, 5, dtype=torch.double, requires_grad=True)
    fn, known = LogCategorical(raw.log_softmax(-1)), dist.Categorical(logits=raw)
    k = known.sample((7,))
    for mine, other in ((fn, known), (fn.expand((3, 4, 2)), known.expand((3, 4, 2)))):
        assert mine.batch_shape == other.batch_shape
        assert torch.allclose(mine.enumerate_support(), other.enumerate_support())
        assert torch.allclose(mine.probs, other.probs)
        assert torch.allclose(mine.entropy(), other.entropy())
    assert torch.allclose(fn.log_prob(k), known.log_prob(k), atol=1e-12)
    grads = [torch.autograd.grad(f.log_prob(k).sum(), raw, retain_graph=True)[0] for f in (fn, known)]
    assert torch.allclose(*grads, atol=1e-12)
    n = 20_000
    frequencies = torch.nn.functional.one_hot(fn.sample((n,)), 5).double().mean(0)
    assert ((frequencies - known.probs).abs() < 4 * (known.probs * (1 - known.probs) / n).sqrt()).all()
    with pyro.validation_enabled(True), pytest.raises(ValueError, match="support"):
        fn.log_prob(torch.full((4, 2), 5))


def test_values_within_1e_4_are_on_the_grid():
    fn = OnGrid(dist.Categorical(logits=torch.randn(256)), 256, 1 / 255)
    x = torch.arange(256) / 255
    for shift in (9e-5, -9e-5):
        assert torch.equal(fn.log_prob(x + shift), fn.log_prob(x))
    with pytest.raises(ValueError, match="support"):
        fn.log_prob(x + 2e-4)


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_multinomial_matches_scipy_for_each_total(shape):
    fn = L.Multinomial(2, shape, total=9)(torch.randn(2))
    x = torch.randint(0, 5, (6, *shape)).float()
    probs = fn.log_probs.exp().detach().double().numpy()
    known = [stats.multinomial(int(v.sum()), probs / probs.sum()).logpmf(v.flatten().numpy()) for v in x]
    np.testing.assert_allclose(fn.log_prob(x).detach(), known, rtol=1e-5, atol=1e-5)
    assert (fn.sample((5,)).flatten(1).sum(1) == 9).all()
    assert fn.log_prob(torch.zeros(shape)).abs() < 1e-6


def test_multinomial_of_a_billion_words():
    x, p = [4e8, 6e8], [0.4, 0.6]
    fn = pv.distributions.BagOfWords(T(p, dtype=torch.float32).log())
    known = mpmath.loggamma(10**9 + 1) + sum(
        v * mpmath.log(mpmath.mpf(w)) - mpmath.loggamma(mpmath.mpf(v) + 1) for v, w in zip(x, p, strict=True)
    )
    assert math.isclose(fn.log_prob(T(x)), float(known), rel_tol=1e-4)


# --- normal families -------------------------------------------------------------------------------------------------


def test_low_rank_normal_has_its_covariance():
    loc, factor, scale = torch.randn(2, 3), torch.randn(2, 2, 3), torch.rand(2, 3) + 0.1
    fn = pv.distributions.LowRankNormal(loc, factor, scale, 2)
    w = factor.reshape(2, 6)
    cov = w.T @ w + torch.diag(scale.flatten() ** 2)
    x = torch.randn(5, 2, 3)
    known = stats.multivariate_normal(loc.flatten(), cov.double()).logpdf(x.reshape(5, 6))
    np.testing.assert_allclose(fn.log_prob(x), known, rtol=1e-4)
    samples = fn.sample((40000,)).reshape(-1, 6)
    error = (torch.outer(cov.diag(), cov.diag()) + cov**2).div(40000).sqrt()
    assert ((torch.cov(samples.T) - cov).abs() < 4.5 * error).all()
    assert torch.allclose(fn.variance.flatten(), cov.diag())


def test_low_rank_normal_is_precise_with_a_tiny_scale():
    torch.manual_seed(0)
    factor, u = torch.randn(2, 50), torch.randn(2)
    x = factor.T @ u + 1e-4 * torch.randn(50)
    found, known = (
        pv.distributions.LowRankNormal(torch.zeros(50, dtype=t), factor.to(t), T(1e-4, dtype=t)).log_prob(x.to(t))
        for t in (torch.float32, torch.float64)
    )
    assert math.isclose(found, known, rel_tol=1e-4)


def test_optimal_sigma_maximizes_the_likelihood():
    part = L.Normal(2, (3,), scale=pv.scales.OptimalSigma())
    z, x = torch.randn(5, 2), torch.randn(5, 3)
    log_p = part(z).log_prob(x)
    error = (x - part.net(z)) ** 2
    best = -15 / 2 * (1 + math.log(2 * math.pi) + error.mean().log())
    assert torch.allclose(log_p.sum(), best, rtol=1e-5)
    found = torch.autograd.grad(log_p.sum(), list(part.parameters()))
    known = torch.autograd.grad(best, list(part.parameters()))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, known, strict=True))
    assert torch.allclose(part.scale() ** 2, 0.9 + 0.1 * error.mean().detach())
    pv.testing.check_part(part, (2,))
    fn = part.eval()(z)
    assert torch.allclose(fn.base_dist.scale, part.scale().expand(5, 3))
    before = part.scale().clone()
    fn.log_prob(x)
    assert torch.equal(before, part.scale())
    with pytest.raises(TypeError, match="OptimalSigma"):
        L.Laplace(2, (3,), scale=pv.scales.OptimalSigma())


def test_optimal_sigma_ignores_missing_entries():
    part = L.Normal(2, (3,), scale=pv.scales.OptimalSigma(momentum=1.0))
    z, x = torch.randn(5, 2), torch.randn(5, 3)
    observed = torch.rand(5, 3) < 0.5
    fn = part(z)
    fn.base_dist.mask(observed).to_event(1).log_prob(torch.where(observed, x, 1e6))
    error = ((x - part.net(z)) ** 2)[observed].mean().detach()
    assert math.isclose(part.scale() ** 2, error, rel_tol=1e-5)
