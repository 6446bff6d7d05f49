"""Weights of a BayesianDecoder with a dimension for particles: each particle decodes with its own weights."""

import functools

import pyro
import pytest
import torch
from pyro import infer, poutine
from pyro.contrib.gp.kernels import RBF
from torch import nn

import pyro_vae as pv
from pyro_vae.testing import parts

PARTICLES, ROWS = 3, 5
SMALL = functools.partial(pv.nets.MLP, hidden=(8,))


def make(likelihood=None, shape=(4,), context=0, **options):
    return pv.programs.BayesianDecoder(
        prior=pv.priors.StandardNormal(3),
        likelihood=likelihood or pv.likelihoods.Normal(3, shape, net=SMALL, context=context),
        posterior=pv.posteriors.MeanFieldNormal(shape, 3, net=SMALL, context=context),
        num_examples=12,
        initial_std=0.5,
        **options,
    )


def with_network():
    for kind in parts(pv.likelihoods):
        likelihood = kind.example()
        if isinstance(getattr(likelihood, "net", None), nn.Module):
            yield pytest.param(kind, id=kind.__name__)


def both_traces(program, x, *context):
    """Return traces of guide and model with a plate over particles, and those of each particle alone."""
    with pyro.plate("particles", PARTICLES, dim=-2):
        guide = poutine.trace(program.guide).get_trace(x, *context)
        model = poutine.trace(poutine.replay(program.model, guide)).get_trace(x, *context)
    alone = []
    for k in range(PARTICLES):
        data = {"weights": guide.nodes["weights"]["value"][k, 0], "z": guide.nodes["z"]["value"][k]}
        alone.append(
            [poutine.trace(poutine.condition(f, data)).get_trace(x, *context) for f in (program.guide, program.model)]
        )
    return guide, model, alone


@pytest.mark.parametrize("kind", list(with_network()))
def test_each_particle_decodes_with_its_own_weights(kind):
    likelihood = kind.example(latent=3).double()
    fn = likelihood(torch.zeros(ROWS, 3).double())
    x = fn.sample().double()
    program = make(likelihood, fn.event_shape).double().eval()
    guide, model, alone = both_traces(program, x)
    assert guide.nodes["weights"]["value"].shape[:2] == (PARTICLES, 1)
    for site in ("weights", "z", "x"):
        found = model.nodes[site]["fn"].log_prob(model.nodes[site]["value"])
        for k in range(PARTICLES):
            node = alone[k][1].nodes[site]
            expected = node["fn"].log_prob(node["value"])
            torch.testing.assert_close(found[k].reshape(expected.shape), expected, msg=site)
    assert not torch.allclose(*model.nodes["x"]["fn"].log_prob(x)[:2])
    torch.testing.assert_close(model.log_prob_sum(), sum(t[1].log_prob_sum() for t in alone))
    torch.testing.assert_close(guide.log_prob_sum(), sum(t[0].log_prob_sum() for t in alone))


@pytest.mark.parametrize("net", [pv.nets.ConvDecoder, SMALL])
def test_gradients_are_those_of_each_particle(net):
    program = make(pv.likelihoods.Bernoulli(3, (8, 8), net=net), (8, 8)).double()
    guide, model, alone = both_traces(program, torch.rand(ROWS, 8, 8).round().double())
    parameters = [p for p in program.parameters() if p.requires_grad]
    loss = guide.log_prob_sum() - model.log_prob_sum()
    expected = sum(g.log_prob_sum() - m.log_prob_sum() for g, m in alone)
    for a, b in zip(
        torch.autograd.grad(loss, parameters, retain_graph=True),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_context_and_enumerated_latents_are_broadcast():
    """A context per row; latents with enumerated values on the left of the particles."""
    program = make(context=2)
    weights = program.weights().expand((PARTICLES, 1)).sample()
    z, c = torch.randn(2, 1, ROWS, 3), torch.randn(ROWS, 2)
    fn = program.decode_with(weights, z, c)
    assert fn.batch_shape == (2, PARTICLES, ROWS)
    for k in range(PARTICLES):
        expected = program.decode_with(weights[k, 0], z[:, 0], c)
        torch.testing.assert_close(fn.mean[:, k], expected.mean)
    two = weights.reshape(1, PARTICLES, 1, -1)
    torch.testing.assert_close(program.decode_with(two, z, c).mean, fn.mean)


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_returns_samples_of_posterior_and_prior(parallel):
    program, x = make(), torch.randn(ROWS, 4)
    posterior = infer.Predictive(program.model, guide=program.guide, num_samples=7, parallel=parallel)(x)
    assert posterior["z"].shape == (7, ROWS, 3)
    prior = infer.Predictive(poutine.uncondition(program.model), num_samples=7, parallel=parallel)(x)
    assert prior["x"].shape == (7, ROWS, 4)
    assert prior["x"].std(0).min() > 0


ELBOS = {
    "Trace_ELBO": infer.Trace_ELBO,
    "TraceMeanField_ELBO": infer.TraceMeanField_ELBO,
    "TraceGraph_ELBO": infer.TraceGraph_ELBO,
    "TraceEnum_ELBO": functools.partial(infer.TraceEnum_ELBO, max_plate_nesting=1),
    "RenyiELBO": functools.partial(infer.RenyiELBO, alpha=0),
    "Trace_MMD": functools.partial(infer.Trace_MMD, kernel=RBF(3)),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ELBOS)
def test_vectorized_estimators_of_pyro_train_all_parameters(name):
    program, x = make(), torch.randn(ROWS, 4)
    before = {n: p.detach().clone() for n, p in program.named_parameters() if p.requires_grad}
    elbo = ELBOS[name](num_particles=3, vectorize_particles=True)
    run = infer.SVI(program.model, program.guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    for _ in range(2):
        assert abs(run.step(x)) < float("inf")
    assert not [n for n, p in program.named_parameters() if n in before and torch.equal(p, before[n])]
    if name != "Trace_MMD":  # its kernel is a PyroModule
        assert len(pyro.get_param_store()) == 0


def test_a_network_with_batch_statistics_is_refused_in_training():
    net = lambda inputs, outputs: nn.Sequential(nn.BatchNorm1d(*inputs), nn.Linear(*inputs, outputs[-1]))  # noqa: E731
    program, x = make(pv.likelihoods.Bernoulli(3, (4,), net=net)), torch.rand(ROWS, 4).round()
    elbo = infer.Trace_ELBO(num_particles=2, vectorize_particles=True)
    with pytest.raises(ValueError, match="likelihood.*vectorize_particles=False"):
        elbo.loss(program.model, program.guide, x)
    assert elbo.loss(program.eval().model, program.guide, x) > 0
