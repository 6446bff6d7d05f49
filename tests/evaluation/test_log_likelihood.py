"""Importance-sampled log-likelihoods, the tail of their weights, and how numbers and tables are printed."""

import math

import pytest
import torch
from scipy import stats

import pyro_vae as pv
from pyro_vae.evaluation import log_likelihood, over, pareto_k
from pyro_vae.evaluation.result import aligned, latex, number
from pyro_vae.testing import LinearGaussian, parts


def test_unreliable_examples_are_reported():
    """A guide far narrower than the posterior has heavy-tailed weights, the exact posterior has constant weights."""
    toy = LinearGaussian()
    x = toy.draw(20)
    good = log_likelihood(toy.program, x, num_particles=500)
    with torch.no_grad():
        toy.encoder.bias[2:] -= 2.0  # narrower
    bad = log_likelihood(toy.program, x, num_particles=500)
    assert good.heavy == 0.0
    assert bad.heavy > 0.8
    assert (bad.pareto_k > 0.7).sum() == round(bad.heavy * 20)
    assert f"{bad.heavy:.1%}" in str(bad)
    few = log_likelihood(toy.program, x, num_particles=10)
    assert few.pareto_k.isnan().all()
    assert math.isnan(few.heavy)
    assert len(few.rows()) == 20


def test_errors_are_those_of_repeated_estimates():
    """The standard deviation of 400 estimates for one example is the reported error, within 20% (4 errors: 14%)."""
    toy = LinearGaussian(off=0.03)
    found = log_likelihood(toy.program, toy.draw(1).repeat(400, 1), num_particles=300)
    reported = float(found.per_example_error.mean())
    assert float(found.per_example.std()) == pytest.approx(reported, rel=0.2)
    assert found.std_error == pytest.approx(reported / 20, rel=0.2)
    assert found.monte_carlo_error == pytest.approx(reported / 20, rel=0.05)


def test_passes_and_batches_agree(monkeypatch):
    """Passes of particles and batches of examples do not change the result of the exact posterior."""
    toy = LinearGaussian()
    x = toy.draw(11)
    whole = log_likelihood(toy.program, x, num_particles=40)
    monkeypatch.setattr(over, "BUDGET", 512 * 7)  # seven particles of one example at a time
    cut = log_likelihood(toy.program, x, num_particles=40, batch_size=2)
    assert torch.allclose(cut.per_example, whole.per_example, atol=1e-9)


@pytest.mark.parametrize("posterior", list(parts(pv.posteriors)), ids=lambda p: p.__name__)
def test_every_posterior(posterior):
    """Each posterior with the first prior that fits: finite values and an effective sample size of at least one."""
    torch.manual_seed(0)
    x = torch.rand(6, 2, 2)
    q = posterior.example()
    for prior in parts(pv.priors):
        vae = pv.VAE(prior=prior.example(), likelihood=pv.likelihoods.Normal.example(), posterior=q)
        try:
            vae.check(x)
        except ValueError:
            continue
        found = log_likelihood(vae, x, num_particles=30)
        assert found.per_example.isfinite().all()
        assert (found.ess >= 1 - 1e-6).all()
        return
    # its samples are relaxed, and no prior has this support
    assert posterior.__name__ in {"RelaxedBernoulli"}


@pytest.mark.parametrize("prior", list(parts(pv.priors)), ids=lambda p: p.__name__)
def test_every_prior(prior):
    """Each prior with the first posterior that fits."""
    torch.manual_seed(0)
    x = torch.rand(6, 2, 2)
    p = prior.example()
    if p.context:  # takes a class, as in the tests of programs with classes
        return
    for posterior in parts(pv.posteriors):
        vae = pv.VAE(prior=p, likelihood=pv.likelihoods.Normal.example(), posterior=posterior.example())
        try:
            vae.check(x)
        except ValueError:
            continue
        assert log_likelihood(vae, x, num_particles=30).per_example.isfinite().all()
        return
    raise AssertionError(f"{prior.__name__} fits no posterior")


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.5, 0.9, 1.4])
def test_pareto_k_of_a_known_tail(k):
    """Means over 200 samples, with room for the prior at 0.5 and for the body of the distribution in the tail."""
    samples = stats.genpareto(k).rvs((4000, 200), random_state=0)
    found = pareto_k(torch.as_tensor(samples).log())
    size = math.ceil(3 * math.sqrt(4000))
    expected = (k * size + 0.5 * 10) / (size + 10)
    assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / 200**0.5 + 0.03


