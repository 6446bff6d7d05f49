"""A VAE under Pyro alone: every ELBO that Pyro ships, several models, copies, an empty parameter store."""

import copy
import io
import pickle
import warnings

import pyro
import pytest
import torch
from helpers.programs import make_vae
from pyro import infer, poutine
from pyro.contrib.gp.kernels import RBF

import pyro_vae as pv

ELBOS = {
    "Trace_ELBO": infer.Trace_ELBO,
    "Trace_ELBO, 3 particles at once": lambda: infer.Trace_ELBO(num_particles=3, vectorize_particles=True),
    "TraceMeanField_ELBO": infer.TraceMeanField_ELBO,
    "TraceGraph_ELBO": infer.TraceGraph_ELBO,
    "TraceEnum_ELBO": lambda: infer.TraceEnum_ELBO(max_plate_nesting=1),
    "TraceTMC_ELBO": lambda: infer.TraceTMC_ELBO(max_plate_nesting=1),
    "RenyiELBO": lambda: infer.RenyiELBO(alpha=0, num_particles=2),
    "RenyiELBO, at once": lambda: infer.RenyiELBO(alpha=0, num_particles=2, vectorize_particles=True),
    "TraceTailAdaptive_ELBO": lambda: infer.TraceTailAdaptive_ELBO(num_particles=3, vectorize_particles=True),
    "ReweightedWakeSleep": lambda: infer.ReweightedWakeSleep(num_particles=2, vectorize_particles=False),
    "Trace_MMD": lambda: infer.Trace_MMD(kernel=RBF(3), num_particles=3, vectorize_particles=True),
    "ours": pv.estimators.ELBO,
}


def batch(n=7):
    return torch.rand(n, 8, 8).round()


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def moved(module, before):
    return [not torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True)]


def step(svi, x):
    with warnings.catch_warnings():
        # warnings of Pyro (nothing to enumerate, say) do not matter here
        warnings.simplefilter("ignore")
        return svi.step(x)


def stock(vae, elbo=None):
    return infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), elbo or infer.Trace_ELBO())


@pytest.mark.parametrize("name", ELBOS)
def test_every_elbo_of_pyro_trains_it(name):
    vae = make_vae()
    if name == "Trace_MMD":
        # its kernel is a PyroModule, and it compares samples from prior and guide
        vae.likelihood = pv.likelihoods.Normal(3, (8, 8))
    before = weights(vae)
    svi = stock(vae, ELBOS[name]())
    for _ in range(2):
        step(svi, batch())
    trained = moved(vae, before)
    assert all(trained), [n for (n, _), m in zip(vae.named_parameters(), trained, strict=True) if not m]
    # the kernel of Trace_MMD has two parameters there
    assert set(pyro.get_param_store().keys()) <= {"variance", "lengthscale"}


def test_predictive_and_handlers_work():
    vae, x = make_vae(), batch()
    found = infer.Predictive(vae.model, guide=vae.guide, num_samples=10)(x)
    assert found["z"].shape == (10, 7, 3)
    prior = infer.Predictive(poutine.uncondition(vae.model), num_samples=4, parallel=True)(x)
    assert prior["x"].shape == (4, 7, 8, 8)
    fixed = poutine.condition(vae.model, data={"z": torch.zeros(7, 3)})
    assert poutine.trace(fixed).get_trace(x).nodes["z"]["is_observed"]
    assert poutine.trace(vae.model).get_trace(x).nodes["data"]["value"].shape == (7,)
    assert len(pyro.get_param_store()) == 0


def test_a_second_model_with_the_same_names_trains_alone():
    first, second = make_vae(), make_vae()
    x, steps = batch(), []
    for vae in (first, second):
        svi = stock(vae)
        others = weights(second if vae is first else first)
        before = weights(vae)
        for _ in range(3):
            steps.append(step(svi, x))
        assert all(moved(vae, before))
        assert not any(moved(second if vae is first else first, others))


@pytest.mark.parametrize("duplicate", ["deepcopy", "pickle", "torch.save"])
def test_a_copy_trains_and_the_original_does_not_change(duplicate):
    vae, x = make_vae(), batch()
    step(stock(vae), x)
    if duplicate == "deepcopy":
        other = copy.deepcopy(vae)
    elif duplicate == "pickle":
        other = pickle.loads(pickle.dumps(vae))
    else:
        file = io.BytesIO()
        torch.save(vae.state_dict(), file)
        file.seek(0)
        other = make_vae()
        other.load_state_dict(torch.load(file, weights_only=True))
    before, copied = weights(vae), weights(other)
    step(stock(other), x)
    assert all(moved(other, copied))
    assert not any(moved(vae, before))


def test_two_models_interleaved_equal_each_alone():
    def losses(*models):
        svis = [pv.training.SVI(m, pv.estimators.ELBO(), torch.optim.SGD) for m in models]
        found = [[] for _ in models]
        for i in range(4):
            for row, svi in zip(found, svis, strict=True):
                torch.manual_seed(i)
                row.append(float(svi.update(x)["loss"]))
        return found

    x = batch()
    torch.manual_seed(5)
    a, b = make_vae(), make_vae()
    alone = losses(copy.deepcopy(a)) + losses(copy.deepcopy(b))
    assert losses(a, b) == alone


def test_render_model_finds_the_parameters():
    graphviz = pytest.importorskip("graphviz", reason="pyro.render_model needs graphviz")
    assert graphviz
    assert pyro.render_model(make_vae().model, (batch(),), render_params=True)


def test_an_observation_that_would_broadcast_is_refused():
    vae = make_vae(shape=(3, 1))
    with pytest.raises(ValueError, match="^x"):
        vae.model(torch.ones(5, 3, 4))
    vae = make_vae(shape=(4,))
    with pytest.raises(ValueError, match="^x"):
        vae.model(torch.ones(5))


def test_scale_on_one_side_only_is_refused():
    vae, x = make_vae(), batch()
    with pytest.raises(ValueError, match="'z' is scaled"):
        pv.estimators.ELBO().differentiable_loss(poutine.scale(vae.model, 0.5), vae.guide, x)


def test_frozen_parts_stay_as_they_are():
    """Also if earlier training has left gradients on them, which an optimizer of Pyro would apply."""
    vae, x = make_vae(), batch()
    pv.estimators.ELBO().loss_and_grads(vae.model, vae.guide, x)
    vae.likelihood.requires_grad_(False)
    decoder, encoder = weights(vae.likelihood), weights(vae.posterior)
    step(stock(vae), x)
    assert not any(moved(vae.likelihood, decoder))
    assert all(moved(vae.posterior, encoder))
