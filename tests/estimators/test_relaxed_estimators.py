"""REBAR and RELAX: against sums over all values of the latents, and the variance of their gradients."""

import functools
import math

import pyro
import pytest
import torch
from helpers.resumed_fits import check_resumed_and_compiled_fits
from pyro import distributions as dist
from pyro import poutine
from test_discrete_estimators import LINEAR, Mixed, Plain, Toy, draws, gradient, normal_vae, unbiased, within

import pyro_vae as pv
from pyro_vae.estimators import REBAR, RELAX, DisARM, ReinforceLOO
from pyro_vae.testing import check_estimator
from pyro_vae.trace.relaxed import logistic_pair, relaxed_terms


def relax(latent=3, **options):
    """RELAX whose network is not zero."""
    net = pv.nets.MLP((latent,), (1,), hidden=(6,)).double()
    return RELAX(surrogate=net, **options)


KINDS = {"REBAR": REBAR, "RELAX": relax}


@pytest.mark.parametrize(
    "options",
    [{}, {"beta": 0.4, "num_particles": 3}, {"temperature": 0.1, "scale": -0.7}, {"scale": 0.0}],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_that_of_the_bound_whatever_the_control_variate(kind, options):
    toy = Toy("bits")
    estimator = KINDS[kind](**options)
    assert unbiased(estimator, toy, toy.elbo(estimator.beta), blocks=24, rows=300)


def test_logistic_draws_have_the_signs_of_the_bits_and_the_logistic_distribution():
    n = 200_000
    torch.manual_seed(0)
    logits = torch.tensor(0.8).double().expand(n)
    value = dist.Bernoulli(logits=logits).sample()
    noise = tuple(torch.rand(n).double().logit(1e-15) for _ in range(2))
    for z in logistic_pair(logits, value, noise):
        assert torch.equal(z > 0, value > 0)
        p = (z - logits).sigmoid().sort().values  # uniform
        assert (p - torch.linspace(0, 1, n)).abs().max() < 2 / math.sqrt(n)


def test_second_draw_moves_as_its_quantile_given_the_bit():
    """The slope of the conditional draw in the logit is that of a difference of quantiles."""
    logits = torch.linspace(-3, 3, 7).double().requires_grad_()
    u = torch.linspace(0.1, 0.9, 7).double()
    for bit in (0.0, 1.0):
        value = torch.full_like(u, bit)
        slope = torch.autograd.grad(logistic_pair(logits, value, (u.logit(), u.logit()))[1].sum(), logits)[0]

        def quantile(a, bit=bit):
            p = a.sigmoid()
            v = 1 - p + p * u if bit else (1 - p) * (1 - u)  # a uniform number of this sign
            return a + v.logit()

        step = 1e-5
        expected = (quantile(logits + step) - quantile(logits - step)) / (2 * step)
        torch.testing.assert_close(slope, expected.detach(), rtol=1e-6, atol=1e-8)


class Attached(REBAR):
    """REBAR without the part of the gradient through the draw given the bits."""

    def slopes(self, terms, beta):
        real = torch.autograd.grad
        torch.autograd.grad = lambda outputs, x, weights, **options: real(outputs[:2], x, weights[:2], **options)
        try:
            return super().slopes(terms, beta)
        finally:
            torch.autograd.grad = real


def test_a_missing_part_of_the_gradient_is_seen():
    toy = Toy("bits")
    estimator = Attached()
    estimator.module.requires_grad_(False)
    assert not unbiased(estimator, toy, toy.elbo(), blocks=24, rows=300)


def variance(estimator, toy, x, seeds=60):
    gradients = [
        gradient(estimator.differentiable_loss(toy.program.model, toy.program.guide, x), toy.guide)
        for _ in range(seeds)
    ]
    return float(torch.stack(gradients).var(0).sum())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_training_the_control_variate_lowers_the_variance(kind):
    """The program stands still: below half of the start, and a tenth of the plain score function at equal cost."""
    toy = Toy("bits")
    torch.manual_seed(1)
    x = 2 * toy.program.sample(60)
    estimator = KINDS[kind](temperature=3.0, scale=0.2)
    first = variance(estimator, toy, x)
    adam = torch.optim.Adam(estimator.module.parameters(), lr=0.03)
    for _ in range(300):
        adam.zero_grad()
        estimator.loss_and_grads(toy.program.model, toy.program.guide, x)
        adam.step()
    last = variance(estimator, toy, x)
    plain = variance(Plain(num_particles=3), toy, x)
    others = [variance(e, toy, x) for e in (ReinforceLOO(num_particles=3), DisARM(num_particles=4))]
    print(f"{kind}: {first:.3g} to {last:.3g}, plain {plain:.3g}, leave-one-out and DisARM {others}")
    assert last < 0.5 * first
    assert last < 0.1 * plain
    assert last < 3 * others[0]


def test_the_gradient_of_the_scale_and_the_temperature_is_that_of_the_variance():
    """Against differences of the sum of squared slopes at the same draws."""
    toy = Toy("bits")
    x = toy.program.sample(5)
    estimator = REBAR(num_particles=2)
    estimator.module.double()

    def squares():
        torch.manual_seed(0)
        terms = estimator.terms(toy.program.model, toy.program.guide, x)
        return estimator.slopes(terms, 1.0).square().sum() / 2

    torch.manual_seed(0)
    loss = estimator.differentiable_loss(toy.program.model, toy.program.guide, x)
    found = torch.autograd.grad(loss, list(estimator.module.parameters()))
    for p, slope in zip(estimator.module.parameters(), found, strict=True):
        values = []
        for step in (1e-5, -2e-5, 1e-5):
            p.data += step
            values.append(float(squares().detach()))
        assert float(slope) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


def test_learning_leaves_the_program_alone():
    """The gradient of the program is the same with a control variate that is not trained."""
    toy = Toy("bits")
    found = []
    for learned in (True, False):
        estimator = REBAR()
        estimator.module.requires_grad_(learned)
        torch.manual_seed(0)
        loss = estimator.differentiable_loss(toy.program.model, toy.program.guide, toy.copies(4))
        found.append(torch.cat([loss.detach().reshape(1), gradient(loss, toy.parameters)]))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [10.0, 0.1])
