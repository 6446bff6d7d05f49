"""Bad files and options end a command in one line that says where and what to do, and leave nothing."""

import json
import re

import numpy as np
import pytest
import torch
from helpers.small_tables import NAMES, images, small_run, table_rows, write_csv

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.data import files

X = torch.rand(30, 8, 8).round()


def fails(words, said, path, capsys, status=1):
    """Check that a command fails with one line of this text and leaves no file."""
    before = sorted(path.parent.iterdir())
    capsys.readouterr()
    assert main([*map(str, words), "--quiet"]) == status
    out, err = capsys.readouterr()
    assert re.search(said, err)
    assert (out, len(err.splitlines())) == ("", 1)
    assert sorted(path.parent.iterdir()) == before


def changed(at, value):
    rows = table_rows(12)
    rows[at[0]][at[1]] = value
    return rows


def without(name):
    i = NAMES.index(name)
    return [n for n in NAMES if n != name], [row[:i] + row[i + 1 :] for row in table_rows(12)]


EMPTY = [["", "", "", "", "A"], *table_rows(11)]
TABLES = {
    "missing values in a run without": ("whole", NAMES, changed((3, 2), ""), "visits in line 5.*--missing"),
    "text for numbers": ("table", NAMES, changed((5, 0), "old"), "column 'age': .*'old' in line 7"),
    "a column missing": ("table", *without("visits"), "columns: .*missing: visits"),
    "a column too many": ("table", [*NAMES, "id"], [[*r, "7"] for r in table_rows(3)], "columns: .*unexpected: id"),
    "no names": ("table", table_rows(12)[0], table_rows(12), "names of the columns in the first line"),
    "a name twice": ("table", [*NAMES[:4], "age"], table_rows(12), "columns of different names.* age"),
    "a line too short": ("table", NAMES, [*table_rows(3), ["1.5"]], "expected 5 cells.*line 5"),
    "no rows": ("table", NAMES, [], "expected rows"),
    "text for an array": ("array", ["a", "b"], [["x", "1"]], "text in a"),
    "too few columns": ("array", ["a", "b"], [["2", "1"]], r"shape \(n, 2, 3\), got \(1, 2\)"),
}


@pytest.mark.parametrize("name", TABLES)
def test_bad_tables(name, tmp_path, capsys):
    run, names, rows, said = TABLES[name]
    path = write_csv(tmp_path / "new.csv", names, rows)
    fails(["impute", small_run(run), path, "--output", tmp_path / "out.csv"], said, path, capsys)


