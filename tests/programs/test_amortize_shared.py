"""Latents outside the plate of the data in amortized guides: exact posteriors, scales, transforms and plates."""

import functools
import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import infer

import pyro_vae as pv
from pyro_vae.programs import Point

E = pv.estimators
LINEAR = functools.partial(pv.nets.MLP, hidden=())
SMALL = functools.partial(pv.nets.MLP, hidden=(16,))
ADAM = functools.partial(torch.optim.Adam, lr=0.05)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def train(program, data, batch_size, *, epochs, optimizer=ADAM):
    options = {"optimizer": optimizer, "batch_size": batch_size, "progress": False}
    return pv.fit(program, data, estimator=E.ELBO(num_particles=4), epochs=epochs, **options)


def apart(x, y, size=None):
    """A mean of all y, and a latent for each x: the posterior is a product."""
    w = pyro.sample("w", dist.Normal(number(0.0), 1.0))
    rows = torch.arange(len(x))
    with pyro.plate("data", size or len(x), subsample=rows if size else None, dim=-1):
        z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        pyro.sample("y", dist.Normal(w, 1.0), obs=y)


def posterior_of_mean(y):
    return y.sum() / (len(y) + 1), (len(y) + 1) ** -0.5


def test_the_exact_posterior_has_the_evidence_at_each_sample():
    x, y = rows(30), 0.7 + rows(30, seed=1)
    program = pv.amortize(apart, x, y, net=LINEAR)
    pv.fit(
        program, (x, y), estimator=E.ELBO(num_particles=4), optimizer=ADAM, epochs=300, batch_size=30, progress=False
    )
    loc, std = posterior_of_mean(y)
    q = program.parts["guide"].shared.posterior(torch.zeros(1).double())
    assert abs(q.mean.item() - loc) < 0.05
    assert abs(q.stddev.item() - std) < 0.05
    covariance = torch.eye(30).double() + 1
    evidence = dist.Normal(number(0.0), math.sqrt(2)).log_prob(x).sum()
    evidence = evidence + dist.MultivariateNormal(torch.zeros(30).double(), covariance).log_prob(y)
    loss = E.ELBO(num_particles=2000).loss(program.model, program.guide, x, y)
    assert -0.01 < loss + evidence < 0.3


@pytest.mark.parametrize("estimator", [infer.Trace_ELBO(), E.ELBO(analytic_kl=False), E.IWAE(num_particles=1)])
def test_examples_have_the_scale_of_the_subsample_and_shared_latents_have_none(estimator):
    x, y = rows(5), rows(5, seed=1)
    program = pv.amortize(functools.partial(apart, size=35), x, y, net=SMALL)

    def loss(size):
        program.functions["model"] = functools.partial(apart, size=size)
        program.parts["guide"].plate = type(program.parts["guide"].plate)("data", -1, 5, size)
        torch.manual_seed(0)
        return estimator.differentiable_loss(program.model, program.guide, x, y).detach()

    torch.testing.assert_close(loss(35) - loss(20), 3 * (loss(10) - loss(5)))
    values = program.guide(x, y)
    assert set(values) == {"w", "z"}


def test_minibatches_have_the_posterior_of_all_rows():
    x, y = rows(200), 0.7 + rows(200, seed=1)
    model = functools.partial(apart, size=200)
    program = pv.amortize(model, x[:20], y[:20], net=LINEAR)
    pv.fit(
        program, (x, y), estimator=E.ELBO(num_particles=4), optimizer=ADAM, epochs=30, batch_size=20, progress=False
    )
    small = functools.partial(torch.optim.Adam, lr=0.003)
    pv.fit(
        program, (x, y), estimator=E.ELBO(num_particles=4), optimizer=small, epochs=20, batch_size=20, progress=False
    )
    q = program.parts["guide"].shared.posterior(torch.zeros(1).double())
    loc, std = posterior_of_mean(y)
    assert abs(q.mean.item() - loc) < 0.03
    assert abs(q.stddev.item() / std - 1) < 0.3


def many_supports(x):
    scale = pyro.sample("scale", dist.Gamma(number(4.0), number(2.0)))
    weights = pyro.sample("weights", dist.Dirichlet(number([2.0, 3.0, 4.0])))
    with pyro.plate("components", 3, dim=-1):
        loc = pyro.sample("loc", dist.Normal(number(0.0), 1.0))
        low = pyro.sample("low", dist.Uniform(number(-1.0), number(1.0)).expand([2]).to_event(1))
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    return scale, weights, loc, low


