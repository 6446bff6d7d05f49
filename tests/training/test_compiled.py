"""A recorded step does what the uncompiled one does, from the same noise; compiled it does so too."""

import functools
import inspect
import warnings

import pyro
import pytest
import torch
from benchmarks.cross_product import build, estimators_for
from helpers.checks import slow_but
from helpers.programs import bits, discrete, small, triples
from torch import nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import pyro_vae as pv
from pyro_vae import estimators as E
from pyro_vae._util.cache import cached_tensors
from pyro_vae.programs import FunctionProgram
from pyro_vae.testing import parts
from pyro_vae.training import SVI, TF32, Autocast, Capacity, Linear, MultiStep, eager_graph
from pyro_vae.training.compile import flat_optimizer
from pyro_vae.training.compile.compilers import add_biases_separately, inductor, sample_directly
from pyro_vae.training.ranks.distributed import Ranks

ADAM = functools.partial(torch.optim.Adam, lr=1e-3)
SGD = functools.partial(torch.optim.SGD, lr=1e-3)


class Recorded:
    """A compiler that runs the graph as it was recorded, and counts."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, example):
        self.graphs += 1
        return graph


def train(make, batches, estimator, *, compiler=None, optimizer=ADAM, rates=None, **options):
    """Return the losses of each step, the weights and the SVI."""
    torch.manual_seed(0)
    svi = SVI(make(), estimator(), optimizer, compiler=compiler, **options)
    losses = []
    torch.manual_seed(1)
    for i, batch in enumerate(batches):
        if rates:
            svi.optim.torch.param_groups[0]["lr"] = rates[i]
        losses.append(float(svi.update(*batch)["loss"]) / len(batch[0]))
    return losses, [p.detach().clone() for p in svi.program.parameters()], svi


def both(make, batches, estimator, *, compiler=None, **options):
    """Train uncompiled and compiled and compare; return the compiled SVI."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        losses, weights, _ = train(make, batches, estimator, **options)
        found, moved, svi = train(make, batches, estimator, compiler=compiler or Recorded(), **options)
    assert svi.compiled is not None
    assert found == pytest.approx(losses, rel=2e-5, abs=2e-5)
    for w, v in zip(weights, moved, strict=True):
        torch.testing.assert_close(v, w, rtol=1e-3, atol=2e-5)
    return svi


@pytest.mark.slow
def test_every_part():
    """Three steps, the last two recorded, of programs in which each prior, likelihood and posterior occurs.

    Under Adam a gradient that is zero but for rounding would move its weight either way.
    """
    seen = set()
    for triple in dict.fromkeys(triples()):
        data = build(*triple)[1]
        kind = type(next(iter(estimators_for(build(*triple)[0].posterior, data[0]).values())))
        try:
            both(lambda triple=triple: build(*triple)[0], [data] * 3, kind, optimizer=SGD, clip_norm=1.0)
        except Exception as error:
            raise AssertionError(f"{[part.__name__ for part in triple]}: {error}") from error
        seen |= set(triple)
    missed = {part for shelf in (pv.priors, pv.likelihoods, pv.posteriors) for part in parts(shelf)} - seen
    assert missed <= {pv.posteriors.RelaxedBernoulli}  # no prior of the shelf lives on the open unit interval


@pytest.mark.parametrize("name", slow_but({"ELBO", "IWAE", "DReG", "VIMCO", "Enumeration", "FactorVAE"}, E.__all__))
def test_every_estimator(name):
    """Each estimator of the shelf, with a schedule and clipping where bits or numbers are its latents."""
    kind = getattr(E, name)
    if not (inspect.isclass(kind) and issubclass(kind, E.Estimator)) or inspect.isabstract(kind):
        pytest.skip("no estimator, but what one is made of")
    make = discrete if kind.scores or kind is E.Enumeration else small
    both(make, bits(16, 16, 16, 16), functools.partial(kind.example, beta=Linear(3, start=0.5)), clip_norm=1.0)


