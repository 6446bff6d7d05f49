"""`pv.data.read`: the exact content of every kind of source, and refusals in one sentence with the way out."""

import datetime
import functools
import gzip

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import pyro_vae as pv
from pyro_vae.data import files, read
from pyro_vae.training.data.batches import Batches

TEXT = "age,colour\n38.5,red\n,green\n55.25,red\n20,red\n"
X = np.arange(12.0).reshape(4, 3) / 7
TABLE = {"age": [38.5, None, 55.25, 20.0], "colour": ["red", "green", "red", "red"]}


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def small(shape):
    """Return a VAE for examples of this shape."""
    return pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, shape, net=lambda i, o: pv.nets.MLP(i, o, hidden=(4,))),
        posterior=pv.posteriors.MeanFieldNormal(shape, 2, net=lambda i, o: pv.nets.MLP(i, o, hidden=(4,))),
    )


def zst(content):
    return pytest.importorskip("zstandard", reason="needs the extra tables").ZstdCompressor().compress(content)


def arrow(folder, name):
    """Write TABLE as a file of pyarrow and return its path."""
    arrow = pytest.importorskip("pyarrow", reason="needs the extra tables")
    table = arrow.table({"age": arrow.array(TABLE["age"]), "colour": arrow.array(TABLE["colour"]).dictionary_encode()})
    if name.endswith(".parquet"):
        __import__("pyarrow.parquet").parquet.write_table(table, folder / name)
    else:
        __import__("pyarrow.feather").feather.write_feather(table, folder / name)
    return folder / name


def structured():
    rows = [(38.5, "red"), (np.nan, "green"), (55.25, "red"), (20.0, "red")]
    return np.array(rows, [("age", float), ("colour", "U5")])


