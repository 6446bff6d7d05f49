"""Likelihoods against exact sums, scipy, arbitrary precision, float64, and their own draws."""

import math

import mpmath
import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from scipy import stats
from torch import nn

import pyro_vae as pv
from pyro_vae.distributions import (
    Beta,
    BetaBinomial,
    Binomial,
    CoupledLogisticMixture,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gamma,
    LogCategorical,
    NegativeBinomial,
    OnGrid,
    OrderedLogistic,
    Poisson,
    StudentT,
    ZeroInflatedNegativeBinomial,
)
from pyro_vae.testing import parts
from pyro_vae.testing.grids import array_grid

L = pv.likelihoods
SHELF = list(parts(L))
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
        [
            (1.0, 1e6, 1e6),
            (1e-30, 1e-4, 1.0),
            (1e9, 1e-4, 1e4),
            (2.0, 3.0, 1e-12),
            (1e12, 2.0, 1e-12),
            (7.0, 1e4, 1e3),
        ],
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
def test_float32_is_the_exact_log_density(found, truth, case):
    assert math.isclose(float(found(*case)), float(truth(*case)), rel_tol=1e-5, abs_tol=1e-5)


def test_the_distributions_are_those_of_scipy():
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


def test_ordered_logistic_is_that_of_pyro_where_pyro_has_digits():
    cuts = T([-1.0, 0.5, 3.0])
    for eta in (-3.0, 0.0, 4.0):
        known = dist.OrderedLogistic(T(eta), cuts)
        found = OrderedLogistic(T(eta), cuts.diff(), cuts[0])
        assert torch.allclose(found.probs, known.probs, atol=1e-6)
    far = OrderedLogistic(T(1e4), cuts.diff(), cuts[0]).log_prob(T([0.0, 1.0, 2.0, 3.0]))
    assert torch.allclose(far, T([-10001.0, -9999.75, -9997.085, 0.0]), rtol=1e-6, atol=1e-3)


# --- O11: what is discrete sums to one over its support --------------------------------------------------------------


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


@pytest.mark.parametrize("total", [1, 7, 255])
def test_counts_sum_to_one(total):
    x = torch.arange(total + 1.0)
    for fn in (Binomial(T(float(total)), logits=T(0.7)), BetaBinomial(T(0.4), T(3.0), T(float(total)))):
        assert abs(float(fn.log_prob(x).double().logsumexp(0))) < 1e-5
        assert math.isclose(fn.mean, (fn.log_prob(x).exp() * x).sum(), rel_tol=1e-4)


def test_coupled_mixture_sums_to_one_and_draws_what_it_says():
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


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_multinomial_is_that_of_scipy_for_each_total(shape):
    part = L.Multinomial(2, shape, total=9)
    fn = part(torch.randn(2))
    x = torch.randint(0, 5, (6, *shape)).float()
    probs = fn.log_probs.exp().detach().double().numpy()
    known = [stats.multinomial(int(v.sum()), probs / probs.sum()).logpmf(v.flatten().numpy()) for v in x]
    np.testing.assert_allclose(fn.log_prob(x).detach(), known, rtol=1e-5, atol=1e-5)
    assert (fn.sample((5,)).flatten(1).sum(1) == 9).all()
    assert fn.log_prob(torch.zeros(shape)).abs() < 1e-6


def test_multinomial_of_a_billion_words():
    x, p = [4e8, 6e8], [0.4, 0.6]
    fn = pv.distributions.BagOfWords(T(p, dtype=torch.float32).log())
    known = lgamma(10**9 + 1) + sum(
        v * log(mpmath.mpf(w)) - lgamma(mpmath.mpf(v) + 1) for v, w in zip(x, p, strict=True)
    )
    assert math.isclose(fn.log_prob(T(x)), float(known), rel_tol=1e-4)


# --- normal families -------------------------------------------------------------------------------------------------


def test_low_rank_normal_is_the_normal_with_that_covariance():
    loc, factor, scale = torch.randn(2, 3), torch.randn(2, 2, 3), torch.rand(2, 3) + 0.1
    fn = pv.distributions.LowRankNormal(loc, factor, scale, 2)
    w = factor.reshape(2, 6)
    cov = w.T @ w + torch.diag(scale.flatten() ** 2)
    x = torch.randn(5, 2, 3)
    known = stats.multivariate_normal(loc.flatten(), cov.double()).logpdf(x.reshape(5, 6))
    np.testing.assert_allclose(fn.log_prob(x), known, rtol=1e-4)
    draws = fn.sample((40000,)).reshape(-1, 6)
    error = (torch.outer(cov.diag(), cov.diag()) + cov**2).div(40000).sqrt()
    assert ((torch.cov(draws.T) - cov).abs() < 4.5 * error).all()
    assert torch.allclose(fn.variance.flatten(), cov.diag())


