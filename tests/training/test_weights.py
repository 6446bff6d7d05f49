"""Weights of examples: the weighted objective is that of repeated rows, in every estimator and every program."""

import functools

import numpy as np
import pyro.infer
import pytest
import torch
from benchmarks.compile_everything import program_case
from helpers import shelf
from helpers.programs import small
from helpers.sharing import binary
from helpers.shelf import needs_discrete
from helpers.small_programs_estimators import Constant
from pyro import distributions as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import pyro_vae as pv
from pyro_vae import estimators as E
from pyro_vae.testing import parts
from pyro_vae.training import SVI, eager_graph
from pyro_vae.training.data.check import weighted_layout

WEIGHTS = torch.tensor([2.0, 1.0, 0.0, 3.0, 0.0, 1.0])
N = len(WEIGHTS)
REPEATED = torch.repeat_interleave(torch.arange(N), WEIGHTS.long())
X = torch.randn(N, 3, generator=torch.Generator().manual_seed(0)).double()
NOISE = torch.rand(6, N, generator=torch.Generator().manual_seed(1)).double()
SEPARATE = [cls for cls in shelf.classes() if cls not in shelf.over_batch()]
sgd = functools.partial(torch.optim.SGD, lr=0.1)


class OfRows:
    """A distribution with noise that depends on the number of the row alone, or with plain noise."""

    rows = None

    def expand(self, batch_shape, _instance=None):
        new = super().expand(batch_shape, _instance)
        new.rows = self.rows
        return new

    def noise(self, sample_shape):
        shape = self._extended_shape(torch.Size(sample_shape))
        return NOISE[: shape[:-1].numel(), self.rows].reshape(shape)


class Normal(OfRows, dist.Normal):
    def rsample(self, sample_shape=()):
        if self.rows is None:
            return super().rsample(sample_shape)
        return self.loc + self.scale * torch.special.ndtri(self.noise(sample_shape))


class Bernoulli(OfRows, dist.Bernoulli):
    def sample(self, sample_shape=()):
        if self.rows is None:
            return super().sample(sample_shape)
        return (self.noise(sample_shape) < self.probs).double()


class OneLatent(pv.Program):
    """One latent per example; a row gets the same noise wherever it is in a batch, by its number."""

    def __init__(self, *, binary, scripted=True):
        super().__init__()
        self.binary, self.scripted = binary, scripted
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.up, self.down = nn.Linear(3, 2).double(), nn.Linear(1, 3).double()
        self.prior = nn.Parameter(torch.tensor(0.3).double())

    def model(self, x, rows):
        pv.programs.announce(model=self)
        with pv.programs.DataPlate(x):
            p = dist.Bernoulli(logits=self.prior) if self.binary else dist.Normal(self.prior, 1.0)
            z = pyro.sample("z", p)
            pv.programs.observe("x", dist.Normal(self.down(z.unsqueeze(-1)), 0.7).to_event(1), x)

    def guide(self, x, rows):
        pv.programs.announce(model=self)
        with pv.programs.DataPlate(x):
            loc, raw = self.up(x).unbind(-1)
            q = Bernoulli(logits=loc) if self.binary else Normal(loc, nn.functional.softplus(raw))
            q.rows = rows if self.scripted else None
            pyro.sample("z", q)


def trained(program, data, **options):
    """The parameters after training, and the history."""
    defaults = {"optimizer": sgd, "epochs": 1, "batch_size": 100, "progress": False}
    history = pv.fit(program, data, **{**defaults, **options})
    return torch.cat([p.detach().flatten() for p in program.parameters()]), history


def shown(history):
    """The numbers of a history."""
    return [[v for k, v in row.items() if k not in ("seconds", "step")] for row in history]


def close(a, b, tolerance=1e-9):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=tolerance, atol=tolerance)


def scripted(cls):
    """Whether all draws of an estimator are those of the guide's distributions."""
    return not shelf.for_bits(cls) and cls is not E.DAIS