#: Sources of one and the same table.
TABLES = {
    ".csv": lambda folder: write(folder, "a.csv", TEXT.encode()),
    ".csv as text": lambda folder: str(write(folder, "a.csv", TEXT.encode())),
    ".tsv": lambda folder: write(folder, "a.tsv", TEXT.replace(",", "\t").encode()),
    ".csv.gz": lambda folder: write(folder, "a.csv.gz", gzip.compress(TEXT.encode())),
    ".csv.zst": lambda folder: write(folder, "a.csv.zst", zst(TEXT.encode())),
    ".npz of columns": lambda folder: write(
        folder, "a.npz", files.encode(".npz", {n: structured()[n] for n in TABLE})
    ),
    "structured .npy": lambda folder: write(
        folder, "a.npy", files.encode(".npy", {n: structured()[n] for n in TABLE})
    ),
    ".parquet": lambda folder: arrow(folder, "a.parquet"),
    ".feather": lambda folder: arrow(folder, "a.feather"),
    "dict": lambda folder: TABLE,
    "structured array": lambda folder: structured(),
    "pandas": lambda folder: pytest.importorskip("pandas").DataFrame(TABLE),
    "polars": lambda folder: pytest.importorskip("polars", reason="needs polars").DataFrame(TABLE),
    "pyarrow": lambda folder: pytest.importorskip("pyarrow", reason="needs the extra tables").table(TABLE),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables(kind, tmp_path):
    """Each source gives the same columns, numbers, codes and missing values; `fit` takes what is read."""
    found = read(TABLES[kind](tmp_path))
    assert (found.kind, found.values) == ("table", "mixed")
    assert [(c.name, type(c).__name__) for c in found.columns] == [("age", "Positive"), ("colour", "Binary")]
    assert found.x.nan_to_num(-1).tolist() == [[38.5, 1], [-1, 0], [55.25, 1], [20, 1]]
    assert found.columns[1].values == ("green", "red")
    for words in ("age", "Positive", "colour", "missing"):
        assert words in str(found)


TYPES = {
    "member": [True, None, False, True],
    "born": [datetime.date(2001, 3, 1), None, datetime.date(1999, 12, 31), datetime.date(1980, 1, 1)],
    "visits": [3, None, 40, 0],
    "size": ["S", "M", None, "L"],
}


def typed_polars(folder):
    polars = pytest.importorskip("polars", reason="needs polars")
    return polars.DataFrame(TYPES).with_columns(size=polars.Series(TYPES["size"], dtype=polars.Categorical))


def typed_pandas(folder):
    pandas = pytest.importorskip("pandas")
    kinds = {"member": "boolean", "visits": "Int64", "size": "category"}
    return pandas.DataFrame(TYPES).astype({"born": "datetime64[ns]", **kinds})


def typed_parquet(folder):
    pytest.importorskip("pyarrow", reason="needs the extra tables")
    typed_pandas(folder).to_parquet(folder / "a.parquet")
    return folder / "a.parquet"


@pytest.mark.parametrize("make", [typed_polars, typed_pandas, typed_parquet, lambda folder: TYPES])
def test_types_of_columns(make, tmp_path):
    """Booleans, dates, integers and categories with missing values keep their types."""
    found = read(make(tmp_path))
    assert [type(c).__name__ for c in found.columns] == ["Binary", "Integer", "Count", "Categorical"]
    assert torch.isnan(found.x).nonzero().tolist() == [[1, 0], [1, 1], [1, 2], [2, 3]]
    assert found.x[:, 2].nan_to_num(-1).tolist() == [3, -1, 40, 0]
    assert found.x[:, 3].nan_to_num(-1).tolist() == [2, 1, -1, 0]
    decoded = found.table.decode(found.x)["born"].tolist()
    assert [str(value)[:10] for value in decoded][2:] == ["1999-12-31", "1980-01-01"]


def test_estimators_of_scikit_learn_read_files(tmp_path):
    sklearn = pytest.importorskip("pyro_vae.sklearn", reason="needs the extra sklearn")
    x = np.random.default_rng(0).normal(size=(30, 3))
    np.save(tmp_path / "a.npy", x)
    scores = []
    for source in (x, tmp_path / "a.npy", str(tmp_path / "a.npy"), read(x)):
        model = sklearn.VAEDensity(epochs=1, num_particles=3, random_state=0).fit(source)
        scores.append(model.score_samples(source))
    assert all(np.array_equal(scores[0], score) for score in scores)


def test_rows_without_values_and_columns_without_values_are_left_out(tmp_path):
    text = ",age,none,colour\n0,1.5,,red\n1,,,\n2,2.5,,green\n3,3.5,,red\n"
    path = write(tmp_path, "a.csv", text.encode())
    found = read(path)
    assert [c.name for c in found.columns] == ["age", "colour"]
    assert found.x.tolist() == [[1.5, 1], [2.5, 0], [3.5, 1]]
    assert len(found.notes) == 3
    for said in ("column ''", "1 column without any value: none", "1 row without any value: 1 "):
        assert any(said in note for note in found.notes), found.notes
    assert all(note in str(found) for note in found.notes)
    kept = read(path, keep_empty=True, keep_index=True, leave_out=["none"])
    assert [c.name for c in kept.columns] == ["", "age", "colour"]
    assert torch.isnan(kept.x[1, 1:]).all()
    with pytest.raises(ValueError, match=r"a\.csv: column 'none': expected at least one value"):
        read(path, keep_empty=True)
    labelled = read(path, label="colour")
    assert (labelled.y.tolist(), labelled.classes) == ([1, 0, 1], ("green", "red"))


def test_other_rows_get_the_codes_of_the_first(tmp_path):
    first = read(TABLE)
    assert read({"age": [1.0], "colour": ["red"]}, columns=first.columns).x.tolist() == [[1.0, 1.0]]
    path = write(tmp_path, "b.csv", b",age,colour\n7,1,red\n9,2,red\n")
    assert read(path, columns=first.columns).x.tolist() == [[1, 1], [2, 1]]
    likelihood = pv.likelihoods.Heterogeneous(2, (2,), columns=first.columns)
    posterior = pv.posteriors.MeanFieldNormal(
        (2,), 2, net=lambda i, o: pv.data.tables.Features(first.columns, i, o, missing=True)
    )
    vae = pv.VAE(prior=pv.priors.StandardNormal(2), likelihood=likelihood, posterior=posterior, missing=True)
    scores = [
        pv.evaluation.log_likelihood(vae, form, num_particles=5, progress=False).per_example for form in (first, TABLE)
    ]
    assert torch.equal(*scores)


def labelled(folder):
    np.savez(folder / "a.npz", X=X, y=np.array(["b", "a", "b", ""]))
    return folder / "a.npz"


def saved(array):
    def make(folder):
        np.save(folder / "a.npy", array)
        return folder / "a.npy"

    return make


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.from_numpy(X).float())