@pytest.mark.parametrize("posterior", ["MeanFieldNormal", "LowRankNormal", "FullRankNormal"])
def test_shared_latents_of_any_support_have_the_density_of_stock_pyro(posterior):
    """Inside and outside of other plates, with a joint posterior, and with several particles."""
    x = rows(3)
    program = pv.amortize(many_supports, x, net=SMALL, shared=getattr(pv.posteriors, posterior))
    program.check(x)
    values = program.guide(x)
    assert [values[name].shape for name in ("scale", "weights", "loc", "low")] == [(), (3,), (3,), (3, 2)]
    terms = pv.trace.run(program.model, program.guide, (x,))
    outside = {site.name for site in terms.latent if not site.local}
    assert outside == {"_shared", "scale", "weights", "loc", "low"}
    losses = []
    for estimator in (infer.Trace_ELBO(), E.ELBO(analytic_kl=False)):
        torch.manual_seed(1)
        losses.append(estimator.differentiable_loss(program.model, program.guide, x).detach())
    torch.testing.assert_close(*losses)
    stock = infer.Trace_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    losses = []
    for estimator in (stock, E.ELBO(num_particles=4, analytic_kl=False)):
        torch.manual_seed(1)
        losses.append(estimator.differentiable_loss(program.model, program.guide, x).detach())
    torch.testing.assert_close(*losses)


def one_positive(x):
    pyro.sample("scale", dist.Gamma(number(4.0), number(2.0)))
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.slow
def test_the_jacobian_of_a_shared_latent():
    x = rows(3)
    program = pv.amortize(one_positive, x, net=SMALL)
    torch.manual_seed(0)
    weights = []
    with torch.no_grad():
        for _ in range(2000):
            terms = pv.trace.run(program.model, program.guide, (x,))
            weights.append(sum((site.log_p - site.log_q).sum() for site in terms.latent if not site.local).exp())
    weights = torch.stack(weights)
    assert abs(weights.mean() - 1) < 4 * weights.std() / math.sqrt(2000) < 0.2


def test_a_point_estimate_is_the_mode_of_the_posterior():
    x = rows(40)

    def model(x, y):
        rate = pyro.sample("rate", dist.Gamma(number(3.0), number(2.0)))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.sample("y", dist.Poisson(rate), obs=y)

    y = torch.poisson(torch.full((40,), 1.7)).double()
    program = pv.amortize(model, x, y, net=LINEAR, shared=Point)
    pv.fit(program, (x, y), optimizer=ADAM, epochs=200, batch_size=40, progress=False)
    mode = (3 + y.sum() - 1) / (2 + 40)
    assert abs(program.guide(x, y)["rate"] - mode) < 0.01


def mixture(x):
    with pyro.plate("components", 2, dim=-1):
        loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x), dim=-1):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.5])), infer={"enumerate": "parallel"})
        z = pyro.sample("z", dist.Normal(0.0, 0.1))
        pyro.sample("x", dist.Normal(loc[..., k] + z, 0.5), obs=x)


def test_labels_that_the_model_sums_over_are_not_in_the_guide():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, generator=generator) * 0.5 + torch.tensor([-2.0, 2.0]).repeat(30)
    program = pv.amortize(mixture, x, net=SMALL, shared=Point)
    with torch.no_grad():
        program.parts["guide"].shared.posterior.net.body.output.copy_(torch.tensor([-0.5, 0.5]))
    pv.fit(program, x, optimizer=ADAM, epochs=100, batch_size=60, progress=False)
    values = program.guide(x)
    assert set(values) == {"loc", "z"}
    torch.testing.assert_close(values["loc"].sort().values, torch.tensor([-2.0, 2.0]), atol=0.3, rtol=0)


def test_shared_latents_are_evaluated_and_copied():
    x, y = rows(20), rows(20, seed=1)
    program = pv.amortize(apart, x, y, net=SMALL)
    found = pv.evaluation.log_likelihood(program, (x, y), num_particles=10, progress=False)
    assert torch.isfinite(found.per_example).all()
    with pytest.raises(ValueError, match="program"):
        pv.evaluation.calibration(program, (x, y), num_simulations=20, progress=False)
    compiled = pv.training.eager_graph
    assert math.isfinite(pv.fit(program, (x, y), epochs=1, compile=compiled, progress=False)["loss"][0])
    assert not [p for p in pyro.get_param_store()]


def shared_bit(x):
    s = pyro.sample("s", dist.Bernoulli(0.5))
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(s, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_discrete_shared_latents_are_refused():
    with pytest.raises(ValueError, match="^model: .*'s'.*enumerate"):
        pv.amortize(shared_bit, torch.randn(5))
