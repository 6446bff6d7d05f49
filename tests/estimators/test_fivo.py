"""FIVO: held to a particle filter written as loops, to the Kalman evidence, and to differences of its own mean."""

import functools
import itertools
import math

import pyro
import pytest
import torch
from helpers.state_space import Q, R, Toy, padded
from pyro import poutine
from torch.distributions import Normal

import pyro_vae as pv
from pyro_vae.estimators.fivo import log_weights
from pyro_vae.trace.resampled import Resampling

E = pv.estimators
LENGTHS = torch.tensor([6, 1, 4, 6, 2, 5])
ALWAYS = functools.partial(E.FIVO, threshold=1.0)


def holes(**options):
    """Return a toy and a batch with inputs, missing entries and sequences of different lengths."""
    toy, g = Toy(missing=True, inputs=2, **options), torch.Generator().manual_seed(1)
    inputs = torch.randn(len(LENGTHS), 6, 2, generator=g, dtype=torch.float64)
    x = toy.program.sample(len(LENGTHS), length=6, inputs=inputs)
    hidden = torch.rand(x.shape, generator=g) < 0.35
    hidden[:, 0, 0], hidden[0, 2] = False, True
    x = torch.where(hidden, math.nan, x)
    return toy, padded(x, LENGTHS, math.nan), LENGTHS, padded(inputs, LENGTHS, math.nan)


def values(estimator, program, *batch):
    with torch.no_grad():
        return estimator.per_datum(program.model, program.guide, *batch)


def copies(toy, n, *, length, seed=0):
    """Return n copies of one sequence and its exact evidence."""
    x = toy.program.sample(1, length=length, seed=seed)
    return x.expand(n, -1, -1), toy.evidence(x, [length])[0]


def particle_filter(toy, terms, i, x, inputs, beta):
    """Return the log of the estimated evidence of row i, from its draws and ancestors, by loops."""
    k, posterior = terms.num_particles, toy.program.posterior
    h = toy.program.summary(x.unsqueeze(0), torch.tensor([len(x)]), inputs.unsqueeze(0))[0]
    state, log_w, log_v = [None] * k, torch.zeros(k).double(), torch.zeros(k).double()
    for t, site in enumerate(terms.latent[: len(x)]):
        step = site.guide["resampling"]
        if step is not None and step.resampled[i]:
            ancestors, chosen = step.ancestors[:, i], log_v.softmax(0)
            assert torch.allclose(step.log_w[:, i].softmax(0), chosen, atol=1e-9)
            # an ancestor is worth its weight over the expected number of its copies
            log_w = log_w[ancestors] - (k * chosen[ancestors]).log()
            state, log_v = [state[a] for a in ancestors], torch.zeros(k).double()
        for j in range(k):
            z, first = site.guide["value"][j, i], state[j] is None
            mean = (toy.first if first else toy.a @ state[j]) + toy.b @ inputs[t]
            log_ratio = Normal(mean, Q).log_prob(z).sum()
            log_ratio -= posterior(h[t], toy.program.start[0] if first else state[j]).log_prob(z)
            seen = ~x[t].isnan()
            log_x = Normal(toy.c @ z + toy.d @ inputs[t], R).log_prob(x[t].nan_to_num())[seen].sum()
            log_w[j] += log_x + beta * log_ratio
            log_v[j] += log_x + log_ratio
            state[j] = z
    return log_w.logsumexp(0) - math.log(k)


@pytest.mark.parametrize("beta", [1.0, 0.5])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_bound_is_that_of_a_particle_filter_in_loops(threshold, beta):
    """With missing entries, inputs and different lengths."""
    toy, *batch = holes(off=0.4)
    estimator = E.FIVO(num_particles=5, threshold=threshold, beta=beta)
    with torch.no_grad():
        terms = estimator.terms(toy.program.model, toy.program.guide, *batch)
        found = estimator.bound(terms, beta)
        rows = [particle_filter(toy, terms, i, batch[0][i, :n], batch[2][i, :n], beta) for i, n in enumerate(LENGTHS)]
    assert torch.allclose(found, torch.stack(rows), atol=1e-9)
    steps = [site.guide["resampling"].resampled for site in terms.latent[1:]]
    assert torch.stack(steps).any() == (threshold > 0)