#: Sources of the array X.
ARRAYS = {
    ".npy": saved(X),
    ".npz": labelled,
    "array": lambda folder: X,
    "float16": lambda folder: X.astype(np.float16),
    "float32": lambda folder: X.astype(np.float32),
    "read-only": lambda folder: np.broadcast_to(X, X.shape),
    "byte-swapped": lambda folder: X.astype(">f8"),
    "tensor": lambda folder: torch.from_numpy(X),
    "lists": lambda folder: X.tolist(),
    "list of arrays": lambda folder: list(X),
    "list of tensors": lambda folder: list(torch.from_numpy(X)),
    "dict of x": lambda folder: {"x": X},
    "split": lambda folder: pv.data.Split(torch.from_numpy(X)),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays(kind, tmp_path):
    source = ARRAYS[kind](tmp_path)
    found = read(source)
    assert (found.kind, found.values, found.shape) == ("array", "real", (3,))
    assert np.allclose(found.x, X, atol=1e-3 if kind == "float16" else 1e-15 if kind != "float32" else 1e-6)
    scores = [pv.evaluation.log_likelihood(toy(), x, num_particles=5, progress=False) for x in (source, found)]
    assert torch.equal(*(score.per_example for score in scores))
    assert len(pv.fit(toy(), source, epochs=1, batch_size=2, progress=False)) == 1


def toy():
    torch.manual_seed(0)
    return small((3,))


def test_labels_are_strings_or_integers(tmp_path):
    found = read(labelled(tmp_path))
    assert (found.y.tolist(), found.classes) == ([1, 0, 1, -1], ("a", "b"))
    found = read({"x": X, "y": np.array([7, 5, -1, 7])}, classes=[7, 5])
    assert (found.y.tolist(), found.classes) == ([0, 1, -1, 0], (7, 5))


def test_masked_arrays():
    found = read(np.ma.masked_equal(np.array([[1.0, -9.0], [2.0, 3.0]]), -9.0))
    assert found.x.nan_to_num(7.5).tolist() == [[1, 7.5], [2, 3]]


def test_data_of_torch_are_streams():
    for source in (TensorDataset(torch.from_numpy(X).float()), DataLoader(torch.from_numpy(X).float(), 2), Stream()):
        found = read(source)
        assert (found.kind, found.x) == ("stream", source)
        assert type(source).__name__ in str(found)
        assert len(pv.fit(toy(), found, epochs=1, batch_size=2, progress=False)) == 1


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


#: Arrays of images: shape, options, layout and shape of an example.
LAYOUTS = {
    "grey": ((5, 6, 7), {}, "hw", (6, 7)),
    "colours last": ((5, 6, 7, 3), {}, "chw", (3, 6, 7)),
    "colours first": ((5, 3, 6, 7), {}, "chw", (3, 6, 7)),
    "one channel": ((5, 6, 7, 1), {}, "chw", (1, 6, 7)),
    "either, first": ((5, 3, 6, 3), {"layout": "chw"}, "chw", (3, 6, 3)),
    "either, last": ((5, 3, 6, 3), {"layout": "hwc"}, "chw", (3, 3, 6)),
}


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_layouts(kind, dtype, make):
    """Bytes stay bytes until a batch is on its device; channels come first."""
    shape, options, layout, example = LAYOUTS[kind]
    x = noise(*shape)
    given = x if dtype == "uint8" else x.astype(np.float32) / 255
    found = read(make(given), **options)
    assert (found.kind, found.layout, found.shape, found.values) == ("image", layout, example, "grey")
    assert str(found.x.dtype) == f"torch.{dtype}"
    moved = np.moveaxis(x, -1, 1) if example[1:] == shape[1:3] and len(shape) == 4 else x
    assert np.allclose(found.batch(), moved / 255)
    assert "height" in str(found)
    assert len(pv.fit(small(example), found, epochs=1, batch_size=2, progress=False)) == 1


def test_bytes_are_converted_in_the_batch():
    """Training on bytes gives the weights of training on their levels in [0, 1], in float32 and float64."""
    x = noise(9, 4, 4)
    for dtype in (torch.float32, torch.float64):
        weights = []
        for data in (x, read(x), torch.from_numpy(x).to(dtype) / 255):
            torch.manual_seed(0)
            vae = small((4, 4)).to(dtype)
            pv.fit(vae, data, epochs=2, batch_size=4, progress=False)
            weights.append(torch.cat([p.flatten() for p in vae.parameters()]))
        assert torch.equal(weights[0], weights[2])
        assert torch.equal(weights[1], weights[2])


def test_bytes_go_to_the_device_as_bytes():
    batches = Batches(read(noise(9, 4, 4)), batch_size=4, device=torch.device("meta"))
    (column,) = batches.on_device.columns
    assert (column.device.type, column.dtype) == ("meta", torch.uint8)
    (x,) = next(iter(batches.epoch(0)))
    assert (x.device.type, x.dtype, x.shape) == ("meta", torch.float32, (4, 4, 4))


def test_integers():
    binary = read(np.array([[0, 1], [1, 1]], np.uint8))
    assert (binary.values, binary.batch().tolist()) == ("binary", [[0, 1], [1, 1]])
    assert read(noise(3, 4, 4) % 2).values == "binary"
    assert read(noise(3, 4, 4) % 2, levels=255).values == "grey"
    counts = read(np.array([[0, 3], [70000, 1]]))
    assert (counts.kind, counts.values, counts.batch().tolist()) == ("array", "counts", [[0, 3], [70000, 1]])
    assert read(np.array([[-2, 3]])).values == "real"


def picture(folder, name, array, **options):
    image = pytest.importorskip("PIL.Image", reason="needs the extra images")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(array).save(folder / name, **options)


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3)])
def test_folders_of_images(shape, tmp_path):
    """The pixels are those of the files, in the order of their names; other files are ignored."""
    x = noise(4, *shape)
    for i, array in enumerate(x):
        picture(tmp_path, f"{i}.png", array)
    write(tmp_path, "notes.txt", b"text")
    found = read(tmp_path)
    assert found.x.dtype == torch.uint8
    assert np.array_equal(found.x, x if len(shape) == 2 else np.moveaxis(x, -1, 1))
    assert (found.kind, found.y, found.values) == ("image", None, "grey")
    assert read(str(tmp_path), size=(3, 5)).shape == (*shape[2:], 3, 5)
    assert read(tmp_path, size=4).shape == (*shape[2:], 4, 4)
    assert len(pv.fit(small(found.shape), tmp_path, epochs=1, batch_size=2, progress=False)) == 1


