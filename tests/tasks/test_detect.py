"""Scores against the closed forms of a linear VAE, and alarms at the rate that was asked for."""

import functools
import math
import zlib

import pytest
import torch

import pyro_vae as pv
from pyro_vae.tasks import (
    Detector,
    ImportanceWeighted,
    InputComplexity,
    LikelihoodRegret,
    NegativeBound,
    Reconstruction,
    Typicality,
    attribution,
)
from pyro_vae.testing import LinearGaussian


def test_importance_weighted_score_is_minus_the_log_evidence():
    """With the exact posterior every weight is the evidence: to 1e-9, whatever the number of particles."""
    toy = LinearGaussian()
    x = toy.draw(50)
    exact = -toy.log_evidence(x).detach()
    assert torch.allclose(ImportanceWeighted(3)(toy.program, x), exact, atol=1e-9)
    off = LinearGaussian(off=0.05)
    known = -off.log_evidence(x).detach()
    assert torch.allclose(ImportanceWeighted(4000)(off.program, x), known, atol=0.05)


def test_bound_and_reconstruction_have_their_exact_means():
    """A guide off the posterior, 4,000 draws: 20 data within 4 standard errors of the closed forms."""
    toy = LinearGaussian(off=0.1)
    x = toy.draw(20)
    with torch.no_grad():
        bound, q = toy.elbo(x), toy.program.encode(x).base_dist
        kl = 0.5 * (q.mean.square() + q.variance - 1 - q.variance.log()).sum(-1)
        draws = toy.program.decode(toy.program.encode(x).sample((4000,))).log_prob(x)
    error = 4 * draws.std(0) / math.sqrt(4000)
    assert ((NegativeBound(4000)(toy.program, x) + bound).abs() < error).all()
    assert ((Reconstruction(4000)(toy.program, x) + bound + kl).abs() < error).all()


@pytest.mark.parametrize("false_alarms", [0.01, 0.1])
def test_false_alarms_come_at_the_chosen_rate(false_alarms):
    """2,000 normal data to calibrate, 4,000 new ones: within 4 standard errors of the two samples together."""
    toy = LinearGaussian()
    detector = Detector(toy.program, ImportanceWeighted(1), toy.draw(2000, 1), false_alarms=false_alarms)
    x = toy.draw(4000, 2)
    rate = float(detector.alarms(x).double().mean())
    error = math.sqrt(false_alarms * (1 - false_alarms) * (1 / 2000 + 1 / 4000))
    assert abs(rate - false_alarms) < 4 * error
    p = detector.p_values(x)
    assert torch.equal(p <= false_alarms, detector.alarms(x))
    assert abs(float(p.mean()) - 0.5) < 4 * math.sqrt((1 / 2000 + 1 / 4000) / 12)
    assert detector.alarms(x[:20] + 10).all()


def test_threshold_is_the_order_statistic():
    """19 normal data at 5%: the largest score; at 10% the second largest; 18 are too few for 5%."""
    toy = LinearGaussian()
    x = toy.draw(19)
    exact = (-toy.log_evidence(x).detach()).sort().values
    for rate, rank in ((0.05, 19), (0.1, 18), (0.12, 18), (0.5, 10)):
        detector = Detector(toy.program, ImportanceWeighted(1), x, false_alarms=rate)
        assert detector.threshold == pytest.approx(float(exact[rank - 1]))
    with pytest.raises(ValueError, match="expected an int of at least 19, got 18"):
        Detector(toy.program, ImportanceWeighted(1), x[:18])
    with pytest.raises(ValueError, match="false_alarms: expected a number between 0 and 1"):
        Detector(toy.program, ImportanceWeighted(1), x, false_alarms=5)