def test_scale_multiplies_the_loss(kind, scale):
    toy, estimator = Toy("bits"), KINDS[kind]()
    estimator.module.double()
    found = []
    for factor in (scale, 1.0):
        model, guide = (poutine.scale(f, factor) for f in (toy.program.model, toy.program.guide))
        torch.manual_seed(0)
        loss = estimator.differentiable_loss(model, guide, toy.copies(4)) * (scale / factor)
        parameters = [*toy.parameters, *estimator.module.parameters()]
        found.append(torch.cat([loss.detach().reshape(1), gradient(loss, parameters)]))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("kind", KINDS)
def test_mask_leaves_rows_out(kind):
    toy, estimator = Toy("bits"), KINDS[kind]()
    mask = torch.tensor([True, False, True, False])
    parameters, found = [*toy.parameters, *estimator.module.parameters()], []
    for other in (0.0, 3.0):
        x = toy.x + other * (~mask).double().unsqueeze(-1)
        model, guide = (poutine.mask(f, mask=mask) for f in (toy.program.model, toy.program.guide))
        torch.manual_seed(0)
        loss = estimator.differentiable_loss(model, guide, x)
        found.append(torch.cat([loss.detach().reshape(1), gradient(loss, parameters)]))
    torch.testing.assert_close(*found)


def test_subsampled_rows_are_the_same_in_both_runs():
    """A plate that draws its own rows."""
    toy = Toy("bits")
    data = toy.program.sample(3)

    def rows(run):
        def program(x):
            with pyro.plate("data", 3, subsample_size=2, dim=-1) as index:
                run(x[index])

        return program

    model = rows(lambda x: pyro.sample("x", toy.program.likelihood(pyro.sample("z", toy.program.prior())), obs=x))
    guide = rows(lambda x: pyro.sample("z", toy.program.posterior(x)))
    for seed in range(4):
        torch.manual_seed(seed)
        terms = REBAR(num_particles=2).terms(model, guide, data)
        [site], value = terms.latent, terms.latent[0].guide["value"]
        relaxed = relaxed_terms(terms, site, value, (value, 1 - value))
        assert torch.equal(relaxed.observed[0].model["value"], terms.observed[0].model["value"])
        torch.testing.assert_close(relaxed.observed[0].log_p[:2], terms.observed[0].log_p)


