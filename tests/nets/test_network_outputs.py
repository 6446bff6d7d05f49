"""Law of every consumer of a network: an output of a wrong shape is refused by name, and never reshaped."""

import contextlib
import inspect

import pytest
import torch
from helpers.programs import PROGRAMS, columns
from helpers.small_parts import SMALL, example
from torch import nn

import pyro_vae as pv
from pyro_vae.nets import Net
from pyro_vae.testing import parts

ROWS = 7

WRONG = {
    "axes reversed": lambda y: y.permute(0, *reversed(range(1, y.dim()))),
    "channels last": lambda y: y.movedim(1, -1) if y.dim() > 1 else y,
    "an axis more": lambda y: torch.stack([y, y], 1),
    "batch last": lambda y: y.movedim(0, -1),
    "mixed batch": lambda y: y.reshape(1, -1),
    "halves of rows": lambda y: y.reshape(2 * len(y), -1) if y[0].numel() % 2 == 0 else y.reshape(1, -1),
    "mean of the batch": lambda y: y.mean(0, keepdim=True),
    "an entry less": lambda y: y[..., :-1] if y.dim() > 1 and y.shape[-1] > 1 else y.unsqueeze(-1).expand(*y.shape, 2),
    "a tuple": lambda y: (y, y),
    "a dict": lambda y: {"output": y},
}

RIGHT = {
    "as declared": lambda y: y,
    "flat": lambda y: y.flatten(1) if y.dim() > 1 else y,
    "an axis of size 1 at the end": lambda y: y.unsqueeze(-1),
    "an axis of size 1 after the batch": lambda y: y.unsqueeze(1),
}


@contextlib.contextmanager
def changed(net, change):
    """Change the output of the body of a network."""
    hook = net.body.register_forward_hook(lambda body, given, y: change(y.reshape(len(y), *net.out_shape)))
    try:
        yield
    finally:
        hook.remove()


def changes_nothing(net, change, n=ROWS):
    """Whether the change cannot be seen, as for the reversed axes of a square, or is one of axes of size 1."""
    found = change(torch.zeros(n, *net.out_shape))
    wide = [size for size in net.out_shape if size != 1]
    return (
        isinstance(found, torch.Tensor) and len(found) == n and [size for size in found.shape[1:] if size != 1] == wide
    )


def nets(module):
    """All networks inside a module."""
    return [m for m in module.modules() if isinstance(m, Net)]


def use(part, first):
    """Call a part on a batch, and its distribution; return the log-density of one sample under one seed."""
    torch.manual_seed(1)
    shapes = {"latent": [], "latent, shape": [(3,)], "shape, latent": [(2, 5)]}[first]
    if isinstance(part, pv.likelihoods.Heterogeneous) or not shapes:
        shapes = shapes[:1]
    context = [torch.rand(ROWS, *shape) for shape in [*shapes, *([(part.context,)] if part.context else [])]]
    with torch.no_grad():
        fn = part(*context)
        return fn.log_prob(fn.sample(() if context else (ROWS,)))


SHELVES = {pv.priors: "latent", pv.likelihoods: "latent, shape", pv.posteriors: "shape, latent"}
PARTS = [(cls, first) for shelf, first in SHELVES.items() for cls in parts(shelf)]


@pytest.mark.parametrize(("cls", "first"), PARTS, ids=lambda v: getattr(v, "__name__", ""))
def test_a_part_refuses_outputs_of_another_shape(cls, first):
    torch.manual_seed(0)
    part = example(cls, latent=3, shape=(2, 5)).eval()
    expected = use(part, first)
    # a flow calls its networks when it scores a value, after the part has returned
    part_of = "" if hasattr(part, "layers") or hasattr(part, "nets") else r" of \w+"
    for net in nets(part):
        refused = 0
        for change in WRONG.values():
            if changes_nothing(net, change):
                continue
            with (
                changed(net, change),
                pytest.raises(ValueError, match=rf"net: expected .* got .*network \w+{part_of}"),
            ):
                use(part, first)
            refused += 1
        assert refused >= 6
        for change in RIGHT.values():
            with changed(net, change):
                assert torch.equal(use(part, first), expected)


