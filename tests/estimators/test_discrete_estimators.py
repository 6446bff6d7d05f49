"""Discrete latents: each estimator against sums over all values of the latents, or of all K draws (O8)."""

import functools
import itertools
import math

import numpy as np
import pyro
import pytest
import torch
from helpers.checks import within
from pyro import distributions as dist
from pyro import poutine
from torch import nn

import pyro_vae as pv
from pyro_vae.estimators import IWAE, NVIL, OVIS, VIMCO, DisARM, Enumeration, ReinforceLOO, ReweightedWakeSleep
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.estimators.score import score_surrogate
from pyro_vae.testing import check_estimator
from pyro_vae.trace import Scored, passes
from pyro_vae.trace.antithetic import pair_score

LINEAR = functools.partial(pv.nets.MLP, hidden=())
KINDS = {
    "bits": (pv.priors.Bernoulli, pv.posteriors.Bernoulli, 3, {}),
    "classes": (pv.priors.OneHotCategorical, pv.posteriors.OneHotCategorical, 4, {}),
    "groups": (pv.priors.ProductOfOneHotCategoricals, pv.posteriors.ProductOfOneHotCategoricals, 6, {"groups": 2}),
}
ALL = {
    "ReinforceLOO": lambda k=4, **options: ReinforceLOO(num_particles=k, **options),
    "NVIL": lambda k=4, **options: NVIL(num_particles=k, **options),
    "DisARM": lambda k=4, **options: DisARM(num_particles=k, **options),
    "VIMCO": lambda k=4, **options: VIMCO(num_particles=k, **options),
    "OVIS": lambda k=4, **options: OVIS(num_particles=k, **options),
    "ReweightedWakeSleep": lambda k=4, **options: ReweightedWakeSleep(num_particles=k, **options),
    "wake and sleep": lambda k=4, **options: ReweightedWakeSleep(sleep=0.5, num_particles=k, **options),
    "Enumeration": lambda k=4, **options: Enumeration(num_particles=k, **options),
}


class Toy:
    """A small VAE in double precision, one example, and all values of its latents."""

    def __init__(self, kind="bits", likelihood=None, seed=0):
        prior, posterior, latent, options = KINDS[kind]
        torch.manual_seed(seed)
        likelihood = likelihood or pv.likelihoods.Normal(latent, (4,), net=LINEAR, scale=pv.scales.Shared(0.8))
        self.program = pv.VAE(
            prior=prior(latent, learned=True, **options),
            likelihood=likelihood,
            posterior=posterior((4,), latent, net=LINEAR, **options),
        ).double()
        with torch.no_grad():
            for p in self.program.parameters():
                p.add_(0.5 * torch.randn_like(p))
        self.x = self.program.sample(1)
        self.parameters = list(self.program.parameters())
        self.guide = list(self.program.posterior.parameters())
        if kind == "bits":
            self.values = torch.cartesian_prod(*[torch.arange(2.0).double()] * latent)
        else:
            self.values = self.program.prior().enumerate_support()

    def log_joint(self, beta=1.0, x=None):
        """Return log p(x, z) of each value, with the prior to the power beta."""
        z = self.values
        log_p = self.program.likelihood(z).log_prob((self.x if x is None else x).expand(len(z), -1))
        return log_p + beta * self.program.prior().log_prob(z)

    def log_q(self, x=None):
        """Return log q(z given x) of each value."""
        return self.program.posterior(self.x if x is None else x).log_prob(self.values)

    def elbo(self, beta=1.0):
        log_q = self.log_q()
        return (log_q.exp() * (self.log_joint(beta) - beta * log_q)).sum()

    def evidence(self):
        return self.log_joint().logsumexp(0)

    def pairs(self, beta=1.0):
        """Return log-weights (2, pairs) and log-probabilities (2, pairs) of each pair of draws."""
        log_q = self.log_q()
        i, j = torch.cartesian_prod(*[torch.arange(len(log_q))] * 2).T
        log_w = self.log_joint(beta) - beta * log_q
        return torch.stack([log_w[i], log_w[j]]), torch.stack([log_q[i], log_q[j]])

    def iwae(self, beta=1.0):
        """Return the exact mean of the importance-weighted bound of two draws."""
        log_w, log_q = self.pairs(beta)
        return (log_q.sum(0).exp() * log_mean_exp(log_w)).sum()

    def copies(self, n):
        return self.x.expand(n, -1)


def gradient(loss, parameters):
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for g, p in pairs])


