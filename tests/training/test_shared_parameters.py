"""Training leaves every parameter what it was, compiled or not, also if modules share it; with equal losses."""

import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from benchmarks.compile_everything import estimator_case, part_cases, program_case
from helpers.checks import slow_but
from helpers.compiled import SGD, check_ordinary, compare
from helpers.programs import bits, small
from helpers.sharing import sharing_cases
from safetensors.torch import load_file
from torch import nn
from torch._subclasses import FakeTensor

import pyro_vae as pv
from pyro_vae import estimators as E
from pyro_vae._util import substitute
from pyro_vae.cli import main
from pyro_vae.testing import parts
from pyro_vae.training import SVI, eager_graph, inductor

SHARING = list(sharing_cases())
QUICK = {"VampPrior", "tied weights", "layer used twice", "shared buffer", "frozen layer", "estimator with a module"}
PROGRAMS = {kind.__name__: kind for kind in parts(pv.programs, pv.Program)}
ESTIMATORS = {kind.__name__: kind for kind in parts(E, E.Estimator)}


@pytest.mark.parametrize("name", slow_but(QUICK, SHARING))
def test_shared_parameters(name, tmp_path):
    compare(sharing_cases()[name], eager_graph, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARING)
def test_shared_parameters_with_inductor(name, tmp_path):
    compare(sharing_cases()[name], inductor, tmp_path)


@pytest.mark.parametrize("name", slow_but({"VAE", "SequenceVAE", "BayesianDecoder"}, PROGRAMS))
def test_every_program(name, tmp_path):
    compare(program_case(PROGRAMS[name]), eager_graph, tmp_path)


@pytest.mark.parametrize("name", slow_but({"ELBO", "VIMCO", "FactorVAE"}, ESTIMATORS))
def test_every_estimator(name, tmp_path):
    compare(estimator_case(ESTIMATORS[name]), eager_graph, tmp_path)


@pytest.mark.slow
def test_every_part(tmp_path):
    cases = part_cases()
    for name, case in cases.items():
        try:
            compare(case, eager_graph, tmp_path / name)
        except Exception as error:
            raise AssertionError(f"{name}: {error}") from error
    every = {part.__name__ for shelf in (pv.priors, pv.likelihoods, pv.posteriors) for part in parts(shelf)}
    # no prior has the open unit interval as its support
    assert every - {part for name in cases for part in name.split(" x ")} <= {"RelaxedBernoulli"}


def vamp():
    return sharing_cases()["VampPrior"].make()


def not_compiled(graph, example):
    raise OSError("no C++ compiler found")


def interrupted(graph, example):
    raise KeyboardInterrupt


class Stops(nn.Module):
    """Raises an error while a step is recorded, when tensors have no data."""

    def __init__(self, net, error):
        super().__init__()
        self.net, self.error = net, error

    def forward(self, x):
        if isinstance(x, FakeTensor):
            raise self.error
        return self.net(x)


def stops(error):
    program = vamp()
    program.posterior.net = program.prior.posterior.net = Stops(program.posterior.net, error)
    return program


def stop(metrics, step):
    raise RuntimeError("stop")


NAN = bits(16)[0][0].clone()
NAN[3] = float("nan")


@pytest.mark.parametrize(
    ("make", "options", "error"),
    [
        (vamp, {"compile": not_compiled}, UserWarning),
        (vamp, {"compile": interrupted}, KeyboardInterrupt),
        (lambda: stops(ValueError("no data")), {"compile": eager_graph}, UserWarning),
        (lambda: stops(KeyboardInterrupt()), {"compile": eager_graph}, KeyboardInterrupt),
        (vamp, {"compile": eager_graph, "callbacks": [stop]}, RuntimeError),
        (vamp, {"callbacks": [stop]}, RuntimeError),
    ],
)
def test_parameters_after_a_failure(make, options, error):
    """They are the same objects, each with memory of its own, and the program can be trained."""
    program = make()
    parameters = dict(program.named_parameters(remove_duplicate=False))
    with pytest.raises(error):  # pytest turns warnings into errors
        pv.fit(program, bits(32)[0], epochs=2, batch_size=16, progress=False, **options)
    check_ordinary(program, parameters)
    assert len({p.untyped_storage().data_ptr() for p in program.parameters()}) == len(list(program.parameters()))
    pv.fit(program, bits(32)[0], epochs=1, batch_size=16, progress=False)
    check_ordinary(program, parameters)


