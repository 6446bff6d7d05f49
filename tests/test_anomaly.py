"""Scores against the closed forms of a linear VAE, and alarms at the rate that was asked for."""

import math

import pytest
import torch

from pyro_vae.tasks import Detector, ImportanceWeighted, NegativeBound, Reconstruction
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
    for rate, rank in ((0.05, 19), (0.1, 18), (0.5, 10)):
        detector = Detector(toy.program, ImportanceWeighted(1), x, false_alarms=rate)
        assert detector.threshold == pytest.approx(float(exact[rank - 1]))
    with pytest.raises(ValueError, match="expected an int of at least 19, got 18"):
        Detector(toy.program, ImportanceWeighted(1), x[:18])
    with pytest.raises(ValueError, match="false_alarms: expected a number between 0 and 1"):
        Detector(toy.program, ImportanceWeighted(1), x, false_alarms=5)