@pytest.mark.parametrize("kind", KINDS)
def test_estimator_obeys_the_laws(kind):
    toy = Toy("bits")
    check_estimator(toy.program, KINDS[kind](num_particles=4), toy.program.sample(40))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_resumes_and_compiles_to_the_same_weights(kind, tmp_path):
    def make():
        program = Toy("bits").program
        torch.manual_seed(5)
        estimator = KINDS[kind]()
        estimator.module.double()
        return program, estimator

    check_resumed_and_compiled_fits(make, Toy("bits").program.sample(64), 32, tmp_path)


def test_priors_of_other_families_and_validation():
    """A flat site of one value per example, with checks of values on."""
    prior = torch.tensor(0.3).double().requires_grad_()
    slope = torch.tensor(0.7).double().requires_grad_()

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Bernoulli(logits=prior))
            pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Bernoulli(logits=slope * x))

    x, z = torch.tensor([0.4, -1.0]).double(), torch.tensor([[0.0], [1.0]]).double()
    q = dist.Bernoulli(logits=slope * x)
    log_w = dist.Bernoulli(logits=prior).log_prob(z) + dist.Normal(2 * z, 1.0).log_prob(x) - q.log_prob(z)
    exact = gradient((q.log_prob(z).exp() * log_w).sum(), [prior, slope])
    with pyro.validation_enabled(True):
        for particles in (1, 3):
            estimator = REBAR(num_particles=particles)
            found = [
                -gradient(estimator.differentiable_loss(model, guide, x.repeat(200)), [prior, slope]) / 200
                for _ in range(60)
            ]
            assert within(torch.stack(found), exact)


def test_other_latents_are_refused_by_name():
    x, vae = torch.zeros(2, 4), normal_vae()
    with pytest.raises(ValueError, match="guide: REBAR .*'z'.*Normal"):
        REBAR().loss(vae.model, vae.guide, x)
    mixed = Mixed(True)
    with pytest.raises(ValueError, match="guide: .*'z'"):
        REBAR().loss(mixed.program.model, mixed.program.guide, mixed.x)
    q = functools.partial(pv.posteriors.Bernoulli, net=LINEAR)
    layers = pv.programs.Hierarchical(
        prior=pv.priors.Bernoulli(2, learned=True),
        layers=[q((2,), 3)],
        likelihood=pv.likelihoods.Normal(3, (4,), net=LINEAR),
        inference=pv.programs.BottomUp([q((4,), 3), q((3,), 2)]),
    )
    with pytest.raises(ValueError, match="guide: REBAR needs one latent site per example"):
        REBAR().loss(layers.model, layers.guide, x)


@pytest.mark.parametrize(
    ("make", "error", "name"),
    [
        (lambda: REBAR(temperature=0.0), ValueError, "temperature"),
        (lambda: REBAR(num_particles=4, particles_per_pass=2), ValueError, "particles_per_pass"),
        (lambda: RELAX(surrogate=lambda z: z.sum(-1)), TypeError, "surrogate"),
    ],
)
def test_bad_options(make, error, name):
    with pytest.raises(error, match=name):
        make()


def test_a_surrogate_of_the_wrong_width_is_refused():
    toy = Toy("bits")
    with pytest.raises(ValueError, match="surrogate"):
        relax(latent=2).differentiable_loss(toy.program.model, toy.program.guide, toy.x)


def test_value_needs_no_relaxation():
    """Without gradients the value is the mean log weight of the binary draws, and the model runs once."""
    toy, runs = Toy("bits"), []
    toy.program.likelihood.register_forward_hook(lambda *args: runs.append(0))
    estimator = REBAR(num_particles=5)
    estimator.per_datum(toy.program.model, toy.program.guide, toy.x)
    with torch.no_grad():
        for each in (estimator, ReinforceLOO(num_particles=5)):
            runs.clear()
            torch.manual_seed(0)
            each.found = each.per_datum(toy.program.model, toy.program.guide, toy.x)
            assert len(runs) == 1
            if each is not estimator:
                torch.testing.assert_close(each.found, estimator.found)
    values, _ = draws(REBAR(), toy, blocks=20)
    assert within(values, toy.elbo().detach())