FILES = {
    "empty .csv": ("x.csv", b"", "the file is empty"),
    "empty .npy": ("x.npy", b"", "the file is empty"),
    "an image as .csv": ("x.csv", b"\x89PNG\r\n\x1a\n\x00\x00", "expected a .csv file"),
    "text as .npy": ("x.npy", b"a,b\n1,2\n", "expected an .npy file"),
    "an .npz as .npy": ("x.npy", files.encode(".npz", X.numpy()), "expected an .npy file"),
    "an .npy as .npz": ("x.npz", files.encode(".npy", X.numpy()), "expected an .npz file"),
    "truncated": ("x.npy", files.encode(".npy", X.numpy())[:-9], "damaged"),
    "truncated .npz": ("x.npz", files.encode(".npz", X.numpy())[:-30], "damaged"),
    "arrays of two shapes": ("x.npz", files.encode(".npz", {"a": X.numpy(), "b": X.numpy()[0]}), "an array x"),
    "text": ("x.npy", files.encode(".npy", np.array([["a", "b"]])), "an array of numbers"),
    "another shape": ("x.npy", files.encode(".npy", X.numpy()), r"shape \(n, 2, 3\), got \(30, 8, 8\)"),
    "a number": ("x.npy", files.encode(".npy", np.array(1.0)), r"got shape \(\)"),
    "no data": ("x.npy", files.encode(".npy", np.zeros((0, 2, 3))), r"got shape \(0, 2, 3\)"),
    "bytes": ("x.npy", files.encode(".npy", np.full((9, 6), 255, np.uint8)), "bytes up to 255"),
    "another ending": ("x.txt", b"1 2 3", "INPUT: expected one of digits"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files(name, tmp_path, capsys):
    file, content, said = FILES[name]
    path = tmp_path / file
    path.write_bytes(content)
    words = ["score", small_run("array"), path, "--output", tmp_path / "out.npy"]
    fails(words, said, path, capsys, status=2 if name == "another ending" else 1)


def test_python_objects_are_not_read(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"x\.npy: .*Python objects"):
        files.read(tmp_path / "x.npy")


REFUSED = {
    "only empty rows": ("table", EMPTY[:1], "1 of 1 rows, such as in line 2"),
    "only unknown categories": ("whole", [changed((2, 1), "violet")[2]], "'violet'.*line 2"),
    "only fractions of counts": ("whole", [changed((2, 2), "2.5")[2]], "visits in line 2 is 2.5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tables_without_a_usable_row(name, tmp_path, capsys):
    run, rows, said = REFUSED[name]
    path = write_csv(tmp_path / "new.csv", NAMES, rows)
    fails(["score", small_run(run), path, "--output", tmp_path / "out.csv"], said, path, capsys)


def no_visits(n):
    return [[row[0], row[1], "", row[3], row[4]] for row in table_rows(n)]


UNFIT = {
    "an empty column": (no_visits(12), ["--missing", "--keep-empty"], "column 'visits'"),
    "an empty row": (EMPTY, ["--columns=age=Count", "--label=group", "--keep-empty"], "column 'age'|missing"),
    "too few rows": (table_rows(9), ["--label=group"], "10 rows or more"),
    "an unknown label column": (table_rows(9), ["--label=gruop"], "label: .*got gruop"),
    "too few rows with classes": (table_rows(9), ["--label=group", "--program=SemiSupervised"], "10 rows or more"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_tables_that_cannot_be_trained_on(name, tmp_path, capsys):
    rows, options, said = UNFIT[name]
    path = write_csv(tmp_path / "x.csv", NAMES, rows)
    fails(["train", "--data", path, f"--run-dir={tmp_path / 'run'}", *options], said, path, capsys)


def test_arrays_that_cannot_be_trained_on(tmp_path, capsys):
    path, x = tmp_path / "x.npy", images()
    words = ["train", "--data", path, f"--run-dir={tmp_path / 'run'}"]
    np.save(path, x)
    fails([*words, "--program=SemiSupervised"], "program: SemiSupervised needs labels", path, capsys)
    fails([*words, "--binarize=static"], "binarize: ", path, capsys)
    fails([*words, "--num-labels=5"], "num-labels: ", path, capsys, status=2)
    x[:, 1, 2] = np.nan
    np.save(path, x)
    fails([*words, "--missing"], r"x\[:, 1, 2\]", path, capsys)


def test_imputed_tables_may_have_empty_columns(tmp_path):
    path = write_csv(tmp_path / "x.csv", NAMES, no_visits(5))
    words = ["impute", small_run("table"), path, "--output", tmp_path / "y.csv", "--quiet"]
    assert main([*map(str, words)]) == 0


def test_bad_outputs_and_runs(tmp_path, capsys):
    """Existing files, unknown endings, and runs of a newer version or without classes are refused."""
    path, run = tmp_path / "x.npy", small_run("array")
    np.save(path, images(4))
    words = ["embed", run, path, "--output"]
    fails([*words, path], "output: ", path, capsys)
    fails([*words, tmp_path / "out.xlsx"], "ends in .npy, .npz, .csv", path, capsys)
    fails(["embed", run, tmp_path / "none.npy"], "No such file", path, capsys)
    fails(["classify", run, path], "run: .*got a VAE", path, capsys)
    (tmp_path / "new").mkdir()
    config = json.loads((run / "config.json").read_text())
    for change, said in (
        ({"schema": 99}, "schema 99"),
        ({"program": {"name": "os.system", "options": {}}}, "program: expected one of "),
    ):
        (tmp_path / "new" / "config.json").write_text(json.dumps({**config, **change}))
        fails(["embed", tmp_path / "new", path], said, path, capsys)


def test_a_table_keeps_the_order_of_its_columns():
    """Columns are found by name; missing and unexpected ones are named."""
    table = pv.data.Table({"a": [1.5, 2.0], "b": ["x", "y"]})
    data = {"b": ["y", "x"], "a": [3.0, None]}
    other = pv.data.Table(data, table.columns)
    assert other.x.nan_to_num().tolist() == [[3.0, 1.0], [0.0, 0.0]]
    assert pv.tasks.fill(data, other, other.x.nan_to_num(7.5))["a"].tolist() == [3.0, 7.5]
    with pytest.raises(ValueError, match="columns: .*missing: b; unexpected: c"):
        pv.data.Table({"a": [1.0], "c": [2.0]}, table.columns)
