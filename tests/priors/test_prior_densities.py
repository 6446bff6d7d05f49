"""Priors against closed forms of scipy, at their extremes, and with wrong arguments."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from helpers.small_parts import SMALL, check_precision, perturbed
from pyro import distributions as dist
from torch.distributions import kl_divergence

import pyro_vae as pv
from pyro_vae.distributions import AcceptReject, Flattened, HypersphericalUniform, LogisticNormal
from pyro_vae.testing import check_mass

Z = torch.tensor([[-1.3, 0.2, 2.0], [0.0, -7.0, 0.4]])


@pytest.mark.parametrize(
    ("prior", "exact"),
    [
        (pv.priors.StandardNormal(3), scipy.stats.norm()),
        (pv.priors.Normal(3), scipy.stats.norm()),
        (pv.priors.Laplace(3, scale=0.7), scipy.stats.laplace(scale=0.7)),
        (pv.priors.Laplace(3, scale=0.7, learned=True), scipy.stats.laplace(scale=0.7)),
        (pv.priors.StudentT(3, df=3.5, scale=1.4), scipy.stats.t(3.5, scale=1.4)),
        (pv.priors.StudentT(3, df=3.5, scale=1.4, learned=True), scipy.stats.t(3.5, scale=1.4)),
    ],
    ids=lambda p: type(p).__name__,
)
def test_factorized_priors_match_scipy(prior, exact):
    found = prior().log_prob(Z).detach()
    assert np.allclose(found, exact.logpdf(Z.double()).sum(-1), rtol=1e-5)


def test_discrete_priors_match_products_of_probabilities():
    assert math.isclose(float(pv.priors.Bernoulli(3, probs=0.2)().log_prob(torch.tensor([1.0, 0.0, 0.0]))),
                        math.log(0.2 * 0.8 * 0.8), rel_tol=1e-6)  # fmt: skip
    assert math.isclose(float(pv.priors.OneHotCategorical(4)().log_prob(torch.eye(4)[1])), -math.log(4), rel_tol=1e-6)
    prior = perturbed(pv.priors.ProductOfOneHotCategoricals(12, groups=3, learned=True))
    z = prior().sample((50,))
    assert (z.unflatten(-1, (3, 4)).sum(-1) == 1).all()
    log_p = torch.log_softmax(prior.logits, -1).flatten()
    assert torch.allclose(prior().log_prob(z), (log_p * z).sum(-1))
    values = prior().enumerate_support()
    assert values.shape == (64, 12)
    assert len(values.unique(dim=0)) == 64
    assert check_mass(prior(), prior)
    assert prior().expand((5,)).enumerate_support().shape == (64, 5, 12)
    assert prior().expand((5,)).enumerate_support(expand=False).shape == (64, 1, 12)
    with pytest.raises(ValueError, match="enumerate_support"):
        pv.priors.ProductOfOneHotCategoricals(100, groups=50)().enumerate_support()


def test_flattened_has_the_kl_and_moments_of_its_base():
    q, p = (dist.OneHotCategorical(logits=torch.randn(5, 3, 4)).to_event(1) for _ in range(2))
    assert torch.allclose(kl_divergence(Flattened(q), Flattened(p)), kl_divergence(q, p))
    assert torch.equal(Flattened(q).mean, q.mean.reshape(5, 12))
    assert torch.equal(Flattened(q).variance, q.variance.reshape(5, 12))
    assert torch.allclose(Flattened(q).entropy(), q.entropy())
    relaxed = dist.Normal(torch.zeros(2, 3, requires_grad=True), 1.0).to_event(2)
    assert Flattened(relaxed).has_rsample
    assert Flattened(relaxed).rsample((7,)).requires_grad
    with pytest.raises(ValueError, match="event"):
        Flattened(dist.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="support"):
        Flattened(q, validate_args=True).log_prob(torch.full((12,), 0.5))


def test_dirichlet_matches_scipy():
    z = torch.tensor([0.2, 0.5, 0.3])
    found = float(pv.priors.Dirichlet(3, concentration=0.3)().log_prob(z))
    assert math.isclose(found, scipy.stats.dirichlet([0.3] * 3).logpdf(z.double() / z.double().sum()), rel_tol=1e-5)


def log_ratios(fn):
    """The normal of the logarithms of z_k / z_K, a bijection of the simplex."""
    covariance = torch.diag(fn.scale[:-1] ** 2) + fn.scale[-1] ** 2
    return dist.MultivariateNormal(fn.loc[:-1] - fn.loc[-1], covariance)


def test_logistic_normal_is_the_normal_of_log_ratios():
    q, p = (LogisticNormal(torch.randn(4).double(), torch.rand(4).double() + 0.3) for _ in range(2))
    z = q.sample((6,))
    exact = log_ratios(q).log_prob(z[:, :-1].log() - z[:, -1:].log()) - z.log().sum(-1)
    assert torch.allclose(q.log_prob(z), exact, rtol=1e-9)
    assert torch.allclose(kl_divergence(q, p), kl_divergence(log_ratios(q), log_ratios(p)), rtol=1e-9)
    assert abs(float(kl_divergence(q, q))) < 1e-12


def test_logistic_normal_approximates_a_dirichlet():
    """The Laplace approximation in the softmax basis: variance (1 - 1/K) / alpha for equal alpha."""
    prior = pv.priors.LogisticNormal.like_dirichlet(50, concentration=0.02)
    assert torch.allclose(prior().scale, torch.full((50,), math.sqrt(0.98 / 0.02)))


def test_sphere_has_its_area():
    for dim in (1, 2, 3, 10, 500):
        fn = HypersphericalUniform(dim)
        z = fn.sample((4000,))
        assert fn.support.check(z).all()
        area = math.log(2) + dim / 2 * math.log(math.pi) - scipy.special.gammaln(dim / 2)
        assert math.isclose(float(fn.log_prob(z)[0]), -area, rel_tol=1e-6)
        if dim <= 10:
            assert (z.mean(0).abs() < 4 * math.sqrt(1 / dim / 4000)).all()
            assert torch.allclose(z.T @ z / 4000, fn.covariance_matrix, atol=0.07)
    assert HypersphericalUniform(3, like=torch.zeros(1).double()).sample().dtype == torch.float64
    with pytest.raises(ValueError, match="support"):
        HypersphericalUniform(3, validate_args=True).log_prob(torch.tensor([1.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match="dim"):
        HypersphericalUniform(0)


# --- extremes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [-1e4, -20.0, 0.0, 50.0, 1e4, 1e12])
@pytest.mark.parametrize("cls", [pv.priors.Normal, pv.priors.Laplace, pv.priors.StudentT])
def test_extreme_scales(cls, raw):
    part = cls(3) if cls is pv.priors.Normal else cls(3, learned=True)
    torch.nn.init.constant_(part.raw, raw)
    for size in (1e-12, 1.0, 1e4):
        check_precision(part, size * torch.tensor([-1.0, 0.5, 1.0]))


@pytest.mark.parametrize("df", [1e-3, 0.5, 1e3, 1e6, 1e9])
def test_student_t_with_extreme_degrees_of_freedom(df):
    for size in (1e-6, 1.0, 1e3):
        check_precision(pv.priors.StudentT(3, df=df, learned=True), size * torch.tensor([-1.0, 0.5, 1.0]))


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_discrete_priors_with_extreme_logits(logit):
    part = pv.priors.Bernoulli(2, learned=True)
    torch.nn.init.constant_(part.logits, logit)
    check_precision(part, torch.tensor([0.0, 1.0]))
    part = pv.priors.OneHotCategorical(3, learned=True)
    with torch.no_grad():
        part.logits[0] = logit
    check_precision(part, torch.tensor([1.0, 0.0, 0.0]))


def test_corners_of_the_simplex():
    corner = torch.softmax(torch.tensor([0.0, -60.0, -85.0]), -1)
    check_precision(pv.priors.LogisticNormal(3, learned=True), corner)
    part = pv.priors.LogisticNormal(3, scale=100.0)
    z = part().sample((2000,))
    assert part().log_prob(z).isfinite().all()
    for raw in (-1e4, 1e4, 1e9):
        wide = pv.priors.LogisticNormal(3, learned=True)
        torch.nn.init.constant_(wide.raw, raw)
        check_precision(wide, torch.tensor([0.2, 0.5, 0.3]))
    for concentration in (0.01, 1e3):
        part = pv.priors.Dirichlet(3, concentration=concentration, learned=True)
        assert part().log_prob(part().sample((2000,))).isfinite().all()


# --- errors ----------------------------------------------------------------------------------------------------------


def posterior():
    return pv.posteriors.MeanFieldNormal((2, 2), 3, net=SMALL)


@pytest.mark.parametrize(
    ("build", "argument"),
    [
        (lambda: pv.priors.Laplace(3, scale=0.0), "scale"),
        (lambda: pv.priors.StudentT(3, df=-1.0), "df"),
        (lambda: pv.priors.Bernoulli(3, probs=1.0), "probs"),
        (lambda: pv.priors.ProductOfOneHotCategoricals(7, groups=2), "groups"),
        (lambda: pv.priors.Dirichlet(3, concentration=-1.0), "concentration"),
        (lambda: pv.priors.LogisticNormal(3, scale=float("inf")), "scale"),
        (lambda: pv.priors.LogisticNormal.like_dirichlet(1), "latent"),
        (lambda: pv.priors.MixtureOfNormals(3, num_components=0), "num_components"),
        (lambda: pv.priors.AffineCouplingFlow(1), "latent: .*2.*AffineCouplingFlow"),
        (lambda: pv.priors.AffineCouplingFlow(3, layers=0), "layers"),
        (lambda: pv.priors.NeuralSplineFlow(1), "latent: .*2.*NeuralSplineFlow"),
        (lambda: pv.priors.NeuralSplineFlow(3, num_bins=1), "num_bins"),
        (lambda: pv.priors.NeuralSplineFlow(3, num_bins=501), "num_bins"),
        (lambda: pv.priors.NeuralSplineFlow(3, bound=-1.0), "bound"),
        (lambda: pv.priors.MaskedAutoregressiveFlow(3, layers=0), "layers"),
        (lambda: pv.priors.MaskedAutoregressiveFlow(3, hidden=()), "hidden"),
        (lambda: pv.priors.ConditionalNormal(3, context=0), "context"),
        (lambda: pv.priors.ConditionalNormal(3)(), "context"),
        (
            lambda: pv.priors.MaskedAutoregressiveFlow(3, context=2, hidden=(8,))(torch.zeros(5, 3)).sample(),
            "context",
        ),
        (lambda: pv.priors.Lars(3, truncation=1), "truncation"),
        (lambda: pv.priors.Lars(3, num_samples=0), "num_samples"),
        (lambda: pv.priors.VampPrior(posterior(), num_components=0), "num_components"),
        (lambda: pv.priors.VampPrior(posterior(), initial=torch.zeros(5, 3, 3)), "initial"),
        (lambda: pv.priors.ExemplarPrior(posterior(), torch.zeros(0, 2, 2)), "exemplars"),
        (lambda: pv.priors.ExemplarPrior(posterior(), torch.zeros(4, 2, 2), subset_size=5), "subset_size"),
        (lambda: AcceptReject(dist.Normal(0.0, 1.0), None, torch.zeros(3), truncation=1), "truncation"),
    ],
)
def test_wrong_arguments_are_refused(build, argument):
    with pytest.raises(ValueError, match=argument):
        build()


@pytest.mark.parametrize("cls", [pv.priors.VampPrior, lambda p: pv.priors.ExemplarPrior(p, torch.zeros(3, 2))])
def test_shared_encoder_must_be_a_part(cls):
    with pytest.raises(TypeError, match="posterior"):
        cls(torch.nn.Linear(2, 2))