@pytest.mark.parametrize("cls", PROGRAMS)
def test_a_program_names_the_part_whose_network_is_wrong(cls):
    program = cls.example()
    data = columns(program, ROWS)
    assert nets(program)
    for net in nets(program):
        owners = [m for m in program.modules() if isinstance(m, pv.Conditional) and net in set(m.modules())]
        owner = min(owners, key=lambda m: len(list(m.modules())), default=net)
        path = next(name for name, module in program.named_modules() if module is owner)
        for change in WRONG.values():
            if changes_nothing(net, change) or changes_nothing(net, change, 1):
                continue
            named = rf"net: expected .* got .* of {path} {type(owner).__name__}"
            with changed(net, change), pytest.raises(ValueError, match=named):
                program.check(*data)
        program.check(*data)


def test_a_tuple_gets_the_adapter_to_write():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.log_variance = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.mean(x), self.log_variance(x)

    part = pv.posteriors.MeanFieldNormal((4,), 3, net=lambda i, o: Encoder())
    with pytest.raises(ValueError, match=r"(?s)tuple .*MeanFieldNormal.*torch.stack") as error:
        part(torch.zeros(5, 4))
    # the code of the message works
    code = str(error.value).partition(":\n")[2].partition("\nand pass")[0]
    code = "\n".join(line[4:] for line in code.splitlines())
    scope = {"torch": torch}
    exec(code, scope)
    part = pv.posteriors.MeanFieldNormal((4,), 3, net=lambda i, o: scope["Stacked"](Encoder()))
    assert part(torch.zeros(5, 4)).event_shape == (3,)


@pytest.mark.parametrize(
    "net",
    [nn.Linear(3, 4), pv.nets.MLP((3,), (4,)), nn.Linear, 5, None, "MLP", lambda i, o: 5, lambda i: nn.Linear(3, 4)],
    ids=lambda net: getattr(net, "__name__", type(net).__name__),
)
def test_net_is_a_function_that_builds_a_network(net):
    with pytest.raises(TypeError, match=r"net: expected .*net\(\(3,\), \(4,\)\)"):
        pv.likelihoods.Normal(3, (4,), net=net)


@pytest.mark.parametrize(
    "net",
    [
        lambda i, o, context: pv.nets.MLP((5,), o, context=context),
        lambda i, o, context: pv.nets.MLP(i, (1,), context=context),
        lambda i, o, context: pv.nets.MLP(i, (3, 2), context=context),
        lambda i, o, context: pv.nets.MLP(i, o),
        lambda i, o, context: pv.nets.MLP(i, o, context=context + 1),
    ],
)
def test_a_network_that_declares_other_shapes_is_refused(net):
    with pytest.raises(ValueError, match=r"net: .*in_shape \(3,\), out_shape \(2, 3\) and context 2"):
        pv.likelihoods.Normal(3, (2, 3), net=net, context=2)


def test_a_builder_may_close_over_a_python_module():
    """The description of the part names the module; it does not walk through all modules that it imports."""
    library = torch.nn
    part = pv.likelihoods.Normal(3, (4,), net=lambda i, o: library.Linear(i[0], o[0]))
    assert len(str(vars(part)["_arguments"])) < 10_000
    assert part(torch.zeros(5, 3)).event_shape == (4,)


def test_a_network_may_declare_a_flat_output_or_axes_of_size_one():
    for shape in ((6,), (1, 2, 3), (2, 3, 1)):
        net = lambda i, o, shape=shape: pv.nets.MLP(i, shape, hidden=(4,))  # noqa: E731
        assert pv.likelihoods.Normal(3, (2, 3), net=net)(torch.zeros(5, 3)).event_shape == (2, 3)


def test_a_single_row_may_be_squeezed():
    part = pv.likelihoods.Normal(3, (4,), net=lambda i, o: nn.Sequential(SMALL(i, o), Squeeze()))
    assert part(torch.zeros(1, 3)).batch_shape == (1,)
    assert part(torch.zeros(3)).batch_shape == ()


class Squeeze(nn.Module):
    def forward(self, x):
        return x.squeeze()


