"""Amortized guides: models with exact answers, transforms, structures, state, and models that are refused."""

import copy
import functools
import math

import pyro
import pytest
import torch
from helpers.programs import make_vae
from pyro import distributions as dist
from pyro import infer, poutine
from torch import nn

import pyro_vae as pv
from pyro_vae.programs import Forward, Inverse, MeanField

E = pv.estimators
LINEAR = functools.partial(pv.nets.MLP, hidden=())
SMALL = functools.partial(pv.nets.MLP, hidden=(16,))


def plate(x):
    return pyro.plate("data", len(x), dim=-1)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Fixed(nn.Module):
    """A network that is a function."""

    takes_missing = True

    def __init__(self, function):
        super().__init__()
        self.function, self.unused = function, nn.Parameter(torch.zeros(()))

    def forward(self, *inputs):
        return self.function(*inputs)


def fixed(function):
    return lambda *shapes, context=0: Fixed(function)


def inverse_scale(std):
    return torch.log(torch.expm1(std - 1e-4))


# exact answers


@pytest.mark.parametrize("estimator", [E.ELBO(), E.IWAE(num_particles=5), E.DReG(num_particles=3)])
def test_a_vae_has_the_bound_and_gradient_of_its_amortized_model(estimator):
    vae = make_vae()
    x = (torch.rand(12, 8, 8) < 0.5).float()
    program = pv.amortize(vae.model, x, net=functools.partial(pv.nets.MLP, hidden=(16,)))
    program.posteriors["z"].load_state_dict(vae.posterior.state_dict())
    losses = []
    for one in (vae, program):
        torch.manual_seed(0)
        losses.append(estimator.differentiable_loss(one.model, one.guide, x))
    assert torch.equal(*losses)
    found = torch.autograd.grad(losses[1], [*program.posteriors["z"].parameters()])
    for a, b in zip(found, torch.autograd.grad(losses[0], [*vae.posterior.parameters()]), strict=True):
        assert torch.equal(a, b)


def test_a_linear_encoder_reaches_the_evidence_of_a_linear_model():
    toy = pv.testing.LinearGaussian()
    x = toy.draw(40)
    for p in toy.program.parameters():
        p.requires_grad_(False)
    program = pv.amortize(toy.program.model, x, net=LINEAR)
    evidence = toy.log_evidence(x).mean()
    start = E.ELBO().per_datum(program.model, program.guide, x).mean()
    optimizer = functools.partial(torch.optim.Adam, lr=0.05)
    pv.fit(
        program, x, estimator=E.StickingTheLanding(), optimizer=optimizer, epochs=300, batch_size=40, progress=False
    )
    # at the exact posterior every sample has the evidence
    values = E.ELBO(analytic_kl=False).per_datum(program.model, program.guide, x)
    assert abs(values.mean()) - abs(evidence) < 2e-3
    assert abs(start) > abs(evidence) + 0.3
    # and new rows need no training
    new = toy.draw(20, seed=7)
    values = E.ELBO(analytic_kl=False).per_datum(program.model, program.guide, new)
    torch.testing.assert_close(values, toy.log_evidence(new), atol=0.03, rtol=0)


def gamma_poisson(x):
    with plate(x):
        rate = pyro.sample("rate", dist.Gamma(number(2.5), number(0.7)))
        pyro.sample("x", dist.Poisson(rate), obs=x)


def test_gamma_poisson_has_the_evidence_minus_the_gap_of_its_family():
    """The best log-normal for Gamma(a, b) has variance 1 / a on the log scale; its divergence is in closed form."""
    x = number([0.0, 1.0, 2.0, 5.0, 20.0])
    a, b = 2.5 + x, number(1.7)
    loc = (a / b).log() - 0.5 / a

    def net(x):
        a = 2.5 + x
        return torch.stack([(a / 1.7).log() - 0.5 / a, inverse_scale(a**-0.5)], -1).unsqueeze(-1)

    program = pv.amortize(gamma_poisson, x, net=fixed(net))
    log_p = a * b.log() - torch.lgamma(a) + (a - 1) * loc - a
    kl = -(loc + 0.5 * (2 * math.pi * math.e / a).log()) - log_p
    evidence = dist.GammaPoisson(number(2.5), number(0.7)).log_prob(x)
    assert 0.001 < kl.min() < kl.max() < 0.05
    torch.manual_seed(0)
    values = torch.stack([E.ELBO(num_particles=500).per_datum(program.model, program.guide, x) for _ in range(20)])
    error = values.std(0) / math.sqrt(20)
    assert ((values.mean(0) - (evidence - kl)).abs() < 4 * error).all()
    found = pv.evaluation.log_likelihood(program, x, num_particles=20000)
    torch.testing.assert_close(found.per_example, evidence, atol=0.02, rtol=0)


