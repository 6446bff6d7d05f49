"""SequenceVAE: a linear-Gaussian state space model with the exact guide, and padding that changes nothing."""

import functools
import math

import pyro
import pytest
import torch
from helpers.state_space import FEATURES, Exact, Q, Toy, padded
from pyro import distributions as dist
from pyro import poutine

import pyro_vae as pv

LENGTHS = torch.tensor([6, 1, 4, 6, 2, 5])
ELBO = functools.partial(pv.estimators.ELBO, analytic_kl=False)


def sequences(program, steps=6):
    return program.sample(len(LENGTHS), length=steps)


def standard(likelihood=None, latent=2):
    net = functools.partial(pv.nets.MLP, hidden=(16,))
    return pv.programs.SequenceVAE(
        prior=pv.priors.Normal(latent),
        transition=pv.priors.ConditionalNormal(latent, context=latent, net=net),
        likelihood=likelihood or pv.likelihoods.Normal(latent, (FEATURES,), net=net),
        posterior=pv.posteriors.MeanFieldNormal((8,), latent, context=latent, net=net),
        summary=pv.programs.BackwardGRU((FEATURES,), 8),
    ).double()


@pytest.mark.parametrize("num_particles", [1, 4])
def test_bound_with_the_exact_guide_is_the_evidence_at_every_length(num_particles):
    toy = Toy()
    x = padded(sequences(toy.program), LENGTHS, math.nan)
    exact = toy.evidence(x, LENGTHS)
    model, guide = toy.program.model, toy.program.guide
    found = ELBO(num_particles=num_particles).per_datum(model, guide, x, LENGTHS)
    assert torch.allclose(found, exact, atol=1e-9)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    found = ELBO(num_particles=num_particles).per_datum(model, guide, x[order], LENGTHS[order].double())
    assert torch.allclose(found, exact[order], atol=1e-9)
    found = pv.evaluation.log_likelihood(toy.program, (x, LENGTHS), num_particles=num_particles)
    assert torch.allclose(found.per_example, exact, atol=1e-9)


def test_missing_entries_leave_the_evidence_of_the_observed_ones():
    """With the exact guide given the observed entries, among them a step without any; and at any guide in training."""
    toy = Toy(missing=True)
    complete = sequences(toy.program)
    found = ELBO().per_datum(toy.program.model, toy.program.guide, complete)
    assert torch.allclose(found, toy.evidence(complete, [6] * 6), atol=1e-9)
    x = torch.where(torch.rand(complete.shape) < 0.4, math.nan, complete)
    x[0, 2], x[:, 0, 0] = math.nan, complete[:, 0, 0]
    found = ELBO(num_particles=3).per_datum(toy.program.model, toy.program.guide, x, LENGTHS)
    assert torch.allclose(found, toy.evidence(x, LENGTHS), atol=1e-9)
    program = pv.programs.SequenceVAE.example(missing=True)
    x = torch.where(torch.rand(30, 5, 4) < 0.4, math.nan, torch.randn(30, 5, 4))
    assert math.isfinite(pv.fit(program, x, epochs=2, progress=False)["loss"][-1])
    assert all(p.isfinite().all() for p in program.parameters())
    with pytest.raises(ValueError, match="^x: .*NaN.*missing=True"):
        pv.fit(pv.programs.SequenceVAE.example(), x, epochs=1, progress=False)


def test_off_the_exact_guide_the_bound_is_below_and_importance_sampling_is_right():
    toy = Toy(off=0.25)
    x = sequences(toy.program)
    exact = toy.evidence(x, LENGTHS)
    found = pv.evaluation.log_likelihood(toy.program, (x, LENGTHS), num_particles=2000)
    assert ((found.per_example - exact).abs() < 4 * found.per_example_error).all()
    closed, drawn = pv.estimators.ELBO(num_particles=200), ELBO(num_particles=200)
    with torch.no_grad():
        bounds = [
            torch.stack([e.per_datum(toy.program.model, toy.program.guide, x, LENGTHS) for _ in range(10)])
            for e in (closed, drawn)
        ]
    error = (bounds[0].var(0) / 10 + bounds[1].var(0) / 10).sqrt()
    assert ((bounds[0].mean(0) - bounds[1].mean(0)).abs() < 4.5 * error).all()
    assert (bounds[0].mean(0) + 4 * error < exact).all()
    forms = closed.kl_forms(toy.program.model, toy.program.guide, x, LENGTHS)
    assert set(forms.values()) == {"closed form"}
    assert list(forms) == [f"z_{t}" for t in range(1, 7)]