def test_low_rank_normal_keeps_its_digits_beside_a_tiny_scale():
    torch.manual_seed(0)
    factor, u = torch.randn(2, 50), torch.randn(2)
    x = factor.T @ u + 1e-4 * torch.randn(50)
    found, known = (
        pv.distributions.LowRankNormal(torch.zeros(50, dtype=t), factor.to(t), T(1e-4, dtype=t)).log_prob(x.to(t))
        for t in (torch.float32, torch.float64)
    )
    assert math.isclose(found, known, rel_tol=1e-4)


def test_optimal_scale_is_the_best_one():
    part = L.Normal(2, (3,), scale=pv.scales.OptimalSigma())
    z, x = torch.randn(5, 2), torch.randn(5, 3)
    fn = part(z)
    log_p = fn.log_prob(x)
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
    with pytest.raises(TypeError, match="Normal likelihood alone"):
        L.Laplace(2, (3,), scale=pv.scales.OptimalSigma())


def test_optimal_scale_leaves_out_what_is_missing():
    part = L.Normal(2, (3,), scale=pv.scales.OptimalSigma(momentum=1.0))
    z, x = torch.randn(5, 2), torch.randn(5, 3)
    seen = torch.rand(5, 3) < 0.5
    fn = part(z)
    fn.base_dist.mask(seen).to_event(1).log_prob(torch.where(seen, x, 1e6))
    error = ((x - part.net(z)) ** 2)[seen].mean().detach()
    assert math.isclose(part.scale() ** 2, error, rel_tol=1e-5)


# --- laws over the shelf ---------------------------------------------------------------------------------------------


class Constant(nn.Module):
    """A network that returns its parameter, whatever comes in."""

    def __init__(self, raw, out_shape):
        super().__init__()
        self.raw = nn.Parameter(torch.broadcast_to(torch.tensor(raw), out_shape).clone())

    def forward(self, z, *context):
        return self.raw.expand(len(z), *self.raw.shape)


def inside(support):
    """Values inside a support, its extremes among them."""
    while isinstance(support, torch.distributions.constraints.independent):
        support = support.base_constraint
    values = T([-1e9, -1e4, -1.0, 0.0, 1e-30, 1e-6, 0.5, 1 - 1e-7, 1.0, 2.0, 255.0, 1e6, 1e9])
    grid = getattr(support, "values", None)
    return grid() if grid else values[support.check(values.unsqueeze(-1)).reshape(len(values))]


FACTORIZED = [c for c in SHELF if isinstance(c.example()(torch.zeros(3)), dist.Independent)]
PLAIN = [c for c in FACTORIZED if c.__name__ != "Heterogeneous"]