def test_without_resampling_it_is_the_importance_weighted_bound():
    """Value and gradient on the same run; and for sequences of one step, and for one particle."""
    toy, *batch = holes(off=0.3)
    parameters = list(toy.program.parameters())

    def both(estimator, terms):
        bound = estimator.bound(terms, 1.0)
        slopes = torch.autograd.grad(bound.sum(), parameters, retain_graph=True, allow_unused=True)
        return [bound.detach(), *(slope for slope in slopes if slope is not None)]

    short = batch[0][:, :1], LENGTHS.clamp(max=1), batch[2][:, :1]
    for data, fivo in (
        (batch, E.FIVO(num_particles=4, threshold=0)),
        (short, ALWAYS(num_particles=4, unbiased_gradient=True)),
        (batch, ALWAYS(num_particles=1, unbiased_gradient=True)),
    ):
        terms = fivo.terms(toy.program.model, toy.program.guide, *data)
        pairs = zip(both(fivo, terms), both(E.IWAE(), terms), strict=True)
        assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in pairs)


def test_resampling_loses_where_the_guide_knows_the_whole_sequence():
    """The exact guide has a constant weight for the sequence, but not for each step; by 4 standard errors."""
    toy = Toy()
    x, exact = copies(toy, 4000, length=6)
    whole = values(E.FIVO(num_particles=4, threshold=0), toy.program, x[:5])
    assert torch.allclose(whole, exact.expand(5), atol=1e-9)
    found = values(ALWAYS(num_particles=4), toy.program, x) - exact
    assert found.mean() < -4 * found.std() / math.sqrt(len(found))


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_estimate_of_the_evidence_is_unbiased(threshold):
    """Within 4 standard errors; also with a beta, whose target does not depend on the resampling."""
    toy = Toy(off=0.2)
    x, exact = copies(toy, 20000, length=5)
    ratio = (values(E.FIVO(num_particles=4, threshold=threshold), toy.program, x) - exact).exp()
    assert (ratio.mean() - 1).abs() < 4 * ratio.std() / math.sqrt(len(ratio))
    tempered = [
        (estimator.bound(estimator.terms(toy.program.model, toy.program.guide, x), 0.5) - exact).exp().detach()
        for estimator in (E.FIVO(num_particles=4, threshold=threshold), E.IWAE(num_particles=4))
    ]
    error = sum(r.var() / len(r) for r in tempered).sqrt()
    assert (tempered[0].mean() - tempered[1].mean()).abs() < 4 * error


def test_bound_rises_to_the_evidence_and_is_tighter_than_importance_weighting():
    """30 steps and a guide that is off by half a standard deviation; each comparison by 4 standard errors."""
    toy = Toy(off=0.2)
    x, exact = copies(toy, 200, length=30)
    found = {k: values(E.FIVO(num_particles=k), toy.program, x) - exact for k in (4, 16, 64)}
    iwae = values(E.IWAE(num_particles=16), toy.program, x) - exact
    error = {k: v.std() / math.sqrt(len(v)) for k, v in found.items()}
    assert found[4].mean() + 4 * error[4] < found[16].mean() < found[64].mean() - 4 * error[64]
    assert found[64].mean() < 4 * error[64]
    assert found[64].mean() > -0.5
    assert iwae.mean() + 4 * iwae.std() / math.sqrt(len(iwae)) < found[16].mean()