@pytest.mark.parametrize("options", [{}, {"beta": 0.4}, {"free_bits": E.PerSite(0.7)}], ids=str)
@pytest.mark.parametrize("cls", [cls for cls in SEPARATE if scripted(cls)])
def test_integer_weights_train_as_repeated_rows(cls, options):
    """Weights and metrics of three steps on all rows."""
    binary = needs_discrete(cls)
    make = functools.partial(OneLatent, binary=binary)
    estimators = [shelf.build(cls, **options) for _ in range(2)]
    data, rows = (X, torch.arange(N)), REPEATED
    again = trained(make(), tuple(column[rows] for column in data), estimator=estimators[0], epochs=3)
    found = trained(make(), data, estimator=estimators[1], epochs=3, weights=WEIGHTS)
    close(found[0], again[0])
    close(shown(found[1]), shown(again[1]))


@pytest.mark.parametrize("cls", [pyro.infer.Trace_ELBO, pyro.infer.TraceMeanField_ELBO])
@pytest.mark.parametrize("binary", [False, True])
def test_estimators_of_pyro_train_as_with_repeated_rows(cls, binary):
    options = {"num_particles": 3, "vectorize_particles": True, "max_plate_nesting": 1}
    data = (X, torch.arange(N))
    again = trained(OneLatent(binary=binary), tuple(c[REPEATED] for c in data), estimator=cls(**options), epochs=2)
    found = trained(OneLatent(binary=binary), data, estimator=cls(**options), epochs=2, weights=WEIGHTS)
    close(found[0], again[0])
    close(shown(found[1]), shown(again[1]))


def gradients(make, data, **options):
    """The gradient of full-batch training, as a function of the weights and of the data."""

    def gradient(weights, data=data):
        program = make()
        before = torch.cat([p.detach().flatten() for p in program.parameters()])
        made = {name: value() for name, value in options.items()}
        after, _ = trained(
            program, data, optimizer=functools.partial(torch.optim.SGD, lr=1.0), weights=weights, **made
        )
        return before - after

    return gradient


def check_linear(gradient, n):
    """The gradient is the weighted mean of one gradient per example, and equal weights are no weights."""
    weights = torch.arange(n).double() + 0.5
    # rows of weight 0 are left out, with their noise
    known = torch.eye(n).double() + 0.25
    found = torch.stack([gradient(row) for row in known])
    single = torch.linalg.solve(known / known.sum(1, keepdim=True), found.double()).to(found)
    assert single.abs().max() > 0
    close(gradient(weights), (weights @ single.double() / weights.sum()).to(single), 3e-5)
    close(gradient(None), single.mean(0), 3e-5)
    close(gradient(torch.full((n,), 7.0)), single.mean(0), 3e-5)


@pytest.mark.parametrize("options", [{}, {"particles_per_pass": 2}], ids=str)
@pytest.mark.parametrize("cls", SEPARATE)
def test_a_gradient_is_the_weighted_mean_of_those_of_single_examples(cls, options):
    """Also for draws that no script decides; the gradient of an example does not depend on others of weight 0."""
    make = functools.partial(OneLatent, binary=needs_discrete(cls), scripted=False)
    data = (X[:4], torch.arange(4))
    if options and not shelf.takes_passes(cls):
        with pytest.raises(ValueError, match="particles_per_pass"):
            shelf.build(cls, **options)
        return

    def build():
        own = {"surrogate": Constant()} if cls is E.RELAX else {}
        return shelf.build(cls, **options, **own)

    gradient = gradients(make, data, estimator=build)
    check_linear(gradient, 4)
    other = X[:4].clone()
    other[1:] = -other[1:]
    close(gradient([1, 0, 0, 0]), gradient([1, 0, 0, 0], (other, data[1])))


@pytest.mark.parametrize("kind", list(parts(pv.programs, pv.Program)))
def test_every_program_takes_weights(kind):
    torch.manual_seed(0)
    case = program_case(kind)
    data = tuple(column[:4] for column in case.data)

    def make():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return case.make().double()

    data = tuple(column.double() if column.is_floating_point() else column for column in data)
    check_linear(gradients(make, data), 4)


