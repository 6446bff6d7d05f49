"""No step waits for its device or computes elsewhere, shown without one.

Tensors on the device "meta" have shapes and no numbers: whatever a step would read of them, where a GPU is waited for,
raises. What a step computes on the CPU instead, or brings from there, is found by looking at all of its operations.
`tests/benchmarks/gpu_check.py` checks a GPU itself.
"""

import functools
import inspect
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from benchmarks.cross_product import build, estimators_for
from helpers.checks import slow_but
from helpers.programs import bits, discrete, small, triples
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pyro_vae as pv
from pyro_vae import estimators as E
from pyro_vae.distributions.missing import factorized
from pyro_vae.nets import BagEncoder, ProductOfTopics
from pyro_vae.testing import parts
from pyro_vae.training import SVI, Autocast, Linear, eager_graph
from pyro_vae.training.compile import flat_optimizer
from pyro_vae.training.compile.flat_optimizer import ELEMENTWISE, as_compiled
from pyro_vae.training.data.column import OnDevice
from pyro_vae.training.optimizer import OneOptimizer
from pyro_vae.training.optimizer import build as build_optimizer

#: Kernels that torch has not written for tensors without numbers; what they return has the shape of what they take.
UNKNOWN = ("_sample_dirichlet", "_standard_gamma_grad", "_dirichlet_grad")

#: What copies numbers from Python to a device, or waits there to know whether a matrix could be decomposed.
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
    """Collects the calls of what waits for a device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function in WAITS and out.is_meta:
            callers = [frame.filename for frame in inspect.stack()]
            if not any("zuko" in Path(name).parts for name in callers):  # a library that brings its own numbers
                self.found.append(f"{function.__name__}, called by {callers[1]}")
        return out


class Elsewhere(TorchDispatchMode):
    """Collects what is computed on the CPU, but for the row numbers that a plate of Pyro makes and nobody reads."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.numel()]
        made = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t.numel()]
        if any(not t.is_meta for t in read + made) and operation is not torch.ops.aten.arange.default:
            self.found.append(str(operation))
        return out


@pytest.fixture(scope="module")
def kernels():
    """Write the kernels that torch lacks."""
    library = torch.library.Library("aten", "IMPL")
    for name in UNKNOWN:
        library.impl(name, lambda first, *others: torch.empty_like(first), "Meta")
    yield
    library._destroy()


@pytest.fixture
def engine(monkeypatch, kernels):
    """Return an engine that does not look at its first batch or counts, by an optimizer that torch has not fused."""
    monkeypatch.setattr(flat_optimizer, "alike", lambda values: True)
    monkeypatch.setattr(OneOptimizer, "step_if", lambda optimizer, good: optimizer.torch.step())

    def make(program, estimator, optimizer=SGD, **options):
        for module in (program, getattr(estimator, "module", None)):
            if module is not None:
                module.to("meta")
        return SVI(program, estimator, optimizer, clip_norm=1.0, **options)

    return make


SGD = functools.partial(torch.optim.SGD, lr=1e-3, momentum=0.9, fused=False)


@contextmanager
def on_the_device():
    """Fail where something is computed elsewhere, or a number is read."""
    with Elsewhere() as elsewhere, Waiting() as waiting:
        yield
    assert elsewhere.found == []
    assert waiting.found == []


def take(engine, program, estimator, batch):
    """Take a first step, in which things may be looked up, one uncompiled and one as it was recorded."""
    one = engine(program, estimator)
    batch = [t.to("meta") for t in batch]
    one.update(*batch)
    with on_the_device():
        one.update(*batch)
    one.compiler = eager_graph
    one.update(*batch)
    assert one.compiled is not None
    with on_the_device():
        one.update(*batch)


