"""CountVAE: against exact gamma-Poisson evidences, sums written out, and known groups of cells."""

import functools

import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.programs import CountVAE
from pyro_vae.testing import check_estimator

GENES, LATENT = 5, 2
DISPERSION = 3.0
LIKELIHOODS = [pv.likelihoods.NegativeBinomial, pv.likelihoods.ZeroInflatedNegativeBinomial]
small, linear = (functools.partial(pv.nets.MLP, hidden=hidden) for hidden in ((16,), ()))


def cells(n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.rand(n, GENES, generator=generator) * 8, generator=generator) + torch.eye(n, GENES)[0]


def batches(n=8, width=2):
    return torch.eye(width)[torch.arange(n) % width]


def program(likelihood=pv.likelihoods.NegativeBinomial, width=0, latent_library=False):
    options = {}
    if latent_library:
        options["library_prior"] = pv.priors.ConditionalNormal(1, context=width, net=small) if width else NormalSize()
        options["library_posterior"] = pv.posteriors.MeanFieldNormal((GENES,), 1, net=small, context=width)
    return CountVAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=likelihood(LATENT, (GENES,), net=small, context=width + 1, library=True),
        posterior=pv.posteriors.MeanFieldNormal((GENES,), LATENT, net=small, context=width),
        **options,
    )


class NormalSize(pv.Conditional):
    """Log library size around log 20."""

    def __init__(self):
        super().__init__()
        self.loc = torch.nn.Parameter(torch.tensor([3.0]))

    def forward(self, *context):
        return dist.Normal(self.loc, 0.4).to_event(1)


class Profile(torch.nn.Module):
    """A decoder that ignores z."""

    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.raw = torch.nn.Parameter(torch.arange(out_shape[-1]).mul(0.3).expand(out_shape).clone())

    def forward(self, z):
        return self.raw.expand(len(z), *self.raw.shape)


class PriorAsPosterior(pv.Conditional):
    """The exact posterior where x does not depend on z."""

    def __init__(self):
        super().__init__()
        self.loc = torch.nn.Parameter(torch.zeros(LATENT))

    def forward(self, x):
        return dist.Normal(self.loc.expand(*x.shape[:-1], LATENT), 1.0).to_event(1)


class SizePosterior(pv.Conditional):
    """Log library size around the logarithm of the total, wider than the exact posterior."""

    def __init__(self):
        super().__init__()
        self.off = torch.nn.Parameter(torch.zeros(1))

    def forward(self, log_x):
        return dist.Normal(log_x.expm1().sum(-1, keepdim=True).log() + self.off, 0.6).to_event(1)


def fixed(**options):
    return CountVAE(
        prior=pv.priors.StandardNormal(LATENT),
        likelihood=pv.likelihoods.NegativeBinomial(
            LATENT, (GENES,), net=Profile, context=1, library=True, inverse_dispersion=DISPERSION
        ),
        posterior=PriorAsPosterior(),
        **options,
    ).double()


def gamma_poisson(x, size):
    """Exact evidence of counts with gamma distributed rates of mean size times share, summed over genes."""
    share = torch.arange(GENES).double().mul(0.3).softmax(-1)
    a = torch.tensor(DISPERSION).double()
    b = a / (size.unsqueeze(-1) * share)
    return (a * b.log() - a.lgamma() + (a + x).lgamma() - (a + x) * (b + 1).log() - (x + 1).lgamma()).sum(-1)


def test_bound_is_the_evidence_where_x_does_not_depend_on_z():
    vae, x = fixed(), cells().double()
    exact = gamma_poisson(x, x.sum(-1))
    for particles in (1, 4):
        found = pv.estimators.ELBO(num_particles=particles).per_datum(vae.model, vae.guide, x)
        assert torch.allclose(found, exact, atol=1e-8)
    found = pv.evaluation.log_likelihood(vae, x, num_particles=3)
    assert torch.allclose(found.per_example, exact, atol=1e-8)


def test_latent_library_size_has_the_evidence_of_a_quadrature():
    vae, x = fixed(library_prior=NormalSize(), library_posterior=SizePosterior()), cells().double()
    grid = torch.linspace(-2, 8, 4001).double()
    joint = gamma_poisson(x.unsqueeze(1), grid.exp()) + dist.Normal(3.0, 0.4).log_prob(grid)
    exact = torch.logsumexp(joint, -1) + (grid[1] - grid[0]).log()
    found = pv.evaluation.log_likelihood(vae, x, num_particles=3000)
    assert ((found.per_example - exact).abs() < 4 * found.per_example_error).all()
    assert (found.per_example_error < 0.05).all()
    bound = pv.estimators.ELBO(num_particles=1000).per_datum(vae.model, vae.guide, x)
    assert (bound < exact - 0.05).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("latent_library", [False, True])