@pytest.mark.parametrize("cls", shelf.over_batch())
def test_estimators_that_compare_rows_are_refused_by_name(cls):
    with pytest.raises(ValueError, match=f"weights: .*{cls.__name__}"):
        trained(small(), binary(), estimator=shelf.build(cls), weights=torch.ones(len(binary())))


@pytest.mark.parametrize("cls", [pyro.infer.RenyiELBO, pyro.infer.TraceEnum_ELBO, pyro.infer.ReweightedWakeSleep])
def test_other_estimators_of_pyro_are_refused_by_name(cls):
    with pytest.raises(ValueError, match=f"weights: .*{cls.__name__}"):
        trained(small(), binary(), estimator=cls(), weights=torch.ones(len(binary())))


def test_minibatches_have_the_weighted_mean_of_all_rows():
    """Without a change of the parameters the epoch shows the loss of all rows, whatever the batches are."""
    still = functools.partial(torch.optim.SGD, lr=0.0)
    found = [
        shown(
            trained(OneLatent(binary=False), (X, torch.arange(N)), optimizer=still, batch_size=b, weights=WEIGHTS)[1]
        )
        for b in (2, 3, 4, 6)
    ]
    for other in found[1:]:
        close(found[0], other)


class Rows(Dataset):
    """Rows as a data set of tuples."""

    def __len__(self):
        return N

    def __getitem__(self, i):
        return X[i], torch.arange(N)[i]


@pytest.mark.parametrize("form", [np.asarray, list, lambda w: 1e300 * w.double(), torch.Tensor.int])
def test_all_forms_of_weights_and_data_agree(form):
    def run(data, weights):
        return trained(OneLatent(binary=False), data, epochs=2, batch_size=4, weights=weights)[0]

    wanted = run((X, torch.arange(N)), WEIGHTS)
    close(run((X.numpy(), np.arange(N)), form(WEIGHTS)), wanted)
    close(run(Rows(), form(WEIGHTS)), wanted)


def test_compiled_steps_agree():
    def run(data, **options):
        estimator = E.IWAE(num_particles=3)
        return trained(
            small(), data, estimator=estimator, epochs=2, batch_size=6, weights=torch.arange(len(data)), **options
        )

    x = binary()
    with torch.random.fork_rng():
        for data in (x, TensorDataset(x)):
            torch.manual_seed(0)
            eager = run(data)
            torch.manual_seed(0)
            compiled = run(data, compile=eager_graph)
            close(eager[0], compiled[0], 1e-5)
            close(shown(eager[1]), shown(compiled[1]), 1e-5)


