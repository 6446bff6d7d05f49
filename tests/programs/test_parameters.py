"""Parameters under Pyro: names in traces and optimizers, an empty global store, PyroModules, and what is refused."""

import copy
import gc
import inspect
import math
import pickle
import weakref

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import infer, poutine
from pyro.contrib.autoname import scope
from pyro.nn.module import PyroModule, PyroParam, PyroSample, pyro_method, to_pyro_module_
from test_programs import PROGRAMS, columns, context, rows

import pyro_vae as pv

every = pytest.mark.parametrize("cls", PROGRAMS)
# Pyro warns of sites that could be enumerated, and of names that a handler does not find
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(autouse=True)
def _global_store_stays_empty():
    yield
    assert len(pyro.get_param_store()) == 0


def adam(**options):
    return pyro.optim.Adam({"lr": 1e-2, **options})


def svi(model, guide, optimizer=None, elbo=None):
    return infer.SVI(model, guide, optimizer or adam(), elbo or infer.Trace_ELBO())


def trained(*modules):
    return {(i, name): p for i, m in enumerate(modules) for name, p in m.named_parameters() if p.requires_grad}


def still(parameters, before):
    """Return the names of the parameters that have not moved."""
    return [name for name, p in parameters.items() if torch.equal(p, before[name])]


def values(parameters):
    return {name: p.detach().clone() for name, p in parameters.items()}


def scoped(*programs):
    """Return a stock model and guide of several programs, whose sites get a prefix."""

    def run(which, data, order):
        for i in order:
            with scope(prefix=f"p{i}"):
                getattr(programs[i], which)(*data)

    count = range(len(programs))
    return lambda *data: run("model", data, count), lambda *data: run("guide", data, reversed(count))


def names(function, *args):
    nodes = poutine.trace(function).get_trace(*args).nodes.items()
    return {name: node["value"].unconstrained() for name, node in nodes if node["type"] == "param"}


# names


@every
def test_two_programs_in_one_model_train_all_parameters(cls):
    first, second = cls.example(), cls.example()
    data = columns(first)
    parameters = trained(first, second)
    before = values(parameters)
    optimizer = adam()
    both = svi(*scoped(first, second), optimizer)
    for _ in range(3):
        both.step(*data)
    assert not still(parameters, before)
    state = optimizer.get_state()
    assert None not in state
    assert len(state) == len(parameters)


def test_a_program_of_two_programs_and_a_guide_of_two_have_unique_names():
    class Two(pv.Program):
        def __init__(self):
            super().__init__()
            self.left, self.right = pv.VAE.example(), pv.VAE.example()

        def model(self, x):
            return scoped(self.left, self.right)[0](x)

        def guide(self, x):
            return scoped(self.left, self.right)[1](x)

    two, x = Two(), torch.randn(5, 4)
    before = values(trained(two))
    svi(two.model, two.guide).step(x)
    assert not still(trained(two), before)
    found = names(two.model, x)
    assert set(found.values()) == {p for vae in (two.left, two.right) for p in vae.likelihood.parameters()}
    assert "likelihood.net.body.0.weight" in found
    assert "likelihood__1.net.body.0.weight" in found
    copied = copy.deepcopy(two)
    assert names(copied.model, x).keys() == found.keys()


def test_one_program_twice_has_one_set_of_names():
    vae, x = pv.VAE.example(), torch.randn(5, 4)
    before, optimizer = values(trained(vae)), adam()
    svi(*scoped(vae, vae), optimizer).step(x)
    assert not still(trained(vae), before)
    assert optimizer.get_state().keys() == {name for name, _ in vae.named_parameters()}


def test_a_name_that_is_taken_by_another_statement_is_avoided():
    vae, x = pv.VAE.example(), torch.randn(5, 4)
    name = "likelihood.net.body.0.weight"

    def model(x):
        pyro.param(name, torch.zeros(2))
        return vae.model(x)

    before = values(trained(vae))
    svi(model, vae.guide).step(x)
    assert not still(trained(vae), before)
    pyro.clear_param_store()
    with poutine.trace() as tracer:
        pyro.sample("one", dist.Normal(0.0, 1.0))
        pv.programs.announce(one=torch.nn.Parameter(torch.zeros(())))
    assert list(tracer.trace.nodes) == ["one", "one__1"]