def test_a_summary_of_sequences_keeps_rows_and_steps():
    program = pv.programs.SequenceVAE.example()
    x, summary = torch.randn(ROWS, 5, 4), program.summary
    wrong = [
        lambda h: h.transpose(0, 1),
        lambda h: h.transpose(1, 2),
        lambda h: h[:, -1],
        lambda h: torch.cat([h, h], 1),
        lambda h: (h, h[:, -1]),
    ]
    for change in wrong:
        program.summary = Summary(summary, change)
        with pytest.raises(ValueError, match=r"summary: expected .*Summary"):
            program.check(x)


class Summary(nn.Module):
    def __init__(self, summary, change):
        super().__init__()
        self.summary, self.change = summary, change

    def forward(self, x, lengths):
        return self.change(self.summary(x, lengths))


def test_an_encoder_of_an_autoencoder_returns_one_row_per_example():
    wrong = [
        lambda z: z.T,
        lambda z: z.unsqueeze(1),
        lambda z: (z, z),
        lambda z: z.mean(0, keepdim=True),
        lambda z: z[:, :-1],
    ]
    for change in wrong:
        encoder = nn.Sequential(SMALL((4,), (2,)), Apply(change))
        program = pv.programs.Autoencoder(encoder=encoder, likelihood=pv.likelihoods.Normal(2, (4,), net=SMALL))
        with pytest.raises(ValueError, match="encoder: expected .*Sequential"):
            program.check(torch.randn(ROWS, 4))


def test_networks_of_estimators_return_one_number_per_row():
    toy = pv.testing.LinearGaussian()
    x = toy.draw(6)
    wrong = [lambda y: y.expand(-1, 2), lambda y: y.mean(0, keepdim=True), lambda y: y.movedim(0, 1).expand(2, -1)]
    for change in wrong:
        baseline = nn.Sequential(pv.nets.MLP((5,), (1,), hidden=(4,)), Apply(change)).double()
        program = pv.VAE(
            prior=pv.priors.Bernoulli(2),
            likelihood=pv.likelihoods.Normal(2, (5,), net=SMALL),
            posterior=pv.posteriors.Bernoulli((5,), 2, net=SMALL),
        ).double()
        with pytest.raises(ValueError, match="baseline: "):
            pv.estimators.NVIL(baseline=baseline).per_datum(program.model, program.guide, x)
    for change in (
        lambda y: y.expand(*y.shape[:-1], 2),
        lambda y: y.transpose(0, 1),
        lambda y: y.mean(1, keepdim=True),
    ):
        discriminator = nn.Sequential(nn.Linear(2, 1), Apply(change)).double()
        estimator = pv.estimators.FactorVAE(discriminator=discriminator, num_particles=2)
        with pytest.raises(ValueError, match="discriminator: "):
            estimator.per_datum(toy.program.model, toy.program.guide, x)


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


NETS = list(parts(pv.nets, Net))


@pytest.mark.parametrize("cls", [cls for cls in NETS if cls is not Net])
@pytest.mark.parametrize("context", [0, 3])
def test_every_network_takes_any_leading_dimensions(cls, context):
    """The rows of (), (4,) and (3, 4) leading dimensions are those of a batch of 12."""
    in_shape, out_shape = ((6,), (10,)) if cls.__name__.endswith("Topics") else ((6, 9), (5, 7))
    if context and "context" not in inspect.signature(cls).parameters:
        with pytest.raises(TypeError, match="net: .*context=3"):
            pv.nets.build(cls, in_shape, out_shape, context)
        return
    torch.manual_seed(0)
    net = pv.nets.build(cls, in_shape, out_shape, context).eval()
    x, c = torch.rand(12, *in_shape), [torch.rand(12, context)] if context else []
    flat = net(x, *c)
    assert flat.shape == (12, *out_shape)
    more = net(x.reshape(3, 4, *in_shape), *(t.reshape(3, 4, -1) for t in c))
    assert torch.allclose(more.flatten(0, 1), flat, atol=1e-5)
    assert torch.allclose(net(x[5], *(t[5] for t in c)), flat[5], atol=1e-5)