@pytest.mark.parametrize("rule", ["Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD"])
def test_every_optimizer_with_a_changing_rate_and_a_smaller_batch(rule):
    """One graph for all: neither another rate, nor a smaller batch, nor a warm-up records a second one."""
    recorder = Recorded()
    optimizer = functools.partial(getattr(torch.optim, rule), lr=1e-3, weight_decay=1e-2)
    batches = bits(16, 16, 16, 5, 16, 16, 5, 16)
    both(
        small,
        batches,
        lambda: E.ELBO(beta=Linear(6)),
        compiler=recorder,
        optimizer=optimizer,
        rates=[1e-2 / (1 + i) for i in range(len(batches))],
    )
    assert recorder.graphs == 1


def test_momentum_a_capacity_and_a_rate_in_stages():
    both(
        small,
        bits(*[16] * 6),
        lambda: E.ELBO(beta=Capacity(2.0, 5, gamma=3.0), free_bits=0.1),
        optimizer=functools.partial(torch.optim.SGD, lr=1e-2, momentum=0.9),
        lr_schedule=MultiStep([2, 4], 0.1),
    )


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("SGD", {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1, "maximize": True}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("RMSprop", {"momentum": 0.5, "centered": True, "weight_decay": 0.1}),
        ("RMSprop", {"maximize": True, "weight_decay": 0.1}),
    ],
)
def test_rules_that_would_read_their_rate(rule, options):
    """Taken as the rate times a direction, with all their options."""
    optimizer = functools.partial(getattr(torch.optim, rule), lr=1e-3, **options)
    both(small, bits(*[16] * 5), E.ELBO, optimizer=optimizer, rates=[1e-3, 1e-2, 1e-3, 1e-3, 1e-2])


def test_what_is_kept_is_no_stand_in():
    """A number that is first asked for while a step is recorded has no value then, and one after it."""
    halves = cached_tensors(lambda n, device: torch.tensor([0.5] * n, device=device))
    with FakeTensorMode():
        assert isinstance(halves(3, torch.device("cpu")), FakeTensor)
    assert halves(3, torch.device("cpu")).tolist() == [0.5] * 3
    assert halves(3, torch.device("cpu")) is halves(3, torch.device("cpu"))


def test_groups_of_parameters():
    """Each group of an optimizer keeps its own rate."""

    def two(parameters):
        return torch.optim.Adam([{"params": parameters[:3], "lr": 1e-2}, {"params": parameters[3:]}], lr=1e-4)

    svi = both(small, bits(*[16] * 4), E.ELBO, optimizer=two)
    assert {group.learning_rate for group in svi.compiled.flat.groups} == {1e-2, 1e-4}


def test_large_parameters_are_laid_out_alone(monkeypatch):
    """Each has a kernel and memory of its own, without a copy; the steps stay those of the uncompiled path."""
    monkeypatch.setattr(flat_optimizer, "LARGE", 1000)
    svi = both(small, bits(*[16] * 4), E.ELBO, clip_norm=1.0)
    large = [p for p in svi.program.parameters() if p.numel() > 1000]
    assert len(svi.compiled.flat.groups) == len(large) + 1 == 7
    assert len({p.untyped_storage().data_ptr() for p in svi.program.parameters()}) == len(svi.compiled.flat.groups)


@pytest.mark.parametrize(("dtype", "products"), [(torch.float32, {"mm"}), (torch.bfloat16, {"addmm"})])
def test_biases_are_added_apart(dtype, products):
    """The same numbers without a product that adds; half precision, which would be rounded twice, stays."""
    torch.manual_seed(0)
    x, w, b = torch.randn(5, 7, dtype=dtype), torch.randn(3, 7, dtype=dtype), torch.randn(3, dtype=dtype)
    graph = make_fx(lambda *t: torch.tanh(nn.functional.linear(*t)), tracing_mode="fake")(x, w, b)
    before = graph(x, w, b)
    add_biases_separately(graph)
    assert {node.target._opname for node in graph.graph.nodes if "mm" in str(node.target)} == products
    torch.testing.assert_close(graph(x, w, b), before, rtol=1e-6, atol=1e-6)


