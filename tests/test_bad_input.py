"""Bad input raises before the first step an error that names the argument and the place."""

import functools

import numpy as np
import pytest
import torch
from helpers.programs import make_vae
from safetensors.torch import load_file
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import pyro_vae as pv
from pyro_vae.evaluation.cost import PeakMemory
from pyro_vae.training.loop import Loop

X = torch.rand(30, 8, 8).round()


def spoiled(value, index=(3, 0, 5)):
    x = X.clone()
    x[index] = value
    return x


BAD = {
    "nan": (spoiled(float("nan")), r"x: .*\[3, 0, 5\]"),
    "infinite": (spoiled(float("inf")), r"x\[3, 0, 5\]"),
    "grey": (spoiled(0.25), r"x\[3, 0, 5\].* likelihood Bernoulli"),
    "grey, with advice": (spoiled(0.25), "ContinuousBernoulli or Normal, .* binarize=.*grey=True"),
    "bytes 0..255": (spoiled(255.0), r"x\[3, 0, 5\] is 255"),
    "wrong width": (X[:, :, :7], r"x: expected shape \(n, 8, 8\).*\(30, 8, 7\)"),
    "would broadcast": (X[:, :, :1], r"x: expected shape \(n, 8, 8\).*\(30, 8, 1\)"),
    "flat": (X.flatten(1), r"x: .*\(30, 64\)"),
    "one example without its row": (X[0], r"x: .*\(8, 8\)"),
    "a number": (torch.tensor(1.0), "x: "),
    "int64": (X.long(), "x: expected dtype torch.float32.* torch.int64"),
    "uint8 of 0 and 1": (X.byte(), "x: .*torch.uint8"),
    "rows of bytes": ((X * 255).byte().flatten(1), "x: .*torch.uint8"),
    "bool": (X.bool(), "x: .*torch.bool"),
    "complex": (X.to(torch.complex64), "x: .*torch.complex64"),
    "int array": (X.numpy().astype(int), "x: .*torch.int64"),
    "strings": (np.array(["a", "b"]), "x: .*<U1"),
    "objects": (np.array([None, 1.0]), "x: .*object"),
    "complex array": (X.numpy().astype(complex), "x: .*complex128"),
    "empty": (X[:0], "data: "),
    "unexpected labels": ((X, torch.ones(30, 10)), "context"),
    "columns of other lengths": ((X, torch.ones(29, 10)), "context.*: 29"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data(name, vae):
    data, message = BAD[name]
    before = [p.clone() for p in vae.parameters()]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        pv.fit(vae, data, epochs=1, progress=False)
    assert all(torch.equal(p, b) for p, b in zip(vae.parameters(), before, strict=True))


def test_bad_validation_and_test_data(vae):
    bad = spoiled(float("nan"))
    with pytest.raises(ValueError, match=r"x\[3, 0, 5\]"):
        pv.fit(vae, X, valid=bad, epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"x\[3, 0, 5\]"):
        pv.evaluation.log_likelihood(vae, bad)


@pytest.mark.parametrize("data", [5, "text", None, {"x": 1}])
def test_data_of_unknown_type(vae, data):
    with pytest.raises(TypeError, match="x: "):
        pv.fit(vae, data, epochs=1, progress=False)


def conditional():
    return pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli(2, (8, 8), context=10),
        posterior=pv.posteriors.MeanFieldNormal((8, 8), 2, context=10),
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X, "10 numbers"),
        ((X, torch.zeros(30).long()), "context: .*torch.float32"),
        ((X, torch.zeros(30)), r"context: .*\(30, 10\)"),
        ((X, torch.zeros(30, 9)), "context: .*10"),
        ((X, torch.full((30, 10), float("nan"))), r"context\[0, 0\]"),
    ],
)
def test_bad_context(data, message):
    with pytest.raises(ValueError, match=message):
        pv.fit(conditional(), data, epochs=1, progress=False)


