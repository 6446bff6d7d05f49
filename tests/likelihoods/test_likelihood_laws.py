"""Laws over all likelihoods: precision, samples, masks, batches, options and data outside the support."""

import functools
import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import pyro_vae as pv
from pyro_vae.testing import parts
from pyro_vae.testing.grids import array_grid

L, S = pv.likelihoods, pv.scales
T = torch.tensor
SHELF = list(parts(L))
FACTORIZED = [c for c in SHELF if isinstance(c.example()(torch.zeros(3)), dist.Independent)]
PLAIN = [c for c in FACTORIZED if not issubclass(c, L.Heterogeneous)]
CONV = functools.partial(pv.nets.ConvDecoder, channels=(4,), hidden=8)


class Constant(nn.Module):
    """A network that returns its parameter for every input."""

    def __init__(self, raw, out_shape):
        super().__init__()
        self.raw = nn.Parameter(torch.broadcast_to(torch.tensor(raw), out_shape).clone())

    def forward(self, z, *context):
        return self.raw.expand(len(z), *self.raw.shape)


def values_inside(support):
    """At most 17 values inside a support, its extremes included."""
    while isinstance(support, torch.distributions.constraints.independent):
        support = support.base_constraint
    values = T([-1e9, -1e4, -1.0, 0.0, 1e-30, 1e-6, 0.5, 1 - 1e-7, 1.0, 2.0, 255.0, 1e6, 1e9])
    grid = getattr(support, "values", None)
    values = grid() if grid else values[support.check(values.unsqueeze(-1)).reshape(len(values))]
    return values[:: max(1, len(values) // 16)]


@pytest.mark.parametrize("raw", [-1e4, -3.0, 0.0, 2.0, 1e4])
@pytest.mark.parametrize("cls", PLAIN)
def test_values_and_gradients_of_float32_match_float64(cls, raw):
    """Each value is an entry with parameters of its own, as far as the part has them per entry."""
    x = values_inside(cls(1, (1,))(torch.zeros(1)).support)
    n = len(x)
    options = {"df": S.Shared(5.0, shape=(n,))} if cls is L.StudentT else {}
    part = cls(1, (n,), net=lambda i, o: Constant(raw, o), **options)
    results = []
    for dtype in (torch.float32, torch.float64):
        part = part.to(dtype).eval()
        part.zero_grad()
        log_p = part(torch.zeros(1, dtype=dtype)).base_dist.log_prob(x.to(dtype))
        log_p.sum().backward()
        grads = [p.grad.reshape(-1, n) if p.shape[-1] == n else p.grad.T for p in part.parameters()]
        results.append((log_p.detach().double(), torch.cat(grads).double()))
    (found, gradient), (known, known_gradient) = results
    assert torch.isfinite(found).all()
    assert torch.isfinite(gradient).all()
    assert torch.allclose(found, known, rtol=1e-5, atol=1e-5), (found, known)
    size = known_gradient.abs().max(0).values.clamp(min=1)
    assert ((gradient - known_gradient).abs() <= 2e-5 * size).all(), (x, gradient, known_gradient)


@pytest.mark.parametrize("cls", PLAIN)
def test_samples_follow_the_density(cls):
    """The Kolmogorov-Smirnov statistic against the summed or integrated density, and the mean."""
    torch.manual_seed(3)
    n = 20000
    part = cls(1, (1,), net=functools.partial(pv.nets.MLP, hidden=(16,)))
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
    observed = torch.rand(x.shape) < 0.5
    other = torch.where(observed, x, part(z).sample())
    results = []
    for v in (x, other):
        part.zero_grad()
        log_p = part(z).base_dist.mask(observed).to_event(k).log_prob(v)
        log_p.sum().backward()
        results.append((log_p.detach(), [p.grad.clone() for p in part.parameters() if p.grad is not None]))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    known = torch.where(observed, part(z).base_dist.log_prob(x), 0).flatten(1).sum(1)
    assert torch.allclose(results[0][0], known, atol=1e-5)


OPTIONS = [
    (L.StudentT, {"scale": S.PerExample(), "df": S.PerExample()}),
    (L.StudentT, {"scale": S.PerExample()}),
    (L.StudentT, {"df": 3.0}),
    (L.Gamma, {"concentration": 2.0}),
    (L.NegativeBinomial, {"inverse_dispersion": S.PerExample()}),
    (L.ZeroInflatedNegativeBinomial, {"inverse_dispersion": 2.0}),
    (L.DiscretizedLogistic, {"levels": 2, "scale": S.Shared(0.1)}),
    (L.DiscretizedLogisticMixture, {"levels": 4, "coupled": True}),
    (L.DiscretizedLogisticMixture, {"levels": 4, "num_components": 1}),
    (L.LowRankNormal, {"rank": 3, "scale": S.PerExample()}),
    (L.Categorical, {"levels": 3, "grid": False}),
    (L.OrderedLogistic, {"levels": 2}),
    (L.OrderedLogistic, {"levels": 4, "grid": True}),
    (L.Binomial, {"total": 3, "grid": True}),
    (L.BetaBinomial, {"total": 3, "grid": True}),
]


@pytest.mark.parametrize(("cls", "options"), OPTIONS)
def test_options_obey_the_laws(cls, options):
    """An AssertionError of `check_part` names the law that an option breaks."""
    pv.testing.check_part(cls.example(**options), (3,))


@pytest.mark.parametrize(
    ("cls", "shape", "options"),
    [
        (L.DiscretizedLogisticMixture, (3, 6, 5), {}),
        (L.DiscretizedLogisticMixture, (3, 6, 5), {"coupled": True}),
        (L.LowRankNormal, (3, 6, 5), {}),
        (L.ZeroInflatedNegativeBinomial, (3, 6, 5), {}),
        (L.PixelCNN, (2, 3, 2), {"levels": 4, "features": 4, "layers": 2}),
    ],
)
def test_convolutional_decoders_obey_the_laws(cls, shape, options):
    """An AssertionError of `check_part` names the law that a convolutional decoder breaks."""
    pv.testing.check_part(cls(3, shape, net=CONV, context=2, **options), (3,), (2,))


@pytest.mark.parametrize("cls", [L.NegativeBinomial, L.ZeroInflatedNegativeBinomial])
def test_library_size_scales_the_means(cls):
    part = cls.example(context=3, library=True)
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
    with pytest.raises(ValueError, match="context"):
        cls(3, (2, 2), library=True)


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
def test_data_outside_the_support_are_refused_with_a_hint(cls, bad):
    part = cls(3, (2,), net=functools.partial(pv.nets.MLP, hidden=(16,)))
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(3), likelihood=part, posterior=pv.posteriors.MeanFieldNormal.example(shape=(2,))
    )
    x = part(torch.randn(4, 3)).sample()
    vae.check(x)
    x[2, 1] = bad
    with pytest.raises(ValueError, match="outside the support") as error:
        vae.check(x)
    assert part.hint
    assert part.hint in str(error.value)
    with pyro.validation_enabled(True), pytest.raises(ValueError, match="support"):
        part(torch.randn(4, 3)).log_prob(x)


@pytest.mark.parametrize(
    ("build", "argument"),
    [
        (lambda: L.Categorical(3, (2,), levels=1), "levels"),
        (lambda: L.DiscretizedLogistic(3, (2,), levels=0), "levels"),
        (lambda: L.DiscretizedLogisticMixture(3, (2,), num_components=0), "num_components"),
        (lambda: L.OrderedLogistic(3, (2,), levels=1), "levels"),
        (lambda: L.Binomial(3, (2,), total=0), "total"),
        (lambda: L.BetaBinomial(3, (2,), total=0), "total"),
        (lambda: L.Multinomial(3, (2,), total=0), "total"),
        (lambda: L.LowRankNormal(3, (2,), rank=0), "rank"),
        (lambda: L.Heterogeneous(3, (2,), columns=()), "columns"),
        (lambda: L.PixelCNN(3, (2, 2), levels=1), "levels"),
        (lambda: L.PixelCNN(3, (2, 2), kernel_size=4), "kernel_size"),
        (lambda: L.Laplace(3, (2,), scale=-1.0), "scale"),
        (lambda: L.StudentT(3, (2,), df=0.0), "df"),
        (lambda: L.Gamma(3, (2,), concentration=0.0), "concentration"),
        (lambda: L.NegativeBinomial(3, (2,), inverse_dispersion=0.0), "inverse_dispersion"),
        (lambda: S.OptimalSigma(momentum=0.0), "momentum"),
        (lambda: S.Fixed(0.0), "value"),
        (lambda: S.Shared(math.nan), "initial"),
    ],
)
def test_wrong_arguments_are_refused(build, argument):
    with pytest.raises(ValueError, match=argument):
        build()
