"""`fit` and `SVI`: data, optimizers, history, errors, and state that does not change."""

import functools
import json
import subprocess
import sys

import numpy as np
import pyro
import pytest
import torch
from helpers.programs import make_vae
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import pyro_vae as pv

X = torch.rand(50, 8, 8).round()


class Rows(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


def memmap(folder):
    np.save(folder / "x.npy", X.numpy())
    return np.load(folder / "x.npy", mmap_mode="r")


def read_only(folder):
    array = X.numpy().copy()
    array.flags.writeable = False
    return array


SOURCES = {
    "tensor": lambda folder: X,
    "float64 tensor": lambda folder: X.double(),
    "array": lambda folder: X.numpy(),
    "float64 array": lambda folder: X.numpy().astype(float),
    "reversed view": lambda folder: X.numpy()[::-1],
    "read-only array": read_only,
    "array of the other byte order": lambda folder: X.numpy().astype(X.numpy().dtype.newbyteorder()),
    "memmap": memmap,
    "Dataset": lambda folder: Rows(),
    "TensorDataset": lambda folder: TensorDataset(X),
    "IterableDataset": lambda folder: Stream(),
    "DataLoader": lambda folder: DataLoader(Rows(), batch_size=16, shuffle=True),
    "split": lambda folder: pv.data.load("digits", binarize="dynamic").train[:50],
}


@pytest.mark.parametrize("kind", SOURCES)
def test_data_of_every_kind(kind, tmp_path, vae):
    data = SOURCES[kind](tmp_path)
    before = [p.clone() for p in vae.parameters()]
    history = pv.fit(vae, data, epochs=2, batch_size=16, progress=False)
    assert len(history) == 2
    assert history["step"] == [4, 8]
    assert not any(torch.equal(p, b) for p, b in zip(vae.parameters(), before, strict=True))


def test_the_transform_of_a_dataset_is_not_applied_to_batches():
    """The data set applies it to each example, as those of torchvision do."""

    class Doubled(Rows):
        transform = staticmethod(lambda x: 2 * x)

        def __getitem__(self, i):
            return self.transform(super().__getitem__(i))

    (x,) = next(pv.training.Batches(Doubled(), batch_size=16, shuffle=False).epoch(0))
    (single,) = next(pv.training.Batches(Rows(), batch_size=16, shuffle=False).epoch(0))
    assert torch.equal(x, 2 * single)


def test_an_array_is_not_copied():
    array = X.numpy().copy()
    (column,) = pv.training.Batches(array, batch_size=16).columns
    assert column.rows.data_ptr() == array.ctypes.data


def test_the_kind_of_data_does_not_change_the_losses(tmp_path):
    def losses(kind):
        torch.manual_seed(0)
        return pv.fit(make_vae(), SOURCES[kind](tmp_path), epochs=2, batch_size=16, progress=False)["loss"]

    same = SOURCES.keys() - {"reversed view", "IterableDataset", "DataLoader", "split"}
    assert all(losses(kind) == losses("tensor") for kind in same)


def test_conditional_vae():
    net = functools.partial(pv.nets.MLP, hidden=(16,))
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli(2, (8, 8), net=net, context=10),
        posterior=pv.posteriors.MeanFieldNormal((8, 8), 2, net=net, context=10),
    )
    digits = pv.data.load("digits", binarize="static")
    c = torch.nn.functional.one_hot(digits.train.y, 10).float()
    history = pv.fit(vae, (digits.train, c), epochs=8, progress=False)
    assert history["loss"][-1] < history["loss"][0]
    assert vae.sample(5, c[:5]).shape == (5, 8, 8)
    assert vae.reconstruct(digits.train.x[:5], c[:5]).shape == (5, 8, 8)
    found = pv.evaluation.log_likelihood(vae, (digits.test.x[:9], c[:9]), num_particles=5)
    assert found.per_example.shape == (9,)


def with_batch_norm():
    def net(in_shape, out_shape):
        wide = torch.nn.Linear(int(np.prod(in_shape)), int(np.prod(out_shape)))
        return torch.nn.Sequential(torch.nn.Flatten(), wide, torch.nn.BatchNorm1d(wide.out_features))

    return pv.VAE(
        prior=pv.priors.StandardNormal(3),
        likelihood=pv.likelihoods.Bernoulli(3, (8, 8), net=net),
        posterior=pv.posteriors.MeanFieldNormal((8, 8), 3, net=net),
    )