def test_batches_without_weight_stay_finite():
    """Steps of your own, also with penalties and running baselines, which divide by the sum of the weights."""

    def steps(estimator, binary):
        program = OneLatent(binary=binary)
        data = (X, torch.arange(N))
        layout = weighted_layout(program, pv.training.Batches(data, batch_size=1, dtype=X.dtype, weights=WEIGHTS))
        svi = SVI(program, estimator, sgd, weighted_layout=layout)
        for i in range(N):
            loss = svi.update(*(column[i : i + 1] for column in data), torch.tensor([float(i == 0)]).double())["loss"]
            assert loss.isfinite()
        assert all(p.isfinite().all() for p in program.parameters())

    for estimator in (E.ELBO(free_bits=0.5), E.ELBO(capacity=E.Capacity(1.0, 3, gamma=1.0)), E.DReG()):
        steps(estimator, binary=False)
    nvil = E.NVIL()
    steps(nvil, binary=True)
    assert nvil.module.mean.isfinite()
    assert nvil.module.variance.isfinite()


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        (torch.ones(N - 1), ValueError),
        (torch.ones(N, 1), ValueError),
        (1.0, ValueError),
        (-WEIGHTS, ValueError),
        (WEIGHTS / 0, ValueError),
        (0 * WEIGHTS, ValueError),
        (np.ma.masked_equal(WEIGHTS.numpy(), 0), ValueError),
        ("abc", TypeError),
        ({"a": 1}, TypeError),
    ],
    ids=["short", "matrix", "number", "negative", "nan", "zeros", "masked", "text", "mapping"],
)
def test_invalid_weights_are_refused_by_name(weights, error, tmp_path):
    with pytest.raises(error, match="weights"):
        trained(OneLatent(binary=False), (X, torch.arange(N)), weights=weights, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_loader_is_refused_by_name():
    with pytest.raises(TypeError, match="weights.*DataLoader"):
        trained(small(), DataLoader(binary(), batch_size=4), batch_size=None, weights=torch.ones(len(binary())))


class Plates(pv.Program):
    """A program with the plates that a function opens."""

    def __init__(self, plate):
        super().__init__()
        self.plate, self.loc = plate, nn.Parameter(torch.zeros(()))

    def model(self, x):
        pv.programs.announce(model=self)
        with self.plate(x) as index:
            pyro.sample("x", dist.Normal(self.loc, 1.0).expand(x[index].shape[1:]).to_event(1), obs=x[index])

    def guide(self, x):
        pass


@pytest.mark.parametrize(
    "plate",
    [
        lambda x: pyro.plate("rows", len(x), subsample=torch.arange(2)),
        lambda x: pyro.plate("one", 1, subsample=torch.zeros(1, dtype=torch.int64)),
    ],
)
def test_plates_that_are_not_over_the_batch_are_refused_by_name(plate):
    with pytest.raises(ValueError, match="weights"):
        trained(Plates(plate), torch.randn(5, 2), weights=torch.ones(5))


class Inner(pv.Program):
    """Rows at dimension -2 around a plate of entries, and a latent that all examples share."""

    def __init__(self):
        super().__init__()
        self.raw, self.q = nn.Parameter(torch.tensor(0.3).double()), nn.Parameter(torch.tensor(0.1).double())

    def model(self, x):
        pv.programs.announce(model=self)
        shared = pyro.sample("shared", dist.Normal(self.raw, 1.0))
        with pyro.plate("rows", len(x), dim=-2), pyro.plate("entries", x.shape[1], dim=-1):
            pyro.sample("x", dist.Normal(self.raw * shared, 1.0), obs=x)

    def guide(self, x):
        pv.programs.announce(model=self)
        pyro.sample("shared", dist.Normal(self.q, 0.5))


@pytest.mark.parametrize("estimator", [E.ELBO, E.ReinforceLOO])
def test_rows_at_another_dimension(estimator):
    """Gradient and loss are linear in the weights."""
    check_linear(gradients(Inner, X[:4], estimator=functools.partial(estimator, num_particles=2)), 4)
    history = [
        shown(trained(Inner(), X[:4], estimator=estimator(num_particles=2), weights=weights)[1])
        for weights in ([5, 1, 2, 2], [1, 5, 2, 2], [4, 2, 2, 2])
    ]
    close(0.75 * np.array(history[0]) + 0.25 * np.array(history[1]), np.array(history[2]))


def test_data_in_two_plates_are_refused_by_name():
    class Two(pv.Program):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(()))

        def model(self, x):
            pv.programs.announce(model=self)
            for name in "ab":
                with pyro.plate(f"rows_{name}", len(x)):
                    pyro.sample(name, dist.Normal(self.loc, 1.0).expand(x.shape[1:]).to_event(1), obs=x)

        def guide(self, x):
            pass

    with pytest.raises(ValueError, match="weights"):
        trained(Two(), torch.randn(5, 2), weights=torch.ones(5))


def test_the_step_and_validation():
    """A step of SVI takes weights as the last tensor; validation data have none."""
    program, x = small(), binary()
    batches = pv.training.Batches(x, batch_size=4, weights=torch.ones(len(x)))
    layout = weighted_layout(program, batches)
    svi = SVI(program, E.ELBO(), sgd, weighted_layout=layout)
    assert svi.update(x[:4], torch.tensor([0.0, 0.0, 0.0, 0.0]))["loss"] == 0
    _, history = trained(program, x, valid=x, weights=[1.0] + [0.0] * (len(x) - 1))
    again = pv.fit(program, x, valid=x, epochs=1, optimizer=functools.partial(torch.optim.SGD, lr=0.0), progress=False)
    assert history.rows[0]["valid_bound"] == pytest.approx(again.rows[0]["valid_bound"])