def draws(estimator, toy, blocks=32, rows=400):
    """Return values (blocks, 1) and gradients (blocks, parameters), each a mean over so many copies of one example."""
    values, gradients = [], []
    for _ in range(blocks):
        bound = -estimator.differentiable_loss(toy.program.model, toy.program.guide, toy.copies(rows)) / rows
        gradients.append(gradient(bound, toy.parameters))
        values.append(bound.detach().reshape(1))
    return torch.stack(values), torch.stack(gradients)


# 4 standard errors, widened for the largest of 35 entries
within = functools.partial(within, standard_errors=4.5)


def unbiased(estimator, toy, exact, **options):
    """Whether the means of value and gradient are the exact ones."""
    values, gradients = draws(estimator, toy, **options)
    return within(values, exact.detach()) and within(gradients, gradient(exact, toy.parameters))


def frozen(mean=-6.0, variance=0.5, **options):
    """NVIL with a running mean and variance that do not run."""
    nvil = NVIL(**options)
    nvil.module.mean.fill_(mean)
    nvil.module.variance.fill_(variance)
    nvil.module.update_moments = lambda residual, weights: None
    return nvil


KINDS_AND_BETAS = [("bits", 1.0), ("bits", 0.4), ("classes", 1.0), ("groups", 1.0)]


@pytest.mark.parametrize(("kind", "beta"), KINDS_AND_BETAS)
def test_score_functions_have_the_gradient_of_the_bound(kind, beta):
    toy = Toy(kind)
    assert unbiased(ReinforceLOO(num_particles=3, beta=beta), toy, toy.elbo(beta))
    assert unbiased(frozen(beta=beta), toy, toy.elbo(beta))


@pytest.mark.parametrize(("particles", "beta"), [(2, 1.0), (2, 0.4), (6, 1.0)])
def test_antithetic_pairs_have_the_gradient_of_the_bound(particles, beta):
    toy = Toy("bits")
    assert unbiased(DisARM(num_particles=particles, beta=beta), toy, toy.elbo(beta))


@pytest.mark.parametrize("cls", [VIMCO, OVIS])
@pytest.mark.parametrize(("kind", "beta"), KINDS_AND_BETAS)
def test_scores_have_the_gradient_of_the_importance_weighted_bound(kind, beta, cls):
    toy = Toy(kind)
    assert unbiased(cls(num_particles=2, beta=beta), toy, toy.iwae(beta))


def test_more_particles_help_the_guide_of_ovis_and_not_that_of_vimco():
    """Signal-to-noise ratio of the guide's gradient: it rises by a factor of 4 from 4 to 64 particles."""
    toy = Toy("bits")
    toy.parameters = toy.guide

    def ratio(cls, k):
        gradients = draws(cls(num_particles=k), toy)[1]
        return float(gradients.mean(0).norm() / gradients.std(0).norm())

    assert ratio(OVIS, 64) > 2 * ratio(OVIS, 4)
    assert ratio(OVIS, 64) > 10 * ratio(VIMCO, 64)


def test_baseline_of_vimco_is_a_geometric_mean():
    log_w = torch.tensor([[0.3, -2.0], [1.0, 800.0], [-0.5, -900.0]]).double()
    found = pv.estimators.vimco.without_each(log_w)
    for k in range(3):
        others = torch.cat([log_w[:k], log_w[k + 1 :]])
        exact = log_mean_exp(torch.cat([others, others.mean(0, keepdim=True)]))
        assert torch.allclose(found[k], exact, atol=1e-12)


@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize("kind", KINDS)
def test_enumeration_is_the_sum_over_all_values(kind, beta):
    toy = Toy(kind)
    for options in ({}, {"analytic_kl": False}):
        elbo = Enumeration(beta=beta, **options)
        loss = elbo.differentiable_loss(toy.program.model, toy.program.guide, toy.copies(2))
        assert torch.allclose(-loss / 2, toy.elbo(beta), atol=1e-10)
        exact = gradient(toy.elbo(beta), toy.parameters)
        assert torch.allclose(gradient(-loss / 2, toy.parameters), exact, atol=1e-10)


