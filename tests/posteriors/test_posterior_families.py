"""Posterior families against closed forms, and with extreme outputs and wrong arguments."""

import math

import pyro
import pytest
import torch
from helpers.checks import within
from helpers.small_parts import SMALL
from torch.distributions import kl_divergence

import pyro_vae as pv
from pyro_vae import posteriors
from pyro_vae.distributions import (
    NormalMixture,
    RelaxedBernoulli,
    StraightThroughBernoulli,
    StraightThroughOneHotCategorical,
)
from pyro_vae.posteriors.sylvester_flow import Householder, Orthogonal
from pyro_vae.testing import parts


def mixture(d=3, k=4):
    """Random locations, scales and logits of a mixture."""
    loc, raw, logits = (torch.randn(*shape, dtype=torch.float64) for shape in ((k, d), (k, d), (k,)))
    return [loc, 0.3 + raw.exp() / 2, logits]


def test_mixture_density_matches_torch():
    loc, scale, logits = mixture()
    fn = NormalMixture(loc, scale, logits)
    components = torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1)
    same = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=logits), components)
    z = torch.randn(7, 3, dtype=torch.float64)
    assert torch.allclose(fn.log_prob(z), same.log_prob(z))
    assert torch.allclose(fn.mean, same.mean)
    assert torch.allclose(fn.variance, same.variance)


@pytest.mark.parametrize("d", [1, 3])
def test_mixture_samples_and_their_gradient(d):
    r"""Of :math:`E \cos(a^T z + c) = \sum_k \pi_k e^{-|a \sigma_k|^2/2} \cos(a^T \mu_k + c)`, by all parameters."""
    parameters = [p.requires_grad_() for p in mixture(d)]
    a = torch.tensor([0.9, -1.3, 0.6], dtype=torch.float64)[:d]
    loc, scale, logits = parameters
    decay = (-0.5 * (a * scale).square().sum(-1)).exp()
    exact = (torch.softmax(logits, -1) * decay * torch.cos(loc @ a + 0.4)).sum()
    gradients = torch.autograd.grad(exact, parameters)
    n = 20000
    many = [p.detach().expand(n, *p.shape).clone().requires_grad_() for p in parameters]
    value = torch.cos(NormalMixture(*many).rsample() @ a + 0.4)
    assert within(value.detach(), exact.detach())
    for found, gradient in zip(torch.autograd.grad(value.sum(), many), gradients, strict=True):
        assert within(found, gradient)


def test_mixture_gradients_are_finite_with_components_far_apart():
    loc = torch.tensor([[-1e4, 0.0], [1e4, 0.0], [1e4, 0.0]], requires_grad=True)
    scale = torch.tensor([[1e-4, 1.0], [1.0, 1e4], [1.0, 1e-4]], requires_grad=True)
    logits = torch.tensor([0.0, 1e4, -1e4], requires_grad=True)
    fn = NormalMixture(loc, scale, logits)
    z = fn.rsample((20,))
    for gradient in torch.autograd.grad(z.sum() + fn.log_prob(z).sum(), [loc, scale, logits]):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("cls", [posteriors.FullRankNormal, posteriors.LowRankNormal])
def test_kl_of_correlated_normals_from_the_prior(cls):
    q = cls((2,), 3, net=SMALL).double()(torch.randn(2, dtype=torch.float64))
    p = pyro.distributions.Normal(torch.randn(3).double(), 0.5 + torch.rand(3).double()).to_event(1)
    z = q.sample((20000,))
    assert within((q.log_prob(z) - p.log_prob(z)).detach(), kl_divergence(q, p).detach())
    cov = q.factor.mT @ q.factor + q.scale.square().diag() if hasattr(q, "factor") else q.covariance_matrix
    full = torch.distributions.MultivariateNormal
    assert torch.allclose(kl_divergence(q, p), kl_divergence(full(q.mean, cov), full(p.mean, p.variance.diag())))
    with pytest.raises(NotImplementedError):
        kl_divergence(q, pyro.distributions.Laplace(torch.zeros(3), 1.0).to_event(1))


def test_full_rank_normal_has_the_stds_of_the_encoder():
    part = posteriors.FullRankNormal((2,), 3, net=SMALL)
    x = torch.randn(4, 2)
    assert torch.allclose(part(x).stddev, pv.scales.positive(part.net(x)[..., 3:6]), atol=1e-6)


def test_straight_through_samples_are_exact_and_have_the_gradient_of_the_probabilities():
    logits = torch.randn(40, 5, requires_grad=True)
    for fn, plain in (
        (StraightThroughBernoulli(logits=logits), pyro.distributions.Bernoulli(logits=logits)),
        (StraightThroughOneHotCategorical(logits=logits), pyro.distributions.OneHotCategorical(logits=logits)),
    ):
        z = fn.rsample((3,))
        assert ((z == 0) | (z == 1)).all()
        assert fn.support.check(z).all()
        weights = torch.randn(5)
        found = torch.autograd.grad((z[0] @ weights).sum(), logits)[0]
        assert torch.allclose(found, torch.autograd.grad((plain.probs @ weights).sum(), logits)[0], atol=1e-6)
        assert torch.allclose(fn.log_prob(z.detach()), plain.log_prob(z.detach()), atol=1e-5)
        assert torch.allclose(kl_divergence(fn, plain), torch.zeros(fn.batch_shape), atol=1e-6)
        uniform = type(plain)(logits=torch.zeros(40, 5))
        exact = kl_divergence(plain, uniform)
        # only one of the two has a dimension of particles
        found = kl_divergence(fn.expand((3, *fn.batch_shape)), uniform)
        assert torch.allclose(found, exact.expand(3, *exact.shape), atol=1e-6)
        assert within(fn.sample((4000,)), fn.mean.detach(), 5.0)


