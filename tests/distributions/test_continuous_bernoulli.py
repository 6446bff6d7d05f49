"""The continuous Bernoulli at every logit, against high-precision formulas and its own score."""

import mpmath
import pytest
import torch

from pyro_vae.distributions import ContinuousBernoulli

LOGITS = [0.0, 1e-4, -0.05, 0.2, -1.0, 3.0, -16.0, 50.0, -400.0, 5000.0]


@pytest.mark.parametrize("t", LOGITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_and_quantiles_are_exact(t, dtype):
    fn = ContinuousBernoulli(logits=torch.tensor(t, dtype=dtype))
    tolerance = {"rtol": 2e-4, "atol": 1e-6} if dtype is torch.float32 else {"rtol": 1e-7, "atol": 1e-10}
    with mpmath.workdps(60):
        size = mpmath.mpf(t) if t else mpmath.mpf("1e-12")
        variance = float(1 / size**2 - 1 / (4 * mpmath.sinh(size / 2) ** 2))
        mean = 1 / (1 - mpmath.exp(-size)) - 1 / size
        entropy = float(mpmath.log(mpmath.expm1(size) / size) - size * mean)
        u = torch.tensor([0.001, 0.2, 0.5, 0.9, 0.999], dtype=dtype)
        exact = [float(mpmath.log1p(mpmath.mpf(float(v)) * mpmath.expm1(size)) / size) for v in u]
    torch.testing.assert_close(fn.variance, torch.tensor(variance, dtype=dtype), **tolerance)
    torch.testing.assert_close(fn.entropy(), torch.tensor(entropy, dtype=dtype), rtol=1e-3, atol=1e-4)
    quantiles = fn.icdf(u)
    torch.testing.assert_close(quantiles, torch.tensor(exact, dtype=dtype), **tolerance)
    if dtype is torch.float64:
        torch.testing.assert_close(fn.cdf(quantiles), u, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("t", LOGITS)
def test_samples_follow_the_density(t):
    """The mean score of samples is zero, within 5 standard errors; so is the error of their mean."""
    torch.manual_seed(0)
    logits = torch.full((100_000,), t, dtype=torch.float64, requires_grad=True)
    fn = ContinuousBernoulli(logits=logits)
    x = fn.sample()
    (score,) = torch.autograd.grad(fn.log_prob(x).sum(), [logits])
    assert abs(float(score.mean())) < 5 * float(score.std()) / 100_000**0.5
    assert abs(float(x.mean() - fn.mean[0].detach())) < 5 * float(x.std()) / 100_000**0.5
    assert ((x >= 0) & (x <= 1)).all()


@pytest.mark.parametrize("t", LOGITS)
def test_gradient_of_samples_is_that_of_quantiles(t):
    u = torch.tensor([0.01, 0.3, 0.8], dtype=torch.float64)
    logits = torch.full((3,), t, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(ContinuousBernoulli(logits=logits).icdf(u).sum(), [logits])
    with mpmath.workdps(60):
        quantile = lambda v, s: mpmath.log1p(v * mpmath.expm1(s)) / s  # noqa: E731
        steps = [
            mpmath.diff(lambda s, v=float(v): quantile(v, s), mpmath.mpf(t or 1e-10), h=mpmath.mpf("1e-15")) for v in u
        ]
    exact = torch.tensor([float(d) for d in steps], dtype=torch.float64)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-8)
