"""Bad input ends before the first step, in an error that says where and what to do."""

import functools
import inspect
import json
import re

import numpy as np
import pytest
import torch
from helpers.programs import make_vae
from helpers.small_tables import NAMES, images, table_rows, train, write_csv
from safetensors.torch import load_file
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import pyro_vae as pv
from pyro_vae.cli import command as cli
from pyro_vae.data import files
from pyro_vae.evaluation.laboratory.cost import PeakMemory
from pyro_vae.testing import parts
from pyro_vae.training.loop import Loop

X = torch.rand(30, 8, 8).round()


def spoiled(value, index=(3, 0, 5)):
    x = X.clone()
    x[index] = value
    return x


BAD = {
    "nan": (spoiled(float("nan")), r"x: expected finite values, but x\[3, 0, 5\] is NaN \(1 of 1,920"),
    "infinite": (spoiled(float("inf")), r"x\[3, 0, 5\] is infinite"),
    "grey": (spoiled(0.25), r"x\[3, 0, 5\] is 0.25, outside the support of the likelihood Bernoulli, 0 or 1 .*"),
    "grey ways out": (spoiled(0.25), "ContinuousBernoulli or Normal, .* binarize=.*grey=True"),
    "bytes 0..255": (spoiled(255.0), r"x\[3, 0, 5\] is 255"),
    "wrong width": (X[:, :, :7], r"x: expected shape \(n, 8, 8\) with one datum a row, got \(30, 8, 7\)"),
    "would broadcast": (X[:, :, :1], r"x: expected shape \(n, 8, 8\) with one datum a row, got \(30, 8, 1\)"),
    "flat": (X.flatten(1), r"got \(30, 64\)"),
    "one datum without its row": (X[0], r"got \(8, 8\)"),
    "a number": (torch.tensor(1.0), "a single number"),
    "int64": (X.long(), "x: expected dtype torch.float32 .* got torch.int64"),
    "uint8": ((X * 255).byte(), "got torch.uint8; convert it"),
    "bool": (X.bool(), "got torch.bool"),
    "complex": (X.to(torch.complex64), "got torch.complex64"),
    "int array": (X.numpy().astype(int), "got torch.int64"),
    "strings": (np.array(["a", "b"]), "x: expected an array of floating-point numbers, got numpy dtype <U1"),
    "objects": (np.array([None, 1.0]), "got numpy dtype object"),
    "complex array": (X.numpy().astype(complex), "got numpy dtype complex128"),
    "empty": (X[:0], "data: expected at least one datum, got an empty array"),
    "labels not asked for": ((X, torch.ones(30, 10)), "no part of this program takes a context"),
    "columns of other length": ((X, torch.ones(29, 10)), "same length, got x: 30, context.0.: 29"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data(name, vae):
    data, message = BAD[name]
    before = [p.clone() for p in vae.parameters()]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        pv.fit(vae, data, epochs=1, progress=False)
    assert all(torch.equal(p, b) for p, b in zip(vae.parameters(), before, strict=True))


def test_bad_data_elsewhere(vae):
    bad = spoiled(float("nan"))
    with pytest.raises(ValueError, match=r"x\[3, 0, 5\] is NaN"):
        pv.fit(vae, X, valid=bad, epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"x\[3, 0, 5\] is NaN"):
        pv.evaluation.log_likelihood(vae, bad)


@pytest.mark.parametrize("data", [5, "text", None, {"x": 1}])
def test_data_of_no_known_kind(vae, data):
    with pytest.raises(TypeError, match="x: expected a tensor, numpy array"):
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
        (X, "needs 10 numbers of context"),
        ((X, torch.zeros(30).long()), "context: expected dtype torch.float32"),
        ((X, torch.zeros(30)), r"context: expected shape \(30, 10\)"),
        ((X, torch.zeros(30, 9)), "context: expected 10 numbers a datum"),
        ((X, torch.full((30, 10), float("nan"))), r"context\[0, 0\] is NaN"),
    ],
)
def test_labels_missing_or_wrong(data, message):
    with pytest.raises(ValueError, match=message):
        pv.fit(conditional(), data, epochs=1, progress=False)


