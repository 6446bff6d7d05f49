"""Priors against closed forms, their own samples, float64 and models with an exact evidence."""

import copy
import functools
import math
import sys

import numpy as np
import pyro
import pytest
import scipy.stats
import torch
from pyro import distributions as dist
from torch.distributions import kl_divergence

import pyro_vae as pv
from pyro_vae.distributions import AcceptReject, Flattened, HypersphericalUniform, LogisticNormal, Mixture
from pyro_vae.distributions.masked_affine import MaskedMLP
from pyro_vae.distributions.rational_spline import knots, rational_spline
from pyro_vae.priors import zuko_flow
from pyro_vae.testing import check_mass, check_part, parts
from pyro_vae.testing.grids import grid_of

SMALL = functools.partial(pv.nets.MLP, hidden=(8,))
LINEAR = functools.partial(pv.nets.MLP, hidden=())
SHELF = list(parts(pv.priors))
FLOWS = [
    pv.priors.AffineCouplingFlow,
    pv.priors.MaskedAutoregressiveFlow,
    pv.priors.NeuralSplineFlow,
    pv.priors.AutoregressivePrior,
]


def example(cls, **options):
    try:
        return cls.example(**options)
    except ImportError as error:
        pytest.skip(str(error))


def moved(part, by=0.3):
    """The part with parameters that are not those of its start, no two of them alike."""
    with torch.no_grad():
        for p in part.parameters():
            p.add_(by * torch.randn_like(p) / math.sqrt(p.shape[-1] if p.dim() > 1 else 1))
    return part


def flow(cls, latent, **options):
    small = {"hidden": (8, 8)} if "Autoregressive" in cls.__name__ else {"net": SMALL}
    return cls(latent, **small, **options)


def context_of(part, *batch):
    return [torch.randn(*batch, part.context)] if part.context else []


# --- closed forms ----------------------------------------------------------------------------------------------------

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
def test_factorized_priors_are_those_of_scipy(prior, exact):
    found = prior().log_prob(Z).detach()
    assert np.allclose(found, exact.logpdf(Z.double()).sum(-1), rtol=1e-5)


def test_bits_and_classes():
    assert math.isclose(float(pv.priors.Bernoulli(3, probs=0.2)().log_prob(torch.tensor([1.0, 0.0, 0.0]))),
                        math.log(0.2 * 0.8 * 0.8), rel_tol=1e-6)  # fmt: skip
    assert math.isclose(float(pv.priors.OneHotCategorical(4)().log_prob(torch.eye(4)[1])), -math.log(4), rel_tol=1e-6)
    prior = moved(pv.priors.ProductOfOneHotCategoricals(12, groups=3, learned=True))
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
    with pytest.raises(ValueError, match="too many"):
        pv.priors.ProductOfOneHotCategoricals(100, groups=50)().enumerate_support()


def test_flattened_has_the_divergence_and_moments_of_its_base():
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


def test_dirichlet_is_that_of_scipy():
    z = torch.tensor([0.2, 0.5, 0.3])
    found = float(pv.priors.Dirichlet(3, concentration=0.3)().log_prob(z))
    assert math.isclose(found, scipy.stats.dirichlet([0.3] * 3).logpdf(z.double() / z.double().sum()), rel_tol=1e-5)


def test_logistic_normal_is_the_normal_of_log_ratios():
    loc, scale = torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.3
    z = LogisticNormal(loc, scale).sample((6,))
    covariance = torch.diag(scale[:-1] ** 2) + scale[-1] ** 2
    ratios = dist.MultivariateNormal(loc[:-1] - loc[-1], covariance)
    exact = ratios.log_prob(z[:, :-1].log() - z[:, -1:].log()) - z.log().sum(-1)
    assert torch.allclose(LogisticNormal(loc, scale).log_prob(z), exact, rtol=1e-9)