def test_a_last_batch_of_one_row_is_merged_for_batch_norm():
    vae = with_batch_norm()
    assert pv.fit(vae, X[:33], epochs=2, batch_size=16, progress=False)["step"] == [2, 4]
    assert pv.fit(make_vae(), X[:1], epochs=1, batch_size=16, progress=False)["step"] == [1]


def test_history(vae):
    history = pv.fit(vae, X, valid=X, epochs=3, progress=False)
    row = history.rows[-1]
    assert row["loss"] == pytest.approx(row["kl"] - row["reconstruction"], rel=1e-5)
    assert {"epoch", "step", "loss", "reconstruction", "kl", "beta", "valid_bound", "seconds"} == set(row)
    assert len(str(history).splitlines()) == 4
    assert history.plot().axes
    with pytest.raises(KeyError, match="expected one of"):
        history["nothing"]


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_a_subsampling_plate_changes_neither_losses_nor_steps(scale):
    toy, plain = pv.testing.LinearGaussian(off=0.1), pv.testing.LinearGaussian(off=0.1)
    x = toy.draw(20)

    def plate(x):
        return pyro.plate("data", int(scale * len(x)), subsample=torch.arange(len(x)), dim=-1)

    def model(x):
        with plate(x):
            pyro.sample("x", toy.program.likelihood(pyro.sample("z", toy.program.prior())), obs=x)

    def guide(x):
        with plate(x):
            pyro.sample("z", toy.program.posterior(x))

    program = pv.programs.FunctionProgram(model, guide, toy=toy.program)
    history = pv.fit(program, x, epochs=2, batch_size=10, progress=False)
    expected = pv.fit(plain.program, x, epochs=2, batch_size=10, progress=False)
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-9)


def test_kl_warm_up():
    vae = make_vae()
    seen = []
    elbo = pv.estimators.ELBO(beta=pv.training.Linear(8))
    pv.fit(vae, X, estimator=elbo, epochs=3, batch_size=10, progress=False, callbacks=[lambda m, s: seen.append(m)])
    assert [round(m["beta"], 3) for m in seen] == [0.5, 1.0, 1.0]


def test_early_stopping_restores_the_best_weights():
    toy = pv.testing.LinearGaussian(off=0.3)
    x = toy.draw(64)
    stop = pv.training.EarlyStopping(patience=3)
    fast = functools.partial(torch.optim.SGD, lr=0.3)
    history = pv.fit(toy.program, x, valid=x, optimizer=fast, epochs=100, callbacks=[stop], progress=False)
    assert len(history) == stop.best_epoch + 4
    assert stop.best == max(history["valid_bound"])
    for name, value in toy.program.state_dict().items():
        assert torch.equal(value, stop.weights[name])


def test_early_stopping_needs_a_validation_bound(vae):
    with pytest.raises(ValueError, match="valid="):
        pv.fit(vae, X, epochs=2, callbacks=[pv.training.EarlyStopping()], progress=False)


def test_run_dir(vae, tmp_path):
    history = pv.fit(vae, X, valid=X, epochs=2, run_dir=tmp_path / "run", progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines == history.rows
    saved = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in vae.state_dict().items())


@pytest.mark.parametrize(
    "optimizer",
    [
        functools.partial(torch.optim.Adam, lr=1e-2),
        functools.partial(torch.optim.AdamW, lr=1e-2),
        functools.partial(torch.optim.Adamax, lr=1e-2),
        functools.partial(torch.optim.SGD, lr=2e-2),
        lambda parameters: torch.optim.RMSprop(parameters, lr=5e-3),
        pyro.optim.Adam({"lr": 1e-2}),
        "instance",
    ],
)
def test_every_optimizer(vae, optimizer):
    if optimizer == "instance":
        optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
    history = pv.fit(vae, X, optimizer=optimizer, epochs=10, batch_size=10, progress=False)
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("elbo", [pyro.infer.Trace_ELBO, pyro.infer.TraceMeanField_ELBO, pyro.infer.TraceGraph_ELBO])
def test_estimators_of_pyro_run_in_fit(vae, elbo):
    history = pv.fit(vae, X, valid=X, estimator=elbo(), epochs=10, batch_size=10, progress=False)
    assert history["loss"][-1] < history["loss"][0]
    assert history["valid_bound"][-1] == pytest.approx(-history["loss"][-1], rel=0.2)


