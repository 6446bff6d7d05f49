"""SequenceVAE with inputs of each step: held to the Kalman smoother, with holes, padding and different lengths."""

import functools
import math

import pytest
import torch
from helpers.state_space import FEATURES, Toy, padded

import pyro_vae as pv

LENGTHS, WIDTH = torch.tensor([6, 1, 4, 6, 2, 5]), 2
ELBO = functools.partial(pv.estimators.ELBO, analytic_kl=False)


def case(missing=True, **options):
    """Return a toy with inputs, sequences with a third of the entries missing, their lengths and inputs."""
    toy = Toy(missing=missing, inputs=WIDTH, **options)
    g = torch.Generator().manual_seed(1)
    inputs = torch.randn(len(LENGTHS), 9, WIDTH, generator=g, dtype=torch.float64)
    x = toy.program.sample(len(LENGTHS), length=6, inputs=inputs)
    if missing:
        hidden = torch.rand(x.shape, generator=g) < 0.35
        hidden[:, 0, 0], hidden[0, 2] = False, True  # an observed entry in each sequence; a step without any
        x = torch.where(hidden, math.nan, x)
    return toy, padded(x, LENGTHS, math.nan), LENGTHS, padded(inputs, LENGTHS + 3, math.nan)


def test_kalman_filter_is_the_dense_joint_normal():
    """The oracle itself, with missing entries and inputs."""
    toy, x, lengths, inputs = case()
    for row, n, u in zip(x, lengths, inputs, strict=True):
        assert torch.allclose(toy.kalman(row[:n], u[:n])[0], toy.dense(row[:n], u[:n])[0], atol=1e-10)
    evidence, smoothed = toy.dense(x[0], inputs[0, :6])
    assert torch.allclose(toy.kalman(x[0], inputs[0, :6])[1], smoothed[-1], atol=1e-10)


@pytest.mark.parametrize("num_particles", [1, 4])
@pytest.mark.parametrize("missing", [True, False])
def test_bound_with_the_exact_guide_is_the_evidence(missing, num_particles):
    toy, *batch = case(missing)
    exact = toy.evidence(*batch)
    found = ELBO(num_particles=num_particles).per_datum(toy.program.model, toy.program.guide, *batch)
    assert torch.allclose(found, exact, atol=1e-9)
    found = pv.evaluation.log_likelihood(toy.program, tuple(batch), num_particles=num_particles, progress=False)
    assert torch.allclose(found.per_example, exact, atol=1e-9)


def test_importance_sampling_off_the_exact_guide():
    """Within 4 standard errors."""
    toy, *batch = case(off=0.25)
    found = pv.evaluation.log_likelihood(toy.program, tuple(batch), num_particles=2000, progress=False)
    assert ((found.per_example - toy.evidence(*batch)).abs() < 4 * found.per_example_error).all()


def test_latents_are_the_smoothed_means():
    toy, x, lengths, inputs = case()
    found = toy.program.latents(x, lengths, inputs)
    for row, n, u, z in zip(x, lengths, inputs, found, strict=True):
        assert torch.allclose(z[:n], toy.dense(row[:n], u[:n])[1], atol=1e-9)


def gradients(program, *batch):
    program.zero_grad()
    torch.manual_seed(0)
    loss = pv.estimators.ELBO().differentiable_loss(program.model, program.guide, *batch)
    loss.backward()
    return [loss.detach(), *(p.grad for p in program.parameters())]


@pytest.mark.parametrize("value", [math.inf, -7.5, 1e300])
def test_padding_and_inputs_after_the_end_change_nothing(value):
    program = pv.programs.SequenceVAE.example(inputs=WIDTH, missing=True).double()
    x, inputs = torch.randn(6, 6, 4).double(), torch.randn(6, 9, WIDTH).double()
    x[0, 2], x[1, 0, 1] = math.nan, math.nan
    first = [v.clone() for v in gradients(program, padded(x, LENGTHS, math.nan), LENGTHS, inputs)]
    assert all(v.isfinite().all() for v in first)
    second = gradients(program, padded(x, LENGTHS, value), LENGTHS, padded(inputs, LENGTHS, value))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    program.check(padded(x, LENGTHS, value), LENGTHS, padded(inputs, LENGTHS, value))


def test_every_input_of_a_step_counts():
    """Each one changes the bound of its own sequence alone."""
    program = pv.programs.SequenceVAE.example(inputs=WIDTH).double()
    x, inputs = torch.randn(6, 6, 4).double(), torch.randn(6, 6, WIDTH).double()

    def bounds():
        torch.manual_seed(0)
        with torch.no_grad():
            return pv.estimators.ELBO().per_datum(program.model, program.guide, x, LENGTHS, inputs)

    before = bounds()
    for t in range(4):
        inputs[2, t, 1] += 1.0
        changed = bounds() != before
        assert changed.tolist() == [False, False, True, False, False, False]
        inputs[2, t, 1] -= 1.0


@pytest.mark.parametrize("net", [pv.nets.MLP, pv.nets.ZeroImputed])
def test_backward_gru_reads_the_steps_and_inputs_from_t_on(net):
    gru = pv.programs.BackwardGRU((FEATURES,), 5, context=WIDTH, net=net)
    x, inputs = torch.randn(2, 6, FEATURES), torch.randn(2, 6, WIDTH)
    lengths, before = torch.tensor([4, 6]), None
    for t in range(6):
        changed, other = x.clone(), inputs.clone()
        changed[:, t] += 1.0
        other[:, t] += 1.0
        before = gru(x, lengths, inputs)
        for found in (gru(changed, lengths, inputs), gru(x, lengths, other)):
            moved = (found != before).any(-1)
            assert moved[1].tolist() == [s <= t for s in range(6)]
            assert moved[0, :4].tolist() == [s <= t < 4 for s in range(4)]
    assert gru.takes_missing is (net is pv.nets.ZeroImputed)