def test_logistic_normal_divergence():
    q, p = (LogisticNormal(torch.randn(4).double(), torch.rand(4).double() + 0.3) for _ in range(2))

    def ratios(fn):
        return dist.MultivariateNormal(
            fn.loc[:-1] - fn.loc[-1], torch.diag(fn.scale[:-1] ** 2) + fn.scale[-1] ** 2
        )  # a bijection leaves the divergence as it is

    assert torch.allclose(kl_divergence(q, p), kl_divergence(ratios(q), ratios(p)), rtol=1e-9)
    assert abs(float(kl_divergence(q, q))) < 1e-12


def test_logistic_normal_takes_the_scale_of_a_dirichlet():
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


@pytest.mark.parametrize("full", [False, True])
def test_mixture_of_normals_is_that_of_scipy(full):
    prior = moved(pv.priors.MixtureOfNormals(2, num_components=3, full=full), 1.0)
    with torch.no_grad():
        fn = prior()
        weights = torch.softmax(prior.logits, -1)
        if full:
            factor = prior.raw.tril(-1) + torch.diag_embed(
                torch.diagonal(prior.raw, dim1=-2, dim2=-1).exp().log1p() + 1e-4
            )
            covariances = factor @ factor.mT
        else:
            covariances = torch.diag_embed(fn.components.variance)
        z = 2 * torch.randn(7, 2)
        exact = sum(
            w * scipy.stats.multivariate_normal(m, s).pdf(z)
            for w, m, s in zip(weights.numpy(), prior.loc.numpy(), covariances.numpy(), strict=True)
        )
        assert np.allclose(fn.log_prob(z), np.log(exact), rtol=1e-4)
        x = fn.sample((40000,))
        assert ((x.mean(0) - fn.mean).abs() < 4 * x.std(0) / 200).all()
        assert torch.allclose(x.var(0), fn.variance, rtol=0.05)
    assert check_mass(fn, prior)
    check_part(pv.priors.MixtureOfNormals(3, num_components=2, full=full))


def test_mixture_expands_and_draws_like_that_of_torch():
    logits, loc = torch.randn(5, 4), torch.randn(5, 4, 3)
    own = Mixture(logits, dist.Normal(loc, 0.1).to_event(1))
    other = dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, 0.1).to_event(1))
    z = torch.randn(7, 5, 3)
    for a, b in ((own, other), (own.expand((7, 5)), other.expand((7, 5)))):
        assert torch.allclose(a.log_prob(z), b.log_prob(z), atol=1e-4)
        assert torch.allclose(a.mean, b.mean, atol=1e-6)
        assert torch.allclose(a.variance, b.variance, atol=1e-6)
        assert a.sample((2,)).shape == b.sample((2,)).shape
    assert own.expand((7, 5)).components is own.components
    narrow = Mixture(logits[:1], dist.Normal(loc[:1], 0.1).to_event(1)).expand((6, 5))
    assert narrow.sample().shape == (6, 5, 3)
    assert narrow.log_prob(torch.zeros(3)).shape == (6, 5)
    assert own.sample((0,)).shape == (0, 5, 3)
    with pytest.raises(ValueError, match="one logit a component"):
        Mixture(torch.zeros(3), dist.Normal(loc, 1.0).to_event(1))


def test_mixture_draws_in_passes_of_bounded_size(monkeypatch):
    monkeypatch.setattr(Mixture, "numbers_per_pass", 100)
    fn = Mixture(torch.tensor([0.0, math.log(3.0)]), dist.Normal(torch.tensor([[-5.0], [5.0]]), 1.0).to_event(1))
    z = fn.sample((4000,))
    assert abs(float((z > 0).float().mean()) - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 4000)


# --- the whole shelf -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [1, 3])
@pytest.mark.parametrize("cls", SHELF)
def test_samples_follow_the_density(cls, latent):
    """Means of bounded functions of the draws against sums over the support."""
    part = moved(example(cls, latent=latent), 0.1)
    with torch.no_grad():
        fn = part(*context_of(part))
        grid = grid_of(fn, 2001)
        if grid is None:
            pytest.skip("no grid in three real dimensions")
        values, weight = grid
        mass = fn.log_prob(values).double().exp() * weight
        draws = fn.sample((4000,))
        for of in (
            lambda z: z[:, 0].tanh(),
            lambda z: z[:, 0].tanh() ** 2,
            lambda z: (z[:, 0] * z[:, -1] + z[:, 0]).sin(),
        ):
            exact = (of(values).double() * mass).sum()
            error = of(draws).std() / math.sqrt(4000)
            assert abs(float(of(draws).mean() - exact)) < 4 * float(error) + 2e-3