def test_a_trained_encoder_has_the_bound_of_one_posterior_per_row():
    """That of AutoNormal, which has the same family and parameters for each row, up to the amortization gap."""
    x = torch.poisson(torch.full((40,), 3.5), generator=torch.Generator().manual_seed(0)).double()
    torch.manual_seed(0)
    program, auto = pv.amortize(gamma_poisson, x, net=SMALL), infer.autoguide.AutoNormal(gamma_poisson)
    auto(x)
    estimator, bounds = E.ELBO(num_particles=8), []
    for model, guide, parameters in (
        (gamma_poisson, auto, [*auto.parameters()]),
        (program.model, program.guide, [*program.parameters()]),
    ):
        for lr in (0.05, 0.005):
            optimizer = torch.optim.Adam(parameters, lr=lr)
            for _ in range(150):
                optimizer.zero_grad()
                estimator.differentiable_loss(model, guide, x).backward()
                optimizer.step()
        bounds.append(-E.ELBO(num_particles=5000).loss(model, guide, x) / 40)
    pyro.clear_param_store()
    assert sum(p.numel() for p in auto.parameters()) == 80
    assert bounds[1] == pytest.approx(bounds[0], abs=0.02)
    exact = dist.GammaPoisson(number(2.5), number(0.7)).log_prob(x).mean()
    assert exact - 0.05 < bounds[1] < exact


def test_beta_binomial_has_its_evidence():
    """Importance sampling from a logit-normal with the moments of the posterior, on the logit scale."""
    x = number([0.0, 3.0, 7.0, 10.0])

    def model(x):
        with plate(x):
            p = pyro.sample("p", dist.Beta(number(2.0), number(3.0)))
            pyro.sample("x", dist.Binomial(10, p), obs=x)

    def net(x):
        a, b = 2 + x, 13 - x
        std = (torch.polygamma(1, a) + torch.polygamma(1, b)).sqrt()
        return torch.stack([torch.digamma(a) - torch.digamma(b), inverse_scale(std)], -1).unsqueeze(-1)

    program = pv.amortize(model, x, net=fixed(net))
    exact = dist.BetaBinomial(number(2.0), number(3.0), 10).log_prob(x)
    found = pv.evaluation.log_likelihood(program, x, num_particles=20000, progress=False)
    torch.testing.assert_close(found.per_example, exact, atol=0.01, rtol=0)
    bound = E.ELBO(num_particles=2000).per_datum(program.model, program.guide, x)
    assert (bound < exact).all()
    assert (bound > exact - 0.1).all()