def test_a_compiler_that_fails_leaves_the_step_uncompiled():
    torch.manual_seed(0)
    expected = pv.fit(small(), bits(32)[0], epochs=2, batch_size=16, progress=False)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="compile: .*no C\\+\\+ compiler found"):
        found = pv.fit(small(), bits(32)[0], epochs=2, batch_size=16, progress=False, compile=not_compiled)
    assert found["loss"] == expected["loss"]


@pytest.mark.parametrize("name", ["output as an attribute", "weight as an attribute", "VampPrior, batch norm"])
def test_recording_leaves_no_tensor_without_data(name):
    """Not even before the next step, which may assign another one."""
    case = sharing_cases()[name]
    svi = SVI(case.make(), case.estimator(), SGD, compiler=eager_graph)
    parameters = dict(svi.program.named_parameters(remove_duplicate=False))
    svi.update(*case.data)
    assert svi.compiled is not None
    check_ordinary(svi.program, parameters)


def test_the_law_can_fail(monkeypatch):
    """With torch's own order of restoring parameters, a module with two names keeps the substitutes."""

    def restored_in_order(modules, new):
        names = {id(p): n for m in modules for n, p in m.named_parameters(remove_duplicate=False)}
        new = {names[id(old)]: t for old, t in new.items() if id(old) in names}
        return torch.nn.utils.stateless._reparametrize_module(modules[0], new, tie_weights=True)

    monkeypatch.setattr("pyro_vae.training.compile.recorded_step.substituted", restored_in_order)
    monkeypatch.setattr("pyro_vae.training.compile.recorded_step.attributes_kept", lambda modules: nullcontext())
    svi = SVI(vamp(), E.ELBO(), SGD, compiler=eager_graph)
    parameters = dict(svi.program.named_parameters(remove_duplicate=False))
    svi.update(*bits(16)[0])
    with pytest.raises(AssertionError, match="another object"):
        check_ordinary(svi.program, parameters)


@pytest.mark.slow
def test_the_command_compiles_a_shared_posterior(tmp_path):
    words = "--prior VampPrior --compile --epochs 2 --posterior.net.hidden [8] --likelihood.net.hidden [8] --latent 2"
    assert main(["train", "--quiet", f"--run-dir={tmp_path}", *words.split()]) == 0
    assert all(torch.isfinite(t).all() for t in load_file(tmp_path / "weights.safetensors").values())
    assert pv.load(tmp_path).sample(3).shape[0] == 3


def test_functional_call_substitutes_shared_tensors_once():
    layer = nn.Linear(2, 2)
    module = nn.Sequential(layer, nn.Tanh(), layer)
    before = dict(module.named_parameters(remove_duplicate=False))
    x, zeros = torch.rand(3, 2), {"0.weight": torch.zeros(2, 2), "0.bias": torch.ones(2)}
    assert torch.equal(substitute.functional_call(module, zeros, (x,)), torch.ones(3, 2))
    with pytest.raises(RuntimeError):
        substitute.functional_call(module, zeros, (torch.rand(3, 5),))
    check_ordinary(module, before)
    assert len(substitute.tensors_of([module, layer])) == 2


def test_no_other_functional_call_is_used():
    """The function of torch leaves the substitutes in a module that has two names."""
    files = Path(pv.__file__).parent.rglob("*.py")
    assert [
        path for path in files if re.search(r"torch\.func(\.| import )functional_call\b[^`]", path.read_text())
    ] == []
