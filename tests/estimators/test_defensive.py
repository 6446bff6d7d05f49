"""A share of the prior in the proposal of reweighted wake-sleep: exact gradients, bounded weights, and refusals."""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from test_discrete_estimators import Mixed, Toy, draws, gradient, log_mean_exp, within
from torch import nn

import pyro_vae as pv
from pyro_vae.estimators import ReweightedWakeSleep
from pyro_vae.testing import check_estimator

SHARE = 0.3


def mixture(toy, share=SHARE):
    """Return the log-probability of each value under the proposal."""
    log_p = toy.program.prior().log_prob(toy.values)
    return torch.logaddexp(toy.log_q() + math.log1p(-share), log_p + math.log(share))


@pytest.mark.parametrize(("kind", "beta"), [("bits", 1.0), ("bits", 0.4), ("classes", 1.0)])
def test_gradients_of_two_draws_are_sums_over_all_pairs(kind, beta):
    toy = Toy(kind)
    log_m, joint = mixture(toy), toy.log_joint(beta)
    i, j = torch.cartesian_prod(*[torch.arange(len(log_m))] * 2).T
    chance = (log_m[i] + log_m[j]).exp().detach()
    log_w = torch.stack([(joint - beta * log_m)[k] for k in (i, j)]).detach()
    each = joint + toy.log_q()
    exact = (chance * (log_w.softmax(0) * torch.stack([each[i], each[j]])).sum(0)).sum()
    values, gradients = draws(ReweightedWakeSleep(defensive=SHARE, num_particles=2, beta=beta), toy)
    assert within(values, (chance * log_mean_exp(log_w)).sum())
    assert within(gradients, gradient(exact, toy.parameters))


def test_weights_with_the_density_of_the_guide_are_seen():
    """The fault: draws from the mixture weighted as if they came from the guide."""

    class Wrong(ReweightedWakeSleep):
        def bound(self, terms, beta):
            share, self.defensive = self.defensive, 0.0
            found = super().bound(terms, beta)
            self.defensive = share
            return found

    toy = Toy("bits")
    log_m = mixture(toy)
    i, j = torch.cartesian_prod(*[torch.arange(len(log_m))] * 2).T
    exact = (
        (log_m[i] + log_m[j]).exp() * log_mean_exp(torch.stack([(toy.log_joint() - log_m)[k] for k in (i, j)]))
    ).sum()
    right, wrong = (draws(cls(defensive=SHARE, num_particles=2), toy)[0] for cls in (ReweightedWakeSleep, Wrong))
    assert within(right, exact.detach())
    assert not within(wrong, exact.detach())


def test_the_bound_tends_to_the_evidence_where_the_guide_leaves_a_mode_out():
    """A guide that is sure of wrong bits: its own weights miss the evidence, those of the mixture do not."""
    toy = Toy("bits")
    best = toy.log_joint().argmax()
    with torch.no_grad():
        encoder = toy.program.posterior.net.body[0]
        encoder.weight.zero_()
        encoder.bias.copy_(20 * (1 - 2 * toy.values[best]))
    found = []
    for share in (0.0, SHARE):
        torch.manual_seed(0)
        estimator = ReweightedWakeSleep(defensive=share, num_particles=2000)
        with torch.no_grad():
            found.append(estimator.per_datum(toy.program.model, toy.program.guide, toy.copies(20)))
    evidence = toy.evidence().detach()
    assert (found[0] < evidence - 1).all()
    assert found[1].mean() == pytest.approx(float(evidence), abs=0.05)


@pytest.mark.parametrize("bit_first", [True, False])
def test_all_latents_of_an_example_come_from_one_side(bit_first):
    """Two sites that depend on each other: the mean weight is the evidence, within 4.5 standard errors."""
    toy = Mixed(bit_first)
    log_w, q, _ = toy.grid()
    evidence = (q * log_w.exp()).sum().detach()
    estimator = ReweightedWakeSleep(defensive=SHARE, num_particles=2)
    torch.manual_seed(0)
    with torch.no_grad():
        terms = estimator.terms(toy.program.model, toy.program.guide, toy.copies(100_000))
        log_q, log_p = terms.log_q(), sum(site.log_p for site in terms.latent)
        proposal = torch.logaddexp(log_q + math.log1p(-SHARE), log_p + math.log(SHARE))
        weights = (terms.log_w() + log_q - proposal).exp()
    assert within(weights.reshape(-1, 1), evidence.reshape(1))
    assert weights.max() <= 1 / (0.7 * math.sqrt(2 * math.pi)) / SHARE  # the largest density of the data


