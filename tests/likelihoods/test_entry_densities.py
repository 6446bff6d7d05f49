"""Distributions of one entry against arbitrary precision, scipy, torch and Pyro."""

import math

import mpmath
import numpy as np
import pytest
import torch
from pyro import distributions as dist
from scipy import stats

from pyro_vae.distributions import (
    Beta,
    BetaBinomial,
    Binomial,
    DiscretizedLogistic,
    Gamma,
    NegativeBinomial,
    OrderedLogistic,
    Poisson,
    StudentT,
    ZeroInflatedNegativeBinomial,
)

mpmath.mp.dps = 60
lgamma, log = mpmath.loggamma, mpmath.log


def exact(*values):
    """The numbers that float32 makes of these, exactly."""
    return [mpmath.mpf(float(np.float32(v))) for v in values]


def nb(x, mean, r):
    x, mean, r = exact(x, mean, r)
    return lgamma(x + r) - lgamma(r) - lgamma(x + 1) + r * log(r / (r + mean)) + x * log(mean / (r + mean))


def poisson(x, rate):
    x, rate = exact(x, rate)
    return x * log(rate) - rate - lgamma(x + 1)


def binomial(x, n, t):
    x, n, t = exact(x, n, t)
    return lgamma(n + 1) - lgamma(x + 1) - lgamma(n - x + 1) + x * t - n * mpmath.log1p(mpmath.exp(t))


def beta_binomial(x, n, a, b):
    x, n, a, b = exact(x, n, a, b)
    choose = lgamma(n + 1) - lgamma(x + 1) - lgamma(n - x + 1)
    return choose + log(mpmath.beta(x + a, n - x + b)) - log(mpmath.beta(a, b))


def beta(x, a, b):
    x, a, b = exact(x, a, b)
    return (a - 1) * log(x) + (b - 1) * mpmath.log1p(-x) + lgamma(a + b) - lgamma(a) - lgamma(b)


def gamma(x, k, rate):
    x, k, rate = exact(x, k, rate)
    return k * log(rate) + (k - 1) * log(x) - rate * x - lgamma(k)


def student(x, df, scale):
    x, df, scale = exact(x, df, scale)
    head = lgamma((df + 1) / 2) - lgamma(df / 2) - log(mpmath.pi * df) / 2 - log(scale)
    return head - (df + 1) / 2 * mpmath.log1p((x / scale) ** 2 / df)


def bins(x, loc, scale, levels):
    (loc, scale), k, top = exact(loc, scale), round(x * (levels - 1)), levels - 1

    def tail(edge):
        return 1 / (1 + mpmath.exp((mpmath.mpf(edge) / top - loc) / scale))

    with mpmath.workdps(300):
        return log((1 if k == 0 else tail(k - 0.5)) - (0 if k == top else tail(k + 0.5)))


T = torch.tensor
EXTREMES = {
    "poisson": (
        lambda x, rate: Poisson(T(rate)).log_prob(T(x)),
        poisson,
        [(0.0, 1e-4), (0.0, 30.0), (3.0, 1e-12), (7.0, 7.5), (1e9, 1e9), (1e9, 1.0001e9), (1e9, 1e-4), (2.0, 1e12)],
    ),
    "negative binomial": (
        lambda x, mean, r: NegativeBinomial(T(mean), T(r)).log_prob(T(x)),
        nb,
        [(0.0, 1.0, 1e-4), (5.0, 2.0, 1e9), (1e9, 1e9, 1e9), (1e9, 1.0001e9, 1e5), (1e9, 1e-4, 1e-4), (1.0, 1e9, 3.0)]
        + [(0.0, 1e9, 1e12), (40.0, 50.0, 0.3), (8.0, 8.0, 8.0), (1e5, 1e5, 1e12), (1.0, 1e-12, 1e-12)],
    ),
    "binomial": (
        lambda x, n, t: Binomial(T(n), logits=T(t)).log_prob(T(x)),
        binomial,
        [(0.0, 255.0, 3.0), (255.0, 255.0, -1e4), (0.0, 255.0, -1e4), (100.0, 255.0, -0.4), (5e8, 1e9, 0.0)]
        + [(5.00002e8, 1e9, 1e-5), (3.0, 5.0, 40.0)],
    ),
    "beta-binomial": (
        lambda x, n, a, b: BetaBinomial(T(a), T(b), T(n)).log_prob(T(x)),
        beta_binomial,
        [(0.0, 255.0, 0.7, 0.7), (255.0, 255.0, 1e-4, 3.0), (100.0, 255.0, 1e4, 1e4), (3e8, 1e9, 2.0, 5.0)]
        + [(128.0, 255.0, 1e7, 1e7)],
    ),
    "beta": (
        lambda x, a, b: Beta(T(a), T(b)).log_prob(T(x)),
        beta,
        [(0.5, 1e9, 1e9), (1e-30, 1e-4, 1.0), (0.3, 3e6, 7e6), (0.9999999, 1e4, 1e-4), (0.2, 0.7, 0.9)],
    ),
    "gamma": (
        lambda x, k, rate: Gamma(T(k), T(rate)).log_prob(T(x)),
        gamma,
        [(1.0, 1e6, 1e6), (1e-30, 1e-4, 1.0), (1e9, 1e-4, 1e4), (2.0, 3.0, 1e-12), (1e12, 2.0, 1e-12)]
        + [(7.0, 1e4, 1e3)],
    ),
    "student": (
        lambda x, df, scale: StudentT(T(df), T(0.0), T(scale)).log_prob(T(x)),
        student,
        [(1.0, 1e-4, 1.0), (0.0, 5.0, 1.0), (3.0, 1e6, 1.0), (3.0, 1e12, 1.0), (1e4, 3.0, 1e-12), (1.0, 3.0, 1e12)]
        + [(1e9, 1e-4, 1e-12), (2.0, 16.1, 1.3)],
    ),
    "bins": (
        lambda x, loc, scale, levels: DiscretizedLogistic(T(loc), T(scale), levels).log_prob(T(x)),
        bins,
        [(100 / 255, 0.4, 0.05, 256), (0.0, 0.4, 0.01, 256), (1.0, -3.0, 0.01, 256), (0.2, 0.7, 1e-3, 256)]
        + [(0.2, 0.5, 1e12, 256), (1.0, 0.1, 1e-2, 2), (0.2, 1e2, 1.0, 16)],
    ),
}
CASES = [
    pytest.param(found, truth, case, id=f"{k}-{case}")
    for k, (found, truth, cases) in EXTREMES.items()
    for case in cases
]


