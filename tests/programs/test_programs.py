"""Laws of every program: seeds, checks, stock Pyro, copies. A new program is tested without another edit."""

import copy
import pickle

import pyro
import pytest
import torch
from helpers.programs import PROGRAMS, columns, context, rows, sample
from pyro import distributions as dist
from pyro import infer, poutine

import pyro_vae as pv
from pyro_vae.distributions import Flattened, RelaxedBernoulli
from pyro_vae.testing import check_estimator

SAMPLED = [c for c in PROGRAMS if c.decode_prior is not pv.Program.decode_prior]
RECONSTRUCTED = [c for c in PROGRAMS if c.decode_posterior is not pv.Program.decode_posterior]
LATENT = [c for c in PROGRAMS if c is not pv.programs.Autoencoder]
every = pytest.mark.parametrize("cls", PROGRAMS)


def state(program):
    return {name: value.clone() for name, value in program.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_every_program_can_sample_except_those_without_a_prior():
    without = set(PROGRAMS) - set(SAMPLED)
    assert without == {pv.programs.Amortized, pv.programs.Autoencoder, pv.programs.FunctionProgram}
    for cls in without:
        with pytest.raises(NotImplementedError, match="decode_prior"):
            cls.example().sample(3)


@pytest.mark.parametrize("cls", SAMPLED)
def test_samples_depend_on_the_seed_alone(cls):
    """And the global random state does not change."""
    program = cls.example().train()
    before = torch.get_rng_state()
    x = sample(program, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(sample(program, seed=3), x)
    assert not torch.equal(sample(program, seed=4), x)
    assert torch.equal(sample(program), sample(program, seed=0))
    means = sample(program, seed=3, mean=True)
    assert means.shape == x.shape
    assert not torch.equal(means, x)
    assert program.training
    with pytest.raises(ValueError, match="num_samples"):
        sample(program, n=0)


@pytest.mark.parametrize("cls", RECONSTRUCTED)
def test_reconstructions_depend_on_the_seed_alone(cls):
    program = cls.example().train()
    x, more, before = rows(program), context(program), torch.get_rng_state()
    found = program.reconstruct(x, *more, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert found.shape == x.shape
    torch.rand(1)
    assert torch.equal(program.reconstruct(x, *more, seed=3), found)
    deterministic = cls in (pv.programs.Autoencoder, pv.programs.VQVAE)
    assert torch.equal(program.reconstruct(x, *more, seed=4), found) == deterministic
    assert program.training


@every
def test_check_changes_nothing_and_names_x(cls):
    program = cls.example().train()
    x, more, weights, before = rows(program), context(program), state(program), torch.get_rng_state()
    program.check(x, *more)
    assert torch.equal(torch.get_rng_state(), before)
    assert same(state(program), weights)
    assert program.training
    with pytest.raises(TypeError, match="^x"):
        program.check(x.numpy(), *more)
    if cls is not pv.programs.FunctionProgram:
        for wrong in (x.double(), x[..., :-1], x[:0], torch.full_like(x, torch.inf)):
            with pytest.raises(ValueError, match="^x"):
                program.check(wrong, *(column[: len(wrong)] for column in more))


class Replaced(pv.Conditional):
    """A posterior of another kind, or over one latent more."""

    def __init__(self, part, what):
        super().__init__()
        self.part, self.what = part, what

    def forward(self, *given):
        q = self.part(*given)
        ones = torch.ones(*q.batch_shape, q.event_shape[0] + (self.what == "shape"))
        simplex = isinstance(q, pv.distributions.LogisticNormal)
        return dist.Normal(ones, ones).to_event(1) if simplex == (self.what == "support") else dist.Dirichlet(ones)


def replace(program, path, what):
    """Replace a part by one of another kind."""
    owner, _, name = path.rpartition(".")
    owner = program.get_submodule(owner)
    owner._modules[name] = Replaced(owner._modules[name], what)


def latent_parts(program):
    """The paths of the parts that make latents: all but likelihoods and models of missing entries."""
    paths = [path for path, part in program.named_modules() if isinstance(part, pv.Conditional)]
    return [path for path in paths if not {"likelihood", "likelihoods", "mask"}.intersection(path.split(".")[-2:])]


@pytest.mark.parametrize("cls", LATENT)
def test_impossible_supports_are_refused_before_the_first_step(cls):
    """Whichever part is replaced, by an error that names both parts and a combination that works."""
    paths = latent_parts(cls.example())
    assert len(paths) >= 2
    for path in paths:
        program = cls.example()
        data, weights = columns(program), state(program)
        replace(program, path, "support")
        both = rf"({path} Replaced .*and (?!{path})[\w.]+ \w+|(?!{path})[\w.]+ \w+ .*and {path} Replaced)"
        pair = rf"expected the same support, but {both} .*Use .* such as \w+ with \w+"
        # a program of proportions refuses its prior alone
        with pytest.raises(ValueError, match=rf"{pair}|^{path}: expected topic proportions .*Replaced"):
            pv.fit(program, data, epochs=1, progress=False)
        assert all(torch.equal(value, weights[name.replace(".part.", ".")]) for name, value in state(program).items())


@pytest.mark.parametrize("cls", LATENT)
def test_latents_of_other_shapes_are_refused_before_the_first_step(cls):
    program = cls.example()
    data = (rows(program), *context(program))
    path = next(path for path in latent_parts(program) if "posterior" in path)
    replace(program, path, "shape")
    weights = state(program)
    with pytest.raises(ValueError, match=rf"{path} Replaced .*and (?!{path})[\w.]+ \w+ .*same `latent`"):
        pv.fit(program, data, epochs=1, progress=False)
    assert same(state(program), weights)


def function_program(prior, posterior):
    """A program with one latent, whose likelihood does not depend on it."""

    def run(fn, x, observed):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", fn)
            if observed:
                pyro.sample("x", dist.Bernoulli(torch.full((len(x),), 0.5)), obs=x)

    return pv.programs.FunctionProgram(lambda x: run(prior, x, True), lambda x: run(posterior, x, False))


ONE = torch.tensor(1.0)
FIT = {
    "half lines": (dist.Gamma(ONE, ONE), dist.LogNormal(ONE, ONE)),
    "intervals": (dist.Beta(ONE, ONE), RelaxedBernoulli(ONE, ONE)),
    "an interval inside another": (dist.Uniform(0.0, 2.0), dist.Uniform(0.5, 1.0)),
    "a point estimate": (dist.Gamma(ONE, ONE), dist.Delta(ONE)),
    "binary values": (dist.Bernoulli(0.5), dist.Categorical(torch.ones(2))),
    "simplex": (dist.Dirichlet(torch.ones(3)), pv.distributions.LogisticNormal(torch.zeros(3), torch.ones(3))),
}
UNFIT = {
    "half line and line": (dist.Gamma(ONE, ONE), dist.Normal(ONE, ONE)),
    "an interval beyond another": (dist.Uniform(0.5, 1.0), dist.Uniform(0.0, 2.0)),
    "discrete and continuous": (dist.Bernoulli(0.5), RelaxedBernoulli(ONE, ONE)),
    "simplex and vectors": (dist.Dirichlet(torch.ones(3)), dist.Normal(torch.zeros(3), 1.0).to_event(1)),
    "other groups": tuple(Flattened(dist.OneHotCategorical(torch.ones(12 // k, k)).to_event(1)) for k in (3, 4)),
}


@pytest.mark.parametrize("case", FIT)
def test_supports_that_fit_are_accepted(case):
    function_program(*FIT[case]).check(torch.ones(3))


@pytest.mark.parametrize("case", UNFIT)
def test_supports_that_do_not_fit_are_refused(case):
    with pytest.raises(ValueError, match="^z: .* support"):
        function_program(*UNFIT[case]).check(torch.ones(3))


def test_data_outside_the_support_are_refused():
    program = function_program(dist.Normal(ONE, ONE), dist.Normal(ONE, ONE))
    with pytest.raises(ValueError, match="^x: .*Bernoulli"):
        program.check(torch.full((3,), 0.3))


@pytest.mark.parametrize("num_particles", [1, 3])
@every
def test_estimators_take_it(cls, num_particles):
    """An AssertionError of `check_estimator` names the law that the pair breaks."""
    program = cls.example()
    check_estimator(program, pv.estimators.ELBO(num_particles=num_particles), *columns(program))


@pytest.mark.filterwarnings("ignore:(?s).*enumerate")
@every
def test_stock_pyro_and_copies(cls):
    """SVI trains a copy alone; Predictive, condition and pickles work; the parameter store stays empty."""
    program = cls.example()
    data, weights = columns(program), state(program)
    other = copy.deepcopy(program)
    svi = infer.SVI(other.model, other.guide, pyro.optim.Adam({"lr": 1e-2}), infer.Trace_ELBO())
    assert torch.isfinite(torch.tensor([svi.step(*data) for _ in range(2)])).all()
    assert not any(torch.equal(p, weights[n]) for n, p in other.named_parameters() if p.requires_grad)
    assert same(state(program), weights)
    assert same(state(pickle.loads(pickle.dumps(program))), weights)
    found = infer.Predictive(program.model, guide=program.guide, num_samples=5)(*data)
    assert all(len(value) == 5 for value in found.values())
    drawn = poutine.trace(program.guide).get_trace(*data)
    values = {name: drawn.nodes[name]["value"] for name in drawn.stochastic_nodes if name != "data"}
    fixed = poutine.trace(poutine.condition(program.model, data=values)).get_trace(*data)
    assert all(fixed.nodes[name]["is_observed"] for name in values)
    assert len(pyro.get_param_store()) == 0