class Container(PyroModule):
    """A user's PyroModule around two programs."""

    def __init__(self):
        super().__init__()
        self.left, self.right = pv.VAE.example(), pv.VAE.example()

    def forward(self, which, x):
        for name in ("left", "right"):
            with scope(prefix=name):
                getattr(getattr(self, name), which)(x)


class Parts(PyroModule):
    """A user's PyroModule that uses the parts of a program, and not its model."""

    def __init__(self):
        super().__init__()
        self.vae = pv.VAE.example()

    def forward(self, which, x):
        with pv.programs.DataPlate(x):
            if which == "guide":
                return pyro.sample("z", self.vae.encode(x))
            return pyro.sample("x", self.vae.likelihood(pyro.sample("z", self.vae.prior())), obs=x)


@pytest.mark.parametrize("make", [Container, Parts])
def test_programs_inside_a_pyro_module_train_without_the_global_store(make):
    """Every instance, with the same names in the optimizer."""
    x, states = torch.randn(5, 4), []
    for _ in range(2):
        module, optimizer = make(), adam()
        before = values(trained(module))
        # `partial` of a PyroModule is a call, in which its context is active
        both = svi(lambda x, m=module: m("model", x), lambda x, m=module: m("guide", x), optimizer)
        for _ in range(2):
            both.step(x)
        assert not still(trained(module), before)
        assert copy.deepcopy(module).state_dict().keys() == pickle.loads(pickle.dumps(module)).state_dict().keys()
        states.append(optimizer.get_state().keys())
    assert states[0] == states[1]
    assert len(states[0]) == len(before)


def test_a_parameter_of_a_program_in_a_pyro_module_is_trained():
    class Coins(pv.Program):
        def __init__(self):
            super().__init__()
            self.raw = torch.nn.Parameter(torch.zeros(()))

        def model(self, x):
            raise NotImplementedError

        guide = model

    class Outer(PyroModule):
        def __init__(self):
            super().__init__()
            self.coins = Coins()

        def forward(self, x):
            with pv.programs.DataPlate(x):
                pyro.sample("x", dist.Bernoulli(logits=self.coins.raw), obs=x)

    outer = Outer()
    svi(outer, lambda x: None).step(torch.ones(4))
    assert outer.coins.raw != 0


# optimizers


def run_steps(vae, optimizer, steps, elbo=None):
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    training = svi(vae.model, vae.guide, optimizer, elbo)
    for i in steps:
        torch.manual_seed(i)
        training.step(x)


@every
def test_optimizer_state_has_the_names_of_the_parameters(cls):
    program, optimizer = cls.example(), adam()
    data, before = columns(program), values(trained(program))
    training = svi(program.model, program.guide, optimizer)
    for _ in range(2):
        training.step(*data)
    assert not still(trained(program), before)
    state = optimizer.get_state()
    assert None not in state
    assert len(state) == len(before)
    # each with the moments of its own parameter
    shapes = sorted(tuple(s["state"][0]["exp_avg"].shape) for s in state.values())
    assert shapes == sorted(tuple(p.shape) for p in trained(program).values())


@pytest.mark.parametrize("make", [adam, lambda: pyro.optim.ClippedAdam({"lr": 1e-2, "betas": (0.9, 0.99)})])
def test_saved_optimizer_state_resumes_exactly(tmp_path, make):
    torch.manual_seed(3)
    whole = pv.VAE.example()
    first = copy.deepcopy(whole)
    run_steps(whole, make(), range(6))
    optimizer = make()
    run_steps(first, optimizer, range(3))
    optimizer.save(tmp_path / "optimizer.pt")
    second, resumed = pv.VAE.example(), make()
    second.load_state_dict(first.state_dict())
    resumed.load(tmp_path / "optimizer.pt")
    run_steps(second, resumed, range(3, 6))
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def test_options_by_name_reach_each_parameter():
    seen = []

    def options(name):
        seen.append(name)
        return {"lr": 0.0 if name.startswith("likelihood.") else 1e-2}

    vae = pv.VAE.example()
    before = values(trained(vae))
    run_steps(vae, pyro.optim.Adam(options), range(2))
    assert {name for _, name in still(trained(vae), before)} == {n for n in seen if n.startswith("likelihood.")}
    assert sorted(seen) == sorted(name for name, _ in vae.named_parameters())


