"""Truncated distributions against scipy: densities, means, samples, and the small mass outside of the range."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from pyro_vae.distributions import RoundedLogistic, TruncatedLogNormal, TruncatedNormal

#: Mass outside of the range.
OUTSIDE = 2.0**-30
#: Location, scale and range: in the middle, at an end, narrow, wide, far from 0, and wide next to an end.
RANGES = [
    (0.9, 0.5, 0, 1),
    (0, 1, 0, 50),
    (0, 1e-3, 0, 50),
    (3, 1e4, -1, 7),
    (-5, 2, -5, 5),
    (1e6 + 2, 3, 1e6, 1e6 + 9),
]
RANGES += [(0.0, 10.0, 0, 1e-2)]


def double(*values):
    return [torch.tensor(float(v), dtype=torch.float64) for v in values]


@pytest.mark.parametrize("parameters", RANGES)
def test_truncated_normal_is_that_of_scipy(parameters):
    loc, scale, low, high = parameters
    fn = TruncatedNormal(*double(*parameters))
    known = stats.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale)
    x = np.linspace(low, high, 41)
    np.testing.assert_allclose(fn.log_prob(torch.from_numpy(x)), known.logpdf(x), rtol=1e-8, atol=1e-8)
    assert float(fn.mean) == pytest.approx(known.mean(), rel=1e-6, abs=1e-6 * (high - low))
    torch.manual_seed(0)
    samples = fn.sample((4000,)).numpy()
    assert low <= samples.min() <= samples.max() <= high
    assert stats.kstest(samples, known.cdf).pvalue > 1e-4


@pytest.mark.parametrize("parameters", [(0.0, 9.0, -1.0, 1.0), (-3.0, 0.5, -8.0, 0.2), (2.0, 1e-3, 1.0, 3.0)])
def test_truncated_log_normal_is_the_exponential_of_a_truncated_normal(parameters):
    loc, scale, low, high = parameters
    fn = TruncatedLogNormal(*double(*parameters))
    known = stats.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale)
    x = np.exp(np.linspace(low, high, 41))
    np.testing.assert_allclose(fn.log_prob(torch.from_numpy(x)), known.logpdf(np.log(x)) - np.log(x), atol=1e-8)
    near = np.clip([loc - 9 * scale, loc + 9 * scale], low, high)
    mean = integrate.quad(lambda v: math.exp(v) * known.pdf(v), *near, epsabs=1e-12, limit=200)[0]
    assert float(fn.mean) == pytest.approx(mean, rel=1e-6)
    torch.manual_seed(0)
    samples = fn.sample((4000,)).log().numpy()
    assert stats.kstest(samples, known.cdf).pvalue > 1e-4


@pytest.mark.parametrize("scale", [1e-4, 0.05, 0.3, 0.74, 0.76, 1.0, 4.0, 300.0])
@pytest.mark.parametrize(("low", "high"), [(-3, 5), (0, 1), (7, 7), (0, 120)])
def test_rounded_logistic_sums_to_one(scale, low, high):
    """Its probabilities are those of intervals, and mean and samples are those of the probabilities."""
    k = np.arange(low, high + 1)
    for loc in (low, low + 0.5, (low + high) / 2, high - 0.2):
        fn = RoundedLogistic(*double(loc, scale, low, high))
        cdf = stats.logistic(loc, scale).cdf
        p = fn.log_prob(torch.from_numpy(k.astype(float))).exp().numpy()
        known = (cdf(k + 0.5) - cdf(k - 0.5)) / (cdf(high + 0.5) - cdf(low - 0.5))
        np.testing.assert_allclose(p, known, atol=1e-8)
        assert p.sum() == pytest.approx(1 - OUTSIDE, abs=1e-11)
        assert float(fn.mean) == pytest.approx((p * k).sum(), abs=2e-3)
        torch.manual_seed(0)
        samples = fn.sample((2000,)).numpy()
        assert np.isin(samples, k).all()
        deviation = math.sqrt((p * k**2).sum() - (p * k).sum() ** 2 + 1e-9)
        assert abs(samples.mean() - (p * k).sum()) < 5 * deviation / math.sqrt(2000) + 1e-6


def test_the_mass_outside_decays_and_sums_to_its_share():
    """It is the same on both sides, and finite everywhere."""
    fn = TruncatedNormal(*double(0.4, 0.1, 0, 2))
    for low, high in ((2 + 1e-4, 200), (-200, -1e-4)):
        mass = integrate.quad(lambda v: float(fn.log_prob(torch.tensor(v)).exp()), low, high, epsabs=1e-15, limit=400)[
            0
        ]
        assert mass == pytest.approx(OUTSIDE / 2, rel=1e-3)
    fn = RoundedLogistic(*double(0.4, 0.1, 0, 9))
    for k in (torch.arange(10.0, 2000).double(), torch.arange(-2000.0, 0).double()):
        assert float(fn.log_prob(k).exp().sum()) == pytest.approx(OUTSIDE / 2, rel=1e-6)
    wide = TruncatedNormal(torch.tensor(0.4), torch.tensor(0.1), torch.tensor(0.0), torch.tensor(2.0))
    assert wide.log_prob(torch.tensor([-1e6, 1e6])).isfinite().all()
    assert wide.log_prob(torch.tensor([0.0, 2.0])).min() > -200  # the ends belong to the range


@pytest.mark.parametrize("family", [TruncatedNormal, TruncatedLogNormal, RoundedLogistic])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_float32_agrees_with_float64(family, scale):
    """Values and gradients, inside and outside of the range, relative to the largest."""
    x = torch.tensor([0.0, 1.0, 3.0, 8.0, 9.0, 40.0])
    x = x.clamp(min=0.5) if family is TruncatedLogNormal else x
    found = []
    for dtype in (torch.float32, torch.float64):
        loc, width, low, high = (torch.tensor(v, dtype=dtype).requires_grad_() for v in (2.25, scale, 0.0, 9.0))
        fn = family(loc, width, low.detach(), high.detach())
        log_prob = fn.log_prob(x.to(dtype))
        grads = torch.autograd.grad(log_prob[:5].sum(), (loc, width))
        found.append([log_prob.detach(), torch.stack(grads), fn.mean.detach()])
    for single, exact in zip(*found, strict=True):
        assert single.isfinite().all()
        torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=2e-5 * float(exact.abs().max()) + 1e-6)
