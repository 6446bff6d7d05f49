"""Posteriors on the sphere against scipy, quadrature and float64; the special functions that they need."""

import functools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from helpers.checks import within
from torch.distributions import kl_divergence

from pyro_vae.distributions import HypersphericalUniform, PowerSpherical, VonMisesFisher
from pyro_vae.distributions.bessel import bessel_ratio, log_bessel
from pyro_vae.distributions.special import digamma_difference, log_gamma_ratio
from pyro_vae.distributions.sphere import log_area

SPHERICAL = [PowerSpherical, VonMisesFisher]


@pytest.mark.parametrize("n", [2, 3, 5, 10, 50, 128, 256])
def test_bessel_functions_match_scipy_where_scipy_is_finite(n):
    x = np.array([1e-3, 0.1, 1.0, 7.0, 30.0, 128.0, 1e3, 1e4])
    order = n / 2 - 1
    exact, above = scipy.special.ive(order, x), scipy.special.ive(order + 1, x)
    has = (exact > 1e-290) & (above > 1e-290)
    found = log_bessel(order, torch.tensor(x)).numpy()
    np.testing.assert_allclose(found[has], np.log(exact[has]) - order * np.log(x[has]), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(bessel_ratio(order, torch.tensor(x)).numpy()[has], above[has] / exact[has], rtol=1e-10)
    assert np.isfinite(found).all()
    argument = torch.tensor([0.3, 4.0, 60.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(functools.partial(log_bessel, order), argument)
    assert torch.autograd.gradcheck(functools.partial(bessel_ratio, order), argument)


@pytest.mark.parametrize("b", [0.5, 1.0, 3.5, 63.5])
def test_gamma_differences_are_precise_in_float32(b):
    a = np.array([0.01, 0.5, 3.0, 100.0])
    wide = torch.tensor(a)
    exact = scipy.special.gammaln(a + b) - scipy.special.gammaln(a)
    np.testing.assert_allclose(log_gamma_ratio(wide, b), exact, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        digamma_difference(wide, b), scipy.special.digamma(a + b) - scipy.special.digamma(a), rtol=1e-9
    )
    for x in (0.01, 7.0, 1e4, 1e9):
        for f in (log_gamma_ratio, digamma_difference):
            value, exact = float(f(torch.tensor(x), b)), float(f(torch.tensor(x).double(), b))
            assert math.isclose(value, exact, rel_tol=1e-5, abs_tol=1e-7)


def spherical(cls, n, kappa, dtype=torch.float64):
    loc = torch.nn.functional.normalize(torch.linspace(-1, 2, n, dtype=torch.float64), dim=0).to(dtype)
    return cls(loc, torch.tensor(kappa, dtype=dtype, requires_grad=True))


def at_angle(fn, theta):
    """Points at angles from the mean."""
    loc = fn.loc.detach()
    across = torch.zeros_like(loc)
    across[0], across[1] = -loc[1], loc[0]
    across = across / across.norm()
    return theta.cos()[:, None] * loc + theta.sin()[:, None] * across


@pytest.mark.parametrize("cls", SPHERICAL)
@pytest.mark.parametrize(("n", "kappa"), [(2, 0.5), (2, 40.0), (3, 3.0), (8, 200.0), (128, 50.0)])
def test_density_samples_and_gradient_match_quadrature(cls, n, kappa):
    """Mass one over the angle; samples follow it; gradients of moments of the cosine are those of the integral."""
    fn = spherical(cls, n, kappa)
    theta = torch.linspace(0, math.pi, 5001, dtype=torch.float64)
    around = log_area(n - 1) if n > 2 else math.log(2)
    sine = torch.sin(theta).clamp_min(1e-300)
    density = (fn.log_prob(at_angle(fn, theta)) + (n - 2) * sine.log() + around).exp()
    angular = density.detach().numpy()
    assert math.isclose(scipy.integrate.simpson(angular, x=theta.numpy()), 1.0, rel_tol=1e-5)
    # one gradient per sample: each has a kappa of its own
    many = cls(fn.loc.detach().expand(4000, n), fn.concentration.detach().expand(4000).clone().requires_grad_())
    cosine = (many.rsample() * fn.loc).sum(-1)
    cdf = scipy.integrate.cumulative_simpson(angular, x=theta.numpy(), initial=0)
    angles = np.arccos(np.clip(cosine.detach().numpy(), -1, 1))
    assert scipy.stats.kstest(angles, lambda t: np.interp(t, theta.numpy(), cdf)).pvalue > 1e-3
    for moment, exact in (
        (cosine, (fn.mean * fn.loc).sum()),
        (cosine.square(), torch.trapezoid(density * theta.cos().square(), theta)),
    ):
        (slope,) = torch.autograd.grad(moment.sum(), many.concentration, retain_graph=True)
        assert within(slope, torch.autograd.grad(exact, fn.concentration, retain_graph=True)[0])


@pytest.mark.parametrize("cls", SPHERICAL)
def test_gradient_by_the_mean_direction(cls):
    raw = torch.tensor([0.4, -1.0, 0.7], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)
    kappa = torch.tensor(4.0, dtype=torch.float64)
    many = raw.detach().expand(8000, 3).clone().requires_grad_()
    z = cls(torch.nn.functional.normalize(many, dim=-1), kappa).rsample()
    (slope,) = torch.autograd.grad((z @ weights).sum(), many)
    exact = cls(torch.nn.functional.normalize(raw, dim=-1), kappa).mean @ weights
    assert within(slope, torch.autograd.grad(exact, raw)[0])


@pytest.mark.parametrize("cls", SPHERICAL)
@pytest.mark.parametrize("n", [2, 3, 16])
def test_kl_from_the_uniform(cls, n):
    fn, uniform = spherical(cls, n, 6.0), HypersphericalUniform(n)
    z = fn.sample((8000,))
    assert within((fn.log_prob(z) - uniform.log_prob(z)).detach(), kl_divergence(fn, uniform).detach())
    assert kl_divergence(fn.expand((5, 2)), uniform.expand((5, 2))).shape == (5, 2)


@pytest.mark.parametrize("n", [2, 3, 32, 128])
@pytest.mark.parametrize("kappa", [0.01, 1.0, 30.0])
def test_von_mises_fisher_matches_scipy(n, kappa):
    fn = spherical(VonMisesFisher, n, kappa)
    z = fn.sample((5,))
    exact = scipy.stats.vonmises_fisher(fn.loc.numpy(), kappa).logpdf(z.numpy())
    np.testing.assert_allclose(fn.log_prob(z).detach().numpy(), exact, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("cls", SPHERICAL)
@pytest.mark.parametrize("n", [2, 128])
@pytest.mark.parametrize("kappa", [1e-12, 1e-3, 1.0, 1e4, 1e9])
def test_extreme_concentrations_in_float32(cls, n, kappa):
    fn, wide = spherical(cls, n, kappa, torch.float32), spherical(cls, n, kappa)
    z = fn.rsample((50,))
    assert torch.isfinite(z).all()
    assert fn.support.check(z).all()
    (slope,) = torch.autograd.grad(z.sum() + fn.log_prob(z).sum(), fn.concentration)
    assert torch.isfinite(slope)
    for function in (lambda q: q.entropy(), lambda q: q.log_prob(at_angle(q, torch.tensor([0.0]).to(q.loc)))[0]):
        value, exact = function(fn), function(wide)
        assert math.isclose(value.item(), exact.item(), rel_tol=1e-5, abs_tol=1e-5)
        slopes = [torch.autograd.grad(v, q.concentration)[0].item() for v, q in ((value, fn), (exact, wide))]
        assert math.isclose(*slopes, rel_tol=1e-4, abs_tol=1e-6)


@pytest.mark.parametrize("cls", SPHERICAL)
def test_sphere_has_at_least_two_coordinates(cls):
    with pytest.raises(ValueError, match="loc"):
        cls(torch.ones(1), torch.tensor(1.0))