def test_gradients_averaged_over_all_ancestors(monkeypatch):
    """At fixed noise of the latents: the unbiased one is exactly that of the mean bound, the published one is not."""
    toy = Toy(latent=1, off=0.5)
    x, _ = copies(toy, 1, length=3)
    parameters = [toy.program.posterior.off, toy.program.likelihood.weight, toy.program.transition.weight]
    pairs = list(itertools.product(range(2), repeat=2))
    mean, averages = 0.0, {True: 0.0, False: 0.0}
    for ancestors in itertools.product(pairs, pairs):
        forced = iter(ancestors)

        def resampling(log_w, threshold, mask, forced=forced):
            return Resampling(torch.tensor(next(forced)).unsqueeze(-1), torch.tensor([True]), log_w)

        monkeypatch.setattr("pyro_vae.trace.resampled.resampling", resampling)
        torch.manual_seed(0)
        terms = ALWAYS(num_particles=2).terms(toy.program.model, toy.program.guide, x)
        chosen = zip(log_weights(terms, 1.0)[:-1], terms.latent[1:], strict=True)
        log_prob = sum(site.guide["resampling"].select(w.log_softmax(0)).sum() for w, site in chosen)
        mean = mean + log_prob.exp() * ALWAYS(num_particles=2).bound(terms, 1.0).sum()
        for unbiased in averages:
            bound = ALWAYS(num_particles=2, unbiased_gradient=unbiased).bound(terms, 1.0).sum()
            slopes = torch.stack([g.sum() for g in torch.autograd.grad(bound, parameters, retain_graph=True)])
            averages[unbiased] = averages[unbiased] + log_prob.exp().detach() * slopes
    exact = torch.stack([g.sum() for g in torch.autograd.grad(mean, parameters)])
    assert torch.allclose(averages[True], exact, rtol=1e-9)
    assert ((averages[False] - exact).abs() > 1e-3).all()


@pytest.mark.slow
def test_unbiased_gradient_is_that_of_the_mean_and_the_published_one_is_not():
    """Central differences of the mean bound with its standard error; the gradients by repeated batches."""
    toy = Toy(latent=1, off=0.5)
    n, repeats, h = 20000, 10, 0.15
    x, _ = copies(toy, n, length=3)
    off = toy.program.posterior.off

    def mean_bound(value):
        with torch.no_grad():
            off.fill_(value)
        torch.manual_seed(1)
        found = torch.stack([values(ALWAYS(num_particles=2), toy.program, x) for _ in range(repeats)])
        return found.mean(), found.var() / found.numel()

    (high, above), (low, below) = mean_bound(0.5 + h), mean_bound(0.5 - h)
    slope, slope_error = (high - low) / (2 * h), (above + below).sqrt() / (2 * h)
    with torch.no_grad():
        off.fill_(0.5)

    def gradient(**options):
        torch.manual_seed(2)
        estimator, found = ALWAYS(num_particles=2, **options), []
        for _ in range(repeats):
            loss = estimator.differentiable_loss(toy.program.model, toy.program.guide, x) / n
            found.append(-torch.autograd.grad(loss, off)[0])
        return torch.stack(found).mean(), torch.stack(found).std() / math.sqrt(repeats)

    (unbiased, error), (biased, other) = gradient(unbiased_gradient=True), gradient()
    # 0.005: the error of a central difference of this size
    assert (unbiased - slope).abs() < 4 * (error**2 + slope_error**2).sqrt() + 0.005
    assert (biased - slope).abs() > 8 * (other**2 + slope_error**2).sqrt() + 0.005


@pytest.mark.parametrize("value", [math.inf, -7.5, 1e300])
@pytest.mark.parametrize("options", [{}, {"threshold": 1.0, "unbiased_gradient": True}])
def test_padding_changes_nothing(options, value):
    program = pv.programs.SequenceVAE.example(inputs=2, missing=True).double()
    x, inputs = torch.randn(6, 6, 4).double(), torch.randn(6, 6, 2).double()
    x[0, 2] = math.nan

    def both(value):
        program.zero_grad()
        torch.manual_seed(0)
        estimator = E.FIVO(num_particles=4, **options)
        batch = padded(x, LENGTHS, value), LENGTHS, padded(inputs, LENGTHS, value)
        loss = estimator.differentiable_loss(program.model, program.guide, *batch)
        loss.backward()
        return [loss.detach(), *(p.grad for p in program.parameters())]

    first = both(math.nan)
    assert all(v.isfinite().all() for v in first)
    assert all(torch.equal(a, b) for a, b in zip(first, both(value), strict=True))


