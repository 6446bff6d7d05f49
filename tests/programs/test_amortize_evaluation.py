"""Evaluations of amortized guides, their run folders, and the refinement of each row."""

import functools
import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import infer
from torch import nn

import pyro_vae as pv
from pyro_vae.programs import Forward

SMALL = functools.partial(pv.nets.MLP, hidden=(8,))


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def inverse_scale(std):
    return math.log(math.expm1(std - 1e-4))


class Line(nn.Module):
    """A mean that is linear in x and in the other latent, and a fixed standard deviation."""

    def __init__(self, weights, std):
        super().__init__()
        self.weights = nn.Parameter(number(weights))
        self.raw = nn.Parameter(number(inverse_scale(std)))

    def forward(self, x, *context):
        given = [x, *(c.squeeze(-1) for c in context)]
        loc = sum(w * column for w, column in zip(self.weights, given, strict=True))
        return torch.stack([loc, self.raw.expand_as(loc)], -1).unsqueeze(-1)


def two_causes(x):
    """The posterior has means x / 3 and covariance [[2, -1], [-1, 2]] / 3."""
    with pyro.plate("data", len(x), dim=-1):
        a = pyro.sample("a", dist.Normal(number(0.0), 1.0))
        b = pyro.sample("b", dist.Normal(torch.zeros(1).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(a + b.squeeze(-1), 1.0), obs=x)


X = torch.linspace(-3, 3, 40).double()


def exact(factor=1.0):
    """The exact posterior, with standard deviations times a factor."""

    def net(in_shape, out_shape, context=0):
        if context:
            return Line([0.5, -0.5], factor * math.sqrt(1 / 2))
        return Line([1 / 3], factor * math.sqrt(2 / 3))

    return pv.amortize(two_causes, X, net=net, structure=Forward())


def independent(shift=0.0):
    """The best independent latents: their precision is that of the posterior, 2."""
    return pv.amortize(two_causes, X, net=lambda *shapes: Line([1 / 3 + shift], math.sqrt(1 / 2)))


# calibration, gaps and importance weights


def test_calibration_passes_the_exact_posterior_alone():
    found = pv.evaluation.calibration(exact(), X, num_simulations=1000, progress=False)
    assert found.passed
    assert set(found.ranks) == {"a", "b", "log p(x|z)"}
    for wrong in (exact(factor=0.7), independent(), independent(shift=0.3)):
        assert not pv.evaluation.calibration(wrong, X, num_simulations=1000, progress=False).passed


def test_calibration_simulates_every_observed_argument():
    """Two measurements of z, one of them in the context: q(z | x, y) is N((x + y) / 3, 1/3)."""

    def model(x, y):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    for weights, passes in (([1 / 3, 1 / 3], True), ([2 / 3, 0.0], False)):
        program = pv.amortize(model, X, X, net=lambda *s, context=0, w=weights: Line(w, math.sqrt(1 / 3)))
        found = pv.evaluation.calibration(program, (X, X), num_simulations=1000, progress=False)
        assert found.passed == passes


def evidence(x, *context):
    return dist.Normal(number(0.0), math.sqrt(3)).log_prob(x)


def test_gaps_of_independent_latents():
    """The family loses log(4/3) / 2; a mean that is off by d in both latents loses 3 d^2 of precision."""
    shift = 0.1
    found = pv.evaluation.inference_gaps(
        independent(shift), X, evidence=evidence, num_steps=200, num_particles=2000, progress=False
    )
    family = 0.5 * math.log(4 / 3)
    assert abs(found.approximation.mean - family) < 4 * found.approximation.monte_carlo_error + 0.003
    encoder = float((3 * (shift * X) ** 2).mean())
    assert abs(found.amortization.mean - encoder) < 4 * found.amortization.monte_carlo_error + 0.003


def test_pareto_k_of_a_narrow_posterior():
    good, narrow = (
        pv.evaluation.log_likelihood(p, X, num_particles=2000, progress=False)
        for p in (independent(), exact(factor=0.4))
    )
    torch.testing.assert_close(good.per_example, evidence(X), atol=0.15, rtol=0)
    assert (good.pareto_k < 0.7).all()
    # the weights have the tail index 1 - 0.4^2
    assert abs(narrow.pareto_k.mean() - 0.84) < 0.1
    assert narrow.heavy > 0.7


# refinement of each row


@pytest.mark.slow
def test_a_refined_mean_field_is_the_best_one_of_each_row():
    """Precision 2 and mean x / 3 for both latents; the bound is the evidence minus log(4/3) / 2."""
    wrong = independent(shift=0.4)
    with torch.no_grad():
        for posterior in wrong.posteriors.values():
            posterior.net.body.raw.fill_(inverse_scale(1.5))
    before = {name: value.clone() for name, value in wrong.state_dict().items()}
    refined = pv.evaluation.Refined(wrong, num_steps=400, num_particles=64)
    terms = pv.trace.run(refined.model, refined.guide, (X,), num_particles=2)
    for site in terms.latent:
        mean, std = site.guide["fn"].mean, site.guide["fn"].stddev
        torch.testing.assert_close(mean.reshape(-1, 40)[0], X / 3, atol=0.06, rtol=0)
        torch.testing.assert_close(std.reshape(-1, 40)[0], torch.full_like(X, math.sqrt(1 / 2)), atol=0.06, rtol=0)
    bound = pv.estimators.ELBO(num_particles=4000).per_datum(refined.model, refined.guide, X)
    torch.testing.assert_close(bound.mean(), evidence(X).mean() - 0.5 * math.log(4 / 3), atol=0.02, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in wrong.state_dict().items())


def test_evaluations_of_a_refined_posterior():
    """It does not depend on the random state, and new rows in batches are refined as they come."""
    wrong = independent(shift=0.2)
    refined = pv.evaluation.Refined(wrong, num_steps=30)
    elbo, values = pv.estimators.ELBO(num_particles=500), []
    before, after = (elbo.per_datum(p.model, p.guide, X).mean() for p in (wrong, refined))
    assert after > before + 0.1
    for seed in range(2):
        torch.manual_seed(seed)
        q = pv.trace.run(refined.model, refined.guide, (X[:5],)).latent[0].guide["fn"]
        values.append(q.mean)
        state = torch.get_rng_state()
        refined.guide(X[:5])
        assert not torch.equal(state, torch.get_rng_state())
    assert torch.equal(*values)
    found = pv.evaluation.log_likelihood(refined, X, num_particles=1000, batch_size=15, progress=False)
    torch.testing.assert_close(found.per_example, evidence(X), atol=0.15, rtol=0)
    assert found.pareto_k.mean() < 0.5
    assert pv.tasks.embed(refined, X[:6]).mean.shape[0] == 6


def test_encoders_of_other_latents_are_not_refined():
    with pytest.raises(ValueError, match="program: .*encoders that take x alone"):
        pv.evaluation.Refined(exact()).guide(X)


# a model without a posterior in closed form

TIMES = torch.linspace(-1, 1, 8)


def curve(x):
    """Binary answers at eight doses, whose logits are a line of each patient."""
    with pyro.plate("data", len(x), dim=-1):
        line = pyro.sample("line", dist.Normal(torch.tensor([0.0, 1.0]), 1.5).to_event(1))
        logits = line[..., :1] + line[..., 1:] * 2 * TIMES
        pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


@pytest.mark.slow
def test_means_and_deviations_are_those_of_nuts():
    """In 4 standard errors of NUTS, by its effective sample size, and 0.08 for the encoder.

    Trained on simulations, a normal has mean and deviation of the posterior, whatever its shape.
    """
    rows = torch.tensor(
        [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 0], [1, 0, 1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 0, 1, 1, 0]]
    ).float()
    torch.manual_seed(0)
    program = pv.amortize(curve, rows, net=functools.partial(pv.nets.MLP, hidden=(64, 64)))
    for lr in (3e-3, 3e-4):
        optimizer = functools.partial(torch.optim.Adam, lr=lr)
        options = {"estimator": pv.estimators.ForwardKL(), "optimizer": optimizer, "batch_size": 500}
        pv.fit(program, torch.zeros(50_000, 8), epochs=12, progress=False, **options)
    chain = infer.MCMC(infer.NUTS(curve), num_samples=1500, warmup_steps=300, disable_progbar=True)
    pyro.set_rng_seed(0)
    chain.run(rows)
    samples, found = chain.get_samples()["line"], chain.diagnostics()["line"]["n_eff"]
    q = program.posteriors["line"](rows)
    mean, std = samples.mean(0), samples.std(0)
    assert ((q.mean - mean).abs() < 4 * std / found.sqrt() + 0.08).all()
    assert ((q.stddev - std).abs() < 4 * std / (2 * found).sqrt() + 0.08).all()
    assert (found > 300).all()


# run folders


def test_a_run_is_loaded_into_the_same_program(tmp_path):
    program = pv.amortize(two_causes, X, net=SMALL)
    pv.fit(program, X, epochs=1, run_dir=tmp_path, progress=False)
    again = pv.load(tmp_path, pv.amortize(two_causes, X, net=SMALL))
    for name, value in program.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    pv.fit(again, X, epochs=2, run_dir=tmp_path, resume=True, progress=False)
    with pytest.raises(ValueError, match="program: .*another program"):
        pv.load(tmp_path, pv.amortize(two_causes, X, net=SMALL, structure=Forward()))


def test_a_run_without_its_program_names_what_to_build(tmp_path):
    pv.fit(pv.amortize(two_causes, X, net=SMALL), X, epochs=1, run_dir=tmp_path, progress=False)
    with pytest.raises(
        ValueError, match=r"^run_dir: .*two_causes.*pyro_vae\.amortize.*pyro_vae\.load\(run_dir, program\)$"
    ):
        pv.load(tmp_path)
