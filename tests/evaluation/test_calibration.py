"""Simulation-based calibration: exact guides pass and broken guides fail for the right reason; predictive checks."""

import pytest
import torch
from helpers.classes import Toy
from helpers.linear_hierarchy import linear
from helpers.missing import holes, with_missing
from pyro import distributions as dist
from scipy import stats

import pyro_vae as pv
from pyro_vae.evaluation import Calibration, calibration, predictive_check
from pyro_vae.evaluation.posterior.calibration import JOINT, chi_square, kolmogorov
from pyro_vae.testing import LinearGaussian


def broken(**changes):
    """A linear VAE with the exact posterior as its guide, except for a change of its encoder."""
    toy = LinearGaussian()
    with torch.no_grad():
        toy.encoder.bias[:2] += changes.get("shift", 0.0)
        toy.encoder.bias[2:] += changes.get("wider", 0.0)
        if changes.get("blind"):
            toy.encoder.weight.zero_()
            toy.encoder.bias.copy_(torch.tensor([0.0, 0.0, 0.54, 0.54]))
    return toy


def test_exact_guide_passes():
    """At level 0.01, with each of five seeds."""
    toy = LinearGaussian()
    found = [calibration(toy.program, toy.draw(8), num_simulations=500, seed=seed) for seed in range(5)]
    assert all(f.passed for f in found)
    assert set(found[0].ranks) == {"z[0]", "z[1]", JOINT}
    assert "passes" in str(found[0])


@pytest.mark.parametrize(
    ("changes", "quantity", "reason"),
    [
        ({"shift": 0.3}, "z[0]", "q lies too high"),
        ({"shift": -0.3}, "z[0]", "q lies too low"),
        ({"wider": 1.0}, "z[0]", "q too wide"),
        ({"wider": -1.0}, "z[0]", "q too narrow"),
        ({"blind": True}, JOINT, "samples explain x worse than its own latents"),
    ],
)
def test_broken_guides_fail_for_the_right_reason(changes, quantity, reason):
    """Shifted, widened, narrowed, and the prior in place of the posterior, which only log p(x|z) detects."""
    toy = broken(**changes)
    found = calibration(toy.program, toy.draw(8))
    assert not found.passed
    row = next(row for row in found.summary() if row["quantity"] == quantity)
    assert row[""] == f"fails: {reason}"
    assert "FAILS" in str(found)
    if "blind" in changes:
        p = found.p_values
        assert min(p["z[0]"], p["z[1]"]) > 0.001
        assert p[JOINT] < 1e-10


def test_other_programs():
    """A sampled class (exact), a hierarchy with an arbitrary guide (fails), missing entries."""
    toy = Toy()
    found = calibration(toy.program, toy.program.sample(4), num_simulations=400)
    assert {"y[0]", "y[2]", "z[0]", JOINT} <= set(found.ranks)
    assert found.passed
    program = linear(pv.programs.TopDown)
    assert not calibration(program, program.sample(4), num_simulations=400).passed
    exact = LinearGaussian()
    x = holes(exact.draw(16))
    # the exact posterior for complete data is wrong for data with missing entries
    assert not calibration(with_missing(exact), x).passed
    with pytest.raises(ValueError, match="program"):
        calibration(toy.program, (toy.program.sample(3), torch.eye(3, dtype=torch.float64)), num_simulations=20)
    with pytest.raises(ValueError, match="level"):
        calibration(exact.program, exact.draw(3), level=1.0)


def test_level_is_the_rate_of_false_alarms():
    """Uniform ranks fail at level 5% in at most 5% of 500 trials (4 standard errors), but not much more rarely."""
    torch.manual_seed(0)
    failed = 0
    for _ in range(500):
        ranks = {"a": torch.rand(200, dtype=torch.float64), "b": torch.rand(200, dtype=torch.float64)}
        failed += not Calibration(ranks, 0.05).passed
    # two tests of two quantities share the level by Bonferroni
    assert 8 < failed < 25 + 4 * 5


def test_p_values_are_those_of_scipy():
    """Chi-square to 1e-9; Kolmogorov-Smirnov against the exact distribution within 0.01."""
    torch.manual_seed(0)
    for power in (1.0, 1.2):
        ranks = torch.rand(500, dtype=torch.float64) ** power
        counts = torch.histc(ranks, 20, 0, 1)
        assert chi_square(ranks) == pytest.approx(float(stats.chisquare(counts.numpy()).pvalue), abs=1e-9)
        assert kolmogorov(ranks) == pytest.approx(float(stats.kstest(ranks.numpy(), "uniform").pvalue), abs=0.01)


STATISTICS = {"spread": torch.std, "largest": torch.max, "mean": torch.mean}


def test_predictive_checks_pass_for_the_true_model_and_fail_for_another():
    """Data of the model, and the same with heavier tails, which the largest value detects."""
    toy = LinearGaussian()
    x = toy.draw(300)
    for prior in (True, False):
        assert min(predictive_check(toy.program, x, STATISTICS, prior=prior).p_values.values()) > 0.02
    torch.manual_seed(0)
    heavy = x + 0.6 * dist.StudentT(1.5).sample(x.shape).double()
    found = predictive_check(toy.program, heavy, STATISTICS, num_samples=100)
    assert found.p_values["largest"] == pytest.approx(2 / 101)
    assert found.observed["largest"] > 2 * float(found.replicated["largest"].mean())
    with pytest.raises(ValueError, match="statistics.*'rows'"):
        predictive_check(toy.program, x, {"rows": lambda x: x.sum(1)})
    with pytest.raises(ValueError, match="statistics"):
        predictive_check(toy.program, x, {})


def test_posterior_replications_have_seen_the_data():
    """For data with latents far from the mean of the prior, only posterior replications are close."""
    toy = LinearGaussian(sigma=0.1)
    with torch.no_grad():
        far = toy.program.decode(2 + 0.1 * torch.randn(300, 2).double()).sample()
    apart = {}
    for prior in (False, True):
        found = predictive_check(toy.program, far, {"mean": torch.mean}, prior=prior, num_samples=20)
        apart[prior] = abs(found.observed["mean"] - float(found.replicated["mean"].mean()))
    assert apart[False] < 0.1 * apart[True]


def test_prior_predictive_p_values_are_uniform():
    """40 p-values of the mean for new data sets of the model are uniform (KS above 0.001)."""
    toy = LinearGaussian()
    options = {"prior": True, "num_samples": 30}
    p = [
        predictive_check(toy.program, toy.draw(20, seed=i), {"mean": torch.mean}, seed=i, **options).p_values["mean"]
        for i in range(40)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.001