@pytest.mark.slow
def test_training_learns_the_effect_of_an_input():
    """x_t is the input of the step and noise of scale 0.1: log p(x_t) of a model without inputs is far below."""
    g = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 4, 1, generator=g)
    x = inputs + 0.1 * torch.randn(200, 4, 1, generator=g)
    x = torch.where(torch.rand(x.shape, generator=g) < 0.2, math.nan, x)
    x[:, 0] = x[:, 0].nan_to_num()
    lengths = torch.arange(200) % 4 + 1
    net = functools.partial(pv.nets.MLP, hidden=(16,))
    program = pv.programs.SequenceVAE(
        prior=pv.priors.StandardNormal(1),
        transition=pv.priors.ConditionalNormal(1, context=1 + 1, net=net),
        likelihood=pv.likelihoods.Normal(1, (1,), context=1, net=net, scale=pv.scales.Shared(0.5)),
        posterior=pv.posteriors.MeanFieldNormal((8,), 1, context=1, net=net),
        summary=pv.programs.BackwardGRU((1,), 8, context=1, net=pv.nets.ZeroImputed),
        inputs=1,
        missing=True,
    )
    adam = functools.partial(torch.optim.Adam, lr=3e-2)
    pv.fit(program, (x, lengths, inputs), optimizer=adam, epochs=12, batch_size=32, progress=False)
    ahead = program.forecast(x[:, :3], lengths.clamp(max=3), inputs, num_steps=1, mean=True)
    truth = torch.take_along_dim(inputs, lengths.clamp(max=3)[:, None, None], 1)
    assert (ahead - truth).square().mean() < 0.05


def test_imputed_entries_are_those_of_the_smoother():
    """Within 5 standard errors; entries after the end of a sequence are not imputed."""
    toy, x, lengths, inputs = case()
    found = pv.tasks.impute(toy.program, (x, lengths, inputs), num_particles=4000, num_samples=5, progress=False)
    for i, (row, n, u) in enumerate(zip(x, lengths, inputs, strict=True)):
        exact = toy.dense(row[:n], u[:n])[1] @ toy.c.T + u[:n] @ toy.d.T
        hidden = row[:n].isnan()
        assert torch.equal(found.missing[i, :n], hidden)
        assert not found.missing[i, n:].any()
        assert ((found.x[i, :n] - exact)[hidden].abs() < 5 * 1.5 / 4000**0.5).all()  # the std of C z is below 1.5
        assert torch.equal(found.x[i, :n][~hidden], row[:n][~hidden])
    assert pv.tasks.reconstruct(toy.program, (x, lengths, inputs), progress=False).shape == x.shape


def test_bad_inputs_are_refused():
    program = pv.programs.SequenceVAE.example(inputs=WIDTH, missing=True)
    x, lengths, inputs = torch.randn(3, 4, 4), torch.tensor([4, 2, 3]), torch.randn(3, 4, WIDTH)

    def refused(message, *data, program=program):
        with pytest.raises(ValueError, match=message):
            pv.fit(program, data if len(data) > 1 else data[0], epochs=1, progress=False)

    refused(r"^inputs: expected shape \(3, 4 or more, 2\).*got none", x)
    refused(r"^inputs: .*got none", x, lengths)
    refused(r"^lengths: .*\(x, lengths, inputs\)", x, inputs)
    refused(r"^inputs: .*\(3, 3, 2\)", x, lengths, inputs[:, :3])
    refused(r"^inputs: .*\(3, 4, 1\)", x, lengths, inputs[..., :1])
    spoiled = inputs.clone()
    spoiled[1, 3] = math.nan
    program.check(x, lengths, spoiled)
    spoiled[1, 1, 0] = math.nan
    refused(r"^inputs: .*inputs\[1, 1, 0\] is NaN", x, lengths, spoiled)
    x[2, :3] = math.nan
    refused(r"^x: .*all of x\[2\] are missing", x, lengths, inputs)
    refused("^data: .*got 3 columns", x[:2], lengths[:2], inputs[:2], program=pv.programs.SequenceVAE.example())
    with pytest.raises(ValueError, match="^inputs: .*none"):
        pv.programs.SequenceVAE.example().sample(3, length=2, inputs=inputs)
    with pytest.raises(ValueError, match="^inputs: .*got none"):
        program.sample(3, length=2)
    with pytest.raises(ValueError, match=r"^inputs: .*\(2, 6 or more, 2\).*after the end"):
        program.forecast(x[:2], lengths[:2], inputs[:2], num_steps=2)
    parts = {n: getattr(program, n) for n in ("prior", "likelihood", "posterior", "transition", "summary")}
    narrow = pv.priors.ConditionalNormal(2, context=2)
    with pytest.raises(ValueError, match="^transition: .*context=4"):
        pv.programs.SequenceVAE(**{**parts, "transition": narrow}, inputs=WIDTH)
    with pytest.raises(ValueError, match="^transition: .*context=2"):
        pv.programs.SequenceVAE(**parts)
    blind = pv.programs.SequenceVAE(**{**parts, "summary": pv.programs.BackwardGRU((4,), 6)}, inputs=WIDTH)
    refused("^context: .*BackwardGRU", x[:2], lengths[:2], inputs[:2], program=blind)
    with pytest.raises(ValueError, match="^num_steps"):
        program.forecast(x[:2], lengths[:2], inputs[:2], num_steps=0)