def test_noise_is_drawn_at_once():
    """The same numbers of the same stream; what is of another width, or drawn over numbers in use, stays."""

    def draws(x):
        used = torch.empty(4)
        first = used.isnan() & False  # whatever it holds
        return x + torch.empty(5, 7).normal_(), torch.empty(2).normal_(0.0, 3.0), used.normal_(), first

    graph = make_fx(draws, tracing_mode="fake")(torch.ones(5, 7))
    before = drawn(graph)
    sample_directly(graph)
    assert len(graph.graph.find_nodes(op="call_function", target=torch.ops.aten.randn.default)) == 1
    assert len(graph.graph.find_nodes(op="call_function", target=torch.ops.aten.normal_.default)) == 2
    for new, old in zip(drawn(graph), before, strict=True):
        assert torch.equal(new, old)


def drawn(graph):
    torch.manual_seed(0)
    return graph(torch.ones(5, 7))


@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, True])
def test_inductor_without_its_surroundings(twice):
    """Where these have something to do, as for an argument that comes twice, they stay."""
    x, y = torch.arange(3.0), torch.ones(3)
    example = [x, x if twice else y]

    def step(a, b):
        total = a + b
        a.copy_(total)
        return [total.sum(), b]

    graph = make_fx(step, tracing_mode="fake")(*example)
    call = inductor(graph, example)
    assert (call.__module__ == inductor.__module__) is not twice
    total, same = call(*example)
    assert (float(total), x.tolist()) == ((6.0, [0.0, 2.0, 4.0]) if twice else (6.0, [1.0, 2.0, 3.0]))
    assert torch.equal(same, example[1])


def test_a_batch_that_wants_a_gradient_gets_it():
    """As what comes before the program may be trained beside it: such a step runs uncompiled."""
    (x,), (y,) = bits(16, 16)
    _, _, svi = train(small, [(x,)] * 3, E.ELBO, compiler=Recorded())
    before = svi.compiled
    y.requires_grad_()
    svi.update(y)
    assert svi.compiled is before
    assert y.grad.abs().sum() > 0
    svi.update(x)
    assert not any(t.requires_grad for t in svi.compiled.arguments)


@pytest.mark.slow
def test_inductor_agrees_over_a_hundred_steps():
    """The graph that inductor compiled, with last batches that are smaller."""
    batches = bits(*([16] * 24 + [5]) * 4)
    svi = both(small, batches, lambda: E.IWAE(num_particles=3), compiler=inductor, clip_norm=5.0)
    before = [p.detach().clone() for p in svi.program.parameters()]
    svi.release()
    assert len({p.untyped_storage().data_ptr() for p in svi.program.parameters()}) == len(before)
    assert all(torch.equal(p, q) for p, q in zip(svi.program.parameters(), before, strict=True))
    svi.update(*batches[0])


def broken(n, bad=()):
    """Return bits, some batches of which hold a NaN that nobody checks."""
    batches = bits(*[16] * n)
    for i in bad:
        batches[i][0][0, 0] = float("nan")
    return batches


@pytest.mark.parametrize("compiler", [None, Recorded()])
def test_a_bad_step_stops_everything_or_is_left_out(compiler):
    """The weights are those before the first bad step; told to skip, those of the good steps alone."""
    good = broken(6)
    bad = broken(6, bad=[3])
    torch.manual_seed(0)
    svi = SVI(small(), E.ELBO(), ADAM, compiler=compiler)
    for batch in bad[:3]:
        svi.update(*batch)
    kept = [p.detach().clone() for p in svi.program.parameters()]

    def go_on():
        for batch in bad[3:]:
            svi.update(*batch)
        svi.raise_if_nonfinite(batch)

    with pytest.raises(pv.training.NonFiniteError, match="not finite"):
        go_on()
    assert all(torch.equal(p, k) for p, k in zip(svi.program.parameters(), kept, strict=True))
    torch.manual_seed(0)
    svi = SVI(small(), E.ELBO(), ADAM, compiler=compiler, skip_nonfinite=True)
    rows = [svi.update(*batch) for batch in bad]
    svi.raise_if_nonfinite(bad[0])
    assert [float(row["skipped"]) for row in rows] == [0, 0, 0, 16, 0, 0]
    assert float(rows[3]["loss"]) == 0
    assert svi.steps == len(good)
    assert all(torch.isfinite(p).all() for p in svi.program.parameters())