def test_regret_is_the_gap_of_the_encoder():
    """A linear VAE: the best posterior of a datum has the evidence for its bound, and regret is what is missing."""
    toy = LinearGaussian(off=0.1)
    x = toy.draw(10)
    exact = (toy.log_evidence(x) - toy.elbo(x)).detach()
    weights = [p.clone() for p in toy.program.parameters()]
    found = LikelihoodRegret(steps=300, num_particles=64)(toy.program, x)
    with torch.no_grad():
        noise = toy.program.decode(toy.program.encode(x).sample((4000,))).log_prob(x).std(0) / 8
    # 4 standard errors of the bound before, with 64 draws; after the optimisation it varies as much at most
    assert ((found - exact).abs() < 4 * 2**0.5 * noise).all()
    assert torch.corrcoef(torch.stack([found, exact]))[0, 1] > 0.9
    assert all(torch.equal(a, b) for a, b in zip(weights, toy.program.parameters(), strict=True))


def test_corrections_subtract_what_they_say(vae, digits):
    """Length under zlib in nats, and the distance from the mean score of training data."""
    x, train, score = digits.test.x[:20], digits.train.x[:30], NegativeBound(2)
    plain = score(vae, x)
    found = InputComplexity(score)(vae, x)
    for i in range(3):
        length = 8 * math.log(2) * len(zlib.compress((255 * x[i]).to(torch.uint8).numpy().tobytes()))
        assert found[i] == pytest.approx(float(plain[i]) - length)
    assert torch.allclose(Typicality(score, train)(vae, x), (plain - score(vae, train).mean()).abs())
    with pytest.raises(ValueError, match="x: expected data between 0 and 1"):
        InputComplexity(score)(LinearGaussian().program, torch.full((2, 5), 1.5))
    with pytest.raises(ValueError, match="x: .*outside the support"):
        InputComplexity(score)(vae, x + 1)


def test_attribution_has_its_exact_mean_and_adds_up():
    """Of a normal entry: half the log of 2 pi s^2, and squared error plus variance of the mean over 2 s^2."""
    toy = LinearGaussian()
    toy.program.missing = True
    x = toy.draw(20)
    w, mu = toy.decoder.weight.detach(), toy.decoder.bias.detach()
    mean, covariance = (v.detach() for v in toy.posterior(x))
    spread = torch.einsum("ij,jk,ik->i", w, covariance, w)
    squares = (x - mean @ w.T - mu).square()
    exact = 0.5 * math.log(2 * math.pi * 0.36) + (squares + spread) / 0.72
    # variance of the square of a normal: 2 v^2 + 4 m^2 v
    error = (2 * spread**2 + 4 * squares * spread).sqrt() / 0.72 / math.sqrt(4000)
    found = attribution(toy.program, x, num_particles=4000)
    assert ((found - exact).abs() < 4 * error).all()
    x[0, 3] = float("nan")
    assert attribution(toy.program, x)[0, 3] == 0


def test_the_bound_of_a_discrete_posterior_is_a_score():
    """No gradient is taken, so that none has to go through the draw; enumeration of the two values is exact."""
    part = {"net": functools.partial(pv.nets.MLP, hidden=(4,))}
    program = pv.VAE(
        prior=pv.priors.Bernoulli(1),
        likelihood=pv.likelihoods.Normal(1, (3,), **part),
        posterior=pv.posteriors.Bernoulli((3,), 1, **part),
    )
    x = torch.randn(5, 3)
    with torch.no_grad():
        q, z = program.encode(x), torch.tensor([[[0.0]], [[1.0]]]).expand(2, 5, 1)
        log_p, weight = program.decode(z).log_prob(x), q.log_prob(z).exp()
        exact = (weight * (log_p + program.prior().log_prob(z) - q.log_prob(z))).sum(0)
        # of the mean over 20,000 draws; the divergence is known in closed form
        error = (weight * (log_p - (weight * log_p).sum(0)) ** 2).sum(0).sqrt() / 20_000**0.5
    found = -pv.tasks.NegativeBound(20_000)(program, x)
    assert ((found - exact).abs() <= 4 * error + 1e-4).all()