def test_parts_that_do_not_fit_each_other():
    net = functools.partial(pv.nets.MLP, hidden=(4,))
    with pytest.raises(ValueError, match="build both with the same `latent`"):
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
    with pytest.raises(TypeError, match="prior: expected an object"):
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
    with pytest.raises(ValueError, match="ELBO follows the gradient .* site 'z' from Bernoulli.*MeanFieldNormal"):
        pv.fit(vae, X, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: expected an int of at least 1"),
        ({"batch_size": 0}, "batch_size: expected an int of at least 1"),
        ({"clip_norm": -1.0}, "clip_norm: expected a positive number"),
    ],
)
def test_bad_options(vae, options, message):
    with pytest.raises(ValueError, match=message):
        pv.fit(vae, X, progress=False, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": pv.estimators.ELBO}, "estimator: expected an object"),
        ({"estimator": "elbo"}, "estimator: expected an object"),
        ({"optimizer": 1e-3}, "optimizer: expected a callable"),
    ],
)
def test_options_of_wrong_type(vae, options, message):
    with pytest.raises(TypeError, match=message):
        pv.fit(vae, X, progress=False, **options)


@pytest.mark.parametrize("options", [{"num_particles": 0}, {"num_particles": 1.5}, {"beta": -1.0}, {"beta": "a"}])
def test_bad_estimators(options):
    with pytest.raises(ValueError, match="expect(ed|s)"):
        pv.estimators.ELBO(**options)


def test_schedule_that_turns_negative(vae):
    with pytest.raises(ValueError, match="beta: expected a number of at least 0, got -1.* at step 1"):
        pv.fit(vae, X, estimator=pv.estimators.ELBO(beta=lambda t: -float(t)), epochs=2, progress=False)


def test_a_program_is_expected():
    with pytest.raises(TypeError, match="FunctionProgram"):
        pv.fit(torch.nn.Linear(2, 2), X)


def state(program):
    return {k: v.clone() for k, v in program.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[k], b[k]) for k in b)


def test_a_loss_that_turns_nan_stops_with_the_last_good_weights(vae, tmp_path):
    kept = []

    def poison(metrics, step):
        kept.append(state(vae))
        if metrics["epoch"] == 1:
            with torch.no_grad():
                vae.likelihood.net.body[0].weight[0, 0] = float("nan")

    with pytest.raises(pv.training.NonFiniteError, match="(?s)step 2: .*site 'x' in the model.*largest gradient"):
        pv.fit(vae, X, epochs=5, callbacks=[poison], run_dir=tmp_path, progress=False)
    # the weights that gave the last finite loss: those of the first epoch, also in the run folder
    assert equal(state(vae), kept[0])
    assert equal(load_file(tmp_path / "weights.safetensors"), kept[0])


def test_a_rate_too_high_never_leaves_nan_in_the_weights():
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
    "nan": (DataLoader(spoiled(float("nan")), batch_size=5), r"x\[3, 0, 5\] is NaN .*in batch 0 of the data loader"),
    "another width": (DataLoader(X[:, :, :7], batch_size=5), r"got \(5, 8, 7\) \(in batch 0"),
    "whole numbers": (DataLoader(X.long(), batch_size=5), "expected dtype torch.float32"),
    "a stream": (Stream(spoiled(float("nan"))), "is NaN .*in batch 0"),
    "nothing": (DataLoader(TensorDataset(X[:0]), batch_size=5), "at least one batch, the data loader gave none"),
    "words": (DataLoader(["a", "b"], batch_size=2), "data: expected tensors, .* got str for x"),
    "a dict": (DataLoader([{"x": X[0]}] * 4, batch_size=2), "got dict for x; .*collate_fn"),
}