def programs():
    """Return a program of each kind, with data."""
    torch.manual_seed(0)
    net = functools.partial(pv.nets.MLP, hidden=(6,))
    q, normal, likelihoods = pv.posteriors.MeanFieldNormal, pv.priors.StandardNormal, pv.likelihoods
    classes, classifier = pv.priors.OneHotCategorical(3), pv.posteriors.OneHotCategorical((4,), 3)
    x, labels, holes = torch.rand(6, 4).bernoulli(), torch.eye(3).repeat(2, 1), torch.rand(6, 4)
    holes[::2, 1] = torch.nan
    m2 = pv.programs.SemiSupervised(
        classes=classes,
        prior=normal(2),
        likelihood=likelihoods.Bernoulli(2, (4,), context=3),
        classifier=classifier,
        posterior=q((4,), 2, context=3),
    )
    parts = {"prior": normal(2), "likelihood": likelihoods.Normal(2, (4,)), "posterior": q((4,), 2)}
    return {
        "context": (
            pv.VAE(
                prior=normal(2), likelihood=likelihoods.Bernoulli(2, (4,), context=3), posterior=q((4,), 2, context=3)
            ),
            (x, labels),
        ),
        "missing entries": (pv.VAE(**parts, missing=True), (holes,)),
        "missing not at random": (
            pv.programs.MissingNotAtRandom(**parts, mask=pv.programs.SelfMasking((4,))),
            (holes,),
        ),
        "labels": (m2, (x, labels)),
        "no labels": (m2, (x,)),
        "mixture": (
            pv.programs.MixtureVAE(
                classes=classes,
                prior=pv.priors.ConditionalNormal(2, context=3),
                likelihood=likelihoods.Bernoulli(2, (4,)),
                classifier=classifier,
                posterior=q((4,), 2),
            ),
            (x,),
        ),
        "hierarchy": (
            pv.programs.Hierarchical(
                prior=normal(2),
                layers=[q((2,), 3)],
                likelihood=likelihoods.Bernoulli(3, (4,)),
                inference=pv.programs.TopDown([q((4,), 3, context=2), q((4,), 2)]),
            ),
            (x,),
        ),
        "topics": (
            pv.programs.TopicModel(
                prior=pv.priors.LogisticNormal.like_dirichlet(3),
                likelihood=likelihoods.Multinomial(3, (4,), net=ProductOfTopics),
                posterior=pv.posteriors.LogisticNormal((4,), 3, net=BagEncoder),
            ),
            (x + 1,),
        ),
        "counts": (
            pv.programs.CountVAE(
                prior=normal(3),
                likelihood=likelihoods.NegativeBinomial(3, (4,), context=3 + 1, library=True),
                posterior=q((4,), 3, context=3),
            ),
            (x + 1, labels),
        ),
        "sequences": (
            pv.programs.SequenceVAE(
                prior=pv.priors.Normal(2),
                transition=pv.priors.ConditionalNormal(2, context=2, net=net),
                likelihood=likelihoods.Normal(2, (4,), net=net),
                posterior=q((8,), 2, context=2, net=net),
                summary=pv.programs.BackwardGRU((4,), 8),
            ),
            (torch.rand(6, 5, 4),),
        ),
        "weights that are drawn": (
            pv.programs.BayesianDecoder(
                prior=normal(2), likelihood=likelihoods.Bernoulli(2, (4,)), posterior=q((4,), 2), num_examples=60
            ),
            (x,),
        ),
        "autoencoder": (
            pv.programs.Autoencoder(encoder=pv.nets.MLP((4,), (2,)), likelihood=likelihoods.Normal(2, (4,))),
            (x,),
        ),
    }


@pytest.mark.parametrize("name", slow_but({"missing entries", "labels", "weights that are drawn"}, programs()))
def test_every_program(name, engine):
    """Programs with several sites, holes, classes, sequences and weights that are drawn."""
    program, batch = programs()[name]
    take(engine, program, E.ELBO(num_particles=2), batch)


@pytest.mark.parametrize("name", slow_but({"ELBO", "IWAE", "JackknifeIWAE", "TVO", "VIMCO"}, E.__all__))
def test_every_estimator(name, engine):
    """Each estimator of the shelf, under a schedule."""
    kind = getattr(E, name)
    if not (inspect.isclass(kind) and issubclass(kind, E.Estimator)) or inspect.isabstract(kind):
        pytest.skip("no estimator, but what one is made of")
    make = discrete if kind.scores or kind is E.Enumeration else small
    take(engine, make(), kind.example(beta=Linear(3, start=0.5)), bits(16)[0])