@pytest.mark.parametrize("raw", [-1e4, -3.0, 0.0, 2.0, 1e4])
@pytest.mark.parametrize("cls", PLAIN)
def test_value_and_gradient_in_float32_are_those_of_float64(cls, raw):
    part = cls(1, (1,), net=lambda i, o: Constant(raw, o))
    values = inside(part(torch.zeros(1)).support)
    for value in values[:: max(1, len(values) // 16)]:
        results = []
        for dtype in (torch.float32, torch.float64):
            part = part.to(dtype).eval()
            part.zero_grad()
            log_p = part(torch.zeros(1, dtype=dtype)).log_prob(value.reshape(1).to(dtype))
            log_p.backward()
            results.append(
                (log_p.detach().double(), torch.cat([p.grad.double().flatten() for p in part.parameters()]))
            )
        (found, gradient), (known, known_gradient) = results
        assert torch.isfinite(found)
        assert torch.isfinite(gradient).all()
        assert math.isclose(found, known, rel_tol=1e-5, abs_tol=1e-5), (value, found, known)
        size = known_gradient.abs().max().clamp(min=1)
        assert ((gradient - known_gradient).abs() <= 2e-5 * size).all(), (value, gradient, known_gradient)


@pytest.mark.parametrize("cls", PLAIN)
def test_draws_follow_the_density(cls):
    """Kolmogorov and Smirnov's statistic, against the summed or integrated density; and the mean."""
    torch.manual_seed(3)
    n = 20000
    part = cls(1, (1,))
    with torch.no_grad():
        fn = part(torch.randn(1))
        values, weight = array_grid(fn.support.base_constraint, fn.event_shape, 8001)
        mass = fn.log_prob(values).double().exp() * weight
        x = fn.sample((n,)).flatten()
        mean = fn.mean
    v = values.flatten().to(x.dtype)
    empirical = torch.searchsorted(x.sort().values, v + 1e-6 * v.abs().clamp(min=1e-3), right=True) / n
    below = mass.cumsum(0) - (0 if fn.support.is_discrete else mass / 2)
    assert (empirical - below).abs().max() < 1.95 / math.sqrt(n)
    error = x.std() / math.sqrt(n)
    assert abs(x.mean() - mean) < 4 * error


@pytest.mark.parametrize("cls", FACTORIZED)
def test_masked_entries_leave_the_density_and_its_gradient(cls):
    torch.manual_seed(0)
    part = cls.example().eval()
    z = torch.randn(6, 3)
    fn = part(z)
    k = fn.reinterpreted_batch_ndims
    assert fn.base_dist.event_shape == ()
    assert fn.base_dist.batch_shape == (6, *fn.event_shape)
    x = fn.sample()
    seen = torch.rand(x.shape) < 0.5
    other = torch.where(seen, x, part(z).sample())
    results = []
    for v in (x, other):
        part.zero_grad()
        log_p = part(z).base_dist.mask(seen).to_event(k).log_prob(v)
        log_p.sum().backward()
        results.append((log_p.detach(), [p.grad.clone() for p in part.parameters() if p.grad is not None]))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    by_hand = torch.where(seen, part(z).base_dist.log_prob(x), 0).flatten(1).sum(1)
    assert torch.allclose(results[0][0], by_hand, atol=1e-5)


@pytest.mark.parametrize("cls", SHELF)
def test_expansion_repeats(cls):
    fn = cls.example()(torch.randn(3))
    x = fn.sample((4, 2))
    wide = fn.expand((4, 2))
    assert wide.batch_shape == (4, 2)
    assert torch.allclose(wide.log_prob(x), fn.log_prob(x), atol=1e-5)
    assert wide.sample().shape == x.shape


OPTIONS = [
    (L.Laplace, {"scale": pv.scales.PerExample()}),
    (L.LogNormal, {"scale": pv.scales.Shared(shape=(2, 2))}),
    (L.StudentT, {"scale": pv.scales.PerExample(), "df": pv.scales.PerExample()}),
    (L.StudentT, {"df": 3.0}),
    (L.Gamma, {"concentration": 2.0}),
    (L.NegativeBinomial, {"inverse_dispersion": pv.scales.PerExample()}),
    (L.ZeroInflatedNegativeBinomial, {"inverse_dispersion": 2.0}),
    (L.DiscretizedLogistic, {"levels": 2, "scale": pv.scales.Shared(0.1)}),
    (L.DiscretizedLogisticMixture, {"levels": 4, "coupled": True}),
    (L.DiscretizedLogisticMixture, {"levels": 4, "num_components": 1}),
    (L.LowRankNormal, {"rank": 3, "scale": pv.scales.PerExample()}),
    (L.Categorical, {"levels": 3, "grid": False}),
    (L.OrderedLogistic, {"levels": 2}),
    (L.OrderedLogistic, {"levels": 4, "grid": True}),
    (L.Binomial, {"total": 3, "grid": True}),
    (L.BetaBinomial, {"total": 3, "grid": True}),
]


@pytest.mark.parametrize(("cls", "options"), OPTIONS)
def test_options_obey_the_laws(cls, options):
    """An AssertionError of `check_part` names the law that an option breaks."""
    pv.testing.check_part(cls(3, (2, 2), **options), (3,))


@pytest.mark.parametrize("cls", [L.DiscretizedLogisticMixture, L.LowRankNormal, L.ZeroInflatedNegativeBinomial])
def test_convolutions_decode(cls):
    """An AssertionError of `check_part` names the law that a convolutional decoder breaks."""
    pv.testing.check_part(cls(3, (3, 6, 5), net=pv.nets.ConvDecoder), (3,))


def test_three_coupled_channels_decode():
    """An AssertionError of `check_part` names the law that coupled channels break."""
    pv.testing.check_part(L.DiscretizedLogisticMixture(3, (3, 6, 5), net=pv.nets.ConvDecoder, coupled=True), (3,))


# --- library size ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [L.NegativeBinomial, L.ZeroInflatedNegativeBinomial])
def test_library_size_scales_the_means(cls):
    part = cls(3, (2, 2), context=3, library=True)
    pv.testing.check_part(part, (3,), (3,))
    z, covariates, size = torch.randn(7, 5, 3), torch.randn(5, 2), T([1e-3, 1.0, 50.0, 1e4, 1e9]).reshape(5, 1)
    fn = part(z, torch.cat([covariates, size], -1))
    apart = part(z, covariates, size)
    assert fn.batch_shape == (7, 5)
    assert torch.allclose(fn.base_dist.rate.sum((-2, -1)), size.squeeze(-1).expand(7, 5), rtol=1e-5)
    assert torch.equal(fn.base_dist.rate, apart.base_dist.rate)
    other = part(z, torch.cat([covariates + 1, size], -1))
    assert not torch.allclose(other.base_dist.rate, fn.base_dist.rate)
    assert torch.isfinite(fn.log_prob(torch.zeros(2, 2))).all()
    with pytest.raises(ValueError, match="context=1"):
        cls(3, (2, 2), library=True)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "bad"),
    [
        (L.DiscretizedLogistic, 0.5),
        (L.DiscretizedLogistic, 1.004),
        (L.Categorical, 0.5),
        (L.Binomial, 256.0),
        (L.BetaBinomial, 0.5),
        (L.Beta, 1.0),
        (L.Gamma, 0.0),
        (L.LogNormal, 0.0),
        (L.Poisson, 0.5),
        (L.NegativeBinomial, -1.0),
        (L.ZeroInflatedNegativeBinomial, 1.5),
        (L.Multinomial, 0.5),
        (L.OrderedLogistic, 5.0),
    ],
)
def test_data_outside_the_support_are_refused_with_a_remedy(cls, bad):
    part = cls(3, (2,))
    vae = pv.VAE(prior=pv.priors.StandardNormal(3), likelihood=part, posterior=pv.posteriors.MeanFieldNormal((2,), 3))
    x = part(torch.randn(4, 3)).sample()
    vae.check(x)
    x[2, 1] = bad
    with pytest.raises(ValueError, match="outside the support") as error:
        vae.check(x)
    assert part.hint
    assert part.hint in str(error.value)
    with pyro.validation_enabled(True), pytest.raises(ValueError, match="support"):
        part(torch.randn(4, 3)).log_prob(x)