def refused(program, message, folder, data=X, **options):
    """Fit is to refuse: before a weight moves, a stream is read or a file is written."""
    before, mode = state(program), program.training
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        pv.fit(program, data, epochs=1, run_dir=folder / "run", progress=False, **options)
    assert equal(state(program), before)
    assert program.training is mode
    assert not (folder / "run").exists()


@pytest.mark.parametrize("name", LOADERS)
def test_a_bad_first_batch_leaves_no_trace(name, vae, tmp_path):
    """What a loader gives first is refused as rows that lie ready are."""
    data, message = LOADERS[name]
    refused(vae.train(), message, tmp_path, data)


@pytest.mark.parametrize("name", ["nan", "another width", "nothing"])
def test_a_bad_first_batch_of_held_out_data_leaves_no_trace(name, vae, tmp_path):
    """The same of a loader given as valid, which is named."""
    data, message = LOADERS[name]
    refused(vae, message if name == "another width" else ".*valid", tmp_path, valid=data)


def test_a_bad_batch_later_in_held_out_data_is_named(vae):
    """A bound of data that do not fit is no number to go by."""
    data = DataLoader(torch.cat([X[:5], spoiled(float("nan"))]), batch_size=5)
    with pytest.raises(ValueError, match="is NaN .*in batch 1 of the data loader, argument valid"):
        pv.fit(vae, X, valid=data, epochs=1, progress=False)


class Once(IterableDataset):
    """A stream that can be read once."""

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
    "a stream to be read once": lambda: {"data": Once(), "batch_size": 7, "epochs": 1},
}


@pytest.mark.parametrize("name", GIVEN)
def test_the_look_at_the_first_batch_changes_no_number(name, monkeypatch):
    """Order and noise are those of a loop that looks at nothing beforehand, and a stream loses no batch."""
    ends = []
    for look in (True, False):
        if not look:
            monkeypatch.setattr(Loop, "open", lambda self: None)
        torch.manual_seed(0)
        vae = make_vae()
        history = pv.fit(vae, **{"epochs": 2, **GIVEN[name]()}, progress=False)
        ends.append((state(vae), [row["step"] for row in history.rows], history.rows[-1].get("valid_bound")))
    assert equal(ends[0][0], ends[1][0])
    assert ends[0][1:] == ends[1][1:]
    assert ends[0][1][0] == 5