def test_options_of_two_arguments_clipping_and_schedulers_work():
    vae = pv.VAE.example()
    before = values(trained(vae))
    optimizer = pyro.optim.Adam(lambda module, name: {"lr": 1e-2}, lambda module, name: {"clip_norm": 1.0})
    run_steps(vae, optimizer, range(2))
    assert not still(trained(vae), before)
    scheduler = pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-2}, "gamma": 0.5})
    run_steps(vae, scheduler, range(2))
    assert None not in scheduler.get_state()


def test_names_keep_no_parameter_alive():
    store = pyro.get_param_store()
    gc.collect()
    count = len(store._param_to_name)
    vae, optimizer = pv.VAE.example(), adam()
    run_steps(vae, optimizer, range(1))
    assert len(store._param_to_name) == count + len(list(vae.parameters()))
    dead = weakref.ref(vae.likelihood.net.body[0].weight)
    del vae, optimizer
    gc.collect()
    assert dead() is None
    assert len(store._param_to_name) == count


def test_names_given_by_pyro_module_stay():
    vae, optimizer = pv.VAE.example(), adam()

    def model(x):
        pyro.module("mine", vae)
        return vae.model(x)

    svi(model, vae.guide, optimizer).step(torch.randn(5, 4))
    assert optimizer.get_state().keys() == {f"mine$$${name}" for name, _ in vae.named_parameters()}
    pyro.clear_param_store()
    svi(vae.model, vae.guide, optimizer).step(torch.randn(5, 4))
    assert optimizer.get_state().keys() == {name for name, _ in vae.named_parameters()}


def test_names_follow_the_model_in_which_a_program_is():
    """A program that was trained alone, and is then the second one of a model."""
    first, second, x = pv.VAE.example(), pv.VAE.example(), torch.randn(5, 4)
    for vae in (first, second):
        svi(vae.model, vae.guide).step(x)
    optimizer = adam()
    svi(*scoped(first, second), optimizer).step(x)
    assert len(optimizer.get_state()) == len(trained(first, second))


# handlers that need the global store, or replace parameters

JIT = [infer.JitTrace_ELBO, infer.JitTraceMeanField_ELBO, infer.JitTraceEnum_ELBO, infer.JitTraceGraph_ELBO]


@every
@pytest.mark.parametrize("jit", JIT)
def test_estimators_of_torch_jit_are_refused_by_name(cls, jit):
    program = cls.example()
    data = (rows(program), *context(program))
    before = values(trained(program))
    elbo = jit(max_plate_nesting=1)
    with pytest.raises(TypeError, match="torch.jit"):
        svi(program.model, program.guide, elbo=elbo).step(*data)
    with pytest.raises(TypeError, match="torch.jit"):
        elbo.loss_and_grads(program.model, program.guide, *data)
    with pytest.raises(TypeError, match="torch.jit"):
        pv.fit(program, data, estimator=elbo, epochs=1, progress=False)
    assert len(still(trained(program), before)) == len(before)


@every
def test_handlers_that_replace_parameters_are_refused(cls):
    program = cls.example()
    data = (rows(program), *context(program))
    function = program.model if names(program.model, *data) else program.guide
    name, parameter = next(iter(names(function, *data).items()))
    standard = dist.Normal(0.0, 1.0)
    for handler in (
        poutine.lift(prior=standard),
        poutine.lift(prior={name: standard}),
        poutine.lift(prior=lambda *args, **kwargs: torch.zeros(())),
        poutine.substitute(data={name: torch.zeros_like(parameter)}),
    ):
        with pytest.raises(ValueError, match=f"^{name}"), handler:
            function(*data)


def test_handlers_that_replace_other_parameters_are_not_refused():
    vae, x = pv.VAE.example(), torch.randn(5, 4)
    with poutine.trace() as tracer, poutine.lift(prior={"shift": dist.Normal(0.0, 1.0)}):
        pyro.param("shift", torch.zeros(()))
        vae.model(x)
    assert tracer.trace.nodes["shift"]["type"] == "sample"
    replayed = poutine.replay(vae.model, params={n: s["value"] for n, s in tracer.trace.nodes.items()})
    assert names(replayed, x).keys() == names(vae.model, x).keys()


# PyroModules


def subclasses(cls):
    return {cls}.union(*map(subclasses, cls.__subclasses__()))


def test_every_module_class_can_be_mixed_with_pyro_module():
    modules = [c for c in subclasses(torch.nn.Module) if c.__module__.startswith("pyro_vae.")]
    assert len(modules) > 100
    for cls in modules:
        assert issubclass(PyroModule[cls], cls)