def test_an_optimizer_of_other_parameters_is_refused(vae):
    with pytest.raises(RuntimeError, match="program: .*the optimizer"):
        pv.fit(vae, X, optimizer=torch.optim.Adam(make_vae().parameters()), epochs=1, progress=False)
    some = torch.optim.Adam(vae.likelihood.parameters())
    with pytest.raises(RuntimeError, match="lacks .*posterior"):
        pv.fit(vae, X, optimizer=some, epochs=1, progress=False)


class GlobalStore(pv.Program):
    """A program with statements that use the global parameter store."""

    def __init__(self, statement):
        super().__init__()
        self.toy, self.statement = pv.testing.LinearGaussian().program, statement

    def model(self, x):
        self.statement(self)
        self.toy.model(x)

    def guide(self, x):
        self.toy.guide(x)


def test_parameters_outside_the_program_are_refused():
    program = GlobalStore(lambda self: pyro.param("stray", torch.tensor(1.0)))
    with pytest.raises(RuntimeError, match="program: .*1 others"):
        pv.fit(program, pv.testing.LinearGaussian().draw(9), epochs=1, progress=False)
    pyro.clear_param_store()


def test_a_second_program_with_the_names_of_the_first_in_the_global_store_is_refused():
    """Pyro would return the parameters of the first one."""
    x, statement = pv.testing.LinearGaussian().draw(9), lambda self: pyro.module("toy", self.toy)
    pv.fit(GlobalStore(statement), x, epochs=1, progress=False)
    with pytest.raises(RuntimeError, match=r"clear_param_store\(\)"):
        pv.fit(GlobalStore(statement), x, epochs=1, progress=False)
    pyro.clear_param_store()
    assert len(pv.fit(GlobalStore(statement), x, epochs=1, progress=False)) == 1
    pyro.clear_param_store()


def test_unused_parameters_are_refused():
    toy = pv.testing.LinearGaussian()
    program = pv.programs.FunctionProgram(toy.program.model, toy.program.guide, decoder=toy.decoder)
    with pytest.raises(RuntimeError, match="program: .*others"):
        pv.fit(program, toy.draw(9), epochs=1, progress=False)


def test_clipping_limits_the_global_norm():
    vae = make_vae()
    svi = pv.training.SVI(vae, pv.estimators.ELBO(), functools.partial(torch.optim.SGD, lr=1.0), clip_norm=0.5)
    before = torch.cat([p.detach().clone().flatten() for p in vae.parameters()])
    svi.update(X)
    after = torch.cat([p.detach().flatten() for p in vae.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.5, rel=1e-4)


def test_global_state_does_not_change():
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    flags = {key: pyro.settings.get(key) for key in pyro.settings.get()}
    vae = make_vae()
    torch.set_rng_state(state[0])
    pv.fit(vae, X, valid=X, epochs=1, progress=False)
    pv.evaluation.log_likelihood(vae, X, num_particles=3)
    pv.evaluation.latents(vae, X)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()
    assert {key: pyro.settings.get(key) for key in flags} == flags
    assert len(pyro.get_param_store()) == 0


def test_a_trained_program_is_in_evaluation_mode_also_after_an_error():
    def fail(metrics, step):
        raise LookupError("from a callback")

    vae = with_batch_norm().train()
    pv.fit(vae, X, epochs=1, progress=False)
    assert not any(m.training for m in vae.modules())
    with pytest.raises(LookupError, match="from a callback"):
        pv.fit(vae.train(), X, epochs=1, callbacks=[fail], progress=False)
    assert not any(m.training for m in vae.modules())


def test_evaluation_changes_neither_buffers_nor_modes():
    vae = with_batch_norm().train()
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    first = pv.evaluation.log_likelihood(vae, X, num_particles=3)
    again = pv.evaluation.log_likelihood(vae, X, num_particles=3)
    pv.evaluation.latents(vae, X)
    vae.sample(4)
    vae.reconstruct(X)
    vae.check(X)
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())
    assert all(m.training for m in vae.modules())
    assert torch.equal(first.per_example, again.per_example)


