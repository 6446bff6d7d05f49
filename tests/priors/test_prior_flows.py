"""Flow priors: Jacobians, inverses, mass, gradients of samples; masked networks and splines."""

import copy
import math

import pytest
import torch
from helpers.small_parts import check_precision, perturbed
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.distributions.masked_affine import MaskedMLP
from pyro_vae.distributions.rational_spline import knots, rational_spline

FLOWS = [
    pv.priors.AffineCouplingFlow,
    pv.priors.MaskedAutoregressiveFlow,
    pv.priors.NeuralSplineFlow,
    pv.priors.AutoregressivePrior,
    pv.priors.FlowMatching,
]


def flow(cls, latent, std=0.3):
    return perturbed(cls.example(latent=latent), std)


@pytest.mark.parametrize("cls", FLOWS)
def test_flows_far_from_the_data(cls):
    part = flow(cls, 4, 0.1)
    for size in (1.0, 30.0, 1e4):
        check_precision(part, size * torch.tensor([[1.0, -0.5, 0.3, -1.0], [0.0, 0.0, 1.0, 1.0]]), rtol=1e-3)
    with torch.no_grad():
        for p in part.parameters():
            p.mul_(10)
    z = torch.randn(20, 4, requires_grad=True)
    log_p = part().log_prob(z)
    assert log_p.isfinite().all()
    assert torch.autograd.grad(log_p.sum(), z)[0].isfinite().all()
    assert part().sample((20,)).isfinite().all()


@pytest.mark.parametrize("latent", [2, 5])
@pytest.mark.parametrize("cls", FLOWS)
def test_log_determinant_and_inverse_of_layers(cls, latent):
    part = flow(cls, latent).double()
    z = 2 * torch.randn(3, latent, dtype=torch.float64)

    def through(z):
        for layer in part.layers:
            z = layer(z)[0]
        return z

    u, total = z, 0.0
    for layer in part.layers:
        before = u
        u, log_det = layer(u)
        total = total + log_det
        assert torch.allclose(layer.inverse(u), before, atol=1e-8)
    for row, found in zip(z, total, strict=True):
        jacobian = torch.autograd.functional.jacobian(through, row)
        assert torch.allclose(torch.linalg.slogdet(jacobian)[1], found, atol=1e-8)
    exact = dist.Normal(0.0, 1.0).log_prob(u).sum(-1) + total
    assert torch.allclose(part().log_prob(z), exact)


@pytest.mark.parametrize("cls", FLOWS)
def test_flows_have_mass_one_and_dependent_latents(cls):
    part = flow(cls, 2, 0.1)
    line = torch.linspace(-10, 10, 401)
    with torch.no_grad():
        mass = part().log_prob(torch.cartesian_prod(line, line)).double().exp().sum()
    assert math.isclose(float(mass) * 0.05**2, 1.0, abs_tol=1e-3)
    # of independent latents this second difference would be 0
    z = part().sample((1, 1)).detach().expand(2, 2, 2).clone()
    z[0, :, 0], z[1, :, 0] = -1.0, 1.0
    z[:, 0, 1], z[:, 1, 1] = -1.0, 1.0
    log_p = part().log_prob(z)
    assert abs(float((log_p[0, 0] + log_p[1, 1] - log_p[0, 1] - log_p[1, 0]).detach())) > 1e-3


@pytest.mark.parametrize("cls", FLOWS)
def test_samples_have_the_gradient_of_the_inverse(cls):
    part = flow(cls, 3).double()
    z = part().rsample((4,))
    assert z.requires_grad
    # u was sampled independently of the weights: the derivative of u(z(weights), weights) is 0
    u = z
    for layer in part.layers:
        u = layer(u)[0]
    grads = torch.autograd.grad(u.sum(), list(part.parameters()), allow_unused=True)
    assert all(g is None or g.abs().max() < 1e-7 for g in grads)


def test_flows_cache_nothing_between_calls():
    part = flow(pv.priors.MaskedAutoregressiveFlow, 3)
    fn = part()
    z = fn.sample((4,))
    before = fn.log_prob(z).detach()
    assert len(copy.deepcopy(part).state_dict()) == len(part.state_dict())
    perturbed(part)
    assert not torch.allclose(fn.log_prob(z), before, atol=1e-3)
    assert torch.equal(fn.log_prob(z), part().log_prob(z))


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("hidden", [(3,), (7, 16)])
def test_masked_network_depends_on_earlier_inputs_only(size, hidden):
    net = perturbed(MaskedMLP(size, 2, hidden=hidden, activation=torch.nn.Tanh), 1.0)
    jacobian = torch.autograd.functional.jacobian(net, torch.randn(size)).abs().sum(0)
    assert torch.equal(jacobian.triu(), torch.zeros(size, size))
    if min(hidden) >= size - 1:
        assert (jacobian[torch.ones(size, size).tril(-1).bool()] > 0).all()


def test_autoregressive_prior_is_a_chain_of_normals():
    part = flow(pv.priors.AutoregressivePrior, 3)
    z = torch.randn(5, 3)
    loc, log_scale = part.layers[0].affine(z)
    exact = dist.Normal(loc, log_scale.exp()).log_prob(z).sum(-1)
    assert torch.allclose(part().log_prob(z), exact, atol=1e-5)


def test_spline_is_a_smooth_increasing_bijection():
    raw = 2 * torch.randn(1, 3 * 6 - 1, dtype=torch.float64)
    x = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    y, log_slope = rational_spline(x, raw.expand(2001, -1), 4.0)
    assert (y.diff() > 0).all()
    assert torch.equal(y[x.abs() >= 4], x[x.abs() >= 4])
    back, log_back = rational_spline(y, raw.expand(2001, -1), 4.0, inverse=True)
    assert torch.allclose(back, x, atol=1e-9)
    assert torch.allclose(log_back, -log_slope, atol=1e-7)
    at = x.clone().requires_grad_()
    slope = torch.autograd.grad(rational_spline(at, raw.expand(2001, -1), 4.0)[0].sum(), at)[0]
    assert torch.allclose(slope.log(), log_slope, atol=1e-8)
    knot = knots(raw[:, :6], 4.0)
    around = torch.cat([knot - 1e-10, knot + 1e-10]).unsqueeze(-1)
    left, right = rational_spline(around.squeeze(-1), raw.expand(2, 7, -1), 4.0)[1]
    assert torch.allclose(left, right, atol=1e-6)
    zero, flat = rational_spline(x, torch.zeros(2001, 17, dtype=torch.float64), 4.0)
    assert torch.allclose(zero, x)
    assert flat.abs().max() < 1e-9