@pytest.mark.parametrize("cls", [pv.Program, pv.Conditional, PyroModule[pv.Conditional]])
def test_abstract_classes_cannot_be_instantiated(cls):
    assert inspect.isabstract(cls)
    with pytest.raises(TypeError, match="abstract"):
        cls()

    class Half(cls):
        def model(self, x):
            pass

    with pytest.raises(TypeError, match="abstract"):
        Half()


def loss(program, data, elbo=None):
    torch.manual_seed(0)
    return (elbo or infer.Trace_ELBO()).loss(program.model, program.guide, *data)


@every
def test_a_program_of_pyro_modules_is_the_same_program(cls):
    """Loss, gradients, training, fit, copies and pickles of a converted program are those of the plain one."""
    plain = cls.example()
    data = columns(plain)
    converted = [copy.deepcopy(plain) for _ in range(2)]
    for program in converted:
        to_pyro_module_(program)
        assert all(isinstance(m, PyroModule) for m in program.modules())
        assert loss(program, data) == loss(plain, data)
        assert loss(program, data, pv.estimators.ELBO(num_particles=2)) == loss(
            plain, data, pv.estimators.ELBO(num_particles=2)
        )
    expected = values(trained(plain))
    for program in (plain, *converted):
        torch.manual_seed(1)
        training = svi(program.model, program.guide, pyro.optim.SGD({"lr": 1e-3}))
        for _ in range(2):
            training.step(*data)
        assert not still(trained(program), expected)
        again = copy.deepcopy(program) if cls is pv.programs.FunctionProgram else pickle.loads(pickle.dumps(program))
        assert loss(again, data) == loss(program, data)
        for name, value in again.state_dict().items():
            assert torch.equal(value, plain.state_dict()[name]), name
    history = pv.fit(converted[0], data, epochs=1, progress=False)
    assert torch.isfinite(torch.tensor(history["loss"])).all()


def test_frozen_pyro_modules_stay_as_they_are():
    """Also if earlier training has left gradients on them, which an optimizer of Pyro would apply."""
    vae, x = pv.VAE.example(), torch.randn(6, 4)
    to_pyro_module_(vae)
    infer.Trace_ELBO().loss_and_grads(vae.model, vae.guide, x)
    vae.likelihood.requires_grad_(False)
    before = values(dict(vae.named_parameters()))
    svi(vae.model, vae.guide).step(x)
    assert set(still(dict(vae.named_parameters()), before)) == {n for n in before if n.startswith("likelihood.")}


class Shrink(PyroModule):
    """A network with a constrained parameter, whose names are those of every other instance."""

    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.linear = PyroModule[torch.nn.Linear](math.prod(in_shape), math.prod(out_shape))
        self.factor = PyroParam(torch.tensor(0.5), constraint=dist.constraints.positive)

    def forward(self, x):
        return self.factor * self.linear(x)


class PlainShrink(torch.nn.Module):
    """The same network without Pyro."""

    def __init__(self, network):
        super().__init__()
        self.linear = torch.nn.Linear(network.linear.in_features, network.linear.out_features)
        self.linear.load_state_dict({k: v.clone() for k, v in network.linear.state_dict().items()})
        self.factor_unconstrained = torch.nn.Parameter(torch.tensor(0.5).log())

    def forward(self, x):
        return self.factor_unconstrained.exp() * self.linear(x)


def shrinking(net):
    return pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli(2, (4,), net=net),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2, net=net),
    )


