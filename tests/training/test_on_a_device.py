"""No step waits for its device, or computes on another one; checked without a GPU.

Tensors on the device "meta" have shapes but no data: an operation for which Python would wait for a GPU raises an
error. Modes record all operations of a step, so that those on the CPU, and copies from there, are found.
`tests/benchmarks/gpu_check.py` runs on a real GPU.
"""

import functools
import inspect
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from benchmarks.compile_everything import estimator_case, part_cases, program_case
from benchmarks.cross_product import build
from helpers.checks import slow_but
from helpers.programs import bits, small
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pyro_vae as pv
from pyro_vae import estimators as E
from pyro_vae.distributions.missing import factorized
from pyro_vae.testing import parts
from pyro_vae.training import SVI, Autocast, eager_graph
from pyro_vae.training.compile import flat_optimizer
from pyro_vae.training.compile.flat_optimizer import ELEMENTWISE, as_compiled
from pyro_vae.training.data.column import OnDevice
from pyro_vae.training.groups import build as build_optimizer
from pyro_vae.training.optimizer import OneOptimizer

SGD = functools.partial(torch.optim.SGD, lr=1e-3, momentum=0.9, fused=False)
PROGRAMS = {kind.__name__: kind for kind in parts(pv.programs, pv.Program)}
ESTIMATORS = {kind.__name__: kind for kind in parts(E, E.Estimator)}

#: Kernels that torch lacks on "meta"; their results have the shape of their first argument.
UNKNOWN = ("_sample_dirichlet", "_standard_gamma_grad", "_dirichlet_grad")

#: Functions that copy numbers from Python to a device, or wait for it to know whether a decomposition exists.
WAITS = {
    torch.tensor,
    torch.as_tensor,
    torch.asarray,
    torch.Tensor.new_tensor,
    torch.linalg.cholesky,
    torch.linalg.inv,
    torch.linalg.solve,
    torch.inverse,
}


class Waiting(TorchFunctionMode):
    """Collects calls that wait for a device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function in WAITS and out.is_meta and out is not args[0]:  # torch.as_tensor of a tensor does nothing
            callers = [frame.filename for frame in inspect.stack()]
            if not any("zuko" in Path(name).parts for name in callers):  # zuko copies its own constants
                self.found.append(f"{function.__name__}, called by {callers[1]}")
        return out


class Elsewhere(TorchDispatchMode):
    """Collects operations on the CPU, except the row numbers of a plate of Pyro, which are not used."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor) and t.numel()]
        if any(not t.is_meta for t in tensors) and operation is not torch.ops.aten.arange.default:
            self.found.append(str(operation))
        return out


@pytest.fixture(scope="module")
def kernels():
    """Add the kernels that torch lacks."""
    library = torch.library.Library("aten", "IMPL")
    for name in UNKNOWN:
        library.impl(name, lambda first, *others: torch.empty_like(first), "Meta")
    yield
    library._destroy()


@pytest.fixture
def make_svi(monkeypatch, kernels):
    """Return what makes an SVI on "meta", which reads neither its step counts nor whether a step was finite."""
    monkeypatch.setattr(flat_optimizer, "counts_of", lambda state: ())
    monkeypatch.setattr(OneOptimizer, "step_if", lambda optimizer, good: optimizer.torch.step())

    def make(program, estimator, optimizer=SGD, **options):
        for module in (program, getattr(estimator, "module", None)):
            if module is not None:
                module.to("meta")
        return SVI(program, estimator, optimizer, clip_norm=1.0, **options)

    return make


@contextmanager
def on_the_device():
    """Fail if something is computed elsewhere, or waits for the device."""
    with Elsewhere() as elsewhere, Waiting() as waiting:
        yield
    assert elsewhere.found == []
    assert waiting.found == []


def check_steps(make_svi, program, estimator, batch):
    """Take a first step, which may initialize caches, then an uncompiled and a recorded one."""
    svi = make_svi(program, estimator)
    batch = [t.to("meta") for t in batch]
    svi.update(*batch)
    with on_the_device():
        svi.update(*batch)
    svi.compiler = eager_graph
    svi.update(*batch)
    assert svi.compiled is not None
    with on_the_device():
        svi.update(*batch)


@pytest.mark.parametrize("name", slow_but({"MissingNotAtRandom", "SemiSupervised", "BayesianDecoder"}, PROGRAMS))
def test_every_program(name, make_svi):
    case = program_case(PROGRAMS[name])
    check_steps(make_svi, case.make(), E.ELBO(num_particles=2), case.data)