def test_parts_that_do_not_fit_each_other():
    net = functools.partial(pv.nets.MLP, hidden=(4,))
    with pytest.raises(ValueError, match="posterior .*prior "):
        pv.fit(
            pv.VAE(
                prior=pv.priors.StandardNormal(3),
                likelihood=pv.likelihoods.Bernoulli(3, (8, 8), net=net),
                posterior=pv.posteriors.MeanFieldNormal((8, 8), 2, net=net),
            ),
            X,
            epochs=1,
            progress=False,
        )
    with pytest.raises(TypeError, match="prior: "):
        pv.VAE(
            prior=pv.priors.StandardNormal,
            likelihood=pv.likelihoods.Bernoulli(3, (8, 8), net=net),
            posterior=pv.posteriors.MeanFieldNormal((8, 8), 2, net=net),
        )


def test_posterior_without_reparameterized_sampler_is_refused(vae):
    from pyro import distributions as dist

    class Bits(pv.Conditional):
        def __init__(self):
            super().__init__()
            self.net = pv.nets.MLP((8, 8), (3,))

        def forward(self, x, *context):
            return dist.Bernoulli(logits=self.net(x)).to_event(1)

    vae.prior, vae.posterior = pv.priors.Bernoulli(3), Bits()
    with pytest.raises(ValueError, match="ELBO .*'z' .*Bernoulli.*MeanFieldNormal"):
        pv.fit(vae, X, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: "),
        ({"batch_size": 0}, "batch_size: "),
        ({"clip_norm": -1.0}, "clip_norm: "),
    ],
)
def test_bad_options(vae, options, message):
    with pytest.raises(ValueError, match=message):
        pv.fit(vae, X, progress=False, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": pv.estimators.ELBO}, "estimator: "),
        ({"estimator": "elbo"}, "estimator: "),
        ({"optimizer": 1e-3}, "optimizer: "),
    ],
)
def test_options_of_wrong_type(vae, options, message):
    with pytest.raises(TypeError, match=message):
        pv.fit(vae, X, progress=False, **options)


@pytest.mark.parametrize("options", [{"num_particles": 0}, {"num_particles": 1.5}, {"beta": -1.0}, {"beta": "a"}])
def test_bad_estimators(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        pv.estimators.ELBO(**options)


def test_a_schedule_that_becomes_negative(vae):
    with pytest.raises(ValueError, match="beta: .*-1.* step 1"):
        pv.fit(vae, X, estimator=pv.estimators.ELBO(beta=lambda t: -float(t)), epochs=2, progress=False)


def test_fit_needs_a_program():
    with pytest.raises(TypeError, match="program: "):
        pv.fit(torch.nn.Linear(2, 2), X)


def state(program):
    return {k: v.clone() for k, v in program.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[k], b[k]) for k in b)


def test_a_nan_loss_ends_training_with_the_last_good_weights(vae, tmp_path):
    kept = []

    def poison(metrics, step):
        kept.append(state(vae))
        if metrics["epoch"] == 1:
            with torch.no_grad():
                vae.likelihood.net.body[0].weight[0, 0] = float("nan")

    with pytest.raises(pv.training.NonFiniteError, match="(?s)step 2: .*site 'x' in the model.*largest gradient"):
        pv.fit(vae, X, epochs=5, callbacks=[poison], run_dir=tmp_path, progress=False)
    # the weights with the last finite loss, those of the first epoch, are in the run folder too
    assert equal(state(vae), kept[0])
    assert equal(load_file(tmp_path / "weights.safetensors"), kept[0])


def test_a_huge_learning_rate_leaves_no_nan_in_the_weights():
    vae = make_vae()
    first = state(vae)
    huge = functools.partial(torch.optim.SGD, lr=1e38)
    with pytest.raises(pv.training.NonFiniteError, match="step 1"):
        pv.fit(vae, X, optimizer=huge, epochs=5, progress=False)
    assert equal(state(vae), first)


class Stream(IterableDataset):
    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter(self.x)


LOADERS = {
    "nan": (DataLoader(spoiled(float("nan")), batch_size=5), r"x\[3, 0, 5\].* batch 0 "),
    "another width": (DataLoader(X[:, :, :7], batch_size=5), r"x: .*\(5, 8, 7\).* batch 0"),
    "integers": (DataLoader(X.long(), batch_size=5), "x: .*torch.float32"),
    "a stream": (Stream(spoiled(float("nan"))), "x.* batch 0"),
    "nothing": (DataLoader(TensorDataset(X[:0]), batch_size=5), "batch"),
    "text": (DataLoader(["a", "b"], batch_size=2), "data: .* str for x"),
    "a dict": (DataLoader([{"image": X[0]}] * 4, batch_size=2), "data: expected 'x' .*got image"),
}


