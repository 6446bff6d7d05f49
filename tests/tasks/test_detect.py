"""Anomaly scores against the closed forms of a linear VAE, and the false alarm rate of detectors."""

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
    Score,
    Typicality,
    attribution,
)
from pyro_vae.testing import LinearGaussian


def test_importance_weighted_score_is_the_negative_log_evidence():
    """Exact to 1e-9 for any number of particles under the exact posterior, as all weights equal the evidence."""
    toy = LinearGaussian()
    x = toy.draw(20)
    assert torch.allclose(ImportanceWeighted(3)(toy.program, x), -toy.log_evidence(x).detach(), atol=1e-9)
    off = LinearGaussian(off=0.05)
    assert torch.allclose(ImportanceWeighted(4000)(off.program, x), -off.log_evidence(x).detach(), atol=0.05)


def test_bound_and_reconstruction_have_their_exact_means():
    """An inexact guide, 2,000 samples: 10 examples within 4 standard errors of the closed forms."""
    toy, n = LinearGaussian(off=0.1), 2000
    x = toy.draw(10)
    with torch.no_grad():
        bound, q = toy.elbo(x), toy.program.encode(x).base_dist
        kl = 0.5 * (q.mean.square() + q.variance - 1 - q.variance.log()).sum(-1)
        log_p = toy.program.decode(toy.program.encode(x).sample((n,))).log_prob(x)
    error = 4 * log_p.std(0) / math.sqrt(n)
    assert ((NegativeBound(n)(toy.program, x) + bound).abs() < error).all()
    assert ((Reconstruction(n)(toy.program, x) + bound + kl).abs() < error).all()


def test_bound_of_a_discrete_posterior_is_exact():
    """No gradient is needed: the bound of a Bernoulli latent is that of an enumeration, within 4 standard errors."""
    net, n = functools.partial(pv.nets.MLP, hidden=(4,)), 5000
    program = pv.VAE(
        prior=pv.priors.Bernoulli(1),
        likelihood=pv.likelihoods.Normal(1, (3,), net=net),
        posterior=pv.posteriors.Bernoulli((3,), 1, net=net),
    )
    x = torch.randn(5, 3)
    with torch.no_grad():
        q, z = program.encode(x), torch.tensor([[[0.0]], [[1.0]]]).expand(2, 5, 1)
        log_p, weight = program.decode(z).log_prob(x), q.log_prob(z).exp()
        exact = (weight * (log_p + program.prior().log_prob(z) - q.log_prob(z))).sum(0)
        # only of the reconstruction: the KL divergence has a closed form
        error = (weight * (log_p - (weight * log_p).sum(0)) ** 2).sum(0).sqrt() / n**0.5
    assert ((NegativeBound(n)(program, x) + exact).abs() <= 4 * error + 1e-4).all()


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_false_alarm_rate(rate):
    """2,000 normal examples for calibration, 4,000 new ones: within 4 standard errors of both samples together."""
    toy = LinearGaussian()
    detector = Detector(toy.program, ImportanceWeighted(1), toy.draw(2000, 1), false_alarm_rate=rate)
    x, n = toy.draw(4000, 2), 1 / 2000 + 1 / 4000
    assert abs(float(detector.alarms(x).double().mean()) - rate) < 4 * math.sqrt(rate * (1 - rate) * n)
    p = detector.p_values(x)
    assert torch.equal(p <= rate, detector.alarms(x))
    assert abs(float(p.mean()) - 0.5) < 4 * math.sqrt(n / 12)
    assert detector.alarms(x[:20] + 10).all()


def test_threshold_is_an_order_statistic():
    """Of 19 normal examples the largest score at a rate of 5%, the second largest at 10%; 18 are too few for 5%."""
    toy = LinearGaussian()
    x, score = toy.draw(19), ImportanceWeighted(1)
    exact = (-toy.log_evidence(x).detach()).sort().values
    for rate, rank in ((0.05, 19), (0.1, 18), (0.12, 18), (0.5, 10)):
        assert Detector(toy.program, score, x, false_alarm_rate=rate).threshold == pytest.approx(
            float(exact[rank - 1])
        )
    with pytest.raises(ValueError, match="normal: .*19 .*18"):
        Detector(toy.program, score, x[:18])
    with pytest.raises(ValueError, match="false_alarm_rate"):
        Detector(toy.program, score, x, false_alarm_rate=5)

    class NotFinite(Score):
        def __call__(self, program, x, *, seed=0):
            return torch.full((len(x),), math.nan)

    with pytest.raises(ValueError, match="normal: .*finite"):
        Detector(toy.program, NotFinite(), x)


def test_regret_is_the_inference_gap():
    """The best posterior of a linear VAE attains the evidence: regret is the gap, within 4 standard errors."""
    toy = LinearGaussian(off=0.1)
    x = toy.draw(10)
    exact = (toy.log_evidence(x) - toy.elbo(x)).detach()
    found = LikelihoodRegret(num_steps=100, learning_rate=0.1, num_particles=64)(toy.program, x)
    with torch.no_grad():
        error = toy.program.decode(toy.program.encode(x).sample((2000,))).log_prob(x).std(0) / 64**0.5
    # of the bound before and, at most, the bound after the optimisation
    assert ((found - exact).abs() < 4 * 2**0.5 * error).all()
    assert torch.corrcoef(torch.stack([found, exact]))[0, 1] > 0.9


def test_corrections_subtract_length_and_mean(vae, digits):
    """The zlib length in nats, and the mean score of training data."""
    x, train, score = digits.test.x[:5], digits.train.x[:9], NegativeBound(2)
    plain = score(vae, x)
    lengths = [len(zlib.compress((255 * row).to(torch.uint8).numpy().tobytes())) for row in x]
    length = 8 * math.log(2) * torch.tensor(lengths).double()
    assert torch.allclose(InputComplexity(score)(vae, x), plain - length)
    assert torch.allclose(Typicality(score, train)(vae, x), (plain - score(vae, train).mean()).abs())
    with pytest.raises(ValueError, match="x: .*between 0 and 1"):
        InputComplexity(score)(LinearGaussian().program, torch.full((2, 5), 1.5))
    with pytest.raises(ValueError, match="x: .*support"):
        InputComplexity(score)(vae, x + 1)
    with pytest.raises(ValueError, match="levels"):
        InputComplexity(score, levels=1)(vae, x)


def test_attribution_has_its_exact_mean():
    """A normal entry: 0.5 log(2 pi s^2) + (squared error + variance of the mean) / (2 s^2)."""
    toy, n = LinearGaussian(), 2000
    toy.program.missing = True
    x = toy.draw(10)
    w, mu = toy.decoder.weight.detach(), toy.decoder.bias.detach()
    mean, covariance = (v.detach() for v in toy.posterior(x))
    variance = torch.einsum("ij,jk,ik->i", w, covariance, w)
    squares = (x - mean @ w.T - mu).square()
    exact = 0.5 * math.log(2 * math.pi * 0.36) + (squares + variance) / 0.72
    # the variance of the square of a normal is 2 v^2 + 4 m^2 v
    error = (2 * variance**2 + 4 * squares * variance).sqrt() / 0.72 / math.sqrt(n)
    assert ((attribution(toy.program, x, num_particles=n) - exact).abs() < 4 * error).all()
    x[0, 3] = float("nan")
    assert attribution(toy.program, x)[0, 3] == 0
