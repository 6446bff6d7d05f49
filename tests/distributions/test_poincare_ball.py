"""The Poincaré ball and its wrapped normal, against quadrature, closed forms of hyperbolic geometry and float64."""

import math

import pytest
import torch
from helpers.checks import within
from torch.distributions import biject_to

import pyro_vae as pv
from pyro_vae.distributions.poincare_ball import Radial, WrappedNormal, ball, mobius_add
from pyro_vae.testing.grids import ball_grid


def wrapped(n):
    """A wrapped normal in float64, off the centre, with a scale for each coordinate."""
    loc = Radial()(torch.linspace(-1, 1.5, n, dtype=torch.float64))
    return WrappedNormal(loc, torch.linspace(0.5, 1.2, n, dtype=torch.float64))


def distance(x, y):
    r""":math:`\operatorname{arcosh}(1 + 2 |x - y|^2 / ((1 - |x|^2)(1 - |y|^2)))`."""
    apart = 2 * (x - y).square().sum(-1) / ((1 - x.square().sum(-1)) * (1 - y.square().sum(-1)))
    return torch.acosh(1 + apart)


@pytest.mark.parametrize("n", [1, 2])
def test_the_density_has_mass_one_and_samples_follow_it(n):
    torch.manual_seed(0)
    fn = wrapped(n)
    values, weight = ball_grid(n)
    mass = fn.log_prob(values.double()).exp() * weight
    assert math.isclose(float(mass.sum()), 1, abs_tol=1e-6)
    z = fn.sample((20000,))
    for function in (lambda z: z, torch.square, lambda z: (3 * z[:, :1] * z).sin()):
        assert within(function(z), (function(values.double()) * mass[:, None]).sum(0))


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_the_density_is_that_of_its_map(n):
    """The normal density over the determinant of the map from tangent vectors to the ball, by autograd."""
    torch.manual_seed(n)
    fn = wrapped(n)
    t = fn.scale * torch.randn(n, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda t: mobius_add(fn.loc, Radial()(t)), t)
    exact = torch.distributions.Normal(0, fn.scale).log_prob(t).sum() - jacobian.det().abs().log()
    z = mobius_add(fn.loc, Radial()(t))
    assert torch.allclose(fn.log_prob(z), exact, rtol=1e-10)
    assert torch.allclose(distance(z, fn.loc), t.norm(), rtol=1e-9)


def test_the_map_of_all_vectors_onto_the_ball():
    t = torch.randn(5, 3, dtype=torch.float64)
    onto = biject_to(ball)
    assert torch.allclose(onto.inv(onto(t)), t)
    exact = torch.stack([torch.autograd.functional.jacobian(onto, row).det().abs().log() for row in t])
    assert torch.allclose(onto.log_abs_det_jacobian(t, onto(t)), exact)
    assert onto == Radial()


def test_gradients_of_samples():
    r"""Of E[f(z)] by centre and scale: averages of the gradients of samples against those of an integral."""
    torch.manual_seed(0)
    tangent, scale = torch.tensor([0.7, -0.4]).double(), torch.tensor([0.6, 0.9]).double()
    inputs = [tangent.requires_grad_(), scale.requires_grad_()]
    values, weight = ball_grid(2)
    density = WrappedNormal(Radial()(tangent), scale).log_prob(values.double()).exp()
    exact = torch.autograd.grad((density * weight * (3 * values.double()).sin().prod(-1)).sum(), inputs)
    many = [x.detach().expand(20000, 2).clone().requires_grad_() for x in inputs]
    z = WrappedNormal(Radial()(many[0]), many[1]).rsample()
    for found, gradient in zip(torch.autograd.grad((3 * z).sin().prod(-1).sum(), many), exact, strict=True):
        assert within(found, gradient)


def test_far_from_the_centre_and_at_it():
    """Densities of float32 samples at distance 8, and finite gradients at the centre and of extreme outputs."""
    torch.manual_seed(0)
    far = torch.tensor([8.0, 0.0, 0.0])
    fn = WrappedNormal(Radial()(far), torch.ones(3))
    z = fn.sample((1000,))
    assert bool(ball.check(z).all())
    wide = WrappedNormal(fn.loc.double(), fn.scale.double())
    assert torch.allclose(fn.log_prob(z).double(), wide.log_prob(z.double()), rtol=1e-5, atol=1e-4)
    for size in (0.0, 1e-20, 1e3, 1e10):
        loc = torch.full((3,), size, requires_grad=True)
        one = WrappedNormal(Radial()(loc), torch.ones(3))
        value = one.log_prob(one.rsample()) + one.log_prob(torch.zeros(3))
        assert bool(value.isfinite())
        assert bool(torch.autograd.grad(value, loc)[0].isfinite().all())


def test_a_vae_in_the_ball_and_its_refusal_elsewhere():
    posterior, likelihood = pv.posteriors.WrappedNormal((4,), 2), pv.likelihoods.Normal(2, (4,))
    vae = pv.VAE(prior=pv.priors.WrappedNormal(2), likelihood=likelihood, posterior=posterior)
    pv.fit(vae, torch.randn(40, 4), epochs=2, batch_size=20, progress=False)
    flat = pv.VAE(prior=pv.priors.StandardNormal(2), likelihood=likelihood, posterior=posterior)
    with pytest.raises(ValueError, match="vectors shorter than 1"):
        pv.fit(flat, torch.randn(40, 4), epochs=1, batch_size=20, progress=False)


@pytest.mark.parametrize(
    ("dtype", "distance", "tolerance"),
    [(torch.float32, 8.0, 2e-2), (torch.float64, 14.0, 1e-4), (torch.float64, 20.0, 1e-3)],
)
@pytest.mark.parametrize("n", [1, 2, 8])
def test_density_of_samples_far_from_the_origin(dtype, distance, tolerance, n):
    """It is that of the tangent vectors, which are drawn again, times the factor of the volumes."""
    loc = distance * torch.nn.functional.one_hot(torch.tensor(0), n).to(dtype)
    fn = WrappedNormal(Radial()(loc), torch.full((n,), 0.1, dtype=dtype))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        z = fn.rsample((500,))
        torch.manual_seed(0)
        t = 0.1 * torch.randn(500, n, dtype=dtype).double()
    far = t.norm(dim=-1)
    normal = torch.distributions.Normal(0.0, 0.1).log_prob(t).sum(-1)
    volumes = (n - 1) * (far / far.sinh()).log() + n * (2 / (1 - z.double().square().sum(-1))).log()
    assert (fn.log_prob(z).double() - normal - volumes).abs().max() < tolerance