def refused(program, message, folder, data=X, **options):
    """Check that `fit` raises before it changes weights or mode, or writes a file."""
    before, mode = state(program), program.training
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        pv.fit(program, data, epochs=1, run_dir=folder / "run", progress=False, **options)
    assert equal(state(program), before)
    assert program.training is mode
    assert not (folder / "run").exists()


@pytest.mark.parametrize("name", LOADERS)
def test_a_bad_first_batch_changes_nothing(name, vae, tmp_path):
    data, message = LOADERS[name]
    refused(vae.train(), message, tmp_path, data)


@pytest.mark.parametrize("name", ["nan", "another width", "nothing"])
def test_a_bad_first_validation_batch_changes_nothing(name, vae, tmp_path):
    data, message = LOADERS[name]
    refused(vae, message if name == "another width" else "valid", tmp_path, valid=data)


def test_a_bad_later_validation_batch_raises(vae):
    data = DataLoader(torch.cat([X[:5], spoiled(float("nan"))]), batch_size=5)
    with pytest.raises(ValueError, match="(?s)x.* batch 1 .*valid"):
        pv.fit(vae, X, valid=data, epochs=1, progress=False)


class Once(IterableDataset):
    """A stream that can be read only once."""

    def __init__(self):
        self.rows = iter(X)

    def __iter__(self):
        return self.rows


GIVEN = {
    "shuffled": lambda: {"data": DataLoader(X, batch_size=7, shuffle=True)},
    "with a generator": lambda: {
        "data": DataLoader(X, 7, shuffle=True, generator=torch.Generator().manual_seed(1)),
        "valid": DataLoader(X, 7, shuffle=True, generator=torch.Generator().manual_seed(2)),
    },
    "a stream read once": lambda: {"data": Once(), "batch_size": 7, "epochs": 1},
}


@pytest.mark.parametrize("name", GIVEN)
def test_the_check_of_the_first_batch_changes_no_number(name, monkeypatch):
    """Order and noise are those of a loop without the check, and a stream loses no batch."""
    ends = []
    for check in (True, False):
        if not check:
            monkeypatch.setattr(Loop, "open", lambda self: None)
        torch.manual_seed(0)
        vae = make_vae()
        history = pv.fit(vae, **{"epochs": 2, **GIVEN[name]()}, progress=False)
        ends.append((state(vae), [row["step"] for row in history.rows], history.rows[-1].get("valid_bound")))
    assert equal(ends[0][0], ends[1][0])
    assert ends[0][1:] == ends[1][1:]
    assert ends[0][1][0] == 5


