"""Programs of two functions, with `pyro.module`, `pyro.param` and PyroModules inside them."""

import copy
import pickle

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import infer, poutine
from pyro.infer.autoguide import AutoDelta, AutoNormal
from pyro.nn.module import PyroModule, PyroParam, PyroSample, to_pyro_module_
from torch import nn

import pyro_vae as pv

FunctionProgram = pv.programs.FunctionProgram


def x(n=6):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(0))


def functions(encoder, decoder, modules=True, params=True):
    """Return model and guide of a linear VAE, as in Pyro's tutorials."""

    def model(x):
        if modules:
            pyro.module("decoder", decoder)
        std = pyro.param("std", torch.tensor(1.5), constraint=dist.constraints.positive) if params else 1.5
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), std).to_event(1), obs=x)

    def guide(x):
        if modules:
            pyro.module("encoder", encoder)
        shift = pyro.param("shift", lambda: torch.full((2,), 0.1)) if params else 0.1
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(encoder(x) + shift, 0.8).to_event(1))

    return model, guide


class AsClass(pv.Program):
    """The same program, written as a class."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = copy.deepcopy(encoder), copy.deepcopy(decoder)
        self.std, self.shift = nn.Parameter(torch.tensor(1.5).log()), nn.Parameter(torch.full((2,), 0.1))

    def model(self, x):
        pv.programs.announce(decoder=self.decoder, std=self.std)
        with pv.programs.DataPlate(x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), self.std.exp()).to_event(1), obs=x)

    def guide(self, x):
        pv.programs.announce(encoder=self.encoder, shift=self.shift)
        with pv.programs.DataPlate(x):
            pyro.sample("z", dist.Normal(self.encoder(x) + self.shift, 0.8).to_event(1))


def both(**options):
    """Return a program of two functions and the same program as a class."""
    encoder, decoder = nn.Linear(4, 2), nn.Linear(2, 4)
    return FunctionProgram(*functions(encoder, decoder, **options), encoder=encoder, decoder=decoder), AsClass(
        encoder, decoder
    )


def numbers(program):
    return sorted((tuple(p.shape), p.detach().flatten().tolist()) for p in program.parameters())


def assert_same(a, b):
    for (shape, p), (other, q) in zip(numbers(a), numbers(b), strict=True):
        assert shape == other
        assert p == pytest.approx(q, rel=1e-4, abs=1e-6)


def take_steps(program, n=3):
    run = infer.SVI(program.model, program.guide, pyro.optim.Adam({"lr": 1e-2}), infer.Trace_ELBO())
    losses = []
    for i in range(n):
        torch.manual_seed(i)
        losses.append(run.step(x()))
    assert len(pyro.get_param_store()) == 0
    return losses


def fit(program, **options):
    return pv.fit(program, x(), epochs=3, batch_size=3, progress=False, **options)["loss"]


@pytest.mark.parametrize("train", [take_steps, fit])
def test_every_instance_trains_as_the_program_as_a_class(train):
    for _ in range(2):
        program, reference = both()
        assert train(program) == pytest.approx(train(reference), rel=1e-5)
        assert_same(program, reference)


@pytest.mark.parametrize("train", [take_steps, fit])
@pytest.mark.parametrize("trained_before", [False, True])
def test_a_deep_copy_is_independent(train, trained_before):
    program, reference = both()
    if trained_before:
        assert train(program) == pytest.approx(train(reference), rel=1e-5)
    else:
        program.check(x())
    copied, unchanged = copy.deepcopy(program), numbers(program)
    assert train(copied) == pytest.approx(train(reference), rel=1e-5)
    assert_same(copied, reference)
    assert numbers(program) == unchanged
    after = numbers(copied)
    train(program)
    assert numbers(copied) == after


@pytest.mark.parametrize("estimator", [pv.estimators.ELBO(), pv.estimators.DReG(num_particles=2), infer.Trace_ELBO()])
def test_comparing_estimators_gives_the_gradients_of_the_program_as_a_class(estimator):
    program, reference = both()
    found, expected = (
        pv.evaluation.compare_estimators(p, x(), [estimator], num_samples=20, seed=0).to_dict()["rows"][0]
        for p in (program, reference)
    )
    assert found["guide_snr"] > 0
    costs = {"milliseconds", "megabytes", "guide_signal", "model_signal"}
    costs |= {"guide_variance_times_cost", "model_variance_times_cost"}
    for name, value in expected.items():
        if name not in costs:
            assert found[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-3, abs=1e-4)), name


def test_a_copy_has_its_own_mode_and_buffers():
    norm = nn.BatchNorm1d(4, affine=False)
    encoder, decoder = nn.Sequential(norm, nn.Dropout(0.5), nn.Linear(4, 2)), nn.Linear(2, 4)
    program = FunctionProgram(*functions(encoder, decoder), encoder=encoder, decoder=decoder)
    program.check(x())
    copied = copy.deepcopy(program)
    program.train()
    copied.eval()
    assert torch.equal(*(poutine.trace(copied.guide).get_trace(x()).nodes["z"]["fn"].mean for _ in range(2)))
    copied.train()
    take_steps(copied)
    assert norm.num_batches_tracked == 0
    assert copied.parts["encoder"][0].num_batches_tracked == 3
    assert encoder.training


@pytest.mark.parametrize("auto", [AutoNormal, AutoDelta])
def test_an_autoguide_is_a_guide_whose_parameters_belong_to_the_program(auto):
    def model(x):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(torch.zeros(4), scale).to_event(1), obs=x)

    run = infer.SVI(model, auto(model), pyro.optim.Adam({"lr": 1e-2}), infer.Trace_ELBO())
    expected = []
    for i in range(3):
        torch.manual_seed(i)
        expected.append(run.step(x()))
    pyro.clear_param_store()
    for wrap in (lambda guide: guide, lambda guide: lambda x: guide(x)):
        for _ in range(2):
            program = FunctionProgram(model, wrap(auto(model)))
            assert take_steps(program) == pytest.approx(expected, rel=1e-5)
            assert len(list(program.parameters())) == 1 + (auto is AutoNormal)
            copied, unchanged = copy.deepcopy(program), numbers(program)
            take_steps(copied)
            assert numbers(copied) != unchanged
            assert numbers(program) == unchanged
            assert len(fit(program)) == 3


def test_parameters_of_statements_are_saved_with_the_program():
    program, _ = both()
    assert not [name for name, _ in program.named_parameters() if "statements" in name]
    take_steps(program)
    assert {"statements.std", "statements.shift"} <= program.state_dict().keys()
    other, _ = both()
    other.check(x())
    other.load_state_dict(program.state_dict())
    assert_same(other, program)
    with poutine.trace() as tracer:
        other.model(x())
    std = tracer.trace.nodes["x"]["fn"].base_dist.scale
    assert torch.allclose(std, program.statements.std.exp())


def test_two_programs_of_functions_in_one_model_train_all_parameters():
    left, right = both()[0], both()[0]
    for program in (left, right):
        program.check(x())
    before = numbers(left), numbers(right)

    def run(which, x):
        for name, program in (("left", left), ("right", right)):
            with pyro.contrib.autoname.scope(prefix=name):
                getattr(program, which)(x)

    optimizer = pyro.optim.Adam({"lr": 1e-2})
    infer.SVI(lambda x: run("model", x), lambda x: run("guide", x), optimizer, infer.Trace_ELBO()).step(x())
    for program, old in zip((left, right), before, strict=True):
        assert all(a != b for a, b in zip(numbers(program), old, strict=True))
    assert len(optimizer.get_state()) == 12


ENCODER = nn.Linear(4, 2)


def plain_model(x):
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.repeat(1, 2), 1.0).to_event(1), obs=x)


def plain_guide(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(ENCODER(x), 1.0).to_event(1))


def test_programs_of_plain_functions_are_not_pickled():
    """Functions would refer to other modules than those of the program."""
    with pytest.raises(TypeError, match="state_dict"):
        pickle.dumps(FunctionProgram(plain_model, plain_guide, encoder=ENCODER))
    assert_same(pickle.loads(pickle.dumps(example := FunctionProgram.example())), example)


@pytest.mark.parametrize("modules", [True, False])
def test_a_module_that_the_program_does_not_hold(modules):
    """Trains if a statement names it; a deep copy, which would share it, is refused."""
    encoder, decoder = nn.Linear(4, 2), nn.Linear(2, 4)
    program = FunctionProgram(*functions(encoder, decoder, modules=modules), encoder=encoder)
    fit(program)
    before = numbers(program)
    fit(program)
    assert all(a != b for a, b in zip(numbers(program), before, strict=True))
    assert (decoder.weight in set(program.parameters())) == modules
    if modules:
        with pytest.raises(RuntimeError, match="Pass the module"):
            take_steps(copy.deepcopy(program))


class Root(PyroModule):
    def __init__(self, name=""):
        super().__init__(name)
        self.loc = PyroParam(torch.zeros(2))

    def forward(self):
        return self.loc


def test_pyro_modules_of_one_name_share_nothing():
    left, right = Root(), Root()

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(left(), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.repeat(1, 2) + right().repeat(2), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x[:, :2], 1.0).to_event(1))

    program = FunctionProgram(model, guide, left=left, right=right)
    take_steps(program)
    assert all((p != 0).all() for p in program.parameters())
    assert not torch.equal(left.loc, right.loc)


class RandomShift(PyroModule):
    """Has a latent of each example, which it samples inside the plate."""

    def __init__(self):
        super().__init__()
        self.scale = PyroParam(torch.tensor(1.0), constraint=dist.constraints.positive)
        self.z = PyroSample(lambda self: dist.Normal(0.0, self.scale))

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("x", dist.Normal(self.z.unsqueeze(-1).expand(-1, 4), 1.0).to_event(1), obs=x)


def test_a_pyro_module_is_a_model():
    """It may sample its attributes in the plate: those are latents of each example."""
    model = RandomShift()

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.mean(-1), pyro.param("std", torch.tensor(0.5))))

    program = FunctionProgram(model, guide)
    torch.manual_seed(0)
    z = poutine.trace(program.guide).get_trace(x()).nodes["z"]["value"].detach()
    log_p = dist.Normal(0.0, 1.0).log_prob(z).sum() + dist.Normal(z[:, None], 1.0).log_prob(x()).sum()
    exact = dist.Normal(x().mean(-1), 0.5).log_prob(z).sum() - log_p
    for estimator in (infer.Trace_ELBO(), pv.estimators.ELBO(analytic_kl=False)):
        torch.manual_seed(0)
        assert estimator.loss(program.model, program.guide, x()) == pytest.approx(exact.item(), rel=1e-5)
    before = numbers(program)
    take_steps(program)
    assert all(a != b for a, b in zip(numbers(program), before, strict=True))
    assert len(fit(program)) == 3


def converted():
    to_pyro_module_(program := pv.VAE.example())
    return program


@pytest.mark.parametrize("make", [lambda: both()[0], FunctionProgram.example, pv.VAE.example, converted])
def test_pyro_module_around_a_program_changes_nothing(make):
    """`pyro.module` outside of a program fills the global store, and leaves the program as it is."""
    program = make()
    program.check(x())
    before = numbers(program)

    def model(x):
        pyro.module("mine", program)
        return program.model(x)

    infer.SVI(model, program.guide, pyro.optim.Adam({"lr": 1e-2}), infer.Trace_ELBO()).step(x())
    assert all(a != b for a, b in zip(numbers(program), before, strict=True))
    assert all(name.startswith("mine$$$") for name in pyro.get_param_store())


def copied():
    (program := both()[0]).check(x())
    return copy.deepcopy(program)


@pytest.mark.parametrize("estimator", [pv.estimators.ELBO(), pv.estimators.DReG(num_particles=2)])
@pytest.mark.parametrize("make", [copied, converted])
def test_a_graph_of_the_step_is_the_step(make, estimator):
    program = make()
    other = copy.deepcopy(program)
    options = {"batch_size": 3, "epochs": 3, "seed": 1, "progress": False, "estimator": estimator}
    losses = pv.fit(other, x(), compile=pv.training.eager_graph, **options)["loss"]
    assert pv.fit(program, x(), compile=False, **options)["loss"] == pytest.approx(losses, rel=1e-5)
    assert_same(program, other)