PROCESS = """
import hashlib, torch, pyro_vae as pv
torch.manual_seed(0)
vae = pv.VAE(prior=pv.priors.StandardNormal(3), likelihood=pv.likelihoods.Bernoulli(3, (8, 8)),
             posterior=pv.posteriors.MeanFieldNormal((8, 8), 3))
digits = pv.data.load("digits", binarize="dynamic")
pv.fit(vae, digits.train[:256], epochs=2, clip_norm=1.0, progress=False, seed=4)
print(hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in vae.parameters())).hexdigest())
"""


@pytest.mark.slow
def test_weights_are_the_same_in_every_process():
    found = {
        subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, check=True, env=None).stdout
        for _ in range(3)
    }
    assert len(found) == 1


class Reads(TorchDispatchMode):
    """Counts how often Python reads a number, and thus waits for the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


#: Optimizers with a fused kernel, and without one.
RULES = [
    functools.partial(torch.optim.Adam, lr=1e-3),
    functools.partial(torch.optim.Adam, lr=1e-3, foreach=False),
    functools.partial(torch.optim.Adamax, lr=1e-3, foreach=False),
    functools.partial(torch.optim.SGD, lr=1e-3, momentum=0.9, foreach=False),
]


def deferred(*args, **options):
    """An SVI that runs as on another device than the CPU, where it does not wait for a loss."""
    svi = pv.training.SVI(*args, **options)
    svi.optim.deferred = True
    return svi


@pytest.mark.parametrize(("num_particles", "optimizer"), [(1, RULES[0]), (5, RULES[0]), (1, RULES[3])])
def test_a_step_on_a_device_does_not_wait_for_it(vae, num_particles, optimizer):
    """The code for other devices, run on the CPU."""
    elbo = pv.estimators.ELBO(num_particles=num_particles)
    svi = deferred(vae, elbo, optimizer, clip_norm=1.0)
    svi.update(X)
    with Reads() as reads:
        svi.update(X)
    assert reads.count == 0
    with Reads() as reads:
        pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({}), pyro.infer.Trace_ELBO()).step(X)
    assert reads.count > 0


NAN = X.clone()
NAN[3] = float("nan")


def snapshot(svi):
    """Return copies of the weights and the state of the optimizer."""
    moments = [t for state in svi.optim.torch.state.values() for t in state.values()]
    return [t.detach().clone() for t in (*svi.program.parameters(), *moments)]


@pytest.mark.parametrize("optimizer", RULES)
@pytest.mark.parametrize("steps", [0, 2])
def test_a_nonfinite_step_on_a_device_raises_later(vae, optimizer, steps):
    svi = deferred(vae, pv.estimators.ELBO(), optimizer)
    for _ in range(steps):
        svi.update(X)
    svi.raise_if_nonfinite((X,))
    before = snapshot(svi)
    svi.update(NAN)
    svi.update(X)
    assert all(torch.equal(now, then) for now, then in zip(snapshot(svi), before, strict=False))
    with pytest.raises(pv.training.NonFiniteError, match="loss"):
        svi.raise_if_nonfinite((NAN,))


@pytest.mark.parametrize("optimizer", RULES)
def test_skipped_steps_on_a_device_change_nothing(vae, optimizer):
    """Neither weights nor moments."""
    svi = deferred(vae, pv.estimators.ELBO(), optimizer, skip_nonfinite=True, clip_norm=1.0)
    svi.update(NAN)
    for _ in range(2):
        svi.update(X)
    before = snapshot(svi)
    assert float(svi.update(NAN)["skipped"]) == len(NAN)
    assert all(torch.equal(now, then) for now, then in zip(snapshot(svi), before, strict=True))
    assert all(torch.isfinite(t).all() for t in before)


def test_a_program_without_latent_sites_returns_tensors():
    svi = pv.training.SVI(pv.programs.Autoencoder.example(), pv.estimators.ELBO(), RULES[0], skip_nonfinite=True)
    metrics = svi.update(torch.randn(16, 4))
    assert all(isinstance(value, torch.Tensor) for value in metrics.values())
    assert metrics["kl"] == 0


def test_an_error_names_the_sites_that_are_not_finite(vae):
    with pytest.raises(pv.training.NonFiniteError, match="'x' in the model"):
        pv.training.SVI(vae, pv.estimators.ELBO(), RULES[0]).update(NAN)


def test_estimators_with_torch_jit_are_refused(vae):
    with pytest.raises(TypeError, match="estimator: .*JitTrace_ELBO"):
        pv.fit(vae, X, estimator=pyro.infer.JitTrace_ELBO(), epochs=1, progress=False)


@pytest.mark.parametrize("estimator", [pv.estimators.ELBO, pyro.infer.Trace_ELBO])
def test_a_resumed_run_with_a_scale_per_example(estimator, tmp_path):
    """The mean of a step is weighted by the scales of its own batch, not by those of an earlier one."""

    def trained(folder, epochs):
        torch.manual_seed(0)
        vae = make_vae()

        def scaled(function):
            return lambda x: pyro.poutine.scale(function, 0.1 + x.flatten(1).mean(1))(x)

        program = pv.programs.FunctionProgram(scaled(vae.model), scaled(vae.guide), vae=vae)
        options = {"estimator": estimator(), "batch_size": 10, "run_dir": folder, "resume": True, "progress": False}
        pv.fit(program, X, epochs=epochs, **options)
        return torch.cat([p.detach().flatten() for p in program.parameters()])

    whole = trained(tmp_path / "whole", 3)
    trained(tmp_path / "parts", 1)
    assert torch.equal(trained(tmp_path / "parts", 3), whole)


class Counted(Dataset):
    """Counts how often each row is read."""

    def __init__(self, x):
        self.x, self.reads = x, torch.zeros(len(x), dtype=torch.int64)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.reads[i] += 1
        return self.x[i]


def test_a_dataset_is_read_once_per_epoch(vae):
    """Its rows are checked as they are read; of the validation data the first batch is read once more before."""
    data, valid = Counted(X[:33]), Counted(X[:33])
    pv.fit(vae, data, valid=valid, epochs=3, batch_size=16, progress=False)
    assert data.reads.tolist() == [3] * 33
    assert valid.reads.tolist() == [4] * 16 + [3] * 17


@pytest.mark.parametrize("argument", ["data", "valid"])
@pytest.mark.parametrize("kind", ["loader", "Dataset"])
@pytest.mark.parametrize("row", [2, 30])
def test_a_bad_row_of_a_dataset_is_found_as_it_is_read(vae, argument, kind, row):
    bad = Counted(torch.where(torch.arange(33)[:, None, None] == row, torch.nan, X[:33]))
    bad = bad if kind == "Dataset" else DataLoader(bad, batch_size=16)
    given = {"data": X, "valid": X, argument: bad}
    with pytest.raises(ValueError, match=f"x: .*NaN.*argument {argument}"):
        pv.fit(vae, **given, batch_size=16, epochs=1, progress=False)


class Streamed(IterableDataset):
    def __init__(self, sizes):
        self.sizes = sizes

    def __iter__(self):
        for n in self.sizes:
            yield X[:n]


LAST_ALONE = {
    "loader": lambda: DataLoader(TensorDataset(X[:33]), batch_size=16),
    "shuffled loader": lambda: DataLoader(TensorDataset(X[:33]), batch_size=16, shuffle=True),
    "custom batches": lambda: DataLoader(TensorDataset(X[:33]), batch_sampler=[range(16), range(16, 32), [32]]),
    "Dataset": lambda: TensorDataset(X[:33]),
    "stream": lambda: DataLoader(Streamed([16, 16, 1]), batch_size=None),
    "stream of examples": lambda: Streaming(X[:33]),
    "workers": lambda: DataLoader(TensorDataset(X[:33]), batch_size=16, num_workers=1),
}


class Streaming(IterableDataset):
    def __init__(self, x):
        self.x = x

    def __iter__(self):
        return iter(self.x)


@pytest.mark.parametrize("kind", LAST_ALONE)
def test_a_last_batch_of_one_example_joins_the_one_before_for_all_data(kind):
    size = None if kind in ("custom batches", "stream") else 16
    history = pv.fit(with_batch_norm(), LAST_ALONE[kind](), epochs=2, batch_size=size, progress=False)
    assert history["step"] == [2, 4]
    source = pv.training.Batches(LAST_ALONE[kind](), batch_size=16)
    assert [len(x) for (x,) in source.epoch(0)] == [16, 17]
    assert source.steps in (2, None) or kind == "custom batches"


def test_a_single_example_elsewhere_stays_alone():
    """A loader may choose its batches itself."""
    for sizes in ([4, 1, 4], [1], [1, 1, 1], [1, 4], [4, 1, 1]):
        source = pv.training.Batches(DataLoader(Streamed(sizes), batch_size=None), batch_size=16)
        assert [len(x) for (x,) in source.epoch(0)] == sizes