OPTIONS = {
    "unknown GPU": ({"device": "cuda:99"}, "device: .*cpu.*cuda:99"),
    "unknown device": ({"device": "gpu"}, "device: .*gpu"),
    "a device without numbers": ({"device": "meta"}, "device: .*meta"),
    "a seed of text": ({"seed": "a"}, "seed: .*'a'"),
    "a seed too large": ({"seed": 2**70}, "seed: "),
    "no seed": ({"seed": None}, "seed: "),
    "seconds of text": ({"checkpoint_every": "a"}, "checkpoint_every: "),
    "a norm of text": ({"clip_norm": "a"}, "clip_norm: .*'a'"),
    "a single callback": ({"callbacks": print}, "callbacks: "),
    "a number as callback": ({"callbacks": [5]}, "callbacks: .* 5"),
    "a class as callback": ({"callbacks": [pv.training.EarlyStopping]}, r"callbacks: .*EarlyStopping\(\)"),
    "early stopping without valid": ({"callbacks": [pv.training.EarlyStopping()]}, "EarlyStopping .*valid"),
    "an optimizer with a closure": ({"optimizer": torch.optim.LBFGS}, "optimizer: .* LBFGS"),
    "no optimizer": ({"optimizer": lambda parameters: None}, "optimizer: .* NoneType"),
    "bad rows": ({"data": X[:, :, :7]}, r"x: .*\(30, 8, 7\)"),
    "bad validation rows": ({"valid": X[:, :, :7]}, r"x: .*\(30, 8, 7\)"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_bad_options_change_nothing(name, vae, tmp_path):
    options, message = OPTIONS[name]
    refused(vae, message, tmp_path, **options)


def test_too_many_particles_for_the_memory(monkeypatch):
    """The error has the largest number that fits, and the tensors of that number are below the free memory."""
    toy = pv.testing.LinearGaussian()
    toy.program.missing = True
    x = toy.draw(1)
    monkeypatch.setattr(pv.evaluation.over, "BUDGET", 2**19)
    monkeypatch.setattr(pv.evaluation.cost, "available", lambda device: 2.0**22)
    works = {
        "log_likelihood": lambda k: pv.evaluation.log_likelihood(toy.program, x, num_particles=k),
        "impute": lambda k: pv.tasks.impute(toy.program, x, num_particles=k, num_samples=0),
    }
    for name, work in works.items():
        with pytest.raises(ValueError, match="num_particles.*: 10,000,000") as error:
            work(10_000_000)
        fits = int(str(error.value).rpartition(" ")[2].replace(",", ""))
        with PeakMemory() as memory:
            work(fits)
        assert 2**20 < memory.bytes < 1.1 * 2**22, name


@pytest.mark.parametrize("score", [pv.tasks.NegativeBound, pv.tasks.Reconstruction])
def test_memory_of_scores_does_not_grow_with_particles(score, monkeypatch):
    """Scores are averaged in passes of constant size."""
    toy = pv.testing.LinearGaussian()
    x, peaks = toy.draw(4), []
    monkeypatch.setattr(pv.evaluation.over, "BUDGET", 2**19)
    for particles in (1000, 4000):
        with PeakMemory() as memory:
            score(particles)(toy.program, x)
        peaks.append(memory.bytes)
    assert peaks[1] < 1.5 * peaks[0]


def test_evaluation_accepts_the_data_types_of_fit(tmp_path):
    """A memory-mapped file and a torch Dataset give the numbers of the tensor."""
    toy = pv.testing.LinearGaussian()
    x = toy.draw(12)
    np.save(tmp_path / "x.npy", x.numpy())
    forms = (x, x.numpy(), np.load(tmp_path / "x.npy", mmap_mode="r"), TensorDataset(x))
    found = [pv.evaluation.log_likelihood(toy.program, form, num_particles=10).per_example for form in forms]
    for other in found[1:]:
        assert torch.equal(other, found[0])


def test_methods_of_programs_check_their_arguments(vae):
    with pytest.raises(ValueError, match="x: .*torch.float32"):
        vae.reconstruct(X.double())
    with pytest.raises(TypeError, match="x: .*ndarray"):
        vae.reconstruct(X.numpy())
    with pytest.raises(ValueError, match="context: .*10"):
        conditional().sample(3)
    with pytest.raises(ValueError, match="num_samples"):
        vae.sample(0)


def test_sample_metrics_check_their_data(vae):
    missing = spoiled(float("nan"))
    with pytest.raises(ValueError, match="train: "):
        pv.evaluation.samples(vae, missing, X, features=lambda x: x.flatten(1))
    with pytest.raises(ValueError, match="test: "):
        pv.evaluation.samples(vae, X, X[:1], features=lambda x: x.flatten(1))
    with pytest.raises(TypeError, match="train: .*DataLoader"):
        pv.evaluation.samples(vae, DataLoader(X), X, features=lambda x: x.flatten(1))
    with pytest.raises(ValueError, match="y: .*1 class"):
        pv.evaluation.representation(vae, X, torch.zeros(30).long())


def test_data_frames_are_rows_of_numbers(vae):
    """A frame of numbers is an array, even with a column named x; one with text is refused with advice."""
    pandas = pytest.importorskip("pandas")
    toy = pv.testing.LinearGaussian()
    x = toy.draw(12)
    frame = pandas.DataFrame(x.numpy(), columns=["x", "transform", "c", "d", "e"])
    found = [pv.evaluation.log_likelihood(toy.program, form, num_particles=10).per_example for form in (x, frame)]
    assert torch.equal(*found)
    assert len(pv.fit(toy.program, frame, epochs=1, progress=False)) == 1
    with pytest.raises(ValueError, match=r"x: .*pyro_vae.data.read\(x\)"):
        pv.fit(toy.program, frame.assign(c="red"), epochs=1, progress=False)