@pytest.mark.parametrize("name", ["OptimalSigma", "LowRankNormal"])
def test_weights_that_ancestors_are_drawn_by_change_no_buffer(name):
    """A scale that is fitted to the batch is fitted once, to all steps; a likelihood need not be factorized."""
    program = pv.programs.SequenceVAE.example()
    options = {"scale": pv.scales.OptimalSigma()} if name == "OptimalSigma" else {}
    part = pv.likelihoods.Normal if options else pv.likelihoods.LowRankNormal
    program.likelihood, estimator = part(2, (4,), **options), E.FIVO(num_particles=3, threshold=1.0)
    x = torch.randn(8, 4, 4)
    terms = estimator.terms(program.train().model, program.guide, x)
    assert estimator.bound(terms, 1.0).isfinite().all()
    estimator.evaluate(terms)
    for scale in options.values():
        loc = terms.observed[0].model["fn"].base_dist.base_dist.loc
        assert torch.isclose(scale.variance, 0.9 + 0.1 * (x - loc).square().mean())


def test_obeys_the_laws_of_an_estimator():
    program, x = pv.programs.SequenceVAE.example(), torch.randn(8, 3, 4)
    for options in ({}, {"threshold": 1.0, "unbiased_gradient": True}, {"beta": 0.5}):
        pv.testing.check_estimator(program, E.FIVO(num_particles=4, **options), x)


def test_scale_stays_outside_of_the_logarithm():
    toy, *batch = holes(off=0.2)
    estimator = E.FIVO(num_particles=4)
    torch.manual_seed(0)
    each = values(estimator, toy.program, *batch)
    torch.manual_seed(0)
    loss = estimator.loss(poutine.scale(toy.program.model, 3.0), poutine.scale(toy.program.guide, 3.0), *batch)
    assert math.isclose(loss, -3.0 * float(each.sum()), rel_tol=1e-9)


def test_is_compared_with_other_estimators():
    """Its own bias cannot be measured, as the ancestors at fixed noise jump where parameters change."""
    program, x = pv.programs.SequenceVAE.example(), torch.randn(8, 2, 4)
    estimators = [E.IWAE(num_particles=4), E.FIVO(num_particles=4)]
    found = pv.evaluation.compare_estimators(
        program, x, estimators, num_samples=8, reference_num_particles=20, progress=False
    )
    iwae, fivo = found.estimators
    assert math.isfinite(fivo.bound)
    assert "own bias" not in iwae.missing
    assert "ancestors" in fivo.missing["own bias"]


def test_refusals():
    with pytest.raises(ValueError, match="^program: FIVO .*'z'.*IWAE"):
        pv.fit(pv.VAE.example(), torch.rand(8, 4), estimator=E.FIVO(), epochs=1, progress=False)
    program = pv.programs.SequenceVAE.example()

    def labelled(x):
        program.model(x)
        with pv.programs.DataPlate(x):
            pyro.sample("y", pyro.distributions.Normal(0.0, 1.0), obs=x[:, 0, 0])

    with pytest.raises(ValueError, match="^program: FIVO .*'y'.*IWAE"):
        E.FIVO().loss(labelled, program.guide, torch.randn(5, 3, 4))
    with pytest.raises(ValueError, match="^particles_per_pass"):
        E.FIVO(num_particles=4, particles_per_pass=2)
    with pytest.raises(ValueError, match="^threshold"):
        E.FIVO(threshold=1.5)
    with pytest.raises(ValueError, match="^threshold"):
        E.FIVO(threshold=0.9, unbiased_gradient=True)
    assert E.FIVO(unbiased_gradient=True).threshold == 1