@pytest.mark.parametrize("width", [0, 2])
def test_bound_is_the_sum_over_sites(likelihood, latent_library, width):
    vae, x = program(likelihood, width, latent_library).double(), cells().double()
    context = (batches().double(),) if width else ()
    elbo = pv.estimators.ELBO(num_particles=3, analytic_kl=False)
    torch.manual_seed(0)
    found = elbo.per_datum(vae.model, vae.guide, x, *context)
    torch.manual_seed(0)
    q = vae.posterior(x.log1p(), *context)
    z = q.rsample((3,))
    expected, size = vae.prior().log_prob(z) - q.log_prob(z), x.sum(-1, keepdim=True)
    if latent_library:
        p, q = vae.library_prior(*context), vae.library_posterior(x.log1p(), *context)
        log_size = q.rsample((3,))
        expected, size = expected + p.log_prob(log_size) - q.log_prob(log_size), log_size.exp()
    expected = expected + vae.likelihood(z, *context, size).log_prob(x)
    assert torch.allclose(found, expected.mean(0))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_means_grow_with_the_library(likelihood):
    vae, x, c = program(likelihood, width=2), cells(), batches()
    once, twice = (vae.normalized(x, c, library=size) for size in (1e3, 2e3))
    assert torch.allclose(twice, 2 * once)
    assert torch.allclose(once.sum(-1), torch.tensor(1e3))
    z = torch.zeros(8, LATENT)
    means = [vae.decode(z, c, library=torch.full((8,), size)).mean for size in (10.0, 20.0)]
    assert torch.allclose(means[1], 2 * means[0])
    small_cells = vae.sample(8, c, library=10.0, mean=True)
    sizes = torch.arange(1.0, 9.0)
    assert torch.allclose(vae.sample(8, c, library=sizes, mean=True), small_cells * sizes.unsqueeze(-1) / 10)
    assert vae.sample(8, c, library=10.0).shape == vae.reconstruct(x, c).shape == (8, GENES)


def test_normalized_keeps_the_random_state_and_takes_covariates_per_row():
    vae, x, c = program(width=2), cells(), batches()
    state = torch.get_rng_state()
    found = vae.normalized(x, c, decode_as=c.flip(0))
    assert torch.equal(torch.get_rng_state(), state)
    for k in range(2):
        everywhere = vae.normalized(x, c, decode_as=torch.eye(2)[k])
        rows = c.flip(0)[:, k] == 1
        assert torch.equal(found[rows], everywhere[rows])
        assert not torch.allclose(found[~rows], everywhere[~rows])


@pytest.mark.slow
def test_decoding_as_one_batch_removes_its_effect():
    """Two groups of cells in two batches; the second batch triples a quarter of the genes."""
    generator = torch.Generator().manual_seed(0)
    n, genes = 400, 8
    group, batch = torch.arange(n) % 2, (torch.arange(n) // 2) % 2
    profiles = torch.rand(2, genes, generator=generator) + 0.2
    effect = torch.ones(2, genes)
    effect[1, ::4] = 3.0
    shares = profiles[group] * effect[batch]
    depth = 200 * (1 + torch.rand(n, 1, generator=generator))
    x = torch.poisson(depth * shares / shares.sum(-1, keepdim=True), generator=generator)
    c = torch.eye(2)[batch]
    torch.manual_seed(0)
    scale = pv.scales.Shared(30.0, shape=(genes,))
    vae = CountVAE(
        prior=pv.priors.StandardNormal(1),
        likelihood=pv.likelihoods.NegativeBinomial(
            1, (genes,), net=linear, context=3, library=True, inverse_dispersion=scale
        ),
        posterior=pv.posteriors.MeanFieldNormal((genes,), 1, net=small, context=2),
    )
    adam = functools.partial(torch.optim.Adam, lr=2e-2)
    pv.fit(vae, (x, c), optimizer=adam, epochs=80, batch_size=100, progress=False)
    truth = profiles / profiles.sum(-1, keepdim=True)

    def error(found):
        second = [found[(group == g) & (batch == 1)].mean(0) for g in range(2)]
        return float((torch.stack(second) / truth - 1).abs().mean())

    assert error(vae.normalized(x, c, library=1.0)) > 0.4
    assert error(vae.normalized(x, c, library=1.0, decode_as=torch.tensor([1.0, 0.0]))) < 0.08


def test_estimators_take_a_latent_library_size():
    """An AssertionError of `check_estimator` names the law that the pair breaks."""
    check_estimator(program(latent_library=True), pv.estimators.ELBO(num_particles=3), cells())


def test_bad_input():
    x, c = cells(), batches()
    with pytest.raises(ValueError, match="^likelihood.*NegativeBinomial"):
        CountVAE(
            prior=pv.priors.StandardNormal(2),
            likelihood=pv.likelihoods.NegativeBinomial(2, (GENES,)),
            posterior=pv.posteriors.MeanFieldNormal((GENES,), 2),
        )
    with pytest.raises(ValueError, match="only library_prior"):
        fixed(library_prior=NormalSize())
    vae = program(width=2)
    with pytest.raises(ValueError, match="^context: .*2"):
        pv.fit(vae, x, epochs=1, progress=False)
    with pytest.raises(ValueError, match="^decode_as"):
        vae.normalized(x, c, decode_as=torch.ones(3))
    empty = x.clone()
    empty[3] = 0
    with pytest.raises(ValueError, match=r"^x: .*x\[3\].*1 of 8"):
        pv.fit(vae, (empty, c), epochs=1, progress=False)
    with pytest.raises(ValueError, match="^x: .*NegativeBinomial"):
        pv.fit(vae, (x + 0.5, c), epochs=1, progress=False)
    with pytest.raises(ValueError, match="^library_prior"):
        pv.fit(
            fixed(
                library_prior=pv.priors.StandardNormal(2),
                library_posterior=pv.posteriors.MeanFieldNormal((GENES,), 2),
            ),
            x.double(),
            epochs=1,
            progress=False,
        )