def two_causes(x):
    """The posterior of the two causes has precision [[2, 1], [1, 2]]."""
    with plate(x):
        a = pyro.sample("a", dist.Normal(number(0.0), 1.0))
        b = pyro.sample("b", dist.Normal(torch.zeros(1).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(a + b.squeeze(-1), 1.0), obs=x)


@pytest.mark.parametrize(
    ("structure", "gap"), [(MeanField(), 0.5 * math.log(4 / 3)), (Forward(), 0.0), (Inverse(), 0.0)]
)
def test_a_structure_with_the_dependencies_of_the_posterior_reaches_the_evidence(structure, gap):
    x = rows(30) * math.sqrt(3)
    torch.manual_seed(0)
    program = pv.amortize(two_causes, x, net=LINEAR, structure=structure)
    optimizer = functools.partial(torch.optim.Adam, lr=0.05)
    pv.fit(
        program, x, estimator=E.StickingTheLanding(), optimizer=optimizer, epochs=250, batch_size=30, progress=False
    )
    evidence = dist.Normal(number(0.0), math.sqrt(3)).log_prob(x).mean()
    values = E.ELBO(num_particles=4000).per_datum(program.model, program.guide, x).mean()
    assert abs(values - (evidence - gap)) < 0.01


# transforms and inputs

SUPPORTS = {
    "real": dist.Normal(number(0.3), 1.0),
    "matrix": dist.Normal(torch.zeros(2, 3).double(), 1.0).to_event(2),
    "positive": dist.Gamma(number(4.0), number(2.0)),
    "positive vector": dist.LogNormal(torch.zeros(3).double(), 0.7).to_event(1),
    "unit interval": dist.Beta(number(2.0), number(3.0)),
    "interval": dist.Uniform(number(-1.0), number(3.0)),
    "intervals": dist.Uniform(number([0.0, 1.0]), number([1.0, 5.0])).to_event(1),
    "above": dist.Pareto(number(2.0), number(3.0)),
    "simplex": dist.Dirichlet(number([2.0, 3.0, 4.0])),
    "correlation": dist.LKJCholesky(3, number(2.0)),
    "vector": dist.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double() + 0.5),
    "ordered": dist.TransformedDistribution(
        dist.Normal(torch.zeros(3).double(), 1.0).to_event(1),
        [torch.distributions.biject_to(dist.constraints.ordered_vector)],
    ),
}


def independent_of_x(prior):
    def model(x):
        with plate(x):
            pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(number(0.0), 1.0), obs=x)

    return model


@pytest.mark.parametrize("support", SUPPORTS)
def test_importance_weights_have_mean_one_on_any_support(support):
    """They would not without the right Jacobian."""
    prior, x = SUPPORTS[support], rows(4)
    raw = inverse_scale(number(1.3))

    def build(in_shape, out_shape):
        out = torch.stack([torch.zeros(out_shape[1]).double(), raw.expand(out_shape[1])])
        return Fixed(lambda x: out.expand(len(x), *out.shape))

    program = pv.amortize(independent_of_x(prior), x, net=build)
    program.check(x)
    torch.manual_seed(0)
    terms = pv.trace.run(program.model, program.guide, (x,), num_particles=20000)
    weights = (terms.log_w() - terms.observed[0].log_p).exp()
    assert terms.latent[0].guide["value"].shape == (20000, 4, *prior.event_shape)
    assert terms.latent[0].reparameterized
    error = weights.std(0) / math.sqrt(len(weights))
    assert (error < 0.1).all()
    assert ((weights.mean(0) - 1).abs() < 4.5 * error).all()


def test_a_family_of_the_shelf_on_a_positive_latent():
    x = number([0.0, 1.0, 2.0, 5.0])
    for name in ("NeuralSplineFlow", "MixtureOfNormals", "FullRankNormal", "StudentT"):
        program = pv.amortize(gamma_poisson, x, posterior=getattr(pv.posteriors, name), net=SMALL)
        history = pv.fit(program, x, epochs=2, progress=False)
        assert math.isfinite(history["loss"][-1])
        assert (program.guide(x)["rate"] > 0).all()


def regression(x, y, w):
    with plate(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1)[:, None, None], 1.0).expand([len(x), 2, 3]).to_event(2), obs=x)
        pyro.sample("y", dist.Bernoulli(logits=z[..., 0] + w), obs=y)


def test_every_observed_site_and_input_is_seen():
    x, y, w = rows(20, 2, 3), (rows(20) > 0).long(), rows(20)
    program = pv.amortize(lambda x, y, w: regression(x, y.double(), w), x, y, w, net=SMALL)
    inputs = [x.clone().requires_grad_(), y, w.clone().requires_grad_()]
    q = poutine.trace(program.guide).get_trace(*inputs).nodes["z"]["fn"]
    for column in torch.autograd.grad(q.mean.sum(), [inputs[0], inputs[2]]):
        assert (column != 0).all()
    other = poutine.trace(program.guide).get_trace(x, 1 - y, w).nodes["z"]["fn"]
    assert not torch.equal(other.mean, q.mean)
    assert len(pv.fit(program, (x, y, w), epochs=1, progress=False)) == 1
    with pytest.raises(ValueError, match="^x"):
        program.check(x[:, :1], y, w)
    with pytest.raises(ValueError, match="context"):
        program.check(x, y)


