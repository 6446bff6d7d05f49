"""A numpy masked array gives the results of the array with NaN in its holes, wherever data enter the library."""

import dataclasses
import functools
import inspect
import io
import re

import numpy as np
import pytest
import torch
from torch.masked import masked_tensor
from torch.utils.data import DataLoader, IterableDataset

import pyro_vae as pv

pytest.importorskip("sklearn")
from pyro_vae import sklearn  # noqa: E402

MODULES = (pv, pv.data, pv.data.tables, pv.evaluation, pv.tasks, pv.plots, sklearn)
N, HIDDEN, BELOW = 24, functools.partial(pv.nets.MLP, hidden=(4,)), -9999.0
rng = np.random.default_rng(0)
X = rng.normal(size=(N, 3))
Y = np.arange(N) % 2
FACTORS = np.stack([Y, np.arange(N) // 2 % 2], 1)

#: Parameters that take data of a user, with data for them.
DATA = {
    **dict.fromkeys(("x", "data", "valid", "train", "test", "normal", "table", "truth", "X", "a", "b"), X),
    **dict.fromkeys(("source", "z", "x_hat", "std", "rows", "images", "real", "sampled"), X),
    **dict.fromkeys(("y", "clusters", "labels"), Y),
    "weights": np.arange(1.0, N + 1),
    "start": X[:4],
    "end": X[4:8],
    "factors": FACTORS,
    "values": X[:, 0],
    "context": [X],
}
#: Other required parameters.
OTHER = {
    "batch_size": 8,
    "budget": pv.evaluation.Steps(2),
    "burn_in": 1,
    "columns": None,
    "compile": False,
    "epochs": 1,
    "estimators": [pv.estimators.ELBO()],
    "features": lambda x: x,
    "learning_rate": 1e-3,
    "level": 0.5,
    "name": "a",
    "num_aggregated": 10,
    "num_chains": 2,
    "num_components": 2,
    "num_labelled": 4,
    "num_particles": 2,
    "num_points": 2,
    "num_samples": 12,
    "num_seeds": 1,
    "num_simulations": 2,
    "num_steps": 2,
    "progress": False,
    "random_state": 0,
    "reference_num_particles": 2,
    "score": pv.tasks.NegativeBound(2),
    "statistics": {"mean": lambda x: x.mean()},
}
#: Data that one function or class takes in another form.
SPECIAL = {
    "Compressed": {},
    "Table": {"x": torch.from_numpy(X)},
    "Imputation": {"x": torch.from_numpy(X), "samples": torch.from_numpy(X)[None], "missing": torch.from_numpy(X > 0)},
    "Clusters": {"probabilities": torch.eye(2)[Y]},
    "Embedding": {"names": ("a", "b", "c"), "labels": Y, "mean": torch.from_numpy(X), "std": torch.ones(N, 3)},
    "Classification": {"probabilities": torch.eye(2)[Y]},
    "Features": {"columns": [pv.data.tables.Real(n) for n in "abc"], "in_shape": (3,), "out_shape": (2,)},
    "fill": {"table": pv.data.Table(X)},
    "image_rows": {"rows": {"x": X}},
    "rate_distortion": {"programs": {1.0: None}},
    "samples": {"train": X, "test": X, "num_samples": 12},
    "traverse": {"values": (0.0,)},
    "labelled_batches": {"y": np.where(np.arange(N)[:, None] % 3, np.nan, np.eye(2)[Y])},
    "VAEDensity": {"missing": True},
    "VAETransformer": {"missing": True},
}


def program(name):
    """Return a VAE that allows missing entries; one with classes for functions that need them."""
    torch.manual_seed(0)
    posterior = pv.posteriors.MeanFieldNormal((3,), 2, net=functools.partial(pv.nets.ZeroImputed, net=HIDDEN))
    likelihood = pv.likelihoods.Normal(2, (3,), net=HIDDEN)
    if name in ("cluster", "init_clusters", "classify"):
        parts = {"likelihood": likelihood, "posterior": posterior}
        return pv.programs.MixtureVAE(
            classes=pv.priors.OneHotCategorical(2),
            prior=pv.priors.ConditionalNormal(2, context=2, net=HIDDEN),
            classifier=pv.posteriors.OneHotCategorical((3,), 2, net=HIDDEN),
            **parts,
        ).double()
    vae = pv.VAE(prior=pv.priors.StandardNormal(2), likelihood=likelihood, posterior=posterior, missing=True)
    return vae.double()


def found():
    """Return (name, object, parameter) for each parameter of a public function, or of a class, that takes data."""
    cases = {}
    for module in MODULES:
        for name in module.__all__:
            value = getattr(module, name)
            if getattr(value, "__module__", "").startswith("pyro_vae") and takes_data(value):
                for p in takes_data(value):
                    if isinstance(SPECIAL.get(name, {}).get(p, DATA[p]), np.ndarray | list | dict):
                        cases[name, p] = value
    return [pytest.param(name, value, p, id=f"{name}-{p}") for (name, p), value in cases.items()]


def functions(value):
    """Return the function, or constructor and public methods of a class."""
    if inspect.isfunction(value):
        return [value]
    if not inspect.isclass(value) or issubclass(value, pv.Program | pv.Conditional):
        return []
    own = [(n, f) for n, f in inspect.getmembers(value, inspect.isfunction) if f.__module__.startswith("pyro_vae")]
    named = [f for n, f in own if n == "__call__" or n[0] != "_"]
    # the tensors and arrays of other methods come from the library
    takes = [f for f in named if any("Any" in str(p.annotation) for p in inspect.signature(f).parameters.values())]
    return [value.__init__, *takes]


def takes_data(value):
    """Return the parameters that take data; what a dataclass stores as a tensor comes from the library."""
    names = dict.fromkeys(p for f in functions(value) for p in inspect.signature(f).parameters)
    stored = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    return [p for p in names if p in DATA and p not in {f.name for f in stored if f.type != "Any"}]


def leaves(value):
    """Return numbers, text and arrays of a result."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return [np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)]
    if isinstance(value, torch.nn.Module):
        return leaves(list(value.state_dict().values()))
    if isinstance(value, dict):
        value = {k: v for k, v in value.items() if not re.search("second|time|byte|cost|memory", str(k))}
        return leaves(list(value.values()))
    if isinstance(value, list | tuple | DataLoader | pv.training.History):
        return [leaf for part in value for leaf in leaves(part)]
    if hasattr(value, "savefig"):
        value.savefig(file := io.BytesIO(), dpi=40, metadata={"Software": None})
        return [file.getvalue()]
    if dataclasses.is_dataclass(value):
        return leaves({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, pv.data.Table):
        return leaves([value.x, value.columns])
    return [value] if isinstance(value, int | float | str | bytes) else []


def call(function, values):
    """Call a function with those values that it takes."""
    return function(**{p: values[p] for p in inspect.signature(function).parameters if p in values})


def result(method, values):
    """Return the result of a method, or the name of its error."""
    try:
        return call(method, values)
    except Exception as error:
        return type(error).__name__


def outcome(name, value, parameter, data):
    """Return the leaves of all results, or the type of the error."""
    values = {**DATA, **OTHER, **SPECIAL.get(name, {}), "program": program(name)}
    values = {k: v for k, v in values.items() if v is not None}
    values[parameter] = data
    torch.manual_seed(0)
    try:
        if inspect.isfunction(value):
            return [*leaves(call(value, values)), *leaves(values["program"])]
        made = call(value, values)
        methods = [getattr(made, f.__name__) for f in functions(value) if f.__name__ != "__init__"]
        methods.sort(key=lambda m: m.__name__ != "fit")
        return leaves([result(m, values) for m in methods] or made)
    except Exception as error:
        return type(error)


def with_holes(value, *, masked):
    """Return the arrays in a value with two holes: masked, with -9999 below the mask, or NaN."""
    if isinstance(value, dict):
        return {k: with_holes(v, masked=masked) for k, v in value.items()}
    if isinstance(value, list):
        return [with_holes(v, masked=masked) for v in value]
    where = np.zeros(value.shape, bool)
    where.flat[[1, value.size // 2]] = True
    if not masked:
        return np.where(where, np.nan, value)
    return np.ma.array(np.where(where, BELOW, value).astype(value.dtype), mask=where)


@pytest.mark.parametrize(("name", "value", "parameter"), found())
def test_masked_arrays_give_the_results_of_arrays_with_holes(name, value, parameter):
    """Values are equal, or both are refused by the same error."""
    data = SPECIAL.get(name, {}).get(parameter, DATA[parameter])
    known = outcome(name, value, parameter, with_holes(data, masked=False))
    got = outcome(name, value, parameter, with_holes(data, masked=True))
    assert type(known) is type(got), (known, got)
    if isinstance(known, type):
        assert known is got
        return
    assert len(known) == len(got)
    for a, b in zip(known, got, strict=True):
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f") if isinstance(a, np.ndarray) else a == b or a != a


def test_new_parameters_need_data_here():
    """Each parameter of a public function that takes anything is known to take data, or not to."""
    unknown = {
        f"{name}({p})"
        for module in MODULES
        for name in module.__all__
        if inspect.isfunction(f := getattr(module, name)) and f.__module__.startswith("pyro_vae")
        for p, parameter in inspect.signature(f).parameters.items()
        if parameter.annotation == "Any" and p not in {*DATA, "result"}
    }
    assert unknown == set()


class Stream(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def mapped(x, folder):
    """Return a masked array over a file."""
    file = np.lib.format.open_memmap(folder / "x.npy", "w+", x.dtype, x.shape)
    file[:] = x.data if isinstance(x, np.ma.MaskedArray) else x
    return np.ma.array(file, mask=x.mask) if isinstance(x, np.ma.MaskedArray) else file


#: Objects that hold rows, made from an array.
FORMS = {
    "array": lambda x, folder: x,
    "integers": lambda x, folder: (
        np.ma.array((x.data * 9).astype(int), mask=x.mask) if isinstance(x, np.ma.MaskedArray) else np.trunc(x * 9)
    ),
    "float32": lambda x, folder: x.astype(np.float32),
    "file": mapped,
    "rows": lambda x, folder: list(x),
    "rows of tuples": lambda x, folder: [(row,) for row in x],
    "split": lambda x, folder: pv.data.Split(x),
    "tuple": lambda x, folder: (x,),
    "loader": lambda x, folder: DataLoader(x, batch_size=8),
    "loader of single rows": lambda x, folder: DataLoader(x[:, None], batch_size=None),
    "loader with a function": lambda x, folder: DataLoader(x, batch_size=8, collate_fn=np.ma.stack),
    "stream": lambda x, folder: Stream(x),
}


@pytest.mark.parametrize("form", FORMS)
def test_masks_survive_in_every_form_of_data(form, tmp_path):
    """The weights after an epoch are equal, as is the score of each row."""
    results = []
    for masked in (False, True):
        vae = program("fit")
        data = lambda: FORMS[form](with_holes(X, masked=masked), tmp_path)  # noqa: E731, B023
        pv.fit(vae, data(), epochs=1, batch_size=None if "loader" in form else 8, progress=False)
        found = pv.evaluation.log_likelihood(vae, data(), num_particles=2, progress=False)
        results.append(leaves([vae, found]))
    assert all(
        np.array_equal(a, b, equal_nan=True) if isinstance(a, np.ndarray) else a == b
        for a, b in zip(*results, strict=True)
    )


def test_masked_tensors_of_torch():
    x = torch.from_numpy(X)
    seen = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) > 0.2
    with pytest.warns(UserWarning, match="prototype"):
        masked = masked_tensor(torch.where(seen, x, BELOW), seen)
    known, got = (
        pv.tasks.impute(program("impute"), data, num_particles=5, progress=False).x
        for data in (torch.where(seen, x, torch.nan), masked)
    )
    assert torch.equal(known, got)


def test_a_loader_of_the_user_stays_as_it_is():
    loader = DataLoader(np.ma.masked_equal(X, BELOW), batch_size=8)
    before = dict(vars(loader))
    pv.fit(program("fit"), loader, epochs=1, progress=False)
    assert dict(vars(loader)) == before


def test_masked_columns_of_a_table():
    """Integers, text and structured arrays have None where numbers have NaN."""
    mask = [False, True, False, False]
    columns = {"n": np.array([3, -9999, 70000, 5]), "word": np.array(["a", "-9999", "b", "a"]), "x": X[:4, 0]}
    masked = {name: np.ma.array(values, mask=mask) for name, values in columns.items()}
    structured = np.ma.array(
        list(zip(*columns.values(), strict=True)),
        [("n", int), ("word", "U5"), ("x", float)],
        mask=[(m,) * 3 for m in mask],
    )
    table = pv.data.Table(masked)
    assert torch.isnan(table.x).any(1).tolist() == mask
    assert [type(c).__name__ for c in table.columns] == ["Count", "Binary", "Real"]
    assert table.columns[1].values == ("a", "b")
    assert torch.equal(pv.data.Table(structured).x.nan_to_num(7.0), table.x.nan_to_num(7.0))
    assert pv.data.Table(structured).columns == table.columns
    assert table.decode(table.x)["n"][[0, 2, 3]].tolist() == [3, 70000, 5]