@pytest.mark.parametrize("cls", SHELF)
def test_priors_expand_to_a_batch(cls):
    part = moved(example(cls))
    fn = part(*context_of(part))
    z = fn.sample((6, 4))
    wide = fn.expand((4,))
    assert wide.batch_shape == (4,)
    assert wide.event_shape == fn.event_shape
    assert wide.sample((6,)).shape == z.shape
    assert torch.allclose(wide.log_prob(z), fn.log_prob(z), atol=1e-5, rtol=1e-5)
    assert wide.log_prob(z[0, 0]).shape == (4,)


@pytest.mark.parametrize("cls", SHELF)
def test_priors_work_in_double_and_copy_after_use(cls):
    part = moved(example(cls))
    given = context_of(part)
    z = part(*given).sample((5,))
    found = part(*given).log_prob(z)
    wide = copy.deepcopy(part).double()
    assert wide(*(c.double() for c in given)).sample((2,)).dtype == torch.float64
    with pyro.validation_enabled(False):  # a point of the sphere in float32 is none in float64
        exact = wide(*(c.double() for c in given)).log_prob(z.double())
    assert exact.dtype == torch.float64
    assert torch.allclose(found.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", [c for c in SHELF if "learned" in c.__init__.__annotations__])
def test_learned_parameters_start_at_the_fixed_ones(cls):
    torch.manual_seed(1)
    fixed, learned = cls(4), cls(4, learned=True)
    assert not list(fixed.parameters())
    assert list(learned.parameters())
    z = fixed().sample((5,))
    assert torch.allclose(fixed().log_prob(z), learned().log_prob(z))
    check_part(learned)


CONDITIONAL = [
    pv.priors.ConditionalNormal(3, context=2, net=SMALL),
    *(flow(cls, 3, context=2) for cls in FLOWS),
    pv.priors.Lars(3, context=2, num_samples=64, truncation=8),
    pv.priors.VampPrior(pv.posteriors.MeanFieldNormal((2, 2), 3, net=SMALL, context=2), num_components=4),
    pv.priors.ExemplarPrior(pv.posteriors.MeanFieldNormal((2, 2), 3, net=SMALL, context=2), torch.rand(4, 2, 2)),
]


@pytest.mark.parametrize("part", CONDITIONAL, ids=lambda part: type(part).__name__)
def test_priors_given_a_context(part):
    # an encoder's raw scale has no part in an exemplar prior
    if type(part).__name__ != "ExemplarPrior":
        check_part(part, (2,))
    c, z = torch.randn(2, 5, 2)[:, :1], torch.randn(7, 1, 3)
    assert part.context == 2
    found = torch.stack([part(row).log_prob(z[:, 0]) for row in c[:, 0]], -1)
    assert torch.allclose(part(c[:, 0]).log_prob(z), found, atol=1e-4)
    assert not torch.allclose(found[:, 0], found[:, 1], atol=1e-3)


def test_context_may_come_in_columns():
    part = pv.priors.ConditionalNormal(3, context=3, net=SMALL)
    c = torch.randn(5, 3)
    assert torch.equal(part(c).mean, part(c[:, :1], c[:, 1:]).mean)
    with pytest.raises(ValueError, match="needs a context"):
        part()
    with pytest.raises(ValueError, match="at least one"):
        pv.priors.ConditionalNormal(3, context=0)


# --- extremes --------------------------------------------------------------------------------------------------------


def compare(part, z, rtol=1e-5):
    """Value and gradients of the log-density in float32 against float64."""
    results = []
    for dtype in (torch.float32, torch.float64):
        own = copy.deepcopy(part).to(dtype)
        at = z.to(dtype).requires_grad_()
        log_p = own().log_prob(at)
        grads = torch.autograd.grad(log_p.sum(), [at, *own.parameters()], allow_unused=True)
        results.append([log_p.detach(), *(g for g in grads if g is not None)])
    for a, b in zip(*results, strict=True):
        assert a.isfinite().all()
        # a gradient may be a small difference of large terms: measured against the largest of its tensor
        assert (a - b).abs().max() <= rtol * b.abs().max() + 1e-5, (a, b)


@pytest.mark.parametrize("raw", [-1e4, -20.0, 0.0, 50.0, 1e4, 1e12])
@pytest.mark.parametrize("cls", [pv.priors.Normal, pv.priors.Laplace, pv.priors.StudentT])
def test_scales_at_their_extremes(cls, raw):
    part = cls(3) if cls is pv.priors.Normal else cls(3, learned=True)
    torch.nn.init.constant_(part.raw, raw)
    for size in (1e-12, 1.0, 1e4):
        compare(part, size * torch.tensor([-1.0, 0.5, 1.0]))


@pytest.mark.parametrize("df", [1e-3, 0.5, 1e3, 1e6, 1e9])
def test_student_t_at_extreme_degrees_of_freedom(df):
    for size in (1e-6, 1.0, 1e3):
        compare(pv.priors.StudentT(3, df=df, learned=True), size * torch.tensor([-1.0, 0.5, 1.0]))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("raw", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("logit", [0.0, 1e4])
def test_mixture_at_its_extremes(full, raw, logit):
    part = pv.priors.MixtureOfNormals(2, num_components=3, full=full)
    with torch.no_grad():
        part.logits[0] = logit
        part.raw.fill_(0)
        (part.raw.diagonal(dim1=-2, dim2=-1) if full else part.raw).fill_(raw)
    for size in (1.0, 1e4):
        compare(part, torch.tensor([size, -size]))


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_bits_at_extreme_logits(logit):
    part = pv.priors.Bernoulli(2, learned=True)
    torch.nn.init.constant_(part.logits, logit)
    compare(part, torch.tensor([0.0, 1.0]))
    part = pv.priors.OneHotCategorical(3, learned=True)
    with torch.no_grad():
        part.logits[0] = logit
    compare(part, torch.tensor([1.0, 0.0, 0.0]))


def test_simplex_at_its_corners():
    corner = torch.softmax(torch.tensor([0.0, -60.0, -85.0]), -1)
    compare(pv.priors.LogisticNormal(3, learned=True), corner)
    part = pv.priors.LogisticNormal(3, scale=100.0)
    z = part().sample((2000,))
    assert part().log_prob(z).isfinite().all()
    for raw in (-1e4, 1e4, 1e9):
        wide = pv.priors.LogisticNormal(3, learned=True)
        torch.nn.init.constant_(wide.raw, raw)
        compare(wide, torch.tensor([0.2, 0.5, 0.3]))
    for concentration in (0.01, 1e3):
        part = pv.priors.Dirichlet(3, concentration=concentration, learned=True)
        assert part().log_prob(part().sample((2000,))).isfinite().all()


@pytest.mark.parametrize("cls", FLOWS)
def test_flows_far_from_the_data(cls):
    part = moved(flow(cls, 4), 0.1)
    for size in (1.0, 30.0, 1e4):
        compare(part, size * torch.tensor([[1.0, -0.5, 0.3, -1.0], [0.0, 0.0, 1.0, 1.0]]), rtol=1e-3)
    with torch.no_grad():
        for p in part.parameters():
            p.mul_(10)
    z = torch.randn(20, 4, requires_grad=True)
    log_p = part().log_prob(z)
    assert log_p.isfinite().all()
    assert torch.autograd.grad(log_p.sum(), z)[0].isfinite().all()
    assert part().sample((20,)).isfinite().all()


# --- O17: flows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [2, 5])
@pytest.mark.parametrize("cls", FLOWS)
def test_flow_log_determinant_and_inverse(cls, latent):
    part = moved(flow(cls, latent)).double()
    z = 2 * torch.randn(6, latent, dtype=torch.float64)

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
def test_flow_has_mass_one_and_bends(cls):
    part = moved(flow(cls, 2), 0.1)
    line = torch.linspace(-12, 12, 961)
    with torch.no_grad():
        mass = sum(part().log_prob(torch.cartesian_prod(row, line)).double().exp().sum() for row in line.split(40))
    assert math.isclose(float(mass) * (24 / 960) ** 2, 1.0, abs_tol=1e-3)
    # the second latent depends on the first, unlike in a product
    z = part().sample((1, 1)).detach().expand(2, 2, 2).clone()
    z[0, :, 0], z[1, :, 0] = -1.0, 1.0
    z[:, 0, 1], z[:, 1, 1] = -1.0, 1.0
    log_p = part().log_prob(z)
    assert abs(float((log_p[0, 0] + log_p[1, 1] - log_p[0, 1] - log_p[1, 0]).detach())) > 1e-3


@pytest.mark.parametrize("cls", FLOWS)
def test_flow_draw_has_the_gradient_of_its_inverse(cls):
    part = moved(flow(cls, 3)).double()
    fn = part()
    z = fn.rsample((4,))
    assert z.requires_grad
    # u is what was drawn, whatever the weights: the derivative of u(z(weights), weights) by the weights is 0
    u = z
    for layer in part.layers:
        u = layer(u)[0]
    grads = torch.autograd.grad(u.sum(), list(part.parameters()), allow_unused=True)
    assert all(g is None or g.abs().max() < 1e-7 for g in grads)


def test_flow_keeps_nothing_between_calls():
    part = flow(pv.priors.MaskedAutoregressiveFlow, 3)
    fn = part()
    z = fn.sample((4,))
    before = fn.log_prob(z).detach()
    assert len(copy.deepcopy(part).state_dict()) == len(part.state_dict())
    moved(part)
    assert not torch.allclose(fn.log_prob(z), before, atol=1e-3)
    assert torch.equal(fn.log_prob(z), part().log_prob(z))


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("hidden", [(3,), (7, 16)])
def test_masked_network_sees_all_earlier_inputs_and_no_other(size, hidden):
    net = moved(MaskedMLP(size, 2, hidden=hidden, activation=torch.nn.Tanh), 1.0)
    jacobian = torch.autograd.functional.jacobian(net, torch.randn(size)).abs().sum(0)
    assert torch.equal(jacobian.triu(), torch.zeros(size, size))
    if min(hidden) >= size - 1:
        assert (jacobian[torch.ones(size, size).tril(-1).bool()] > 0).all()


def test_autoregressive_prior_is_a_chain_of_normals():
    part = moved(pv.priors.AutoregressivePrior(3, hidden=(8,)))
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


# --- O7: a mixture prior under a linear decoder ----------------------------------------------------------------------


def linear_vae(prior, posterior):
    likelihood = pv.likelihoods.Normal(2, (3,), net=LINEAR, scale=0.6)
    return pv.VAE(prior=prior, likelihood=likelihood, posterior=posterior)


def exact_evidence(vae, x, weights, means, covariances):
    layer, sigma = vae.likelihood.net.body[0], vae.likelihood.scale()
    cov = layer.weight @ covariances @ layer.weight.T + sigma**2 * torch.eye(3)
    each = dist.MultivariateNormal(means @ layer.weight.T + layer.bias, cov).log_prob(x.unsqueeze(-2))
    return torch.logsumexp(weights.log() + each, -1)


def importance_sampled(vae, x, draws=40000):
    """The evidence of each datum by importance sampling under a wide normal, and its standard error, in nats."""
    q = dist.Normal(torch.zeros(2), 3.0).to_event(1)
    z = q.sample((draws, 1))
    log_w = vae.prior().log_prob(z) + vae.decode(z).log_prob(x) - q.log_prob(z)
    evidence = torch.logsumexp(log_w, 0) - math.log(draws)
    return evidence, (log_w - evidence).exp().std(0) / math.sqrt(draws)


def vamp(posterior):
    return pv.priors.VampPrior(posterior, num_components=4, learn_weights=True)


@pytest.mark.parametrize("kind", ["diagonal", "full", "vamp"])
def test_mixture_prior_has_the_exact_evidence(kind):
    posterior = moved(pv.posteriors.MeanFieldNormal((3,), 2, net=LINEAR), 0.2)
    if kind == "vamp":
        prior = vamp(posterior)
    else:
        prior = pv.priors.MixtureOfNormals(2, num_components=4, full=kind == "full")
    vae = linear_vae(moved(prior, 0.4), posterior)
    with torch.no_grad():
        if kind == "vamp":
            q = posterior(prior.inputs)
            means, covariances = q.mean, torch.diag_embed(q.variance)
        else:
            components = prior().components
            means = components.mean
            covariances = components.covariance_matrix if kind == "full" else torch.diag_embed(components.variance)
        x = vae.sample(6)
        exact = exact_evidence(vae, x, torch.softmax(prior.logits, -1), means, covariances)
        found, error = importance_sampled(vae, x)
        assert ((found - exact).abs() < 4 * error + 1e-5).all(), (found, exact, error)
        assert error.max() < 0.05
        elbo = pv.estimators.ELBO(num_particles=2000)
        bound = elbo.per_datum(vae.model, vae.guide, x)
        assert (bound < exact + 1e-3).all()
        assert elbo.kl_forms(vae.model, vae.guide, x) == {"z": "Monte Carlo"}


def test_responsibilities_make_the_exact_posterior():
    """p(z given x) of a mixture prior is the mixture of each component's posterior: p(x) is the same at every z."""
    vae = linear_vae(moved(pv.priors.MixtureOfNormals(2, num_components=3, full=True)), moved(
        pv.posteriors.MeanFieldNormal((3,), 2, net=LINEAR)))  # fmt: skip
    vae = vae.double()
    with torch.no_grad():
        prior, x = vae.prior(), vae.sample(1)
        w, b, sigma = vae.likelihood.net.body[0].weight, vae.likelihood.net.body[0].bias, vae.likelihood.scale()
        precision = prior.components.precision_matrix + w.T @ w / sigma**2
        shift = (prior.components.precision_matrix @ prior.components.mean.unsqueeze(-1)).squeeze(-1)
        mean = torch.linalg.solve(precision, (shift + (x - b) @ w / sigma**2).unsqueeze(-1)).squeeze(-1)
        cov = w @ prior.components.covariance_matrix @ w.T + sigma**2 * torch.eye(3).double()
        joint = torch.log_softmax(prior.logits, -1) + dist.MultivariateNormal(
            prior.components.mean @ w.T + b, cov
        ).log_prob(x)
        posterior = Mixture(joint, dist.MultivariateNormal(mean, precision_matrix=precision))
        z = posterior.sample((50,))
        evidence = prior.log_prob(z) + vae.decode(z).log_prob(x) - posterior.log_prob(z)
        assert torch.allclose(evidence, torch.logsumexp(joint, -1).expand(50), rtol=1e-9)


# --- priors that share the encoder -----------------------------------------------------------------------------------


def test_vamp_prior_trains_the_encoder_through_the_prior():
    posterior = pv.posteriors.MeanFieldNormal((2, 2), 3, net=SMALL)
    prior = pv.priors.VampPrior(posterior, num_components=5)
    prior().log_prob(torch.zeros(3)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in posterior.parameters())
    assert prior.inputs.grad.abs().sum() > 0
    vae = pv.VAE(prior=prior, likelihood=pv.likelihoods.Bernoulli(3, (2, 2), net=SMALL), posterior=posterior)
    assert len(set(vae.parameters())) == len(list(vae.parameters()))
    twin = copy.deepcopy(vae)
    assert twin.prior.posterior is twin.posterior
    elbo = pv.estimators.ELBO()
    x = torch.rand(6, 2, 2).round()
    before = float(elbo.differentiable_loss(vae.model, vae.guide, x).detach())
    history = pv.fit(vae, x, epochs=100, batch_size=6, progress=False)
    assert history["loss"][-1] * 6 < before
    pv.testing.check_estimator(vae, elbo, x)


def test_vamp_prior_is_the_posterior_at_its_inputs():
    posterior = pv.posteriors.MeanFieldNormal((2, 2), 3, net=SMALL)
    data = torch.rand(20, 2, 2)
    prior = pv.priors.VampPrior(posterior, num_components=20, initial=data, learn_inputs=False)
    z = torch.randn(7, 3)
    exact = posterior(data).log_prob(z.unsqueeze(-2)).logsumexp(-1) - math.log(20)
    assert torch.allclose(prior().log_prob(z), exact, atol=1e-5)
    assert "inputs" not in dict(prior.named_parameters())
    assert "inputs" in prior.state_dict()
    few = pv.priors.VampPrior(posterior, num_components=50, initial=data).inputs
    assert len(few.unique(dim=0)) == 20


def test_vamp_prior_squashes_only_when_told():
    posterior = pv.posteriors.MeanFieldNormal((2, 2), 3, net=SMALL)
    data = torch.full((1, 2, 2), 7.0)
    free = pv.priors.VampPrior(posterior, num_components=1, initial=data)
    kept = pv.priors.VampPrior(posterior, num_components=1, initial=data, squash=torch.nn.Hardtanh(0.0, 1.0))
    assert torch.equal(free().components.mean, posterior(data).mean)
    assert torch.equal(kept().components.mean, posterior(torch.ones(1, 2, 2)).mean)


class Bare(pv.Conditional):
    """A posterior of another family, without a `net`."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        return dist.Laplace(self.layer(x.flatten(-2)), 1.0).to_event(1)


def test_vamp_prior_takes_any_posterior():
    prior = pv.priors.VampPrior(Bare(), num_components=5, shape=(2, 2))
    check_part(prior)
    assert isinstance(prior().components.base_dist, dist.Laplace)
    with pytest.raises(ValueError, match="pass the shape"):
        pv.priors.VampPrior(Bare())


def test_exemplar_prior_is_a_kernel_density_of_codes():
    posterior = pv.posteriors.MeanFieldNormal((2, 2), 3, net=SMALL)
    data, z = torch.rand(20, 2, 2), torch.randn(7, 3)
    prior = pv.priors.ExemplarPrior(posterior, data, scale=0.5)
    each = dist.Normal(posterior(data).mean, 0.5).to_event(1).log_prob(z.unsqueeze(-2))
    assert torch.allclose(prior().log_prob(z), each.logsumexp(-1) - math.log(20), atol=1e-4)
    part = pv.priors.ExemplarPrior(posterior, data, subset_size=3)
    assert part().logits.shape == (3,)
    assert part.eval()().logits.shape == (20,)


# --- the resampled prior ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truncation", [2, 5, 100])
def test_resampled_prior_draws_what_it_scores(truncation):
    part = pv.priors.Lars(1, truncation=truncation, net=LINEAR)
    with torch.no_grad():
        part.net.body[-1].weight.fill_(3)
        part.net.body[-1].bias.fill_(-1)
        fn = part()
        assert check_mass(fn, part)
        z = fn.sample((20000,)).squeeze(-1)
        line = torch.linspace(-8, 8, 4001)
        density = fn.log_prob(line.unsqueeze(-1)).double().exp()
        cdf = torch.cumulative_trapezoid(density, dx=16 / 4000)
        at = np.interp(z.numpy(), line[1:].numpy(), cdf.numpy())
    assert scipy.stats.kstest(at, "uniform").statistic < 1.95 / math.sqrt(20000)
    assert float((density - dist.Normal(0.0, 1.0).log_prob(line).exp()).abs().max()) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [-1e4, -100.0, -59.0, -20.0, -9.0, 0.0, 9.0, 30.0, 1e4])
def test_resampled_prior_at_extreme_acceptance(logit, dtype):
    """A constant acceptance leaves the base as it is, however rare or certain."""
    base = dist.Normal(torch.zeros(2, dtype=dtype), 1.0).to_event(1)
    raw = torch.full((5,), logit, dtype=dtype, requires_grad=True)
    fn = AcceptReject(base, lambda z: raw[0] + 0 * z.sum(-1), raw)
    z = torch.randn(4, 2, dtype=dtype)
    assert torch.allclose(fn.log_prob(z), base.log_prob(z), rtol=1e-5, atol=2e-5)
    assert torch.autograd.grad(fn.log_prob(z).sum(), raw)[0].isfinite().all()


def test_resampled_prior_is_the_same_at_every_call_and_leaves_the_random_stream():
    state = torch.get_rng_state()
    pv.priors.Lars(2, net=lambda i, o: torch.nn.Identity())
    assert torch.equal(torch.get_rng_state(), state)
    part, z = pv.priors.Lars(2), torch.randn(3, 2)
    assert torch.equal(part().log_prob(z), part().log_prob(z))


# --- zuko ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def flows(monkeypatch):
    """`zuko.flows` as it is on its first import."""
    for name in [name for name in sys.modules if name.split(".")[0] == "zuko"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        return zuko_flow.flows()
    except ImportError as error:
        pytest.skip(str(error))


def test_zuko_leaves_validation_as_it_was(flows):
    assert torch.distributions.Distribution._validate_args
    assert pyro.settings.get("validate_distributions_torch")
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)


def test_zuko_flow_is_the_flow_of_zuko(flows):
    part = pv.priors.ZukoFlow(3, flow=functools.partial(flows.NSF, transforms=1, hidden_features=(8,)), context=2)
    check_part(part, (2,))
    c, z = torch.randn(5, 2), torch.randn(5, 3)
    assert torch.equal(part(c).log_prob(z), part.flow(c).log_prob(z))
    assert part(c).rsample().requires_grad
    assert part(c)().shape == (5, 3)


def test_zuko_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(ImportError, match=r"pyro-vae\[zuko\]"):
        pv.priors.ZukoFlow(3)


# --- errors ----------------------------------------------------------------------------------------------------------


def posterior():
    return pv.posteriors.MeanFieldNormal((2, 2), 3, net=SMALL)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pv.priors.Laplace(3, scale=0.0), "scale"),
        (lambda: pv.priors.StudentT(3, df=-1.0), "df"),
        (lambda: pv.priors.Bernoulli(3, probs=1.0), "probs"),
        (lambda: pv.priors.ProductOfOneHotCategoricals(7, groups=2), "divisor"),
        (lambda: pv.priors.Dirichlet(3, concentration=-1.0), "concentration"),
        (lambda: pv.priors.LogisticNormal(3, scale=float("inf")), "scale"),
        (lambda: pv.priors.LogisticNormal.like_dirichlet(1), "two proportions"),
        (lambda: pv.priors.MixtureOfNormals(3, num_components=0), "num_components"),
        (lambda: pv.priors.AffineCouplingFlow(1), "two latents"),
        (lambda: pv.priors.AffineCouplingFlow(3, layers=0), "layers"),
        (lambda: pv.priors.NeuralSplineFlow(1), "two latents"),
        (lambda: pv.priors.NeuralSplineFlow(3, num_bins=1), "num_bins"),
        (lambda: pv.priors.NeuralSplineFlow(3, bound=-1.0), "bound"),
        (lambda: pv.priors.MaskedAutoregressiveFlow(3, layers=0), "layers"),
        (lambda: pv.priors.MaskedAutoregressiveFlow(3, hidden=()), "hidden"),
        (
            lambda: pv.priors.MaskedAutoregressiveFlow(3, context=2, hidden=(8,))(torch.zeros(5, 3)).sample(),
            "context of 2",
        ),
        (lambda: pv.priors.Lars(3, truncation=1), "truncation"),
        (lambda: pv.priors.VampPrior(posterior(), num_components=0), "num_components"),
        (lambda: pv.priors.VampPrior(posterior(), initial=torch.zeros(5, 3, 3)), r"\(n, 2, 2\)"),
        (lambda: pv.priors.ExemplarPrior(posterior(), torch.zeros(0, 2, 2)), "exemplars"),
        (lambda: pv.priors.ExemplarPrior(posterior(), torch.zeros(4, 2, 2), subset_size=5), "subset_size"),
        (lambda: AcceptReject(dist.Normal(0.0, 1.0), None, torch.zeros(3), truncation=1), "truncation"),
    ],
)
def test_wrong_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("cls", [pv.priors.VampPrior, lambda p: pv.priors.ExemplarPrior(p, torch.zeros(3, 2))])
def test_encoder_must_be_a_part(cls):
    with pytest.raises(TypeError, match="posterior of the program"):
        cls(torch.nn.Linear(2, 2))