def masked(x):
    seen = ~torch.isnan(x)
    with plate(x):
        z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
        with poutine.mask(mask=seen.all(-1)):
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).expand([len(x), 2]).to_event(1), obs=x.nan_to_num())


def test_missing_entries_reach_a_network_that_takes_them():
    x = rows(6, 2)
    x[0, 1] = math.nan
    program = pv.amortize(masked, x, net=pv.nets.ZeroImputed)
    assert math.isfinite(pv.fit(program, x, epochs=1, progress=False)["loss"][0])
    with pytest.raises(ValueError, match="^x.*NaN.*ZeroImputed"):
        pv.amortize(masked, x, net=SMALL)


def test_missing_entries_of_further_columns_are_masked():
    def model(x, y):
        with plate(x):
            z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            with poutine.mask(mask=~torch.isnan(y)):
                pyro.sample("y", dist.Normal(z, 1.0), obs=y.nan_to_num())

    x, y = rows(6), rows(6, seed=1)
    y[0] = math.nan
    program = pv.amortize(model, x, y, net=SMALL)
    assert math.isfinite(pv.fit(program, (x, y), epochs=1, progress=False)["loss"][0])
    with pytest.raises(ValueError, match=r"context\[0\].*NaN"):
        pv.amortize(model, x, y[1:].repeat(2)[:6], net=SMALL).check(x, y)


def test_entries_outside_the_observation_mask_are_integrated_out():
    x = number([0.5, -1.0, 2.0])
    seen = torch.tensor([True, False, True])

    def model(x, seen):
        with plate(x):
            z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=seen)

    def net(x, context):
        return torch.stack([x.unsqueeze(-1) / 2 * context, inverse_scale((1 + context) ** -0.5)], 1)

    program = pv.amortize(model, x, seen, net=fixed(net))
    values = E.ELBO(num_particles=3, analytic_kl=False).per_datum(program.model, program.guide, x, seen)
    evidence = dist.Normal(number(0.0), math.sqrt(2)).log_prob(x)
    torch.testing.assert_close(values, torch.where(seen, evidence, 0.0), atol=1e-4, rtol=0)


# the inverse of the dependency graph


@pytest.mark.parametrize(
    ("model", "inverse"),
    [
        # a chain, whose end depends on the data alone
        ({"a": "a", "b": "ab", "c": "bc", "x": "c"}, {"c": "", "b": "c", "a": "b"}),
        # two causes of an observation
        ({"a": "a", "b": "b", "x": "ab"}, {"b": "", "a": "b"}),
        # two causes of a latent
        ({"a": "a", "b": "b", "c": "abc", "x": "c"}, {"c": "", "b": "c", "a": "bc"}),
        # a common cause
        ({"a": "a", "b": "ab", "c": "ac", "x": "b", "y": "c"}, {"c": "", "b": "c", "a": "bc"}),
        # independent latents
        ({"a": "a", "b": "b", "x": "a", "y": "b"}, {"b": "", "a": ""}),
        # a cause d that the model sums over couples its effects
        ({"a": "ad", "b": "bd", "d": "d", "x": "a", "y": "b"}, {"b": "", "a": "b"}),
    ],
)
def test_the_inverse_has_the_edges_that_the_posterior_needs(model, inverse):
    latents = [name for name in "abc" if name in model]
    found = Inverse().parents(latents, lambda: {name: set(names) for name, names in model.items()})
    assert {name: "".join(names) for name, names in found.items()} == inverse
    seen = []
    for name, parents in found.items():
        assert set(parents) <= set(seen)
        seen.append(name)