def test_relaxed_bernoulli_matches_torch_where_torch_is_precise():
    temperature, logits = torch.tensor(0.7).double(), torch.linspace(-5, 5, 6).double()
    ours = RelaxedBernoulli(temperature, logits)
    other = torch.distributions.RelaxedBernoulli(temperature, logits=logits)
    z = torch.linspace(0.01, 0.99, 9).double().unsqueeze(-1).expand(9, 6)
    assert torch.allclose(ours.log_prob(z), other.log_prob(z))
    assert within(ours.sample((8000,)).double(), other.sample((200000,)).mean(0), 5.0)


@pytest.mark.parametrize("t", [-1e4, -80.0, 0.0, 80.0, 1e4])
def test_relaxed_bernoulli_at_extreme_logits(t):
    values = torch.tensor([1e-30, 1e-3, 0.5, 0.999])
    logits = torch.tensor(t, requires_grad=True)
    found = RelaxedBernoulli(torch.tensor(0.5), logits).log_prob(values)
    exact = RelaxedBernoulli(torch.tensor(0.5).double(), logits.double()).log_prob(values.double())
    assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-5)
    z = RelaxedBernoulli(torch.tensor(0.5), logits).rsample((20,))
    assert torch.isfinite(torch.autograd.grad(z.sum() + found.sum(), logits)[0])


@pytest.mark.parametrize("straight_through", [False, True])
def test_product_of_categoricals_fits_its_prior(straight_through):
    q = posteriors.ProductOfOneHotCategoricals((2,), 6, groups=2, straight_through=straight_through)(torch.randn(4, 2))
    p = pv.priors.ProductOfOneHotCategoricals(6, groups=2)()
    assert q.has_rsample == straight_through
    assert torch.equal(q.sample().sum(-1), torch.full((4,), 2.0))
    values = q.enumerate_support()
    assert values.shape == (9, 4, 6)
    log_q = q.log_prob(values)
    assert torch.allclose(log_q.exp().sum(0), torch.ones(4))
    assert torch.allclose((log_q.exp() * (log_q - p.log_prob(values))).sum(0), kl_divergence(q, p), atol=1e-5)


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("cls", [c for c in parts(posteriors) if c is not posteriors.SemiAmortized])
def test_huge_encoder_outputs_keep_samples_and_gradients_finite(cls, size):
    part = cls.example()
    layer = part.net.body[-1]
    with torch.no_grad():
        for alike in (False, True):  # outputs of either sign, or all the same
            layer.weight.zero_()
            layer.bias.copy_(torch.full_like(layer.bias, size) if alike else size * torch.randn_like(layer.bias))
            with torch.enable_grad():
                part.zero_grad()
                q = part(torch.rand(5, 2, 2))
                z = q.rsample() if q.has_rsample else q.sample()
                (q.log_prob(z).sum() + z.sum()).backward()
            assert z.isfinite().all()
            assert all(p.grad.isfinite().all() for p in part.net.parameters())


@pytest.mark.parametrize(
    ("cls", "options", "argument"),
    [
        (posteriors.PlanarFlow, {"layers": 0}, "layers"),
        (posteriors.HouseholderFlow, {"layers": 0}, "layers"),
        (posteriors.SylvesterFlow, {"layers": 0}, "layers"),
        (posteriors.SylvesterFlow, {"basis": Orthogonal(4)}, "columns"),
        (posteriors.InverseAutoregressiveFlow, {"layers": 0}, "layers"),
        (posteriors.InverseAutoregressiveFlow, {"features": 0}, "features"),
        (posteriors.NeuralSplineFlow, {"num_bins": 1}, "num_bins"),
        (posteriors.NeuralSplineFlow, {"num_bins": 501}, "num_bins"),
        (posteriors.NeuralSplineFlow, {"bound": 0.0}, "bound"),
        (posteriors.LowRankNormal, {"rank": 0}, "rank"),
        (posteriors.MixtureOfNormals, {"num_components": 0}, "num_components"),
        (posteriors.RelaxedBernoulli, {"temperature": 0.0}, "temperature"),
        (posteriors.RelaxedOneHotCategorical, {"temperature": math.inf}, "temperature"),
        (posteriors.ProductOfOneHotCategoricals, {"groups": 2}, "groups"),
        (posteriors.Dirichlet, {"min_concentration": 0.0}, "min_concentration"),
    ],
)
def test_wrong_arguments_are_refused(cls, options, argument):
    with pytest.raises(ValueError, match=argument):
        cls((2, 2), 3, **options)


def test_latents_on_a_sphere_have_two_coordinates():
    for cls in (posteriors.PowerSpherical, posteriors.VonMisesFisher):
        with pytest.raises(ValueError, match=f"latent: .*2.*{cls.__name__}"):
            cls((2,), 1)
    with pytest.raises(ValueError, match="reflections"):
        Householder(0)