class Shared(nn.Module):
    """A number that all examples share, on which the prior of a binary latent depends, and rows that are drawn."""

    def __init__(self, rows=None):
        super().__init__()
        self.rows, self.p = rows, nn.Parameter(torch.tensor([0.3, -0.2, 0.5]).double())

    def model(self, x):
        w = pyro.sample("w", dist.Normal(self.p[0], 1.0))
        with pyro.plate("data", len(x), subsample_size=self.rows, dim=-1) as index:
            z = pyro.sample("z", dist.Bernoulli(logits=w + 2 * x[index]))
            pyro.sample("x", dist.Normal(2 * z, 1.0), obs=x[index])

    def guide(self, x):
        pyro.sample("w", dist.Normal(self.p[1], 1.0))
        with pyro.plate("data", len(x), subsample_size=self.rows, dim=-1) as index:
            pyro.sample("z", dist.Bernoulli(logits=self.p[2] * x[index]))


@pytest.mark.parametrize("rows", [None, 2])
def test_shared_latents_and_subsampled_rows_are_those_of_one_run(rows):
    """Given the shared draw, the mean weight of a row is its evidence."""
    toy, x = Shared(rows), torch.tensor([0.4, -1.0, 1.5]).double()
    estimator = ReweightedWakeSleep(defensive=SHARE, num_particles=20_000)
    for seed in range(4):
        torch.manual_seed(seed)
        with torch.no_grad():
            terms = estimator.terms(toy.model, toy.guide, x)
            local = terms.split()[0]
            bound = estimator.bound(local, 1.0)
            w, data = terms.draws[0].values["w"][0], local.observed[0].model["value"].reshape(-1)
            z = torch.tensor([[0.0], [1.0]]).double()
            prior, likelihood = dist.Bernoulli(logits=w + 2 * data), dist.Normal(2 * z, 1.0)
            exact = (prior.log_prob(z) + likelihood.log_prob(data)).logsumexp(0)
        torch.testing.assert_close(bound, exact, atol=0.05, rtol=0)


def test_scale_and_mask():
    toy, mask = Toy("bits"), torch.tensor([True, False, True, False])
    estimator, found = ReweightedWakeSleep(defensive=SHARE), []
    for other in (0.0, 3.0):
        x = toy.x + other * (~mask).double().unsqueeze(-1)
        model, guide = (poutine.scale(poutine.mask(f, mask=mask), 3.0) for f in (toy.program.model, toy.program.guide))
        torch.manual_seed(0)
        loss = estimator.differentiable_loss(model, guide, x)
        torch.manual_seed(0)
        rows = estimator.bound(estimator.terms(toy.program.model, toy.program.guide, x), 1.0)
        torch.testing.assert_close(loss, -3 * rows[mask].sum())
        found.append(gradient(loss, toy.parameters))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("sleep", [0.0, 0.5])
def test_estimator_obeys_the_laws(sleep):
    toy = Toy("bits")
    x = toy.program.sample(40)
    estimator = ReweightedWakeSleep(sleep=sleep, defensive=SHARE, num_particles=3)
    check_estimator(toy.program, estimator, x)
    weights = []
    for compiled in (False, pv.training.eager_graph):
        toy = Toy("bits")
        history = pv.fit(toy.program, x, estimator=estimator, epochs=1, seed=0, progress=False, compile=compiled)
        weights.append(torch.cat([p.detach().flatten() for p in toy.parameters]))
    torch.testing.assert_close(*weights)
    assert "kl" not in history  # the mean at draws of a mixture is no divergence


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"defensive": 1.0}, "defensive"),
        ({"defensive": -0.1}, "defensive"),
        ({"defensive": 0.1, "particles_per_pass": 2}, "particles_per_pass"),
        ({"defensive": 0.1, "free_bits": 0.5}, "free_bits"),
        ({"defensive": 0.1, "capacity": pv.estimators.Capacity(1.0, 9)}, "capacity"),
    ],
)
def test_bad_options(options, name):
    with pytest.raises(ValueError, match=name):
        ReweightedWakeSleep(**options)


def test_a_guide_without_a_density_is_refused():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Delta(x))

    with pytest.raises(ValueError, match="guide: .*'z'"):
        ReweightedWakeSleep(defensive=0.1).loss(model, guide, torch.zeros(3))