@pytest.mark.parametrize("rule", ELEMENTWISE)
def test_every_optimizer(rule, engine):
    """No recorded rule reads its rate, also a changed one, or how often it was called."""
    counts = {"capturable": True} if "capturable" in inspect.signature(rule).parameters else {}
    one = engine(small(), E.ELBO(), functools.partial(rule, lr=1e-3, foreach=False, **counts), compiler=eager_graph)
    (batch,) = bits(16)[0]
    batch = batch.to("meta")
    with as_compiled():  # else torch looks up the name of the device
        one.update(batch)
    with on_the_device():
        one.update(batch)
        one.optim.torch.param_groups[0]["lr"] = 1e-4
        one.update(batch)
    assert one.compiled is not None


@pytest.mark.parametrize("rule", ELEMENTWISE)
def test_optimizers_of_a_gpu_count_their_steps_there(rule):
    """A graph can hold them, whether torch has fused them or not; what was asked for stays."""
    with FakeTensorMode():
        parameters = [nn.Parameter(torch.empty(3, device="cuda"))]
    options = build_optimizer(functools.partial(rule, lr=1e-3), parameters).defaults
    assert options.get("fused") or options.get("capturable") or rule is torch.optim.SGD
    asked = {"capturable": False} if "capturable" in options else {"foreach": False}
    options = build_optimizer(functools.partial(rule, lr=1e-3, **asked), parameters).defaults
    assert asked.items() <= options.items()


@pytest.mark.slow
def test_every_part(engine):
    """Each prior, likelihood and posterior."""
    for triple in dict.fromkeys(triples()):
        program, data = build(*triple)
        if pv.posteriors.SemiAmortized in triple:  # its example has a model that is no part of the program
            program.posterior._model = (program.prior, program.likelihood)
        kind = type(next(iter(estimators_for(program.posterior, data[0]).values())))
        try:
            take(engine, program, kind(), data)
        except Exception as error:
            raise AssertionError(f"{[part.__name__ for part in triple]}: {error}") from error


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", list(parts(pv.likelihoods)))
def test_missing_entries(likelihood, engine):
    """A value inside each support fills the holes, which nobody looks for anew."""
    whole, (x,) = build(pv.priors.StandardNormal, likelihood, pv.posteriors.MeanFieldNormal)
    if not factorized(whole.likelihood(whole.prior().sample((2,)))):
        pytest.skip("no product over the entries: it is refused with missing entries")
    program = pv.VAE(prior=whole.prior, likelihood=whole.likelihood, posterior=whole.posterior, missing=True)
    take(engine, program, E.ELBO(), (x,))


def test_rows_and_bits(engine):
    """Data that lie on the device: rows are taken and bits drawn there, layers rounded there."""
    data = OnDevice([torch.rand(30, 8, device="meta")], [pv.data.DrawBits()])
    one = engine(small(), E.ELBO(), data=data, compiler=eager_graph, precision=Autocast(torch.bfloat16))
    rows = torch.zeros(16, dtype=torch.int64, device="meta")
    one.update(rows)
    assert one.compiled is not None
    with on_the_device():
        one.update(rows)


def test_what_is_elsewhere_is_found(engine):
    """The test can fail: decoders that draw on the CPU, bring a number, or read one."""

    class Moved(nn.Linear):
        def forward(self, z):
            return super().forward(z) + torch.randn(4).to(z.device)

    class Brought(nn.Linear):
        def forward(self, z):
            return super().forward(z) * torch.tensor(2.0, device=z.device)

    class Read(nn.Linear):
        def forward(self, z):
            return super().forward(z) if z.sum() > 0 else super().forward(-z)

    for decoder, error in ((Moved, AssertionError), (Brought, AssertionError), (Read, RuntimeError)):
        net = lambda inputs, outputs, decoder=decoder: decoder(2, 4)  # noqa: E731
        program = pv.VAE(
            prior=pv.priors.StandardNormal(2),
            likelihood=pv.likelihoods.Bernoulli(2, (4,), net=net),
            posterior=pv.posteriors.MeanFieldNormal((4,), 2),
        )
        with pytest.raises(error):
            take(engine, program, E.ELBO(), [torch.ones(5, 4)])