@pytest.mark.parametrize("seed", range(12))
def test_the_inverse_has_each_posterior_of_random_linear_models(seed):
    """Given the data and the latents drawn before it, a latent does not depend on any but its parents."""
    g = torch.Generator().manual_seed(seed)
    latents, observed = [f"z{i}" for i in range(6)], ["x0", "x1", "x2"]
    names, weights = latents + observed, torch.zeros(9, 9).double()
    for i in range(1, 9):
        for j in range(min(i, 6)):
            if torch.rand((), generator=g) < 0.35:
                weights[i, j] = torch.randn((), generator=g)
    model = {n: {m for j, m in enumerate(latents) if weights[i, j] != 0 or m == n} for i, n in enumerate(names)}
    parents = Inverse().parents(latents, lambda: model)
    assert set(parents) == set(latents)
    root = torch.linalg.inv(torch.eye(9).double() - weights)
    covariance = root @ root.T
    drawn = [names.index(x) for x in observed]
    for name, seen in parents.items():
        i = names.index(name)
        coefficients = torch.linalg.solve(covariance[drawn][:, drawn], covariance[drawn, i])
        others = [c for j, c in zip(drawn, coefficients.tolist(), strict=True) if names[j] not in [*seen, *observed]]
        assert max(map(abs, others), default=0.0) < 1e-9
        drawn.append(i)


def test_encoders_see_unconstrained_values_of_other_latents():
    def model(x):
        with plate(x):
            pyro.sample("rate", dist.Gamma(number(4.0), number(2.0)))
            pyro.sample("share", dist.Dirichlet(number([2.0, 3.0, 4.0])))
            pyro.sample("x", dist.Normal(number(0.0), 1.0), obs=x)

    rate, share = pv.amortize(model, rows(5), net=SMALL, structure=Forward()).parts["guide"].encoders
    torch.testing.assert_close(rate.features(number([1.0, math.e])), number([[0.0], [1.0]]))
    assert share.features(number([[0.2, 0.3, 0.5]])).shape == (1, 2)


def test_the_dependencies_are_those_of_the_model():
    def model(x):
        with plate(x):
            a = pyro.sample("a", dist.Normal(number(0.0), 1.0))
            b = pyro.sample("b", dist.Gamma(a.exp(), number(1.0)))
            c = pyro.sample("c", dist.Normal(b, 1.0))
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    x = rows(5)
    guide = pv.amortize(model, x, net=SMALL, structure=Inverse()).parts["guide"]
    assert guide.parents == {"c": [], "b": ["c"], "a": ["b"]}
    guide = pv.amortize(model, x, net=SMALL, structure=Forward()).parts["guide"]
    assert guide.parents == {"a": [], "b": ["a"], "c": ["a", "b"]}
    q = poutine.trace(poutine.condition(guide, data={"a": x})).get_trace(x).nodes["b"]["fn"].base_dist.base_dist.loc
    other = (
        poutine.trace(poutine.condition(guide, data={"a": x + 1})).get_trace(x).nodes["b"]["fn"].base_dist.base_dist
    )
    assert not torch.equal(other.loc, q)


# state


def learned(x):
    std = pyro.param("std", number(1.5), constraint=dist.constraints.positive)
    with plate(x):
        z = pyro.sample("z", dist.Gamma(number(3.0), number(2.0)))
        pyro.sample("x", dist.Normal(z, std), obs=x)


def numbers(program):
    return {name: p.detach().clone() for name, p in program.named_parameters()}


def test_amortize_changes_no_state():
    x, before = rows(20), torch.get_rng_state()
    torch.manual_seed(3)
    torch.randn(1)
    expected = torch.get_rng_state()
    torch.manual_seed(3)
    torch.randn(1)
    pv.amortize(learned, x, net=fixed(lambda x: torch.zeros(len(x), 2, 1).double()))
    assert torch.equal(torch.get_rng_state(), expected)
    assert len(pyro.get_param_store()) == 0
    torch.set_rng_state(before)


def test_parameters_of_the_model_train_and_copies_are_independent():
    x = rows(20).abs()
    program = pv.amortize(learned, x, net=SMALL)
    before, other = numbers(program), copy.deepcopy(program)
    pv.fit(other, x, epochs=1, progress=False)
    assert all(torch.equal(p, before[name]) for name, p in numbers(program).items())
    after = numbers(other)
    assert any(name.endswith("std") for name in after)
    assert not any(torch.equal(p, before[name]) for name, p in after.items())
    program.load_state_dict(other.state_dict())
    losses = []
    for one in (program, other):
        torch.manual_seed(0)
        losses.append(E.ELBO().loss(one.model, one.guide, x))
    assert losses[0] == losses[1]
    assert len(pyro.get_param_store()) == 0