def bits_apart(program):
    """FunctionProgram with one site for each bit, the form that Pyro can enumerate."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            logits = program.prior.logits
            z = [pyro.sample(f"z{i}", dist.Bernoulli(logits=logits[i])) for i in range(3)]
            z = torch.stack(torch.broadcast_tensors(*z), -1)
            pyro.sample("x", program.likelihood(z), obs=x)

    def guide(x):
        logits = program.posterior.net(x)
        with pyro.plate("data", len(x), dim=-1):
            for i in range(3):
                pyro.sample(f"z{i}", dist.Bernoulli(logits=logits[..., i]))

    return pv.programs.FunctionProgram(model, guide, parts=program)


@pytest.mark.parametrize("kind", ["bits", "classes"])
def test_enumeration_is_that_of_pyro(kind):
    toy = Toy(kind)
    program = bits_apart(toy.program) if kind == "bits" else toy.program
    ours = Enumeration().differentiable_loss(program.model, program.guide, toy.copies(3))
    theirs = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(
        program.model, pyro.infer.config_enumerate(program.guide), toy.copies(3)
    )
    assert torch.allclose(ours, theirs, atol=1e-10)
    assert torch.allclose(ours, -3 * toy.elbo(), atol=1e-10)
    assert torch.allclose(gradient(ours, toy.parameters), gradient(theirs, toy.parameters), atol=1e-10)


def test_more_draws_are_tighter():
    toy = Toy("bits")
    assert toy.elbo() < toy.iwae() < toy.evidence()
    values = draws(VIMCO(num_particles=20), toy)[0]
    assert toy.iwae() < values.mean() < toy.evidence()


def test_wake_gradients_of_two_draws():
    toy = Toy("bits")
    log_w, log_q = toy.pairs()
    log_p = log_w + log_q
    weights = log_w.detach().softmax(0)
    mean = log_q.sum(0).exp().detach()
    exact = (mean * (weights * (log_p + log_q)).sum(0)).sum()
    values, gradients = draws(ReweightedWakeSleep(num_particles=2), toy)
    assert within(values, toy.iwae().detach())
    assert within(gradients, gradient(exact, toy.parameters))


def test_wake_gradient_of_the_guide_tends_to_the_inclusive_divergence():
    toy = Toy("bits")
    posterior = (toy.log_joint() - toy.evidence()).exp().detach()
    exact = gradient((posterior * toy.log_q()).sum(), toy.guide)

    def error(particles):
        estimator = ReweightedWakeSleep(num_particles=particles)
        x = toy.copies(400_000 // particles)
        loss = estimator.differentiable_loss(toy.program.model, toy.program.guide, x) / len(x)
        return float((gradient(-loss, toy.guide) - exact).norm() / exact.norm())

    assert error(2) > 0.2
    assert error(200) < 0.05


def test_sleep_gradient_is_that_of_the_dreams():
    toy = Toy("bits", pv.likelihoods.Bernoulli(3, (4,), net=LINEAR))
    exact = (toy.log_q().exp().detach() * toy.log_joint()).sum()  # what the model follows with one draw
    for bits in itertools.product([0.0, 1.0], repeat=4):
        x = torch.tensor([bits]).double()
        exact = exact + (toy.log_joint(x=x).exp().detach() * toy.log_q(x)).sum()
    _, gradients = draws(ReweightedWakeSleep(sleep=1.0, num_particles=1), toy)
    assert within(gradients, gradient(exact, toy.parameters))
    # the dreams change no value and take no random numbers where no gradient is wanted
    wake, both = ReweightedWakeSleep(), ReweightedWakeSleep(sleep=0.3)
    with torch.no_grad():
        for estimator in (wake, both):
            torch.manual_seed(3)
            estimator.last = estimator.per_datum(toy.program.model, toy.program.guide, toy.copies(5)), torch.rand(1)
    assert all(torch.equal(a, b) for a, b in zip(wake.last, both.last, strict=True))


def exact_toy():
    """Orthogonal columns in the decoder: the bits are independent given x, and the guide has their exact logits."""
    toy = Toy("bits")
    program = toy.program
    decoder, encoder = program.likelihood.net.body[0], program.posterior.net.body[0]
    sigma = program.likelihood.scale()
    with torch.no_grad():
        decoder.weight.copy_(torch.linalg.qr(decoder.weight)[0])
        encoder.weight.copy_(decoder.weight.T / sigma**2)
        shift = decoder.weight.T @ decoder.bias + 0.5
        encoder.bias.copy_(program.prior.logits - shift / sigma**2)
    return toy


def test_exact_posterior():
    toy = exact_toy()
    assert torch.allclose(toy.elbo(), toy.evidence(), atol=1e-12)
    for estimator in (ReinforceLOO(), DisARM(), VIMCO(), ReweightedWakeSleep()):
        values, gradients = draws(estimator, toy, blocks=30, rows=50)
        assert torch.allclose(values, toy.evidence().detach(), atol=1e-10)
        assert within(gradients, gradient(toy.evidence(), toy.parameters))
    # the signal is zero in each draw, not only in the mean
    for estimator in (ReinforceLOO(), DisARM()):
        loss = estimator.differentiable_loss(toy.program.model, toy.program.guide, toy.copies(5))
        assert gradient(loss, toy.guide).abs().max() < 1e-10


class Mixed:
    """A bit b and a number z: the number depends on the bit in the model, and in the guide one on the other."""

    def __init__(self, bit_first, nodes=40):
        torch.manual_seed(1)
        self.bit_first = bit_first
        self.net = nn.ParameterDict({k: nn.Parameter(torch.randn(2).double()) for k in ("b", "z", "s", "p", "x")})
        self.program = pv.programs.FunctionProgram(self.model, self.run_guide, net=self.net)
        self.x = torch.tensor([0.7]).double()
        self.parameters = list(self.net.parameters())
        point, weight = np.polynomial.hermite_e.hermegauss(nodes)
        self.point, self.weight = torch.tensor(point), torch.tensor(weight / weight.sum())

    def prior(self, b):
        return dist.Normal(self.net["p"][0] * b, 1.0)

    def likelihood(self, b, z):
        return dist.Normal(z + self.net["x"][0] * b + self.net["x"][1] * b * z, 0.7)

    def bit(self, x, z=0.0):
        return dist.Bernoulli(logits=self.net["b"][0] + self.net["b"][1] * (x + z))

    def number(self, x, b=0.0):
        return dist.Normal(self.net["z"][0] * x + self.net["z"][1] * b, self.net["s"][0].exp())

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            b = pyro.sample("b", dist.Bernoulli(logits=self.net["p"][1]))
            z = pyro.sample("z", self.prior(b))
            pyro.sample("x", self.likelihood(b, z), obs=x)

    def run_guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            if self.bit_first:
                b = pyro.sample("b", self.bit(x))
                pyro.sample("z", self.number(x, b))
            else:
                z = pyro.sample("z", self.number(x))
                pyro.sample("b", self.bit(x, z))

    def grid(self, detached=False):
        """Return log-weights, probabilities and log q at both bits and the nodes of a quadrature over z."""
        x, b = self.x, torch.tensor([[0.0], [1.0]]).double()
        number = self.number(x, b if self.bit_first else 0.0 * b)
        z = number.loc + number.scale * self.point
        z = z.detach() if detached else z
        bit = self.bit(x, 0.0 if self.bit_first else z)
        log_bit = bit.log_prob(b).expand_as(z)
        log_p = dist.Bernoulli(logits=self.net["p"][1]).log_prob(b) + self.prior(b).log_prob(z)
        log_q = log_bit + number.log_prob(z)
        log_w = log_p + self.likelihood(b, z).log_prob(x) - log_q
        return log_w.flatten(), (log_bit.exp() * self.weight).flatten(), log_q.flatten()

    def elbo(self):
        log_w, q, _ = self.grid()
        return (q * log_w).sum()

    def iwae(self):
        log_w, q, _ = self.grid()
        return (q[:, None] * q * (torch.logaddexp(log_w[:, None], log_w) - math.log(2))).sum()

    def copies(self, n):
        return self.x.expand(n)


@pytest.mark.parametrize("bit_first", [True, False])
def test_numbers_together_with_bits_keep_the_gradient_through_their_draw(bit_first):
    toy = Mixed(bit_first)
    for estimator in (ReinforceLOO(num_particles=2), frozen(mean=-3.0), Enumeration()):
        assert unbiased(estimator, toy, toy.elbo()), estimator
    assert unbiased(VIMCO(num_particles=2), toy, toy.iwae())
    sites = VIMCO(num_particles=4, particles_per_pass=2).terms(toy.program.model, toy.program.guide, toy.x).latent
    assert {site.name: site.reparameterized for site in sites} == {"b": False, "z": True}


def test_wake_sleep_goes_through_no_draw():
    toy = Mixed(True)
    log_w, q, log_q = toy.grid(detached=True)
    i, j = torch.cartesian_prod(*[torch.arange(len(q))] * 2).T
    weights = torch.stack([log_w[i], log_w[j]]).detach().softmax(0)
    each = log_w + 2 * log_q  # log p for the model, and log q for the guide
    exact = ((q[i] * q[j]).detach() * (weights[0] * each[i] + weights[1] * each[j])).sum()
    values, gradients = draws(ReweightedWakeSleep(num_particles=2), toy)
    assert within(values, toy.iwae().detach())
    assert within(gradients, gradient(exact, toy.parameters))


def test_score_without_the_path_of_a_number_is_seen():
    class Wrong(ReinforceLOO):
        def bound(self, terms, beta):
            for site in terms.latent:
                site.has_path = site.reparameterized = False
            return super().bound(terms, beta)

    toy = Mixed(True)
    assert not unbiased(Wrong(num_particles=2), toy, toy.elbo())


class Plain(pv.estimators.Estimator):
    """REINFORCE: the log-weight itself is the signal."""

    draws = Scored

    def bound(self, terms, beta):
        log_w = terms.log_w(beta)
        return with_gradient_of(log_w.mean(0), score_surrogate(terms, beta, log_w))


def wrong_vimco(change):
    """VIMCO with one thing changed: a function of log-weights and scores in place of its bound."""

    class Wrong(VIMCO):
        def bound(self, terms, beta):
            log_w = terms.log_w(beta)
            value = log_mean_exp(log_w)
            signal = value.detach() - pv.estimators.vimco.without_each(log_w.detach())
            return change(log_w, value, signal, terms.score_function())

    return Wrong(num_particles=2)


FAULTS = {
    "wrong sign": lambda log_w, value, signal, score: with_gradient_of(value, value - (signal * score).sum(0)),
    "mean of the signals": lambda log_w, value, signal, score: with_gradient_of(
        value, value + (signal * score).mean(0)
    ),
    "mean outside of the logarithm": lambda log_w, value, signal, score: log_w.mean(0),
    "no score": lambda log_w, value, signal, score: value,
    "attached baseline": lambda log_w, value, signal, score: with_gradient_of(
        value, value + ((log_mean_exp(log_w) - pv.estimators.vimco.without_each(log_w)) * score).sum(0)
    ),
}


def test_no_fault_passes():
    toy = Toy("bits")
    right = wrong_vimco(lambda log_w, value, signal, score: with_gradient_of(value, value + (signal * score).sum(0)))
    assert unbiased(right, toy, toy.iwae())
    assert unbiased(Plain(), toy, toy.elbo())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_vimco_is_seen(fault):
    toy = Toy("bits")
    assert not unbiased(wrong_vimco(FAULTS[fault]), toy, toy.iwae())


def test_attached_weights_are_seen_in_wake_sleep():
    class Wrong(ReweightedWakeSleep):
        def bound(self, terms, beta):
            log_w = terms.log_w(beta)
            log_q = terms.log_q()
            return with_gradient_of(log_mean_exp(log_w), (log_w.softmax(0) * (log_w + 2 * log_q)).sum(0))

    toy = Toy("bits")
    log_w, log_q = toy.pairs()
    weights = log_w.detach().softmax(0)
    exact = (log_q.sum(0).exp().detach() * (weights * (log_w + 2 * log_q)).sum(0)).sum()
    exact = gradient(exact, toy.parameters)
    assert within(draws(ReweightedWakeSleep(num_particles=2), toy)[1], exact)
    assert not within(draws(Wrong(num_particles=2), toy)[1], exact)


def test_unequal_pairs_are_seen_in_disarm():
    class Wrong(DisARM):
        def bound(self, terms, beta):
            for site in terms.latent:
                site._cache[pair_score] = site.read(pair_score).roll(1, 0)
            return super().bound(terms, beta)

    toy = Toy("bits")
    assert not unbiased(Wrong(num_particles=4), toy, toy.elbo())


def rows_apart(estimator, toy):
    """Whether value and gradient of the first row stay the same whatever the other rows are."""
    found = []
    for other in (0.0, 3.0):
        x = torch.cat([toy.copies(1), toy.copies(3) + other])
        torch.manual_seed(0)
        bound = estimator.bound(estimator.terms(toy.program.model, toy.program.guide, x), 1.0)
        found.append(torch.cat([bound[:1].detach(), gradient(bound[0], toy.parameters)]))
    return torch.allclose(*found, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_rows_of_a_batch_have_nothing_to_do_with_each_other(name):
    # NVIL moves its mean and variance from one step to the next
    assert rows_apart(frozen() if name == "NVIL" else ALL[name](), Toy("bits"))


def test_weights_joined_over_the_batch_are_seen():
    class Joined(IWAE):
        draws = Scored

        def bound(self, terms, beta):
            log_w = terms.log_w(beta)
            weights = log_w.detach().flatten().softmax(0).view_as(log_w)
            return with_gradient_of(log_mean_exp(log_w), (weights * log_w).sum(0))

    assert not rows_apart(Joined(), Toy("bits"))


def scaled(estimator, toy, scale):
    """Whether a scale on the whole program multiplies loss and gradient."""
    found = []
    for factor in (scale, 1.0):
        program = toy.program
        model, guide = (poutine.scale(f, factor) for f in (program.model, program.guide))
        torch.manual_seed(0)
        loss = estimator.differentiable_loss(model, guide, toy.copies(4)) * (scale / factor)
        found.append(torch.cat([loss.detach().reshape(1), gradient(loss, toy.parameters)]))
    return torch.allclose(*found, atol=1e-10)


@pytest.mark.parametrize("scale", [10.0, 0.1])
@pytest.mark.parametrize("name", ALL)
def test_scale_multiplies_the_loss(name, scale):
    assert scaled(frozen() if name == "NVIL" else ALL[name](), Toy("bits"), scale)


def test_scale_inside_the_logarithm_is_seen():
    class Inside(VIMCO):
        def local_loss(self, terms, beta):
            scale = terms.sites[0].scale
            return -log_mean_exp(scale * terms.log_w(beta)).sum(), {}

    assert not scaled(Inside(), Toy("bits"), 10.0)


@pytest.mark.parametrize("name", ALL)
def test_mask_leaves_rows_out(name):
    toy = Toy("bits")
    mask = torch.tensor([True, False, True, False])
    found = []
    for other in (0.0, 3.0):
        estimator = frozen() if name == "NVIL" else ALL[name]()
        x = toy.x + other * (~mask).double().unsqueeze(-1)
        model, guide = (poutine.mask(f, mask=mask) for f in (toy.program.model, toy.program.guide))
        torch.manual_seed(0)
        loss = estimator.differentiable_loss(model, guide, x)
        torch.manual_seed(0)
        rows = estimator.bound(estimator.terms(toy.program.model, toy.program.guide, x), 1.0)
        assert torch.allclose(loss, -rows[mask].sum(), atol=1e-10)
        found.append(gradient(loss, toy.parameters))
    assert torch.allclose(*found, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("toy", [Toy, lambda: Mixed(True)], ids=["bits", "mixed"])
def test_passes_change_nothing(name, toy, monkeypatch):
    toy = toy()
    if isinstance(toy, Mixed) and name == "DisARM":
        pytest.skip("bits only")
    found = []
    for checkpointed in (True, False):
        if not checkpointed:
            monkeypatch.setattr(passes, "checkpoint", lambda function, size, **options: function(size))
        estimator = ALL[name](6, particles_per_pass=4)
        torch.manual_seed(0)
        loss = estimator.differentiable_loss(toy.program.model, toy.program.guide, toy.copies(3))
        found.append(torch.cat([loss.detach().reshape(1), gradient(loss, toy.parameters)]))
    assert torch.allclose(*found, atol=1e-12)


def test_passes_are_unbiased():
    toy = Toy("bits")
    assert unbiased(VIMCO(num_particles=2, particles_per_pass=1), toy, toy.iwae())
    assert unbiased(DisARM(num_particles=4, particles_per_pass=2), toy, toy.elbo())


def test_baselines_lower_the_variance():
    """Two particles of data whose evidence differs: no baseline, one of all data, one of each example, pairs."""
    toy = Toy("bits")
    x = 2 * toy.program.sample(60)
    mean = float(ReinforceLOO(num_particles=100).per_datum(toy.program.model, toy.program.guide, x).detach().mean())
    running = frozen(mean, num_particles=2)
    variance = []
    for estimator in (Plain(num_particles=2), running, ReinforceLOO(num_particles=2), DisARM()):
        gradients = torch.stack(
            [
                gradient(estimator.differentiable_loss(toy.program.model, toy.program.guide, x), toy.guide)
                for _ in range(80)
            ]
        )
        variance.append(float(gradients.var(0).sum()))
    print("variance of the gradient: " + ", ".join(f"{v:.3g}" for v in variance))
    assert variance[0] > 1.5 * variance[1]
    assert variance[1] > 1.5 * variance[2]
    assert variance[2] > 1.1 * variance[3]


def test_variance_of_nvil_shortens_the_score_and_nothing_else():
    toy = Toy("bits")
    _, gradients = draws(frozen(variance=4.0), toy)
    exact = gradient(toy.elbo(), toy.parameters)
    of_guide = gradient(sum(p.sum() for p in toy.guide), toy.parameters).bool()
    assert within(gradients, torch.where(of_guide, exact / 2, exact))


def test_mean_and_variance_of_nvil_run():
    toy = Toy("bits")
    nvil = NVIL(num_particles=3, decay=0.6)
    torch.manual_seed(0)
    first = nvil.terms(toy.program.model, toy.program.guide, toy.copies(4)).log_w().detach()
    torch.manual_seed(0)
    nvil.differentiable_loss(toy.program.model, toy.program.guide, toy.copies(4))
    assert float(nvil.module.mean) == pytest.approx(0.4 * float(first.mean()), rel=1e-6)
    assert float(nvil.module.variance) == pytest.approx(0.4 * float(first.var(correction=0)), rel=1e-6)
    state = {name: value.clone() for name, value in nvil.module.state_dict().items()}
    nvil.loss(toy.program.model, toy.program.guide, toy.copies(4))  # an evaluation leaves them
    assert all(torch.equal(value, state[name]) for name, value in nvil.module.state_dict().items())
    again = NVIL(num_particles=3)
    again.module.load_state_dict(state)
    assert torch.equal(again.module.mean, nvil.module.mean)


@pytest.mark.parametrize("engine", ["ours", "stock"])
def test_baseline_of_nvil_is_trained_with_the_program(engine):
    toy = Toy("bits")
    net = pv.nets.MLP((4,), (1,), hidden=(8,)).double()
    nvil = NVIL(baseline=net)
    before = [p.detach().clone() for p in net.parameters()]
    x = toy.program.sample(64)
    if engine == "ours":
        svi = pv.training.SVI(toy.program, nvil, functools.partial(torch.optim.Adam, lr=0.01))
        assert {"prior", "estimator"} <= {name.partition(".")[0] for name in svi.optim.named}
        svi.update(x)
    else:
        pyro.infer.SVI(toy.program.model, toy.program.guide, pyro.optim.Adam({"lr": 0.01}), nvil).step(x)
    assert not any(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))


def test_baseline_of_nvil_learns_the_bound_of_each_example():
    toy = Toy("bits")
    net = pv.nets.MLP((4,), (1,), hidden=(32,)).double()
    nvil = NVIL(baseline=net, decay=0.99)
    x = toy.program.sample(64)
    # the program stands still, so that there is one thing to learn
    for p in toy.parameters:
        p.requires_grad_(False)
    adam = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(200):
        adam.zero_grad()
        nvil.loss_and_grads(toy.program.model, toy.program.guide, x)
        adam.step()
    with torch.no_grad():
        exact = Enumeration().per_datum(toy.program.model, toy.program.guide, x)
        left = exact - net(x).squeeze(-1)
    assert left.var() < 0.1 * exact.var()


def test_network_of_the_baseline_runs_once_in_a_training_step():
    toy = Toy("bits")
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    nvil = NVIL(baseline=net)
    for step in range(1, 4):
        nvil.loss_and_grads(toy.program.model, toy.program.guide, toy.program.sample(8, seed=step))
        assert int(net[0].num_batches_tracked) == step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALL)
def test_estimator_obeys_the_laws(name, kind):
    """An AssertionError of `check_estimator` names the law that an estimator breaks on this kind of latents."""
    if name == "DisARM" and kind != "bits":
        pytest.skip("bits only")
    toy = Toy(kind)
    # many rows: where all draws of an example are the same there is nothing to learn from them
    check_estimator(toy.program, ALL[name](), toy.program.sample(40))


def test_fit_and_log_likelihood():
    toy = Toy("bits")
    x = toy.program.sample(64)
    found = pv.evaluation.log_likelihood(toy.program, x[:1], num_particles=4000)
    toy.x = x[:1]
    assert abs(found.mean - float(toy.evidence().detach())) < 4 * found.monte_carlo_error
    nvil = NVIL(baseline=pv.nets.MLP((4,), (1,)).double())
    history = pv.fit(toy.program, x, valid=x, estimator=nvil, epochs=20, batch_size=16, progress=False)
    assert history["valid_bound"][-1] > history["valid_bound"][0]


@pytest.mark.parametrize("name", ["ReinforceLOO", "VIMCO", "DisARM"])
def test_free_bits_have_the_closed_form_of_each_bit(name):
    toy = Toy("bits")
    toy.x = toy.program.sample(1, seed=3)  # an example with divergences on both sides of the hinge
    x = toy.copies(5)
    q, p = toy.program.posterior(toy.x).base_dist.probs[0], toy.program.prior().base_dist.probs
    kl = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
    assert kl.min() < 0.05 < kl.max()
    for passes_of in (None, 2):
        losses = []
        for free_bits in (0.0, 0.05):
            estimator = ALL[name](free_bits=free_bits, particles_per_pass=passes_of)
            torch.manual_seed(0)
            losses.append(estimator.differentiable_loss(toy.program.model, toy.program.guide, x))
        assert torch.allclose(losses[1] - losses[0], 5 * torch.relu(0.05 - kl).sum())


def test_layers_of_bits():
    q = functools.partial(pv.posteriors.Bernoulli, net=LINEAR)
    program = pv.programs.Hierarchical(
        prior=pv.priors.Bernoulli(2, learned=True),
        layers=[q((2,), 3)],
        likelihood=pv.likelihoods.Normal(3, (4,), net=LINEAR),
        inference=pv.programs.BottomUp([q((4,), 3), q((3,), 2)]),
    ).double()
    toy = Toy("bits")
    toy.program, toy.parameters = program, list(program.parameters())
    exact = -Enumeration().differentiable_loss(program.model, program.guide, toy.x)
    assert unbiased(ReinforceLOO(), toy, exact)
    with pytest.raises(ValueError, match="guide: .*'z2'"):
        DisARM().differentiable_loss(program.model, program.guide, toy.x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VIMCO(num_particles=1), "num_particles: .*2, got 1"),
        (lambda: ReinforceLOO(num_particles=1), "num_particles"),
        (
            lambda: ReweightedWakeSleep(num_particles=1),
            "num_particles: .*2, got 1",
        ),
        (lambda: ReweightedWakeSleep(sleep=1.5), "sleep"),
        (lambda: DisARM(num_particles=3), "num_particles: .* even"),
        (lambda: DisARM(num_particles=4, particles_per_pass=1), "particles_per_pass"),
        (lambda: NVIL(decay=1.0), "decay"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_baseline_must_be_a_module():
    with pytest.raises(TypeError, match=r"baseline: expected an nn\.Module"):
        NVIL(baseline=lambda x: x.sum(-1))


def normal_vae():
    return pv.VAE(
        prior=pv.priors.StandardNormal(3),
        likelihood=pv.likelihoods.Normal(3, (4,)),
        posterior=pv.posteriors.MeanFieldNormal((4,), 3),
    )


def test_refusals_name_the_site():
    x = torch.zeros(2, 4)
    vae = normal_vae()
    with pytest.raises(ValueError, match="guide: .*'z'.*Normal"):
        DisARM().loss(vae.model, vae.guide, x)
    toy = Toy("bits")
    with pytest.raises(ValueError, match="guide: .*'z'.*Bernoulli"):
        IWAE().loss(toy.program.model, toy.program.guide, toy.x)
    wide = pv.VAE(
        prior=pv.priors.Bernoulli(13),
        likelihood=pv.likelihoods.Normal(13, (4,)),
        posterior=pv.posteriors.Bernoulli((4,), 13),
    )
    with pytest.raises(ValueError, match=r"guide: .*'z' has 2\^13 values"):
        Enumeration().loss(wide.model, wide.guide, x)


def shared_bit(where):
    """FunctionProgram with a bit for all data, or for each of two parts of an example."""

    def bit(x):
        if where == "outside":
            pyro.sample("b", dist.Bernoulli(0.5))
        with pyro.plate("data", len(x), dim=-1):
            if where == "inside":
                with pyro.plate("part", 2, dim=-2):
                    pyro.sample("b", dist.Bernoulli(0.5))
            return pyro.sample("z", dist.Normal(0.0, 1.0))

    def model(x):
        z = bit(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    return model, bit


def test_sites_that_are_not_of_one_example_are_summed_or_refused():
    x = torch.zeros(3)
    for where in ("outside", "inside"):
        losses = []
        for bits in (where, "nowhere"):  # the bits cost nothing: the guide has their prior
            torch.manual_seed(0)
            losses.append(Enumeration().loss(*shared_bit(bits), x))
        assert losses[0] == pytest.approx(losses[1])
    for estimator in (VIMCO(), NVIL(), ReweightedWakeSleep()):
        with pytest.raises(ValueError, match="guide: .*'b'.*ReinforceLOO"):
            estimator.loss(*shared_bit("outside"), x)


def test_data_that_cannot_be_dreamed_are_refused():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("left", dist.Normal(z, 1.0), obs=2 * x[:, 0])
            pyro.sample("right", dist.Normal(z, 1.0), obs=x[:, 1])

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Bernoulli(logits=net(x).squeeze(-1)))

    net = nn.Linear(2, 1)
    x = torch.zeros(3, 2)
    assert ReweightedWakeSleep().differentiable_loss(model, guide, x).requires_grad
    with pytest.raises(ValueError, match="program: .*left"):
        ReweightedWakeSleep(sleep=0.5).differentiable_loss(model, guide, x)
