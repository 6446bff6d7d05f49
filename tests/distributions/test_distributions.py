"""Distributions against closed forms and float64."""

import math

import numpy as np
import pytest
import torch
from pyro import distributions as dist

from pyro_vae.distributions import ContinuousBernoulli, GreyBernoulli, IndependentBernoulli, Mixture
from pyro_vae.scales import Fixed, inverse_positive, positive

NODES, WEIGHTS = np.polynomial.legendre.leggauss(400)
LOGITS = [0.0, 1e-8, 1e-4, 1e-3, 0.05, 0.0999, 0.1001, 0.3, 1.0, 5.0, 30.0, 90.0, 1e4]


@pytest.mark.parametrize("t", LOGITS + [-t for t in LOGITS])
def test_continuous_bernoulli_in_float32_is_that_in_float64(t):
    """Value, gradient and mean, against C = 2 atanh(1 - 2p)/(1 - 2p) integrated in closed form in float64."""
    logit = torch.tensor(t, requires_grad=True)
    wide = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    # log of the integral of e^(tx): by Gauss-Legendre quadrature of e^(t(x - 1)) or e^(tx), whichever is bounded
    x = torch.tensor((NODES + 1) / 2)
    top = torch.clamp(wide, min=0)
    if abs(t) < 100:
        normaliser = top + torch.log((torch.exp(wide * x - top) * torch.tensor(WEIGHTS / 2)).sum())
    else:
        normaliser = top - wide.abs().log()
    for value in (0.0, 0.3, 1.0):
        found = ContinuousBernoulli(logits=logit, validate_args=False).log_prob(torch.tensor(value))
        exact = wide * value - normaliser
        assert math.isclose(float(found.detach()), float(exact.detach()), rel_tol=2e-6, abs_tol=2e-6 * max(1, abs(t)))
        (gradient,) = torch.autograd.grad(found, logit)
        (exact_gradient,) = torch.autograd.grad(exact, wide, retain_graph=True)
        assert math.isclose(float(gradient), float(exact_gradient), rel_tol=1e-5, abs_tol=1e-5)
    mean = torch.autograd.grad(normaliser, wide)[0]
    assert math.isclose(
        float(ContinuousBernoulli(logits=logit).mean.detach()), float(mean), rel_tol=1e-5, abs_tol=1e-6
    )


def test_continuous_bernoulli_samples_follow_its_mean():
    fn = ContinuousBernoulli(logits=torch.tensor([-3.0, 0.0, 2.0]))
    x = fn.sample((20000,))
    assert ((x.mean(0) - fn.mean).abs() < 4 * x.std(0) / math.sqrt(20000)).all()


def test_grey_bernoulli_is_the_cross_entropy():
    fn = GreyBernoulli(logits=torch.tensor(0.7))
    p = torch.sigmoid(torch.tensor(0.7))
    assert torch.allclose(fn.expand((3,)).log_prob(torch.full((3,), 0.2)), 0.2 * p.log() + 0.8 * (1 - p).log())
    with pytest.raises(ValueError, match="support"):
        GreyBernoulli(logits=torch.tensor(0.7), validate_args=True).log_prob(torch.tensor(1.2))


@pytest.mark.parametrize("raw", [-1e4, -100.0, -3.0, 0.0, 3.0, 1e4])
def test_scales_neither_vanish_nor_overflow(raw):
    raw = torch.tensor(raw, requires_grad=True)
    scale = positive(raw)
    assert 0 < float(scale.detach()) < float("inf")
    assert torch.isfinite(torch.autograd.grad(scale.log(), raw)[0])


def test_scale_and_its_inverse():
    scale = torch.tensor([2e-4, 0.1, 1.0, 50.0], dtype=torch.float64)
    assert torch.allclose(positive(inverse_positive(scale)), scale)
    with pytest.raises(ValueError, match="value"):
        Fixed(0.0)


def test_mixture_of_diagonal_normals_far_and_narrow():
    """The matrix products agree with the sum over pairs in double precision, components narrow and far away too."""
    torch.manual_seed(0)
    loc, logits = 10 * torch.randn(50, 40), torch.randn(50)
    scale = torch.logspace(-3, 1, 50)[:, None].expand(50, 40)
    z = loc + 2 * scale * torch.randn(50, 40)
    found = []
    for dtype in (torch.float32, torch.float64):
        inputs = [t.to(dtype).requires_grad_() for t in (z, loc, scale)]
        log_prob = Mixture(logits.to(dtype), dist.Normal(*inputs[1:]).to_event(1)).log_prob(inputs[0])
        each = dist.Normal(*inputs[1:]).to_event(1).log_prob(inputs[0].unsqueeze(-2))
        plain = (each + logits.to(dtype).log_softmax(-1)).logsumexp(-1)
        found.append([[f.detach(), *torch.autograd.grad(f.sum(), inputs)] for f in (log_prob, plain)])
    (mine, _), (mine_wide, exact) = found
    for single, double, truth in zip(mine, mine_wide, exact, strict=True):
        # narrow components have gradients of 1e6: what counts is the size of the gradient as a whole
        torch.testing.assert_close(double, truth, rtol=1e-7, atol=1e-7 * float(truth.abs().max()))
        torch.testing.assert_close(single.double(), truth, rtol=1e-4, atol=1e-5 * float(truth.abs().max()))


@pytest.mark.parametrize("event", [0, 1, 2])
def test_independent_bits_are_those_of_torch(event):
    """Density and its gradient, broadcast over particles."""
    logits = torch.randn(4, 3, 2, requires_grad=True)
    x = torch.rand(5, 4, 3, 2).bernoulli()
    plain = dist.Bernoulli(logits=logits)
    mine, exact = (f.log_prob(x) for f in (IndependentBernoulli(plain, event), plain.to_event(event)))
    torch.testing.assert_close(mine, exact)
    grads = [torch.autograd.grad(f.square().sum(), logits)[0] for f in (mine, exact)]
    torch.testing.assert_close(*grads)
    assert type(IndependentBernoulli(plain, event).expand((5, 4, 3, 2)[: 4 - event])) is IndependentBernoulli