def test_a_module_that_the_model_calls_is_trained():
    decoder = nn.Linear(1, 4)

    def model(x):
        with plate(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(decoder(z.unsqueeze(-1)), 1.0).to_event(1), obs=x)

    x, before = torch.randn(10, 4), decoder.weight.detach().clone()
    pv.fit(pv.amortize(model, x, net=SMALL, modules={"decoder": decoder}), x, epochs=1, progress=False)
    assert not torch.equal(decoder.weight, before)


@pytest.mark.parametrize("structure", [MeanField(), Inverse()])
def test_a_compiled_fit_is_that_of_the_eager_one(structure):
    x = rows(20).abs().float()

    def model(x):
        with plate(x):
            a = pyro.sample("a", dist.Gamma(3.0, 2.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    torch.manual_seed(0)
    eager = pv.amortize(model, x, net=SMALL, structure=structure)
    compiled = copy.deepcopy(eager)
    options = {"epochs": 2, "batch_size": 8, "progress": False}
    a = pv.fit(eager, x, compile=False, **options)["loss"]
    b = pv.fit(compiled, x, compile=pv.training.eager_graph, **options)["loss"]
    assert a == pytest.approx(b, rel=1e-4)


def test_the_steps_of_stock_pyro():
    x = rows(20).abs()
    program = pv.amortize(learned, x, net=SMALL)
    losses = []
    for estimator in (infer.Trace_ELBO(), E.ELBO(analytic_kl=False)):
        torch.manual_seed(0)
        losses.append(estimator.differentiable_loss(program.model, program.guide, x).detach())
    torch.testing.assert_close(*losses)
    many = infer.Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    assert math.isfinite(many.loss(program.model, program.guide, x))


def test_evaluations():
    x = rows(20).abs()
    program = pv.amortize(learned, x, net=SMALL)
    options = {"progress": False}
    assert math.isfinite(pv.evaluation.log_likelihood(program, x, num_particles=10, **options).mean)
    assert set(pv.evaluation.latents(program, x, **options).active) == {"z"}
    assert "z" in pv.evaluation.calibration(program, x, num_simulations=40, **options).ranks
    assert pv.tasks.embed(program, x).mean.shape[0] == 20


def test_a_subsampled_plate_has_the_scale_of_the_model():
    x, ids = rows(5), torch.tensor([7, 1, 3, 4, 9])
    table = rows(12, seed=1)

    def make(size):
        def model(x, ids):
            with pyro.plate("data", size or len(x), subsample=ids if size else None, dim=-1) as chosen:
                z = pyro.sample("z", dist.Normal(table[chosen], 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        return model

    found = {}
    for size in (0, 12):
        torch.manual_seed(0)
        program = pv.amortize(make(size), x, ids, net=SMALL)
        if not size:
            program.functions["model"] = lambda x, ids: make(len(x))(x, ids)
        for estimator in (infer.Trace_ELBO(), E.ELBO(analytic_kl=False)):
            torch.manual_seed(1)
            found[size, type(estimator)] = estimator.loss(program.model, program.guide, x, ids)
    assert found[12, E.ELBO] == pytest.approx(found[12, infer.Trace_ELBO])
    assert found[12, E.ELBO] == pytest.approx(12 / 5 * found[0, E.ELBO])


@pytest.mark.parametrize("estimator", [infer.Trace_ELBO(), E.ELBO(analytic_kl=False)])
@pytest.mark.parametrize("shared", [False, True])
def test_a_scaled_model_has_the_scaled_loss(estimator, shared):
    def model(x):
        w = pyro.sample("w", dist.Gamma(number(3.0), number(2.0))) if shared else 0.0
        with plate(x):
            z = pyro.sample("z", dist.Gamma(number(3.0), number(2.0)))
            pyro.sample("x", dist.Normal(z + w, 1.0), obs=x)

    x, losses = rows(6), []
    for scale in (1.0, 0.25):
        torch.manual_seed(0)
        program = pv.amortize(poutine.scale(model, scale), x, net=SMALL)
        losses.append(estimator.loss(program.model, program.guide, x))
    assert losses[1] == pytest.approx(losses[0] / 4)


# refusals


def nothing_observed(x):
    with plate(x):
        pyro.sample("z", dist.Normal(0.0, 1.0))


def no_plate(x):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 1.0).expand([len(x)]).to_event(1), obs=x)


def plate_of_other_rows(x):
    with pyro.plate("data", 2, dim=-1):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:2])