def test_latents_are_the_smoothed_means():
    """Against the maximum of log p(x, z), which is quadratic in z."""
    toy = Toy()
    x = sequences(toy.program)[:1]

    def minus_log_joint(z):
        data = {f"z_{t + 1}": z[t : t + 1] for t in range(6)}
        return -poutine.trace(poutine.condition(toy.program.model, data)).get_trace(x).log_prob_sum()

    zero = torch.zeros(6, 2, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(minus_log_joint(zero), zero)[0].flatten()
    hessian = torch.autograd.functional.hessian(minus_log_joint, zero).reshape(12, 12)
    maximum = -torch.linalg.solve(hessian, gradient).reshape(6, 2)
    assert torch.allclose(toy.program.latents(x)[0], maximum, atol=1e-9)


def test_forecast_is_the_exact_predictive_distribution():
    toy, n = Toy(), 20000
    x = sequences(toy.program)[:1]
    means, covariances = toy.ahead(x[0, :4], 2)
    many = padded(x, torch.tensor([4]), math.nan).expand(n, -1, -1)
    ahead = toy.program.forecast(many, torch.full((n,), 4), num_steps=2)
    assert ahead.shape == (n, 2, FEATURES)
    for t, (mean, seen) in enumerate(zip(means, covariances, strict=True)):
        error = (seen.diagonal() / n).sqrt()
        assert ((ahead[:, t].mean(0) - mean).abs() < 4 * error).all()
        # variance of an entry of the empirical covariance: (c_ii c_jj + c_ij^2) / n
        error = ((seen.diagonal().outer(seen.diagonal()) + seen.square()) / n).sqrt()
        assert ((ahead[:, t].T.cov() - seen).abs() < 4 * error).all()


LIKELIHOODS = {
    "factorized": lambda: pv.likelihoods.Normal(2, (FEATURES,)),
    "scale fitted to the batch": lambda: pv.likelihoods.Normal(2, (FEATURES,), scale=pv.scales.OptimalSigma()),
    "not factorized": lambda: pv.likelihoods.LowRankNormal(2, (FEATURES,)),
    "binary": lambda: pv.likelihoods.Bernoulli(2, (FEATURES,)),
}


def loss_and_gradient(program, estimator, *batch):
    program = program.train()
    program.zero_grad()
    for module in program.modules():
        if isinstance(module, pv.scales.OptimalSigma):
            module.variance.fill_(1.0)
    torch.manual_seed(0)
    loss = estimator.differentiable_loss(program.model, program.guide, *batch)
    loss.backward()
    return [loss.detach(), *(p.grad for p in program.parameters()), *program.buffers()]


@pytest.mark.parametrize("num_particles", [1, 3])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_padding_leaves_bound_and_gradient_of_the_unpadded(name, num_particles):
    program = standard(LIKELIHOODS[name]())
    x = torch.rand(5, 7, FEATURES).double().round()
    elbo, lengths = pv.estimators.ELBO(num_particles=num_particles), torch.full((5,), 3)
    alone = [v.clone() for v in loss_and_gradient(program, elbo, x[:, :3])]
    together = loss_and_gradient(program, elbo, x, lengths)
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -7.5, 1e300])
def test_values_in_the_padding_change_nothing(name, value):
    program = standard(LIKELIHOODS[name]())
    x = torch.rand(len(LENGTHS), 6, FEATURES).double().round()
    elbo = pv.estimators.ELBO()
    first = [v.clone() for v in loss_and_gradient(program, elbo, x, LENGTHS)]
    second = loss_and_gradient(program, elbo, padded(x, LENGTHS, value), LENGTHS)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    program.check(padded(x, LENGTHS, value), LENGTHS)