@pytest.mark.parametrize("name", slow_but({"ELBO", "IWAE", "JackknifeIWAE", "TVO", "VIMCO"}, ESTIMATORS))
def test_every_estimator(name, make_svi):
    case = estimator_case(ESTIMATORS[name])
    check_steps(make_svi, case.make(), case.estimator(), case.data)


@pytest.mark.parametrize(
    "rule", [r if r is torch.optim.Adam else pytest.param(r, marks=pytest.mark.slow) for r in ELEMENTWISE]
)
def test_every_optimizer(rule, make_svi):
    """No recorded update rule reads its learning rate, not even a changed one, or its step count."""
    counts = {"capturable": True} if "capturable" in inspect.signature(rule).parameters else {}
    optimizer = functools.partial(rule, lr=1e-3, foreach=False, **counts)
    svi = make_svi(small(), E.ELBO(), optimizer, compiler=eager_graph)
    batch = bits(16)[0][0].to("meta")
    with as_compiled():  # else torch reads the name of the device
        svi.update(batch)
    with on_the_device():
        svi.update(batch)
        svi.optim.torch.param_groups[0]["lr"] = 1e-4
        svi.update(batch)
    assert svi.compiled is not None


@pytest.mark.parametrize("rule", ELEMENTWISE)
def test_optimizers_count_their_steps_on_a_gpu(rule):
    """As a CUDA graph requires, fused or not; options of the user are kept."""
    with FakeTensorMode():
        named = {"weight": nn.Parameter(torch.empty(3, device="cuda"))}
    options = build_optimizer(functools.partial(rule, lr=1e-3), named).defaults
    assert options.get("fused") or options.get("capturable") or rule is torch.optim.SGD
    given = {"capturable": False} if "capturable" in options else {"foreach": False}
    options = build_optimizer(functools.partial(rule, lr=1e-3, **given), named).defaults
    assert given.items() <= options.items()


@pytest.mark.slow
def test_every_part(make_svi):
    for name, case in part_cases().items():
        program = case.make()
        # on "meta", forward-mode derivatives also run on the CPU, and convolutions have other strides than on the CPU
        if isinstance(program.prior, (pv.priors.FlowMatching, pv.priors.PixelCNN)):
            continue
        if isinstance(program.posterior, pv.posteriors.SemiAmortized):  # the model of its example is another program
            program.posterior.net._parts = (program.posterior.posterior, program.prior, program.likelihood)
        try:
            check_steps(make_svi, program, case.estimator(), case.data)
        except Exception as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", list(parts(pv.likelihoods)))
def test_missing_entries(likelihood, make_svi):
    """The value that replaces a missing entry is not searched again in each step."""
    whole, (x,) = build(pv.priors.StandardNormal, likelihood, pv.posteriors.MeanFieldNormal)
    if not factorized(whole.likelihood(whole.prior().sample((2,)))):
        pytest.skip("not a product over the entries, so missing entries are refused")
    program = pv.VAE(prior=whole.prior, likelihood=whole.likelihood, posterior=whole.posterior, missing=True)
    check_steps(make_svi, program, E.ELBO(), (x,))


def test_rows_and_binary_values(make_svi):
    """Rows of a data set on the device are read, sampled and rounded there."""
    data = OnDevice([torch.rand(30, 8, device="meta")], [pv.data.DrawBits()])
    svi = make_svi(small(), E.ELBO(), data=data, compiler=eager_graph, precision=Autocast(torch.bfloat16))
    rows = torch.zeros(16, dtype=torch.int64, device="meta")
    svi.update(rows)
    assert svi.compiled is not None
    with on_the_device():
        svi.update(rows)


class Moves(nn.Linear):
    def forward(self, z):
        return super().forward(z) + torch.randn(4).to(z.device)


class Copies(nn.Linear):
    def forward(self, z):
        return super().forward(z) * torch.tensor(2.0, device=z.device)


class Reads(nn.Linear):
    def forward(self, z):
        return super().forward(z) if z.sum() > 0 else super().forward(-z)


@pytest.mark.parametrize(
    ("decoder", "error"), [(Moves, AssertionError), (Copies, AssertionError), (Reads, RuntimeError)]
)
def test_the_check_can_fail(decoder, error, make_svi):
    """Decoders that sample on the CPU, copy a number from there, or read one."""
    program = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli(2, (4,), net=lambda inputs, outputs: decoder(2, 4)),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2),
    )
    with pytest.raises(error):
        check_steps(make_svi, program, E.ELBO(), [torch.ones(5, 4)])