def random_rows(x):
    with pyro.plate("data", len(x), subsample_size=2, dim=-1) as chosen:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[chosen])


def sequential(x):
    for i in pyro.plate("data", len(x)):
        z = pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))
        pyro.sample(f"x{i}", dist.Normal(z, 1.0), obs=x[i])


def stochastic_support(x):
    with plate(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        if z[0] > 0:
            z = z + pyro.sample("more", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def latent_size(x):
    with plate(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    with pyro.plate("inner", 1 + int(z[0].abs() * 10), dim=-1):
        pyro.sample("w", dist.Normal(0.0, 1.0))


def latent_bound(x):
    with plate(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        u = pyro.sample("u", dist.Uniform(0.0, z.exp()))
        pyro.sample("x", dist.Normal(u, 1.0), obs=x)


def nested(x):
    with plate(x), pyro.plate("inner", 3, dim=-2):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def twice_nested(x):
    with plate(x), pyro.plate("inner", 3, dim=-2), pyro.plate("more", 2, dim=-3):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def fixed_rows(x):
    with pyro.plate("data", 100, dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(100), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def matrix_of_fixed_rows(x):
    with plate(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(torch.ones(6, 6) @ z, 1.0), obs=x)


def masked_latent(x):
    with plate(x):
        with poutine.mask(mask=x > 0):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def counts(x):
    with plate(x):
        z = pyro.sample("z", dist.Poisson(1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def no_latent(x):
    with plate(x):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (nothing_observed, "observed site"),
        (no_plate, "plate of the data"),
        (plate_of_other_rows, "row for each row"),
        (random_rows, "row for each row"),
        (sequential, "number of rows"),
        (stochastic_support, "'more'.*stochastic support"),
        (latent_size, "'inner'.*depends on its latents"),
        (latent_bound, "'u'.*fixed support|fixed support.*'u'"),
        (nested, "'inner'.*second dimension"),
        (twice_nested, "at most one.*'z'"),
        (fixed_rows, "row for each row"),
        (matrix_of_fixed_rows, "any number of rows"),
        (masked_latent, "mask.*'z'"),
        (counts, "Poisson.*'z'"),
        (no_latent, "nothing to amortize"),
    ],
)
def test_models_without_an_amortized_guide_are_refused(model, what):
    with pytest.raises(ValueError, match=f"^model: .*{what}"):
        pv.amortize(model, torch.linspace(-1.0, 1.0, 6))


def test_a_posterior_on_another_support_is_refused():
    x = rows(3).abs().round()
    with pytest.raises(ValueError, match="posterior: .*Dirichlet"):
        pv.amortize(gamma_poisson, x, posterior=pv.posteriors.Dirichlet, net=SMALL)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="example_args"):
        pv.amortize(gamma_poisson)
    with pytest.raises(TypeError, match=r"example_args\[1\]"):
        pv.amortize(gamma_poisson, rows(3), 5)
    with pytest.raises(ValueError, match=r"example_args\[1\]"):
        pv.amortize(gamma_poisson, rows(3), rows(4))
    with pytest.raises(TypeError, match="structure"):
        pv.amortize(gamma_poisson, rows(3).abs().round(), structure="forward")


def test_a_model_that_counts_dimensions_gets_the_way_out():
    """It works with one particle; with several the error of torch says what to write."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Poisson(z.unsqueeze(-1).expand(-1, 3)).to_event(1), obs=x)

    x = torch.ones(4, 3)
    program = pv.amortize(model, x)
    pv.fit(program, x, epochs=1, batch_size=4, progress=False)
    with pytest.raises(RuntimeError, match=r"5 particles.*z\.expand\(\*z\.shape\[:-1\], n\)"):
        pv.evaluation.log_likelihood(program, x, num_particles=5, progress=False)
