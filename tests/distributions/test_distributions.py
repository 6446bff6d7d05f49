"""Distributions against closed forms and float64, and one law of `expand`."""

import inspect
import math

import numpy as np
import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.distributions import ContinuousBernoulli, GreyBernoulli, IndependentBernoulli, Mixture
from pyro_vae.distributions.base import Distribution
from pyro_vae.scales import Fixed, inverse_positive, positive

NODES, WEIGHTS = np.polynomial.legendre.leggauss(400)
LOGITS = [0.0, 1e-8, 1e-4, 1e-3, 0.05, 0.0999, 0.1001, 0.3, 1.0, 5.0, 30.0, 90.0, 1e4]


@pytest.mark.parametrize("t", LOGITS + [-t for t in LOGITS])
def test_continuous_bernoulli_in_float32_agrees_with_float64(t):
    """Value, gradient and mean, against C = 2 atanh(1 - 2p)/(1 - 2p) integrated in float64."""
    logit = torch.tensor(t, requires_grad=True)
    wide = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    # log of the integral of e^(tx): Gauss-Legendre quadrature of e^(t(x - 1)) or e^(tx), whichever is bounded
    x = torch.tensor((NODES + 1) / 2)
    top = torch.clamp(wide, min=0)
    if abs(t) < 100:
        normalizer = top + torch.log((torch.exp(wide * x - top) * torch.tensor(WEIGHTS / 2)).sum())
    else:
        normalizer = top - wide.abs().log()
    for value in (0.0, 0.3, 1.0):
        found = ContinuousBernoulli(logits=logit, validate_args=False).log_prob(torch.tensor(value))
        exact = wide * value - normalizer
        assert math.isclose(float(found.detach()), float(exact.detach()), rel_tol=2e-6, abs_tol=2e-6 * max(1, abs(t)))
        (gradient,) = torch.autograd.grad(found, logit)
        (exact_gradient,) = torch.autograd.grad(exact, wide, retain_graph=True)
        assert math.isclose(float(gradient), float(exact_gradient), rel_tol=1e-5, abs_tol=1e-5)
    mean = torch.autograd.grad(normalizer, wide)[0]
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
    """The matrix products agree with the sum over pairs in double precision."""
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
        # narrow components have gradients of 1e6: the tolerance is relative to the largest
        torch.testing.assert_close(double, truth, rtol=1e-7, atol=1e-7 * float(truth.abs().max()))
        torch.testing.assert_close(single.double(), truth, rtol=1e-4, atol=1e-5 * float(truth.abs().max()))


@pytest.mark.parametrize("event", [0, 1, 2])
def test_independent_bernoulli_agrees_with_torch(event):
    """Density and its gradient, broadcast over particles."""
    logits = torch.randn(4, 3, 2, requires_grad=True)
    x = torch.rand(5, 4, 3, 2).bernoulli()
    plain = dist.Bernoulli(logits=logits)
    mine, exact = (f.log_prob(x) for f in (IndependentBernoulli(plain, event), plain.to_event(event)))
    torch.testing.assert_close(mine, exact)
    grads = [torch.autograd.grad(f.square().sum(), logits)[0] for f in (mine, exact)]
    torch.testing.assert_close(*grads)
    assert type(IndependentBernoulli(plain, event).expand((5, 4, 3, 2)[: 4 - event])) is IndependentBernoulli


def families():
    """One instance of every distribution with the shared `expand`, of batch shape (4,)."""
    g = torch.Generator().manual_seed(0)
    real = lambda *shape: torch.randn(4, *shape, generator=g)  # noqa: E731
    positive = lambda *shape: torch.rand(4, *shape, generator=g) + 0.3  # noqa: E731
    unit = torch.nn.functional.normalize(real(3), dim=-1)
    normal = dist.Normal(real(3), positive(3)).to_event(1)
    d = pv.distributions
    return [
        d.AcceptReject(normal, lambda z: z.sum(-1), real()[:, None].expand(4, 4), truncation=5),
        pv.posteriors.PlanarFlow((2, 2), 3)(real(2, 2)),
        d.Autoregressive(lambda x, h: torch.zeros(*x.shape, 2) + h.unsqueeze(-1), real(1), (3,), range(3), 2),
        d.BagOfWords(real(5), total=7),
        d.BetaBinomial(positive(), positive(), torch.tensor(9.0)),
        d.CoupledLogisticMixture(real(6, 2), real(3, 6, 2), positive(3, 6, 2), real(3, 6, 2), (3, 2, 3)),
        d.DiscretizedLogistic(real(), positive(), 16),
        d.DiscretizedLogisticMixture(real(2), real(2), positive(2), 16),
        d.Flattened(dist.Normal(real(2, 3), 1.0).to_event(2)),
        pv.priors.MaskedAutoregressiveFlow(3)().expand((4,)),
        d.HypersphericalUniform(3, batch_shape=(4,)),
        d.LogisticNormal(real(3), positive(3)),
        d.LowRankNormal(real(2, 2), real(1, 2, 2), positive(2, 2), 2),
        d.Mixture(real(5), dist.Normal(real(5, 3), 1.0).to_event(1)),
        d.NearestCode(real(2, 3), torch.randn(5, 3, generator=g)),
        d.NegativeBinomial(positive(), positive()),
        d.NormalMixture(real(5, 3), positive(5, 3), real(5)),
        d.StratifiedNormalMixture(real(5, 3), positive(5, 3), real(5) > -9),
        d.OnGrid(dist.Categorical(logits=real(5)), 5, 0.25),
        d.OneHotAutoregressive(lambda z, h: h.unsqueeze(-1) * torch.arange(3.0), real(2), 2, 3),
        d.PowerSpherical(unit, positive()),
        d.RelaxedBernoulli(positive(), real()),
        d.RoundedLogistic(real(), positive(), torch.tensor(-3.0), torch.tensor(5.0)),
        d.TruncatedLogNormal(real(), positive(), torch.tensor(-4.0), torch.tensor(4.0)),
        d.TruncatedNormal(real(), positive(), torch.tensor(-4.0), torch.tensor(4.0)),
        d.VonMisesFisher(unit, positive()),
        d.WrappedNormal(0.5 * unit, positive(3)),
        d.ZeroInflatedNegativeBinomial(positive(), positive(), real()),
    ]


def test_expanded_distributions_have_the_same_density():
    tested = families()
    untested = {c for c in vars(pv.distributions).values() if inspect.isclass(c) and issubclass(c, Distribution)}
    assert untested - {type(fn) for fn in tested} == {pv.distributions.ByColumn}  # not a batch of events
    for fn in tested:
        wide = fn.expand((2, 4))
        assert type(wide) is type(fn)
        assert wide.batch_shape == (2, 4)
        assert fn.batch_shape == (4,)
        x = wide.sample((3,))
        assert x.shape == (3, 2, 4, *fn.event_shape)
        torch.testing.assert_close(wide.log_prob(x), fn.log_prob(x), msg=type(fn).__name__)
        wide._validate_args = True
        with pytest.raises(ValueError, match="support"):
            wide.log_prob(torch.full_like(x, torch.nan))