def test_rows_of_different_lengths_are_those_rows_alone():
    """At the same latents, the log-weights and gradients of rows cut to their lengths add up."""
    program = standard()
    x = sequences(program)
    drawn = poutine.trace(program.guide).get_trace(x, LENGTHS)
    z = {name: drawn.nodes[name]["value"].detach() for name in drawn.stochastic_nodes}

    def log_weight(data, *batch):
        of = lambda run: poutine.trace(poutine.condition(run, data)).get_trace(*batch).log_prob_sum()  # noqa: E731
        return of(program.model) - of(program.guide)

    parameters = list(program.parameters())
    together = log_weight(z, x, LENGTHS)
    alone = sum(
        log_weight({name: value[i : i + 1] for name, value in z.items()}, x[i : i + 1, :n])
        for i, n in enumerate(LENGTHS.tolist())
    )
    assert torch.allclose(together, alone, rtol=1e-12)
    pairs = zip(torch.autograd.grad(together, parameters), torch.autograd.grad(alone, parameters), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in pairs)


def test_a_chain_that_explodes_beyond_the_end_has_a_finite_gradient():
    program = standard()
    with torch.no_grad():
        program.posterior.net.body[-1].weight.mul_(1e3)
    x = torch.randn(4, 200, FEATURES).double()
    values = loss_and_gradient(program, pv.estimators.ELBO(), x, torch.tensor([1, 2, 1, 2]))
    assert all(v.isfinite().all() for v in values)


def test_training_the_guide_closes_the_gap():
    toy = Toy(latent=1)
    program = standard(latent=1)
    program.prior, program.transition, program.likelihood = (
        part.requires_grad_(False) for part in (toy.program.prior, toy.program.transition, toy.program.likelihood)
    )
    x = program.sample(1000, length=4)
    lengths = torch.arange(1000) % 4 + 1
    adam = functools.partial(torch.optim.Adam, lr=2e-2)
    pv.fit(program, (x, lengths), optimizer=adam, epochs=4, progress=False)
    x, lengths = program.sample(200, length=4, seed=1), torch.arange(200) % 4 + 1
    with torch.no_grad():
        found = pv.estimators.ELBO(num_particles=200).per_datum(program.model, program.guide, x, lengths)
    gap = toy.evidence(x, lengths) - found
    assert 0 < gap.mean() < 0.05


class Diagonal(Exact):
    """The best q(z_t given z_(t-1), x) with independent latents: exact means, and the diagonal of the precision."""

    def forward(self, h, z):
        fn = super().forward(h, z)
        return dist.Normal(fn.mean, fn.precision_matrix.diagonal(dim1=-2, dim2=-1).rsqrt()).to_event(1)


def test_gap_of_independent_latents_is_that_of_their_correlations():
    """Half the log of the product of the diagonal over the determinant of each precision, within 4 standard errors."""
    toy, n = Toy(), 4000
    x = sequences(toy.program, 12)[:1].expand(n, -1, -1)
    toy.program.posterior = Diagonal(toy.a)
    h = toy.program.summary(x[:1], torch.tensor([12]))
    precision = h[0, :, 2:].reshape(12, 2, 2) + torch.eye(2).double() / Q**2
    exact = (precision.diagonal(dim1=-2, dim2=-1).log().sum(-1) - precision.logdet()).sum() / 2
    found = toy.evidence(x[:1], [12]) - ELBO().per_datum(toy.program.model, toy.program.guide, x).detach()
    assert (found.mean() - exact).abs() < 4 * found.std() / math.sqrt(n)
    assert exact > 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("posterior", "most"), [("FullRankNormal", 0.15), ("MeanFieldNormal", 0.6)])