def test_rows_of_weight_zero_are_not_there():
    """Also rows that no model can have: all numbers are those of a training on the other rows."""
    x, weights = (
        torch.cat([X, torch.full((2, 3), 1e200, dtype=X.dtype)]),
        torch.tensor([2.0, 1.0, 0.0, 3.0, 1.0, 1.0, 0.0, 0.0]),
    )
    kept = weights > 0
    x[6, 0] = float("nan")
    options = {"epochs": 3, "batch_size": 2}
    rows = torch.arange(len(x))
    found = trained(OneLatent(binary=False, scripted=False), (x, rows), weights=weights, **options)
    again = trained(OneLatent(binary=False, scripted=False), (x[kept], rows[kept]), weights=weights[kept], **options)
    assert torch.equal(found[0], again[0])
    assert shown(found[1]) == shown(again[1])
    with pytest.raises(ValueError, match=r"(?s)x\[1, 0\].*without those of weight 0"):
        trained(OneLatent(binary=False), (x[[0, 6, 7]], rows[:3]), weights=[1, 1, 0])


def test_weights_of_zero_in_evaluation():
    toy = pv.testing.LinearGaussian()
    x = toy.draw(4)
    x[1] = 1e200
    options = {"num_particles": 30, "progress": False}
    found = pv.evaluation.log_likelihood(toy.program, x, weights=[1, 0, 2, 1], **options)
    assert found.per_example[1] == -torch.inf
    assert found.mean == pytest.approx(float((found.per_example[[0, 2, 2, 3]]).mean()))
    assert np.isfinite([found.std_error, found.monte_carlo_error]).all()


def test_series_of_pandas_are_in_the_rows_of_their_index():
    """In the order of a frame with the same index, and refused with any other index."""
    pandas = pytest.importorskip("pandas")
    toy = pv.testing.LinearGaussian()
    frame = pandas.DataFrame(toy.draw(6).numpy(), index=list("abcdef"))
    weights = pandas.Series(WEIGHTS.numpy(), index=list("abcdef"))

    def run(data, weights):
        return trained(pv.testing.LinearGaussian(off=0.1).program, data, weights=weights)[0]

    wanted = run(frame.to_numpy(), WEIGHTS)
    for form in (weights, weights.iloc[::-1]):
        assert torch.equal(run(frame, form), wanted)
        found = pv.evaluation.log_likelihood(toy.program, frame, weights=form, num_particles=5, progress=False)
        assert found.weights.tolist() == WEIGHTS.tolist()
    assert torch.equal(run(frame.to_numpy(), weights.reset_index(drop=True)), wanted)
    for data, form in ((frame, weights.reset_index(drop=True)), (frame.to_numpy(), weights)):
        with pytest.raises(ValueError, match="weights: .*index"):
            run(data, form)
    context = pandas.DataFrame(np.eye(6, 2), index=list("fedcba"))
    batches = pv.training.Batches((frame, context), batch_size=6, shuffle=False)
    assert next(batches.epoch(0))[1].tolist() == np.eye(6, 2)[::-1].tolist()


def test_the_batch_size_of_a_loader_is_its_own():
    toy = pv.testing.LinearGaussian()
    loader = DataLoader(TensorDataset(toy.draw(6)), batch_size=3)
    for data in (loader, pv.data.read(loader)):
        with pytest.raises(ValueError, match=r"batch_size: .*\(3\), got 2"):
            pv.fit(toy.program, data, batch_size=2, epochs=1, progress=False)
    assert pv.fit(toy.program, toy.draw(6), valid=loader, batch_size=2, epochs=1, progress=False).rows[0]["step"] == 3