def test_pareto_k_of_importance_weights():
    """Normal weights under a guide of variance v have tail shape 1 - v for v below 1, and a light tail above."""
    z = torch.randn(20000, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    heavy, light = (float(pareto_k(-0.5 * (v - 1) * z.square()).mean()) for v in (0.5, 2.0))
    assert heavy == pytest.approx(0.5, abs=0.1)
    assert light < 0.1
    shifted = pareto_k(-0.5 * (0.5 - 1) * z.square() + 1e4)
    assert float(shifted.mean()) == pytest.approx(heavy, abs=1e-6)
    with pytest.raises(ValueError, match="log_w.*25"):
        pareto_k(z[:10])


def test_pareto_k_is_that_of_arviz():
    """Light, heavy and heavier tails, to 1e-6."""
    arviz = pytest.importorskip("arviz_stats.base")
    for width in (0.5, 1.5, 3.0):
        # a tail of 3 sqrt(2500) samples, whichever way it is rounded
        log_w = width * torch.randn(2500, 5, dtype=torch.float64)
        # arviz takes negative log-weights
        theirs = torch.as_tensor(arviz.array_stats.psislw(-log_w.numpy(), axis=0)[1])
        assert torch.allclose(pareto_k(log_w), theirs, atol=1e-6)


def test_numbers_have_the_precision_of_their_errors():
    assert number(1.23456, 0.0123) == "1.235 ± 0.012"
    assert number(math.nan, 1.0) == "-"
    assert aligned([{"a": "x", "b": 1}, {"a": "yy", "b": 22}]).splitlines() == ["a    b", "x    1", "yy  22"]
    assert latex([{"a_b": "1 ± 2"}]).splitlines()[2:5] == [r"a\_b \\", r"\midrule", r"1 $\pm$ 2 \\"]


def test_weights_change_the_mean_and_its_errors_alone():
    """Mean and errors of 8 rows with integer weights; with weights 0 and 1 they are those of the remaining rows."""
    toy = LinearGaussian(off=0.3)
    x = toy.draw(8)
    plain = log_likelihood(toy.program, x, num_particles=30)
    weights = torch.tensor([2, 1, 0, 3, 0, 1, 1, 1])
    found = log_likelihood(toy.program, x, num_particles=30, weights=weights)
    assert torch.equal(found.per_example, plain.per_example)
    assert found.mean == pytest.approx(float(plain.per_example.repeat_interleave(weights).mean()))
    error = (weights * plain.per_example_error).square().sum().sqrt() / 9
    assert found.monte_carlo_error == pytest.approx(float(error))
    assert [row["weight"] for row in found.rows()] == weights.tolist()
    kept = torch.arange(8) < 5
    some = log_likelihood(toy.program, x, num_particles=30, weights=7.0 * kept)
    assert some.std_error == pytest.approx(float(plain.per_example[kept].std()) / math.sqrt(5))
    assert plain.std_error == pytest.approx(float(plain.per_example.std()) / math.sqrt(8))
    one = log_likelihood(toy.program, x, num_particles=30, weights=torch.eye(8)[2])
    assert one.mean == pytest.approx(float(plain.per_example[2]))
    assert math.isnan(one.std_error)


def test_the_error_of_a_weighted_mean_is_that_of_repeated_samples():
    """The root mean square of 2,000 reported errors is the spread of the means, within 7% (4 errors: 6.4%)."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor([3.0, 1.0, 1.0, 0.5, 0.0, 2.0]).double()
    draws = torch.randn(2000, 6, generator=generator).double()
    found = [pv.evaluation.PerExample(row, 0 * row, weights=weights) for row in draws]
    means = torch.tensor([each.mean for each in found])
    squares = torch.tensor([each.std_error**2 for each in found])
    assert float(squares.mean()) ** 0.5 == pytest.approx(float(means.std()), rel=0.07)


@pytest.mark.parametrize("weights", [[1.0] * 7, [-1.0] * 8, [math.nan] * 8, [0.0] * 8, 1.0])
def test_invalid_weights_are_refused_by_name(weights):
    toy = LinearGaussian()
    rows = toy.draw(8)
    for x in (rows, torch.utils.data.DataLoader(rows, batch_size=3)):
        with pytest.raises(ValueError, match="weights"):
            log_likelihood(toy.program, x, num_particles=3, weights=weights)


def test_particles_are_added_until_the_error_allows():
    toy = LinearGaussian(off=0.03)
    x = toy.draw(12)
    few = log_likelihood(toy.program, x, num_particles=100, progress=False)
    until = float(few.per_example_error.median())
    found = log_likelihood(toy.program, x, num_particles=100, until=until, progress=False)
    again = found.particles > 100
    assert few.particles is None
    assert 0 < int(again.sum()) < len(x)
    assert set(found.particles.tolist()) <= {100, 400, 1600, 6400}
    assert torch.equal(found.per_example[~again], few.per_example[~again])
    assert bool((found.per_example_error <= until).all())
    assert bool(((found.per_example - toy.log_evidence(x)).abs() < 5 * until).all())
    assert found.rows()[0]["particles"] == found.particles[0]


@pytest.mark.slow
def test_examples_that_particles_cannot_reach_are_annealed():
    toy = LinearGaussian(off=1.2)
    x = toy.draw(4)
    few = log_likelihood(toy.program, x, num_particles=100, progress=False)
    found = log_likelihood(toy.program, x, num_particles=100, until=0.02, progress=False)
    assert set(found.particles.tolist()) == {0}
    assert bool(((few.per_example - toy.log_evidence(x)).abs() > 0.3).any())
    assert bool(((found.per_example - toy.log_evidence(x)).abs() < 0.3).all())
    assert "4 examples annealed" in str(found)


def test_discrete_latents_keep_the_estimate_of_most_particles():
    parts_of = {"prior": pv.priors.Bernoulli(8), "posterior": pv.posteriors.Bernoulli((4,), 8)}
    vae = pv.VAE(likelihood=pv.likelihoods.Normal(8, (4,)), **parts_of)
    found = log_likelihood(vae, torch.randn(3, 4), num_particles=25, until=1e-6, progress=False)
    assert set(found.particles.tolist()) == {1600}


@pytest.mark.parametrize("until", [0.0, -1.0, float("nan"), "0.1"])
def test_errors_to_reach_are_positive_numbers(until):
    toy = LinearGaussian()
    with pytest.raises((TypeError, ValueError), match="until"):
        log_likelihood(toy.program, toy.draw(2), until=until, progress=False)