@pytest.mark.parametrize("nested", [False, True])
def test_networks_that_are_pyro_modules_train_as_the_same_networks_without_pyro(nested):
    """Two instances, whose names in Pyro's store would be the same, also inside a plain module."""
    wrap = torch.nn.Sequential if nested else lambda net: net
    x, nets = torch.rand(6, 4).round(), []

    def network(inputs, outputs):
        nets.append(Shrink(inputs, outputs))
        return wrap(nets[-1])

    first, second = shrinking(network), shrinking(network)
    for vae, own in ((first, nets[:2]), (second, nets[2:])):
        queue = iter(own)
        reference = shrinking(lambda inputs, outputs, queue=queue: wrap(PlainShrink(next(queue))))
        for program in (vae, reference):
            run = svi(program.model, program.guide)
            for i in range(3):
                torch.manual_seed(i)
                run.step(x)
        for (name, p), q in zip(vae.named_parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(p, q, msg=name)
        torch.testing.assert_close(loss(copy.deepcopy(vae), (x,)), loss(reference, (x,)))
        history = pv.fit(vae, x, epochs=2, progress=False, estimator=pv.estimators.DReG(num_particles=2))
        assert len(history) == 2


def test_a_part_that_is_a_pyro_module_trains_alone():
    x = torch.rand(6, 4).round()

    class Part(pv.Conditional):
        """Holds its network itself, without `build`."""

        def __init__(self):
            super().__init__()
            self.net = PyroModule[torch.nn.Linear](2, 4)

        def forward(self, z, *context):
            return dist.Bernoulli(logits=self.net(z)).to_event(1)

    for kind in (Part, PyroModule[Part], PyroModule[pv.likelihoods.Bernoulli]):
        arguments = () if kind is not PyroModule[pv.likelihoods.Bernoulli] else (2, (4,))
        for i in range(3):
            vae = pv.VAE(
                prior=pv.priors.StandardNormal(2),
                likelihood=kind(*arguments),
                posterior=pv.posteriors.MeanFieldNormal((4,), 2),
            )
            first = [
                vae.sample,
                lambda n, p=vae: p.reconstruct(x),
                lambda n, p=vae: pv.evaluation.log_likelihood(p, x, num_particles=n),
            ]
            first[i](2)
            assert len(pyro.get_param_store()) == 0
            before = values(trained(vae))
            svi(vae.model, vae.guide).step(x)
            assert not still(trained(vae), before)


def random_weights(net):
    to_pyro_module_(net)
    for m in net.modules():
        for name, p in list(m.named_parameters(recurse=False)):
            setattr(m, name, PyroSample(dist.Normal(0.0, 1.0).expand(p.shape).to_event()))
    return net


@pytest.mark.parametrize("elbo", [infer.Trace_ELBO, pv.estimators.ELBO])
def test_random_weights_inside_a_part_are_refused(elbo):
    vae = shrinking(pv.nets.MLP)
    random_weights(vae.likelihood.net)
    x = torch.rand(6, 4).round()
    with pytest.raises(ValueError, match="PyroSample.*BayesianDecoder"):
        elbo().loss(vae.model, vae.guide, x)
    with pytest.raises(ValueError, match="PyroSample.*BayesianDecoder"):
        pv.fit(vae, x, epochs=1, progress=False)


class RandomScale(pv.Program):
    """A network with a random weight that is sampled before the plate, which all examples share."""

    def __init__(self):
        super().__init__()
        self.net = PyroModule[torch.nn.Linear](1, 1, bias=False)
        self.net.weight = PyroSample(dist.Normal(0.0, 1.0).expand((1, 1)).to_event(2))
        self.loc = torch.nn.Parameter(torch.tensor(0.3))

    @pyro_method
    def model(self, x):
        pv.programs.announce(net=self.net)
        _ = self.net.weight
        with pv.programs.DataPlate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            return pv.programs.observe("x", dist.Normal(self.net(z), 0.5).to_event(1), x)

    def guide(self, x):
        pv.programs.announce(loc=self.loc)
        pyro.sample("net.weight", dist.Normal(self.loc, 0.5).expand((1, 1)).to_event(2))
        with pv.programs.DataPlate(x):
            pyro.sample("z", dist.Normal(0.5 * x, 0.7).to_event(1))


@pytest.mark.parametrize("elbo", [infer.Trace_ELBO(), pv.estimators.ELBO(analytic_kl=False)])
def test_random_weights_outside_the_plate_have_their_density(elbo):
    program, x = RandomScale(), torch.randn(6, 1)
    trace = poutine.trace(program.guide)
    torch.manual_seed(0)
    nodes = trace.get_trace(x).nodes
    w, z = nodes["net.weight"]["value"], nodes["z"]["value"]
    log_p = dist.Normal(0.0, 1.0).log_prob(w).sum() + dist.Normal(0.0, 1.0).log_prob(z).sum()
    log_p = log_p + dist.Normal(z * w[0, 0], 0.5).log_prob(x).sum()
    log_q = dist.Normal(program.loc, 0.5).log_prob(w).sum() + dist.Normal(0.5 * x, 0.7).log_prob(z).sum()
    assert loss(program, (x,), elbo) == pytest.approx((log_q - log_p).item(), rel=1e-5)