OPTIONS = {
    "no such device": (
        {"device": "cuda:99"},
        "device: expected .*cpu.*, cannot use cuda:99",
    ),
    "no device": ({"device": "gpu"}, "cannot use gpu"),
    "a device without numbers": ({"device": "meta"}, "cannot use meta"),
    "a seed of words": ({"seed": "a"}, "seed: expected an int of at most 64 bits, got 'a'"),
    "a seed too large": ({"seed": 2**70}, "seed: expected an int"),
    "no seed": ({"seed": None}, "seed: expected an int"),
    "seconds in words": ({"checkpoint_every": "a"}, "checkpoint_every: expected a number of seconds"),
    "a norm in words": ({"clip_norm": "a"}, "clip_norm: expected a positive number or None, got 'a'"),
    "a lone callback": ({"callbacks": print}, "callbacks: expected a list of functions"),
    "a callback that is none": ({"callbacks": [5]}, "callbacks: .* got 5"),
    "a class": (
        {"callbacks": [pv.training.EarlyStopping]},
        r"callbacks: .*training.EarlyStopping\(\)",
    ),
    "stopping without a bound": (
        {"callbacks": [pv.training.EarlyStopping()]},
        "EarlyStopping needs a valid",
    ),
    "an optimizer with a closure": ({"optimizer": torch.optim.LBFGS}, "optimizer: .* returns LBFGS"),
    "no optimizer": ({"optimizer": lambda parameters: None}, "optimizer: .* returns NoneType"),
    "bad rows": ({"data": X[:, :, :7]}, r"got \(30, 8, 7\)"),
    "bad held-out rows": ({"valid": X[:, :, :7]}, r"got \(30, 8, 7\)"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_bad_options_leave_no_trace(name, vae, tmp_path):
    """Each argument is refused by its name before anything is written."""
    options, message = OPTIONS[name]
    refused(vae, message, tmp_path, **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on a table without holes, one on a table with some, and one on arrays with some."""
    folder = tmp_path_factory.mktemp("runs")
    write_csv(folder / "table.csv", NAMES, table_rows())
    np.save(folder / "x.npy", images())
    train(folder / "whole", f"--data={folder / 'table.csv'}", "--label=group")
    train(folder / "table", "--missing", f"--data={folder / 'table.csv'}", "--label=group")
    train(folder / "array", "--missing", f"--data={folder / 'x.npy'}")
    return folder


def changed(at, value):
    rows = table_rows(12)
    rows[at[0]][at[1]] = value
    return rows


def without(name):
    i = NAMES.index(name)
    return [n for n in NAMES if n != name], [row[:i] + row[i + 1 :] for row in table_rows(12)]


EMPTY = [["", "", "", "", "A"], *table_rows(11)]
TABLES = {
    "a hole in a run without": ("whole", NAMES, changed((3, 2), ""), "row 3 .* has no value of visits .* --missing"),
    "an empty row": ("table", NAMES, EMPTY, "row 0 .* holds no value, 1 of 12 rows"),
    "an unseen category": (
        "table",
        NAMES,
        changed((2, 1), "violet"),
        "column 'colour': .*'violet'.* none of its value",
    ),
    "words for numbers": (
        "table",
        NAMES,
        changed((5, 0), "old"),
        "'age': expected numbers, .*Positive, .*row 5 .*'old'",
    ),
    "a fraction of a count": ("table", NAMES, changed((5, 2), "2.5"), r"x\[5, 2\] is 2.5, outside the support"),
    "a column missing": ("table", *without("visits"), "columns: expected .*; missing: visits"),
    "a column too many": ("table", [*NAMES, "id"], [[*r, "7"] for r in table_rows(3)], "not asked for: id"),
    "no names": ("table", table_rows(12)[0], table_rows(12), "first line has to hold the names of the columns"),
    "a name twice": ("table", [*NAMES[:4], "age"], table_rows(12), "same name: age"),
    "a line too short": ("table", NAMES, [*table_rows(3), ["1.5"]], "line 5 has 1 cells, expected 5"),
    "no rows": ("table", NAMES, [], "no rows below"),
    "words for an array": ("array", ["a", "b"], [["x", "1"]], "expected numbers in all columns, got words in a"),
    "too few columns": ("array", ["a", "b"], [["2", "1"]], r"expected data of shape \(n, 2, 3\), got \(1, 2\)"),
}


@pytest.mark.parametrize("name", TABLES)
def test_bad_tables(name, runs, tmp_path, capsys):
    """A table that does not fit the run is refused in one line, and no file is left."""
    folder, names, rows, said = TABLES[name]
    path = write_csv(tmp_path / "new.csv", names, rows)
    told(["impute", runs / folder, path, "--output", tmp_path / "out.csv"], said, path, capsys)


def told(words, said, path, capsys, status=1):
    """Run a command that fails in one line, and leaves nothing."""
    before = sorted(path.parent.iterdir())
    capsys.readouterr()
    assert cli.main([*map(str, words), "--quiet"]) == status
    out, err = capsys.readouterr()
    assert re.search(said, err)
    assert (out, len(err.splitlines())) == ("", 1)
    assert sorted(path.parent.iterdir()) == before


FILES = {
    "empty .csv": ("x.csv", b"", "the file is empty"),
    "empty .npy": ("x.npy", b"", "the file is empty"),
    "an image as .csv": ("x.csv", b"\x89PNG\r\n\x1a\n\x00\x00", "not a .csv file, although its name ends so"),
    "text as .npy": ("x.npy", b"a,b\n1,2\n", "not an .npy file, although its name ends so"),
    "an .npz as .npy": ("x.npy", files.encode(".npz", X.numpy()), "not an .npy file"),
    "an .npy as .npz": ("x.npz", files.encode(".npy", X.numpy()), "not an .npz file"),
    "cut short": ("x.npy", files.encode(".npy", X.numpy())[:-9], "cannot be read: damaged"),
    "cut short .npz": ("x.npz", files.encode(".npz", X.numpy())[:-30], "cannot be read: damaged"),
    "an .npz of no table": ("x.npz", files.encode(".npz", {"a": X.numpy(), "b": X.numpy()[0]}), "expected an array x"),
    "words": ("x.npy", files.encode(".npy", np.array([["a", "b"]])), "expected an array of numbers, got numpy dtype"),
    "another shape": (
        "x.npy",
        files.encode(".npy", X.numpy()),
        r"expected data of shape \(n, 2, 3\), got \(30, 8, 8\)",
    ),
    "a number": ("x.npy", files.encode(".npy", np.array(1.0)), r"one datum a row, got shape \(\)"),
    "no data": ("x.npy", files.encode(".npy", np.zeros((0, 2, 3))), r"one datum a row, got shape \(0, 2, 3\)"),
    "bytes": ("x.npy", files.encode(".npy", np.full((9, 2, 3), 255, np.uint8)), "bytes up to 255: divide grey levels"),
    "another ending": ("x.txt", b"1 2 3", "INPUT: expected one of digits"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files(name, runs, tmp_path, capsys):
    """What is not what its ending says, or of another shape, is refused in one line."""
    file, content, said = FILES[name]
    path = tmp_path / file
    path.write_bytes(content)
    status = 2 if "another ending" in name else 1
    told(["score", runs / "array", path, "--output", tmp_path / "out.npy"], said, path, capsys, status)


def test_python_objects_are_not_read(tmp_path):
    """A file that only pickle could read is refused."""
    np.save(tmp_path / "x.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match="holds Python objects"):
        files.read(tmp_path / "x.npy")


def test_training_data_that_teach_nothing(tmp_path, capsys):
    """A column, an entry or a row without a value, too few rows, labels that are none: no run folder is made."""
    run = f"--run-dir={tmp_path / 'run'}"
    path = write_csv(tmp_path / "x.csv", NAMES, [[row[0], row[1], "", row[3], row[4]] for row in table_rows(12)])
    told(["train", "--missing", "--data", path, run], "column 'visits': all of its values are missing", path, capsys)
    write_csv(path, NAMES, EMPTY)
    told(["train", "--missing", "--data", path, run, "--label=group"], "row 0 .* holds no value", path, capsys)
    write_csv(path, NAMES, table_rows(9))
    told(["train", "--data", path, run, "--label=group"], "10 rows or more", path, capsys)
    told(["train", "--data", path, run, "--label=gruop"], "label: expected a column of .*; got gruop", path, capsys)
    semi = ["--program", "SemiSupervised", run]
    told(["train", "--data", path, *semi, "--label=group"], "10 rows or more", path, capsys)
    x = images()
    x[:, 1, 2] = np.nan
    np.save(tmp_path / "x.npy", x)
    path = tmp_path / "x.npy"
    told(["train", "--missing", "--data", path, run], r"x\[:, 1, 2\] is missing in all rows", path, capsys)
    np.save(path, images())
    told(["train", "--data", path, *semi], "SemiSupervised needs labels", path, capsys)
    told(["train", "--data", path, run, "--labels=5"], "only a program with classes", path, capsys, 2)


def test_columns_may_be_missing_in_what_is_imputed(runs, tmp_path):
    """A column that the run knows may be without any value in new data."""
    path = write_csv(tmp_path / "x.csv", NAMES, [[row[0], row[1], "", row[3], row[4]] for row in table_rows(5)])
    assert cli.main(["impute", str(runs / "table"), str(path), "--output", str(tmp_path / "y.csv"), "--quiet"]) == 0


def test_outputs_and_runs(runs, tmp_path, capsys):
    """No file is written over, no unknown ending taken, no run of a newer version or without classes used."""
    path = tmp_path / "x.npy"
    np.save(path, images(4))
    words = ["embed", runs / "array", path, "--output"]
    told([*words, path], "is there already", path, capsys)
    told([*words, tmp_path / "out.xlsx"], "ends in .npy, .npz, .csv", path, capsys)
    told(["embed", runs / "array", tmp_path / "none.npy"], "No such file", path, capsys)
    told(["classify", runs / "array", path], "is a VAE, which has no classes", path, capsys)
    (tmp_path / "new").mkdir()
    config = json.loads((runs / "array" / "config.json").read_text())
    (tmp_path / "new" / "config.json").write_text(json.dumps({**config, "schema": 99}))
    told(["embed", tmp_path / "new", path], "schema 99 is newer than", path, capsys)
    (tmp_path / "new" / "config.json").write_text(
        json.dumps({**config, "program": {"name": "os.system", "options": {}}})
    )
    told(["embed", tmp_path / "new", path], "program: expected one of MissingNotAtRandom", path, capsys)


def test_a_table_keeps_its_order(runs):
    """Columns are found by name; those that are missing and those too many are both named."""
    table = pv.data.Table({"a": [1.5, 2.0], "b": ["x", "y"]})
    other = pv.data.Table({"b": ["y", "x"], "a": [3.0, None]}, table.columns)
    assert other.x.nan_to_num().tolist() == [[3.0, 1.0], [0.0, 0.0]]
    assert pv.tasks.fill({"b": ["y", "x"], "a": [3.0, None]}, other, other.x.nan_to_num(7.5))["a"].tolist() == [
        3.0,
        7.5,
    ]
    with pytest.raises(ValueError, match="missing: b; not asked for: c"):
        pv.data.Table({"a": [1.0], "c": [2.0]}, table.columns)


def test_particles_that_do_not_fit_into_memory(monkeypatch):
    """The error says how many fit, and so many do: the tensors of that number are below what there is."""
    toy = pv.testing.LinearGaussian()
    toy.program.missing = True
    x = toy.draw(1)
    monkeypatch.setattr(pv.evaluation.inputs, "BUDGET", 2**19)
    monkeypatch.setattr(pv.evaluation.laboratory.memory, "available", lambda device: 2.0**22)
    works = {
        "log_likelihood": lambda k: pv.evaluation.log_likelihood(toy.program, x, num_particles=k),
        "impute": lambda k: pv.tasks.impute(toy.program, x, num_particles=k, draws=0),
    }
    for name, work in works.items():
        with pytest.raises(
            ValueError, match=r"num_particles.*: 10,000,000 at once need .* GiB are free: ask for at most"
        ) as error:
            work(10_000_000)
        fits = int(str(error.value).rpartition(" ")[2].replace(",", ""))
        with PeakMemory() as memory:
            work(fits)
        assert 2**20 < memory.bytes < 1.1 * 2**22, name


@pytest.mark.parametrize("score", [pv.tasks.NegativeBound, pv.tasks.Reconstruction])
def test_scores_take_no_more_memory_with_more_particles(score, monkeypatch):
    """They are averaged in passes, whose size does not depend on the number."""
    toy = pv.testing.LinearGaussian()
    x, peaks = toy.draw(4), []
    monkeypatch.setattr(pv.evaluation.inputs, "BUDGET", 2**19)
    for particles in (1000, 4000):
        with PeakMemory() as memory:
            score(particles)(toy.program, x)
        peaks.append(memory.bytes)
    assert peaks[1] < 1.5 * peaks[0]


def test_evaluation_takes_what_fit_takes(tmp_path):
    """A file in place of memory, and a torch Dataset, give the numbers of the tensor."""
    toy = pv.testing.LinearGaussian()
    x = toy.draw(12)
    np.save(tmp_path / "x.npy", x.numpy())
    forms = (x, x.numpy(), np.load(tmp_path / "x.npy", mmap_mode="r"), TensorDataset(x))
    found = [pv.evaluation.log_likelihood(toy.program, form, num_particles=10).per_datum for form in forms]
    for other in found[1:]:
        assert torch.equal(other, found[0])


def test_programs_refuse_data_in_reconstruct_and_context_in_sample(vae):
    """Their own methods name the argument, as fit does."""
    with pytest.raises(ValueError, match="x: expected dtype torch.float32"):
        vae.reconstruct(X.double())
    with pytest.raises(TypeError, match="x: expected a tensor, got ndarray"):
        vae.reconstruct(X.numpy())
    with pytest.raises(ValueError, match="context: this program needs 10 numbers"):
        conditional().sample(3)
    with pytest.raises(ValueError, match="n: expected an int of at least 1"):
        vae.sample(0)


def test_scores_of_sets_refuse_what_they_cannot_compare(vae):
    """Missing entries, labels as data and single rows end before any feature is taken."""
    holes = spoiled(float("nan"))
    with pytest.raises(ValueError, match="train: .* with NaN or infinity"):
        pv.evaluation.samples(vae, holes, X, features=lambda x: x.flatten(1))
    with pytest.raises(ValueError, match="test: expected at least two rows"):
        pv.evaluation.samples(vae, X, X[:1], features=lambda x: x.flatten(1))
    with pytest.raises(TypeError, match="train: expected a tensor or array of rows, .* got DataLoader"):
        pv.evaluation.samples(vae, DataLoader(X), X, features=lambda x: x.flatten(1))
    with pytest.raises(ValueError, match="y: expected at least two classes, .* got 30 data in 1 classes"):
        pv.evaluation.representation(vae, X, torch.zeros(30).long())


def test_data_frames_are_rows_of_numbers(vae):
    """A frame of numbers is an array, also one with a column called x; one of words is told where it belongs."""
    pandas = pytest.importorskip("pandas")
    toy = pv.testing.LinearGaussian()
    x = toy.draw(12)
    frame = pandas.DataFrame(x.numpy(), columns=["x", "transform", "c", "d", "e"])
    found = [pv.evaluation.log_likelihood(toy.program, form, num_particles=10).per_datum for form in (x, frame)]
    assert torch.equal(*found)
    assert pv.fit(toy.program, frame, epochs=1, progress=False).epochs == 1
    with pytest.raises(ValueError, match=r"x: expected a table of numbers alone, .*pyro_vae.data.Table\(x\).x"):
        pv.fit(toy.program, frame.assign(c="red"), epochs=1, progress=False)


def needed(part):
    """Return the names of the arguments that a part cannot do without."""
    return [name for name, p in inspect.signature(part).parameters.items() if p.default is p.empty]


SHELVES = (pv.priors, pv.likelihoods, pv.posteriors)


@pytest.mark.parametrize("part", [p for shelf in SHELVES for p in parts(shelf) if "latent" in needed(p)])
@pytest.mark.parametrize("latent", [0, -1, "a", 2.5, True])
def test_numbers_of_latents_that_are_none(part, latent):
    """Every part says so by itself, also one that torch would let pass."""
    with pytest.raises(ValueError, match=rf"latent of {part.__name__}: .*got {latent!r}"):
        part(**{name: {"latent": latent, "shape": (2, 2)}.get(name) for name in needed(part)})
