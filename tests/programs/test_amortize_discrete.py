"""Discrete latents in amortized guides: exact posteriors, sums over values and score functions."""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import pyro_vae as pv
from pyro_vae.programs import Forward, Inverse

E = pv.estimators
LOC = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
PROBS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
X = torch.tensor([-2.0, 0.3, 1.1, 4.0], dtype=torch.float64)


class Fixed(nn.Module):
    """A network that is a function."""

    def __init__(self, function):
        super().__init__()
        self.function, self.shift = function, nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, *inputs):
        return self.function(*inputs) + self.shift


def plate(x):
    return pyro.plate("data", len(x), dim=-1)


def joint(x, var=1.0):
    """log p(k, x) of the mixture."""
    return PROBS.log() + dist.Normal(LOC, math.sqrt(var)).log_prob(x.unsqueeze(-1))


def bit(x):
    with plate(x):
        b = pyro.sample("k", dist.Bernoulli(PROBS[1] / (PROBS[0] + PROBS[1])))
        pyro.sample("x", dist.Normal(LOC[0] + (LOC[1] - LOC[0]) * b, 1.0), obs=x)


def bits(x):
    """The same bit, as a vector of length one."""
    with plate(x):
        b = pyro.sample("k", dist.Bernoulli((PROBS[1] / (PROBS[0] + PROBS[1])).expand(1)).to_event(1))
        pyro.sample("x", dist.Normal(LOC[0] + (LOC[1] - LOC[0]) * b.squeeze(-1), 1.0), obs=x)


def classes(x):
    with plate(x):
        k = pyro.sample("k", dist.Categorical(PROBS))
        pyro.sample("x", dist.Normal(LOC[k], 1.0), obs=x)


def one_hot(x):
    with plate(x):
        k = pyro.sample("k", dist.OneHotCategorical(PROBS))
        pyro.sample("x", dist.Normal(k @ LOC, 1.0), obs=x)


def logits(model):
    """The logits of the exact posterior."""

    def of_bit(x):
        found = joint(x)
        return (found[:, 1] - found[:, 0]).unsqueeze(-1)

    return of_bit if model in (bit, bits) else joint


def evidence(model):
    if model in (bit, bits):
        return joint(X)[:, :2].logsumexp(-1) - (PROBS[0] + PROBS[1]).log()
    return joint(X).logsumexp(-1)


@pytest.mark.parametrize("model", [bit, bits, classes, one_hot])
def test_the_exact_posterior_has_the_evidence(model):
    program = pv.amortize(model, X, net=lambda *shapes: Fixed(logits(model)))
    program.check(X)
    found = E.Enumeration().per_datum(program.model, program.guide, X)
    torch.testing.assert_close(found, evidence(model))
    torch.testing.assert_close(E.ReinforceLOO(num_particles=3).per_datum(program.model, program.guide, X), found)
    found = pv.evaluation.log_likelihood(program, X, num_particles=5, progress=False)
    torch.testing.assert_close(found.per_example, evidence(model))


@pytest.mark.parametrize("estimator", [E.Enumeration(), E.ReinforceLOO(num_particles=4), E.VIMCO(num_particles=4)])
@pytest.mark.parametrize("model", [bit, classes])
def test_estimators_of_discrete_latents_train_it(model, estimator):
    program = pv.amortize(model, X, net=lambda *shapes: Fixed(logits(model)))
    history = pv.fit(program, X, estimator=estimator, epochs=2, progress=False)
    assert math.isfinite(history["loss"][-1])


def test_others_name_an_estimator_for_the_site():
    program = pv.amortize(classes, X)
    with pytest.raises(ValueError, match="'k'.*Enumeration"):
        pv.fit(program, X, epochs=1, progress=False)


def normal_mixture(x):
    with plate(x):
        k = pyro.sample("k", dist.Categorical(PROBS))
        z = pyro.sample("z", dist.Normal(LOC[k], 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize("structure", [Forward(), Inverse()])
def test_a_class_and_a_number_that_depend_on_each_other_reach_the_evidence(structure):
    """In both orders: q(k | x) q(z | x, k), and q(z | x) q(k | z), whose first factor is a mixture."""

    def net(in_shape, out_shape, context=0):
        def forward_class(x):
            return joint(x, 2.0)

        def forward_number(x, k):
            loc = (x + k @ LOC) / 2
            return torch.stack([loc, math.log(math.expm1(math.sqrt(0.5) - 1e-4)) + 0 * loc], -1).unsqueeze(-1)

        def inverse_class(x, z):
            return joint(z.squeeze(-1))

        if out_shape == (2, 1):
            return Fixed(forward_number) if context else pv.nets.MLP(in_shape, out_shape, hidden=(8,))
        return Fixed(inverse_class if context else forward_class)

    program = pv.amortize(normal_mixture, X, net=net, structure=structure)
    terms = pv.trace.run(program.model, program.guide, (X,), draws=pv.trace.Enumerated)
    expected = joint(X, 2.0).logsumexp(-1)
    if isinstance(structure, Forward):
        estimator = E.Enumeration(analytic_kl=False)
        torch.testing.assert_close(estimator.per_datum(program.model, program.guide, X), expected)
        assert terms.log_ratio().shape == (3, 1, 4)
    else:
        assert program.parts["guide"].parents == {"z": [], "k": ["z"]}
        found = pv.evaluation.log_likelihood(program, X, num_particles=20000, progress=False)
        torch.testing.assert_close(found.per_example, expected, atol=0.1, rtol=0)


def two_classes(x):
    with plate(x):
        k = pyro.sample("k", dist.Categorical(PROBS.expand(2, 3)).to_event(1))
        pyro.sample("x", dist.Normal(LOC[k].sum(-1), 1.0), obs=x)


def test_discrete_latents_without_a_posterior_are_refused():
    with pytest.raises(ValueError, match="^model: .*Categorical.*'k'"):
        pv.amortize(two_classes, X)


def test_the_dtype_of_other_latents_is_that_of_the_data():
    program = pv.amortize(
        normal_mixture,
        X,
        structure=Forward(),
        net=lambda i, o, context=0: pv.nets.MLP(i, o, context=context, hidden=(4,)),
    )
    assert {p.dtype for p in program.parameters()} == {torch.float64}
    assert math.isfinite(pv.fit(program, X, estimator=E.Enumeration(), epochs=1, progress=False)["loss"][0])