def test_log_categorical_is_the_categorical_of_normalized_logits():
    """Density, gradient, mean of draws and support are those of Pyro's, which normalizes again."""
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
    share = torch.nn.functional.one_hot(fn.sample((n,)), 5).double().mean(0)
    assert ((share - known.probs).abs() < 4 * (known.probs * (1 - known.probs) / n).sqrt()).all()
    with pyro.validation_enabled(True), pytest.raises(ValueError, match="support"):
        fn.log_prob(torch.full((4, 2), 5))


def test_values_within_a_tenthousandth_are_on_the_grid():
    fn = OnGrid(dist.Categorical(logits=torch.randn(256)), 256, 1 / 255)
    x = torch.arange(256) / 255
    for shift in (9e-5, -9e-5):
        assert torch.equal(fn.log_prob(x + shift), fn.log_prob(x))
    with pytest.raises(ValueError, match="support"):
        fn.log_prob(x + 2e-4)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: L.Categorical(3, (2,), levels=1), "levels"),
        (lambda: L.DiscretizedLogistic(3, (2,), levels=0), "levels"),
        (lambda: L.DiscretizedLogisticMixture(3, (2,), num_components=0), "num_components"),
        (lambda: L.OrderedLogistic(3, (2,), levels=1), "levels"),
        (lambda: L.Binomial(3, (2,), total=0), "total"),
        (lambda: L.BetaBinomial(3, (2,), total=0), "total"),
        (lambda: L.Multinomial(3, (2,), total=0), "total"),
        (lambda: L.LowRankNormal(3, (2,), rank=0), "rank"),
        (lambda: pv.scales.OptimalSigma(momentum=0.0), "momentum"),
    ],
)
def test_wrong_options_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