def value_dependent():
    """A program that looks at a number while it runs."""
    net = nn.Linear(8, 3)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", pyro.distributions.Normal(x.new_zeros(len(x), 3), 1.0).to_event(1))
            scale = 1.0 if z.sum() > 0 else 2.0
            pyro.sample("x", pyro.distributions.Normal(z.sum(-1, True).expand(-1, 8), scale).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", pyro.distributions.Normal(net(x), 1.0).to_event(1))

    return FunctionProgram(model, guide, net=net)


@pytest.mark.parametrize(
    ("make", "estimator", "optimizer", "reason"),
    [
        (small, pyro.infer.Trace_ELBO, ADAM, "Trace_ELBO is not an estimator of pyro_vae.estimators"),
        (small, lambda: E.ELBO(num_particles=4, particles_per_pass=2), ADAM, "particles_per_pass"),
        (small, E.ELBO, functools.partial(torch.optim.Adagrad, lr=1e-3), "optimizer Adagrad: known are"),
        (value_dependent, E.ELBO, ADAM, "its operations depend on values"),
    ],
)
def test_what_cannot_be_compiled_says_so_once_and_goes_on(make, estimator, optimizer, reason):
    with pytest.warns(UserWarning, match=reason) as caught:
        losses, _, svi = train(make, bits(*[16] * 4), estimator, optimizer=optimizer, compiler=Recorded())
    assert len(caught) == 1
    assert svi.compiled is None
    assert losses == train(make, bits(*[16] * 4), estimator, optimizer=optimizer)[0]


def test_without_a_compiler_it_goes_on():
    def missing(graph, example):
        raise OSError("no C++ compiler found")

    with pytest.warns(UserWarning, match="the compiler failed: OSError: no C\\+\\+ compiler found"):
        losses, weights, svi = train(small, bits(*[16] * 4), E.ELBO, compiler=missing)
    assert svi.compiled is None
    assert losses == pytest.approx(train(small, bits(*[16] * 4), E.ELBO)[0])
    assert len({p.untyped_storage().data_ptr() for p in svi.program.parameters()}) == len(weights)


def test_a_group_without_a_gradient_is_left_alone():
    """A group whose parameters no step uses keeps them, compiled or not."""
    spare = nn.Parameter(torch.ones(3))

    def make():
        program = small()
        program.prior.spare = spare
        return program

    def two(parameters):
        return torch.optim.Adam([{"params": [p for p in parameters if p is not spare]}, {"params": [spare]}], lr=1e-3)

    svi = both(make, bits(*[16] * 3), E.ELBO, optimizer=two)
    assert all(p is not spare for group in svi.compiled.flat.groups for p in group.parameters)
    assert torch.equal(spare.detach(), torch.ones(3))


def test_skipped_data_of_several_ranks_are_those_of_the_joined_batch():
    """The count of the joined batch stays, also of a step that is left out."""

    class Two(Ranks):
        def join(self, parameters, metrics, *, n, counts):
            return {**metrics, "count": torch.tensor(32.0, dtype=torch.float64)}

    svi = SVI(small(), E.ELBO(), ADAM, skip_nonfinite=True, ranks=Two(0, 2))
    rows = [svi.update(*batch) for batch in broken(3, bad=[1])]
    assert [float(row["count"]) for row in rows] == [32, 32, 32]
    assert [float(row["skipped"]) for row in rows] == [0, 32, 0]


def grey(n=70):
    return pv.data.Split(torch.rand(n, 8, generator=torch.Generator().manual_seed(3)), transform=pv.data.DrawBits())


def trained(data, **options):
    torch.manual_seed(0)
    program = small()
    pv.fit(program, data, epochs=3, batch_size=16, seed=4, progress=False, **options)
    return torch.cat([p.detach().flatten() for p in program.parameters()])


def test_rows_and_bits_are_drawn_within_the_step():
    """The graph takes its rows from all of the data and draws their bits, the same ones as the uncompiled step."""
    graphs = []

    def keep(graph, example):
        graphs.append((graph, example))
        return graph

    found = trained(grey(), compile=keep)
    torch.testing.assert_close(found, trained(grey()), rtol=1e-3, atol=2e-5)
    ((graph, example),) = graphs
    names = [str(node.target) for node in graph.graph.nodes]
    assert "aten.index_select.default" in names
    assert "aten.bernoulli.default" in names
    assert (example[0].dtype, len(example[0])) == (torch.int64, 16)


def test_rows_are_those_of_the_data_whoever_reads_them():
    """Each batch that the engine reads is the one that it would be given."""
    x, c = torch.rand(50, 8), torch.arange(50.0)[:, None]
    batches = pv.training.Batches((x, c), batch_size=16, seed=3)
    data = batches.on_device
    for given, (rows,) in zip(batches.epoch(2, 1), batches.selected(2, 1), strict=True):
        for one, other in zip(given, data.read(rows, data.columns), strict=True):
            assert torch.equal(one, other)


def test_a_transform_that_looks_at_numbers_stays_outside_of_the_step():
    """It would keep the step from being recorded."""

    def brighter(x):
        return x / x.max() if x.max() > 0 else x

    data = pv.data.Split(torch.rand(70, 8).bernoulli(), transform=brighter)
    assert pv.training.Batches(data, batch_size=16).on_device is None
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        torch.testing.assert_close(trained(data, compile=eager_graph), trained(data), rtol=1e-3, atol=2e-5)


def test_layers_in_fewer_bits_leave_bound_and_weights_in_float32():
    """Under bfloat16 the step differs by the rounding of layers alone, compiled or not."""
    batches = bits(16, 16, 16, 16)
    low = Autocast(torch.bfloat16)
    losses, weights, svi = train(small, batches, E.ELBO, precision=low)
    exact, _, _ = train(small, batches, E.ELBO)
    assert losses == pytest.approx(exact, rel=2e-2)
    assert losses != pytest.approx(exact, rel=1e-6)
    assert (
        {p.dtype for p in svi.program.parameters()}
        == {p.grad.dtype for p in svi.program.parameters() if p.grad is not None}
        == {torch.float32}
    )
    again = both(small, batches, E.ELBO, precision=low)
    assert any("bfloat16" in str(arg) for arg in [*torch_dtypes(again)])


def torch_dtypes(svi):
    """Return the types that the recorded step computes in."""
    graph = svi.compiled.record([*bits(16)[0], *svi.compiled.arguments])
    return [node.meta["val"].dtype for node in graph.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]


def test_densities_are_not_rounded():
    """A product that is no layer, such as that of a covariance, keeps its digits."""
    a = torch.rand(5, 5)
    with Autocast(torch.bfloat16):
        assert torch.equal(a @ a, a.mm(a))
        inside = a @ a
    assert torch.equal(inside, a @ a)
    with pytest.raises(ValueError, match="dtype: expected a floating-point type"):
        Autocast(torch.int8)


def test_tf32_is_put_back_after_each_step():
    before = torch.get_float32_matmul_precision()
    seen = []

    class Look(E.ELBO):
        def evaluate(self, terms):
            seen.append(torch.get_float32_matmul_precision())
            return super().evaluate(terms)

    train(small, bits(16, 16), Look, precision=TF32())
    assert seen == ["high", "high"]
    assert torch.get_float32_matmul_precision() == before
