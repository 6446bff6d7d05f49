"""A compiled step equals the uncompiled one, whatever the optimizer, and runs uncompiled where it cannot be compiled.

`test_shared_parameters.py` compares whole trainings of every program, part and estimator.
"""

import functools

import pyro
import pytest
import torch
from helpers.checks import slow_but
from helpers.programs import bits, small
from torch import nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import pyro_vae as pv
from pyro_vae import estimators as E
from pyro_vae._util.cache import cached_tensors
from pyro_vae.programs import FunctionProgram
from pyro_vae.training import SVI, TF32, Autocast, Linear, MultiStep, NonFiniteError, eager_graph
from pyro_vae.training import svi as svi_module
from pyro_vae.training.compile import flat_optimizer
from pyro_vae.training.compile.compilers import add_biases_separately, inductor, sample_directly
from pyro_vae.training.ranks.distributed import Ranks

ADAM = functools.partial(torch.optim.Adam, lr=1e-3)


class Counted:
    """The compiler `eager_graph`, with the number of graphs."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, example):
        self.graphs += 1
        return graph


def train(make, batches, estimator=E.ELBO, *, optimizer=ADAM, rates=None, **options):
    """Return the loss of each step, the weights and the SVI."""
    torch.manual_seed(0)
    svi = SVI(make(), estimator(), optimizer, **options)
    losses = []
    torch.manual_seed(1)
    for i, batch in enumerate(batches):
        if rates:
            svi.optim.torch.param_groups[0]["lr"] = rates[i]
        losses.append(float(svi.update(*batch)["loss"]) / len(batch[0]))
    return losses, [p.detach().clone() for p in svi.program.parameters()], svi


def both(make, batches, estimator=E.ELBO, *, compiler=eager_graph, **options):
    """Train uncompiled and compiled and compare; return the compiled SVI."""
    losses, weights, _ = train(make, batches, estimator, **options)
    found, moved, svi = train(make, batches, estimator, compiler=compiler, **options)
    assert svi.compiled is not None
    assert found == pytest.approx(losses, rel=2e-5, abs=2e-5)
    for weight, other in zip(weights, moved, strict=True):
        torch.testing.assert_close(other, weight, rtol=1e-3, atol=2e-5)
    return svi


@pytest.mark.parametrize(
    "rule", slow_but({"Adam", "SGD"}, ["Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD"])
)
def test_every_optimizer(rule):
    """One graph serves all steps, with other learning rates, smaller batches and another beta."""
    compiler = Counted()
    optimizer = functools.partial(getattr(torch.optim, rule), lr=1e-3, weight_decay=1e-2)
    batches = bits(16, 16, 16, 5, 16, 16, 5, 16)
    rates = [1e-2 / (1 + i) for i in range(len(batches))]
    both(small, batches, lambda: E.ELBO(beta=Linear(6)), compiler=compiler, optimizer=optimizer, rates=rates)
    assert compiler.graphs == 1


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("SGD", {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1, "maximize": True}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("RMSprop", {"momentum": 0.5, "centered": True, "weight_decay": 0.1}),
        ("RMSprop", {"maximize": True, "weight_decay": 0.1}),
    ],
)
def test_options_of_optimizers_that_read_their_learning_rate(rule, options):
    """The graph computes the learning rate times a direction, with all options."""
    optimizer = functools.partial(getattr(torch.optim, rule), lr=1e-3, **options)
    both(small, bits(*[16] * 5), optimizer=optimizer, rates=[1e-3, 1e-2, 1e-3, 1e-3, 1e-2])


def test_momentum_capacity_and_a_learning_rate_schedule():
    both(
        small,
        bits(*[16] * 6),
        lambda: E.ELBO(capacity=E.Capacity(2.0, 5, gamma=3.0)),
        optimizer=functools.partial(torch.optim.SGD, lr=1e-2, momentum=0.9),
        lr_schedule=MultiStep([2, 4], 0.1),
    )


def test_parameter_groups_keep_their_learning_rates():
    def two(parameters):
        return torch.optim.Adam([{"params": parameters[:3], "lr": 1e-2}, {"params": parameters[3:]}], lr=1e-4)

    svi = both(small, bits(*[16] * 4), optimizer=two)
    assert {group.learning_rate for group in svi.compiled.flat.groups} == {1e-2, 1e-4}


def test_a_group_without_gradients_is_not_updated():
    spare = nn.Parameter(torch.ones(3))

    def make():
        program = small()
        program.prior.spare = spare
        return program

    def two(parameters):
        return torch.optim.Adam([{"params": [p for p in parameters if p is not spare]}, {"params": [spare]}], lr=1e-3)

    svi = both(make, bits(*[16] * 3), optimizer=two)
    assert all(p is not spare for p in svi.compiled.flat.parameters)
    assert torch.equal(spare.detach(), torch.ones(3))


def test_large_parameters_have_their_own_memory(monkeypatch):
    monkeypatch.setattr(flat_optimizer, "LARGE", 1000)
    svi = both(small, bits(*[16] * 4), clip_norm=1.0)
    parameters = list(svi.program.parameters())
    large = [p for p in parameters if p.numel() > 1000]
    assert len({p.untyped_storage().data_ptr() for p in parameters}) == len(large) + 1 == 7


@pytest.mark.slow
def test_inductor_agrees_over_a_hundred_steps():
    """With smaller last batches; after `release` each parameter has memory of its own, and training continues."""
    batches = bits(*([16] * 24 + [5]) * 4)
    svi = both(small, batches, lambda: E.IWAE(num_particles=3), compiler=inductor, clip_norm=5.0)
    before = [p.detach().clone() for p in svi.program.parameters()]
    svi.release()
    assert len({p.untyped_storage().data_ptr() for p in svi.program.parameters()}) == len(before)
    assert all(torch.equal(p, q) for p, q in zip(svi.program.parameters(), before, strict=True))
    svi.update(*batches[0])


@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, True])
def test_inductor_without_its_wrapper(twice):
    """The wrapper is kept if it has something to do, as for an argument that is passed twice."""
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


@pytest.mark.parametrize(("dtype", "products"), [(torch.float32, {"mm"}), (torch.bfloat16, {"addmm"})])
def test_biases_are_added_separately(dtype, products):
    """Except in half precision, where the result would be rounded twice."""
    x, w, b = torch.randn(5, 7, dtype=dtype), torch.randn(3, 7, dtype=dtype), torch.randn(3, dtype=dtype)
    graph = make_fx(lambda *t: torch.tanh(nn.functional.linear(*t)), tracing_mode="fake")(x, w, b)
    before = graph(x, w, b)
    add_biases_separately(graph)
    assert {node.target._opname for node in graph.graph.nodes if "mm" in str(node.target)} == products
    torch.testing.assert_close(graph(x, w, b), before, rtol=1e-6, atol=1e-6)


def test_noise_is_sampled_directly():
    """With the same numbers; noise of another std, or in memory that is read, is left as it is."""

    def draws(x):
        used = torch.empty(4)
        first = used.isnan() & False  # whatever it contains
        return x + torch.empty(5, 7).normal_(), torch.empty(2).normal_(0.0, 3.0), used.normal_(), first

    def run():
        torch.manual_seed(0)
        return graph(torch.ones(5, 7))

    graph = make_fx(draws, tracing_mode="fake")(torch.ones(5, 7))
    before = run()
    sample_directly(graph)
    assert len(graph.graph.find_nodes(op="call_function", target=torch.ops.aten.randn.default)) == 1
    assert len(graph.graph.find_nodes(op="call_function", target=torch.ops.aten.normal_.default)) == 2
    assert all(torch.equal(new, old) for new, old in zip(run(), before, strict=True))


def test_tensors_without_data_are_not_cached():
    halves = cached_tensors(lambda n, device: torch.tensor([0.5] * n, device=device))
    with FakeTensorMode():
        assert isinstance(halves(3, torch.device("cpu")), FakeTensor)
    assert halves(3, torch.device("cpu")).tolist() == [0.5] * 3
    assert halves(3, torch.device("cpu")) is halves(3, torch.device("cpu"))


def test_the_program_runs_once_per_step():
    """And once more while a step is recorded; nothing else runs it, and no compiled step does."""
    program = small()
    runs, model = [], program.model
    program.model = lambda *batch: (runs.append(1), model(*batch))[1]
    svi = SVI(program, E.ELBO(), ADAM, compiler=eager_graph)
    for expected, size in ((2, 16), (2, 16), (3, 5), (4, 5)):
        svi.update(*bits(size)[0])
        assert len(runs) == expected


def test_a_batch_that_requires_a_gradient_gets_it():
    """Another model may have made it and be trained too; such a step runs uncompiled."""
    (x,), (y,) = bits(16, 16)
    _, _, svi = train(small, [(x,)] * 3, compiler=eager_graph)
    y.requires_grad_()
    svi.update(y)
    assert y.grad.abs().sum() > 0
    assert not any(t.requires_grad for t in svi.compiled.arguments)


def test_a_parameter_that_is_frozen_during_training():
    batches, weights = bits(*[16] * 4), []
    for compiler in (None, eager_graph):
        _, _, svi = train(small, batches, compiler=compiler)
        frozen = next(svi.program.parameters())
        frozen.requires_grad_(False)
        before = frozen.clone()
        torch.manual_seed(2)
        for batch in batches:
            svi.update(*batch)
        assert torch.equal(frozen, before)
        weights.append(torch.cat([p.detach().flatten() for p in svi.program.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("compiler", [None, eager_graph])
def test_nonfinite_steps_raise_or_are_skipped(compiler):
    """The weights are those before the first such step; with `skip_nonfinite` those of all other steps."""
    batches = bits(*[16] * 6)
    batches[3][0][0, 0] = float("nan")
    losses, weights, svi = train(small, batches[:3], compiler=compiler)

    def remaining():
        for batch in batches[3:]:
            svi.update(*batch)
        svi.raise_if_nonfinite(batch)

    with pytest.raises(NonFiniteError, match="loss"):
        remaining()
    assert all(torch.equal(p, q) for p, q in zip(svi.program.parameters(), weights, strict=True))
    svi.update(*batches[0])  # training can continue after the error
    assert not all(torch.equal(p, q) for p, q in zip(svi.program.parameters(), weights, strict=True))
    torch.manual_seed(0)
    svi = SVI(small(), E.ELBO(), ADAM, compiler=compiler, skip_nonfinite=True)
    rows = [svi.update(*batch) for batch in batches]
    svi.raise_if_nonfinite(batches[0])
    assert [float(row["skipped"]) for row in rows] == [0, 0, 0, 16, 0, 0]
    assert float(rows[3]["loss"]) == 0
    assert svi.steps == 6
    assert all(torch.isfinite(p).all() for p in svi.program.parameters())


def test_skipped_rows_of_several_ranks_are_those_of_the_joined_batch(monkeypatch):
    count = torch.tensor(32.0, dtype=torch.float64)
    monkeypatch.setattr(
        svi_module, "all_reduce_gradients", lambda parameters, metrics, **_: {**metrics, "count": count}
    )
    svi = SVI(small(), E.ELBO(), ADAM, skip_nonfinite=True, ranks=Ranks(0, 2))
    batches = bits(16, 16, 16)
    batches[1][0][0, 0] = float("nan")
    rows = [svi.update(*batch) for batch in batches]
    assert [float(row["count"]) for row in rows] == [32, 32, 32]
    assert [float(row["skipped"]) for row in rows] == [0, 32, 0]


def function_program(decode):
    """A program whose decoder is a function of a layer and z."""
    net, layer = nn.Linear(8, 3), nn.Linear(3, 8)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", pyro.distributions.Normal(x.new_zeros(len(x), 3), 1.0).to_event(1))
            pyro.sample("x", pyro.distributions.Normal(decode(layer, z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", pyro.distributions.Normal(net(x), 1.0).to_event(1))

    return FunctionProgram(model, guide, net=net, layer=layer)


def reads_a_value(layer, z):
    return layer(z) if z.sum() > 0 else layer(2 * z)


def replaces_a_buffer(layer, z):
    layer.register_buffer("mean", z.detach().mean() * 0.1 + getattr(layer, "mean", 0.0))
    return layer(z) - layer.mean


def outside():
    """A program that reads a parameter as a variable of its own, not as an attribute of a module."""
    weights = []

    def decode(layer, z):
        weights.append(layer.weight)
        return z @ weights[0].T + layer(z)

    return function_program(decode)


def views():
    """A program of which two parameters are views of the same memory."""
    program = small()
    program.likelihood.net.body[2].weight.data = program.posterior.net.body[2].weight.data
    return program


@pytest.mark.parametrize(
    ("make", "estimator", "optimizer", "reason"),
    [
        (small, pyro.infer.Trace_ELBO, ADAM, "Trace_ELBO"),
        (small, lambda: E.ELBO(num_particles=4, particles_per_pass=2), ADAM, "particles_per_pass"),
        (small, E.ELBO, functools.partial(torch.optim.Adagrad, lr=1e-3), "optimizer Adagrad"),
        (functools.partial(function_program, reads_a_value), E.ELBO, ADAM, "depend on values"),
        (functools.partial(function_program, replaces_a_buffer), E.ELBO, ADAM, "buffer"),
        (outside, E.ELBO, ADAM, "without its module"),
        (views, E.ELBO, ADAM, "share memory"),
    ],
)
def test_a_step_that_cannot_be_compiled_warns_once_and_runs_uncompiled(make, estimator, optimizer, reason):
    batches = bits(*[16] * 4)
    with pytest.warns(UserWarning, match=f"compile: .*{reason}") as caught:
        losses, _, svi = train(make, batches, estimator, optimizer=optimizer, compiler=eager_graph)
    assert len(caught) == 1
    assert svi.compiled is None
    assert losses == train(make, batches, estimator, optimizer=optimizer)[0]


def trained(data, **options):
    torch.manual_seed(0)
    program = small()
    pv.fit(program, data, epochs=3, batch_size=16, seed=4, progress=False, **options)
    return torch.cat([p.detach().flatten() for p in program.parameters()])


def test_rows_and_binary_values_are_sampled_within_the_step():
    """The graph reads its rows from the whole data set and samples them, with the same random numbers."""
    grey = pv.data.Split(torch.rand(70, 8), transform=pv.data.DrawBits())
    graphs = []
    found = trained(grey, compile=lambda graph, example: graphs.append((graph, example)) or graph)
    torch.testing.assert_close(found, trained(grey), rtol=1e-3, atol=2e-5)
    ((graph, example),) = graphs
    assert {"aten.index_select.default", "aten.bernoulli.default"} <= {str(node.target) for node in graph.graph.nodes}
    assert (example[0].dtype, len(example[0])) == (torch.int64, 16)


def test_rows_that_the_step_reads_are_those_of_the_batches():
    batches = pv.training.Batches((torch.rand(50, 8), torch.arange(50.0)[:, None]), batch_size=16, seed=3)
    data = batches.on_device
    for given, (rows,) in zip(batches.epoch(2, 1), batches.selected(2, 1), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(given, data.read(rows, data.columns), strict=True))


def test_a_transform_that_reads_values_runs_before_the_step():
    def brighter(x):
        return x / x.max() if x.max() > 0 else x

    data = pv.data.Split(torch.rand(70, 8).bernoulli(), transform=brighter)
    assert pv.training.Batches(data, batch_size=16).on_device is None
    torch.testing.assert_close(trained(data, compile=eager_graph), trained(data), rtol=1e-3, atol=2e-5)


def test_autocast_rounds_layers_alone():
    """Weights, gradients and the bound keep their type, compiled or not."""
    batches, low = bits(*[16] * 4), Autocast(torch.bfloat16)
    losses, _, svi = train(small, batches, precision=low)
    exact = train(small, batches)[0]
    assert losses == pytest.approx(exact, rel=2e-2)
    assert losses != pytest.approx(exact, rel=1e-6)
    assert {t.dtype for p in svi.program.parameters() for t in (p, p.grad) if t is not None} == {torch.float32}
    compiled = both(small, batches, precision=low).compiled
    graph = compiled.record([*batches[0], *compiled.arguments])
    assert any(getattr(node.meta.get("val"), "dtype", None) == torch.bfloat16 for node in graph.graph.nodes)


def test_autocast_does_not_round_densities():
    """Such as the product of a covariance, which is not a layer."""
    a = torch.rand(5, 5)
    with Autocast(torch.bfloat16):
        assert torch.equal(a @ a, a.mm(a))
        inside = a @ a
    assert torch.equal(inside, a @ a)
    with pytest.raises(ValueError, match="dtype"):
        Autocast(torch.int8)


def test_tf32_is_reset_after_each_step():
    before, seen = torch.get_float32_matmul_precision(), []

    class Seen(E.ELBO):
        def evaluate(self, terms):
            seen.append(torch.get_float32_matmul_precision())
            return super().evaluate(terms)

    train(small, bits(16, 16), Seen, precision=TF32())
    assert seen == ["high", "high"]
    assert torch.get_float32_matmul_precision() == before
