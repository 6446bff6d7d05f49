"""Training under several estimators with equal budgets."""

import pytest

import pyro_vae as pv
from pyro_vae.estimators import ELBO, IWAE, DReG
from pyro_vae.evaluation.result import number
from pyro_vae.testing import LinearGaussian


def trained(toy, budget, estimators=None, **options):
    chosen = estimators or {"ELBO": ELBO(), "IWAE": IWAE(num_particles=8)}
    options = {"valid": toy.draw(40, seed=2), "batch_size": 16, "num_points": 4, **options}
    return pv.evaluation.train_under(toy.program, toy.draw(100), chosen, budget=budget, **options)


def test_trainings_have_equal_starts_and_budgets():
    toy = LinearGaussian(off=0.4)
    found = trained(toy, pv.evaluation.Steps(40))
    elbo, iwae = found.curves
    assert [p.steps for p in elbo.points] == [p.steps for p in iwae.points] == [0, 10, 20, 30, 40]
    assert elbo.points[0].log_likelihood == iwae.points[0].log_likelihood
    assert elbo.points[-1].log_likelihood > elbo.points[0].log_likelihood
    alone = trained(toy, pv.evaluation.Steps(40), {"IWAE": IWAE(num_particles=8)})
    assert [p.log_likelihood for p in alone.curves[0].points] == [p.log_likelihood for p in iwae.points]
    particles = trained(toy, pv.evaluation.Particles(3200), num_points=1).curves
    assert particles[0].points[-1].steps > 7 * particles[1].points[-1].steps
    assert all(3200 <= c.points[-1].particles < 3200 + 16 * 8 for c in particles)
    seconds = trained(toy, pv.evaluation.Seconds(0.05), num_points=1).curves
    assert all(c.points[-1].seconds >= 0.05 for c in seconds)


def test_trainings_have_the_same_noise_and_batches():
    """DReG has the model gradient of IWAE: with a frozen guide both trainings are the same, step by step."""
    toy = LinearGaussian(off=0.1)
    toy.program.posterior.requires_grad_(False)
    chosen = {"IWAE": IWAE(num_particles=8), "DReG": DReG(num_particles=8)}
    found = trained(toy, pv.evaluation.Steps(6), chosen, num_points=2)
    one, other = ([p.log_likelihood for p in c.points] for c in found.curves)
    assert one == pytest.approx(other, abs=1e-9)


def test_a_failed_training_has_a_reason():
    class Broken(ELBO):
        def evaluate(self, terms):
            loss, metrics = super().evaluate(terms)
            return loss * (float("nan") if self.step > 3 else 1.0), metrics

    found = trained(LinearGaussian(off=0.1), pv.evaluation.Steps(8), {"broken": Broken(), "ELBO": ELBO()})
    assert [len(curve.points) for curve in found.curves] == [3, 5]
    assert found.curves[0].failure
    assert found.curves[0].failure in str(found)
    assert [row["failure"] for row in found.rows()] == 3 * [found.curves[0].failure] + 5 * [""]
    left, right = found.plot().axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("steps", "training time (seconds)")


def test_invalid_budgets_are_refused():
    with pytest.raises(ValueError, match="budget.*Steps"):
        pv.evaluation.Steps(0)
    with pytest.raises(TypeError, match="budget"):
        trained(LinearGaussian(), 100)


def test_the_best_training_is_named_with_paired_errors():
    """The same training twice are as good; one that stands still is clearly behind."""
    toy = LinearGaussian(off=0.4)

    class Still(ELBO):
        def evaluate(self, terms):
            loss, metrics = super().evaluate(terms)
            return 0 * loss, metrics

    found = trained(toy, pv.evaluation.Steps(40), {"ELBO": ELBO(), "again": ELBO(), "still": Still()})
    last = {curve.name: curve.per_example for curve in found.curves}
    apart = last["ELBO"] - last["still"]
    assert found.notes().startswith("best after 40 steps: ELBO; above still by ")
    assert number(float(apart.mean()), float(apart.std()) / len(apart) ** 0.5) in found.notes()
    assert "not clearly above again by 0" in found.notes()
    assert found.notes() in str(found)
    assert trained(toy, pv.evaluation.Steps(2), {"ELBO": ELBO()}).notes() == ""