def test_a_trained_linear_model_reaches_the_evidence(posterior, most):
    """Within the gap of the family (0.3 nats for independent latents): all parameters are learned from the data.

    The weights of a linear model have to move by about 1, which takes thousands of steps at a learning rate of 1e-3.
    """
    toy, steps, linear = Toy(), 12, functools.partial(pv.nets.MLP, hidden=())
    x, valid = (toy.program.sample(n, length=steps, seed=seed) for n, seed in ((2000, 1), (500, 2)))
    program = pv.programs.SequenceVAE(
        prior=pv.priors.Normal(2),
        transition=pv.priors.ConditionalNormal(2, context=2, net=linear),
        likelihood=pv.likelihoods.Normal(2, (FEATURES,), net=linear, scale=pv.scales.Shared(1.0)),
        posterior=getattr(pv.posteriors, posterior)((32,), 2, context=2, net=linear),
        summary=pv.programs.BackwardGRU((FEATURES,), 32),
    ).double()
    adam, decay = functools.partial(torch.optim.Adam, lr=1e-2), pv.training.Cosine(600)
    pv.fit(program, x, optimizer=adam, lr_schedule=decay, epochs=30, batch_size=100, progress=False)
    with torch.no_grad():
        found = ELBO(num_particles=20).per_datum(program.model, program.guide, valid)
    assert (toy.evidence(valid, [steps] * 500) - found).mean() < most


def test_stock_pyro_takes_sequences_with_lengths():
    program = standard()
    x = padded(sequences(program), LENGTHS, math.nan)
    before = [p.detach().clone() for p in program.parameters()]
    for elbo in (pyro.infer.Trace_ELBO(), pyro.infer.TraceMeanField_ELBO(), pyro.infer.RenyiELBO(num_particles=2)):
        svi = pyro.infer.SVI(program.model, program.guide, pyro.optim.Adam({"lr": 1e-3}), elbo)
        assert math.isfinite(svi.step(x, LENGTHS))
    assert not any(torch.equal(p, b) for p, b in zip(program.parameters(), before, strict=True))
    found = pyro.infer.Predictive(program.model, guide=program.guide, num_samples=5)(x, LENGTHS)
    assert found["z_6"].shape == (5, 6, 2)
    assert program.reconstruct(x, LENGTHS).shape == x.shape
    assert program.sample(3, length=9, mean=True).shape == (3, 9, FEATURES)


def test_bad_input_is_refused():
    program = standard(pv.likelihoods.Bernoulli(2, (FEATURES,)))
    x = torch.ones(3, 4, FEATURES).double()

    def refused(message, *data, program=program):
        with pytest.raises(ValueError, match=message):
            pv.fit(program, data if len(data) > 1 else data[0], epochs=1, progress=False)

    refused(r"^x: .*\(n, T, 3\).*\(3, 3\)", x[:, 0])
    refused(r"^lengths: .*lengths\[1\] is 5", x, torch.tensor([4, 5, 0]))
    refused(r"^lengths: .*lengths\[2\] is 0", x, torch.tensor([4, 2, 0]))
    refused(r"^lengths: .*lengths\[0\] is 1.5", x, torch.tensor([1.5, 2, 1]))
    refused(r"^lengths: .*lengths\[2\] is nan", x, torch.tensor([1, 2, math.nan]))
    refused(r"^lengths: .*\(3, 1\)", x, torch.ones(3, 1))
    refused("^data", x, torch.ones(3), torch.ones(3))
    spoiled = x.clone()
    spoiled[1, 2, 0] = math.nan
    refused(r"^x: .*x\[1, 2, 0\] is NaN", spoiled, torch.tensor([1, 3, 1]))
    refused(r"^x: x\[1, 2, 0\] is 2", torch.nan_to_num(spoiled, 2.0), torch.tensor([1, 3, 1]))
    program.transition = pv.priors.ConditionalNormal(3, context=2).double()
    refused("^z_2: .*posterior MeanFieldNormal and transition ConditionalNormal", x)