@pytest.mark.parametrize(("found", "truth", "case"), CASES)
def test_float32_matches_the_exact_log_density(found, truth, case):
    assert math.isclose(float(found(*case)), float(truth(*case)), rel_tol=1e-5, abs_tol=1e-5)


def test_distributions_match_scipy():
    x = np.arange(0, 40)
    v = torch.tensor(x, dtype=torch.float64)
    one = torch.tensor(1.0, dtype=torch.float64)
    for fn, ref in [
        (NegativeBinomial(7 * one, 2.5 * one), stats.nbinom(2.5, 2.5 / 9.5).logpmf(x)),
        (Poisson(7 * one), stats.poisson(7).logpmf(x)),
        (Binomial(39 * one, logits=0.4 * one), stats.binom(39, 1 / (1 + math.exp(-0.4))).logpmf(x)),
        (BetaBinomial(2 * one, 0.7 * one, 39 * one), stats.betabinom(39, 2, 0.7).logpmf(x)),
    ]:
        np.testing.assert_allclose(fn.log_prob(v), ref, rtol=1e-9, atol=1e-9)
    y = np.linspace(0.01, 0.99, 50)
    v = torch.tensor(y, dtype=torch.float64)
    for fn, ref in [
        (Beta(2 * one, 0.7 * one), stats.beta(2, 0.7).logpdf(y)),
        (Gamma(2 * one, 0.7 * one), stats.gamma(2, scale=1 / 0.7).logpdf(y)),
        (StudentT(3 * one, 0.2 * one, 0.7 * one), stats.t(3, 0.2, 0.7).logpdf(y)),
    ]:
        np.testing.assert_allclose(fn.log_prob(v), ref, rtol=1e-9, atol=1e-9)


def test_negative_binomial_is_a_gamma_mixture_of_poissons():
    """One count under Gamma(a, b) is torch's NegativeBinomial(a, probs=1/(1 + b)), of mean a/b."""
    a, b, x = 2.3, 0.6, torch.arange(30.0)
    known = dist.NegativeBinomial(a, probs=1 / (1 + b)).log_prob(x)
    assert torch.allclose(NegativeBinomial(T(a / b), T(a)).log_prob(x), known, atol=1e-5)
    gate = T(-0.7)
    inflated = dist.ZeroInflatedNegativeBinomial(a, probs=T(1 / (1 + b)), gate_logits=gate)
    found = ZeroInflatedNegativeBinomial(T(a / b), T(a), gate)
    assert torch.allclose(found.log_prob(x), inflated.log_prob(x), atol=1e-5)
    assert math.isclose(found.mean, float((x * inflated.log_prob(x).exp()).sum()), rel_tol=2e-2)


def test_ordered_logistic_matches_pyro_where_pyro_is_precise():
    cuts = T([-1.0, 0.5, 3.0])
    for eta in (-3.0, 0.0, 4.0):
        known = dist.OrderedLogistic(T(eta), cuts)
        found = OrderedLogistic(T(eta), cuts.diff(), cuts[0])
        assert torch.allclose(found.probs, known.probs, atol=1e-6)
    far = OrderedLogistic(T(1e4), cuts.diff(), cuts[0]).log_prob(T([0.0, 1.0, 2.0, 3.0]))
    assert torch.allclose(far, T([-10001.0, -9999.75, -9997.085, 0.0]), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("total", [1, 7, 255])
def test_counts_sum_to_one(total):
    x = torch.arange(total + 1.0)
    for fn in (Binomial(T(float(total)), logits=T(0.7)), BetaBinomial(T(0.4), T(3.0), T(float(total)))):
        assert abs(float(fn.log_prob(x).double().logsumexp(0))) < 1e-5
        assert math.isclose(fn.mean, (fn.log_prob(x).exp() * x).sum(), rel_tol=1e-4)