def test_sub_folders_are_labels(tmp_path):
    for i, name in enumerate(["dog/1.png", "cat/2.png", "dog/0.jpg"]):
        picture(tmp_path, name, np.full((4, 4), 50 * i, np.uint8))
    found = read(tmp_path)
    assert (found.y.tolist(), found.classes) == ([0, 1, 1], ("cat", "dog"))
    assert found.x[:, 0, 0].tolist() == [50, 100, 0]


def folder_with(*arrays, more=()):
    def make(folder):
        for i, (name, array) in enumerate(arrays):
            picture(folder, name, noise(*array, seed=i) if isinstance(array, tuple) else array)
        for name, content in more:
            write(folder, name, content)
        return folder

    return make


SEE_THROUGH = np.full((4, 4, 4), 100, np.uint8)
#: Sources that are refused, options, and what the error says.
REFUSED = {
    "empty folder": (lambda folder: folder, {}, ValueError, "expected a folder of images"),
    "damaged image": (
        folder_with(("a.png", (4, 4)), more=[("b.png", b"\x89PNG")]),
        {},
        ValueError,
        r"b\.png: .*damaged",
    ),
    "text as image": (folder_with(more=[("b.jpg", b"text")]), {}, ValueError, r"b\.jpg: .*damaged"),
    "two sizes": (
        folder_with(("a.png", (4, 4)), ("b.png", (4, 5))),
        {},
        ValueError,
        r"a\.png .*4 x 4.* b\.png .*4 x 5.*size",
    ),
    "two modes": (
        folder_with(("a.png", (4, 4)), ("b.png", (4, 4, 3))),
        {},
        ValueError,
        r"a\.png .grey.* b\.png .in colour",
    ),
    "transparent": (folder_with(("a.png", SEE_THROUGH)), {}, ValueError, r"a\.png: .*transparency"),
    "16 bits": (folder_with(("a.png", np.zeros((4, 4), np.uint16))), {}, ValueError, r"a\.png: .*8 bits"),
    "parts": (folder_with(("train/a.png", (4, 4)), ("test/a.png", (4, 4))), {}, ValueError, "test, train. Pass one"),
    "one outside": (folder_with(("x/a.png", (4, 4)), ("b.png", (4, 4))), {}, ValueError, r"b\.png outside"),
    "size 0": (folder_with(("a.png", (4, 4))), {"size": 0}, ValueError, "size: "),
    "image file": (lambda folder: folder / "a.png", {}, ValueError, "Pass the folder"),
    "excel": (lambda folder: folder / "a.xlsx", {}, ValueError, "Save the sheet as .csv"),
    "pickle": (lambda folder: folder / "a.pkl", {}, ValueError, "run code"),
    "unknown ending": (lambda folder: folder / "a.cvs", {}, ValueError, r"did you mean \.csv"),
    "no file": (lambda folder: folder / "a.csv", {}, OSError, "a.csv"),
    "damaged .gz": (lambda folder: write(folder, "a.csv.gz", b"text"), {}, ValueError, r"expected a \.gz file"),
    "damaged .zst": (
        lambda folder: zst(b"") and write(folder, "a.csv.zst", b"text"),
        {},
        ValueError,
        r"expected a \.zst file",
    ),
    "damaged .parquet": (
        lambda folder: arrow(folder, "b.parquet") and write(folder, "a.parquet", b"text"),
        {},
        ValueError,
        r"a\.parquet: .*damaged",
    ),
    "rows of different lengths": (
        lambda folder: [[1.0, 2.0], [3.0]],
        {},
        ValueError,
        "arrays of shape .steps, channels",
    ),
    "None": (lambda folder: None, {}, TypeError, "got NoneType"),
    "a number": (lambda folder: 5, {}, TypeError, "got int"),
    "dict of numbers": (lambda folder: {"x": 1}, {}, TypeError, "got dict"),
    "generator": (lambda folder: (x for x in X), {}, TypeError, "IterableDataset"),
    "data set": (lambda folder: pv.data.load("digits"), {}, TypeError, r"\.train"),
    "series": (lambda folder: pytest.importorskip("pandas").Series([1.0]), {}, ValueError, "one example per row"),
    "text": (lambda folder: np.array([["a"]]), {}, ValueError, "array of numbers.*<U1"),
    "one dimension": (lambda folder: np.zeros(3), {}, ValueError, r"one example per row.*\(3,\)"),
    "empty": (lambda folder: np.zeros((0, 3)), {}, ValueError, r"one example per row.*\(0, 3\)"),
    "bytes": (lambda folder: noise(5, 4), {}, ValueError, "levels=255"),
    "either layout": (lambda folder: noise(5, 3, 6, 3), {}, ValueError, "layout: .*'hwc' or 'chw'"),
    "wrong layout": (lambda folder: noise(5, 6, 6), {"layout": "chw"}, ValueError, "layout: "),
    "levels of floats": (lambda folder: X, {"levels": 255}, ValueError, "levels: "),
    "types of an array": (lambda folder: X, {"types": {"0": "Count"}}, ValueError, "types: "),
    "layout of a table": (lambda folder: TABLE, {"layout": "hw"}, ValueError, "layout: "),
    "size of a table": (lambda folder: TABLE, {"size": 4}, ValueError, "size: "),
    "two columns of a name": (lambda folder: write(folder, "a.csv", b"a,a\n1,2\n"), {}, ValueError, "different names"),
    "columns missing": (
        lambda folder: {"age": [1.0]},
        {"columns": read(TABLE).columns},
        ValueError,
        "missing: colour",
    ),
    "unknown label": (lambda folder: TABLE, {"label": "color"}, ValueError, "label: .*age, colour"),
    "a class per row": (
        lambda folder: {"a": np.arange(40.0) + 0.5, "id": [f"n{i}" for i in range(40)]},
        {"label": "id"},
        ValueError,
        "label: .*40 classes in 40 rows",
    ),
    "unknown key": (labelled, {"key": "Z"}, ValueError, r"key: .*X, y"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refusals(kind, tmp_path):
    make, options, error, said = REFUSED[kind]
    source = make(tmp_path)
    with pytest.raises(error, match=f"(?s){said}") as raised:
        read(source, **options)
    assert "\n" not in str(raised.value)


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    picture(tmp_path, "a.png", noise(4, 4))
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"needs pillow: pip install pyro-vae\[images\]"):
        read(tmp_path)


def test_a_table_is_data_of_a_program_with_its_columns():
    """The object itself, as its x; one with other columns is refused by name."""
    table = pv.data.Table({"age": [38.5, 20.0, 55.2, 41.0], "colour": ["red", "green", "red", "red"]})
    losses = []
    for data in (table, table.x):
        torch.manual_seed(0)
        net = functools.partial(pv.data.tables.Features, table.columns)
        vae = pv.VAE(
            prior=pv.priors.StandardNormal(2),
            likelihood=pv.likelihoods.Heterogeneous(2, (2,), columns=table.columns),
            posterior=pv.posteriors.MeanFieldNormal((2,), 2, net=net),
        )
        losses.append(pv.fit(vae, data, epochs=1, progress=False)["loss"])
    assert losses[0] == losses[1]
    other = pv.data.Table({"age": [38.5, 20.0, 55.2, 99.0], "colour": ["red", "green", "red", "red"]})
    with pytest.raises(ValueError, match="columns of the program, which has Positive.*age.*got Positive"):
        pv.fit(vae, other, epochs=1, progress=False)


LABELS = {
    "integers": ([5, 6], [5, 6]),
    "text": (["a", "b"], ["a", "b"]),
    "text of digits": (["1", "2"], ["1", "2"]),
    "booleans": ([False, True], [False, True]),
    "floats": ([0.5, 1.5], [0.5, 1.5]),
    "integers and text": ([1, "a"], [1, "a"]),
    "integers, one missing": ([None, 5, 6], [5, 6]),
    "text, one missing": ([None, "a", "b"], ["a", "b"]),
    "text, one empty": (["", "a", "b"], ["a", "b"]),
    "booleans, one missing": ([None, False, True], [False, True]),
}


@pytest.mark.parametrize("form", ["x and y", "dict of columns", "frame"])
@pytest.mark.parametrize("name", LABELS)
def test_classes_have_the_type_of_the_labels(name, form):
    labels, classes = LABELS[name]
    labels = (labels * 12)[:24]
    x = np.random.default_rng(0).normal(size=(24, 2))
    if form == "x and y":
        found = pv.data.read({"x": x, "y": labels})
    else:
        table = {"a": x[:, 0], "b": x[:, 1], "label": labels}
        table = pytest.importorskip("pandas").DataFrame(table) if form == "frame" else table
        found = pv.data.read(table, label="label")
    assert [(type(c), c) for c in found.classes] == [(type(c), c) for c in classes]
    numbers = [-1 if label in (None, "") else classes.index(label) for label in labels]
    assert found.y.tolist() == numbers


@pytest.mark.parametrize("option", ["leave_out", "covariates", "classes"])
def test_repeated_names_are_refused(option):
    with pytest.raises(ValueError, match=option):
        pv.data.read({"a": [1.5, 2.5], "b": [1.5, 0.5], "c": [0.5, 1.0]}, **{option: ["a", "a"]})


@pytest.mark.parametrize("option", ["label", "leave_out", "types", "covariates"])
def test_a_column_of_another_name_gets_the_nearest_one(option):
    given = {"label": "amont", "leave_out": "amont", "types": {"amont": "Real"}, "covariates": ["amont"]}[option]
    with pytest.raises(ValueError, match=rf"{option}: .*did you mean amount\?"):
        pv.data.read({"amount": [1.5, 2.5], "b": [1.5, 0.5]}, **{option: given})
