"""New rows that a run cannot take cost only themselves, and all rows can be matched with those of their file."""

import numpy as np
import pytest
from helpers.small_tables import NAMES, read_csv, small_run, table_rows, train, write_csv

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.config.read_rows import read_rows
from pyro_vae.config.run import read as read_config
from pyro_vae.data.tables import Binary, Categorical, Count, Integer, Ordinal, Positive, Real

COLUMNS = {
    Positive("x", 0.0, 1.0, 0.5, 4.0): (1.5, [0.0, -1.0, np.inf]),
    Positive("x"): (1.5, [0.0]),
    Count("x", 3.0): (2, [-1, 2.5]),
    Integer("x", 0.0, 3.0, -9, 9): (2, [2.5, np.inf]),
    Real("x", 0.0, 1.0, 0.0, 1.0): (7.5, [-np.inf]),
    Binary("x", ("no", "yes")): ("no", ["maybe"]),
    Categorical("x", ("red", "green")): ("green", ["violet"]),
    Ordinal("x", (1, 2, 3)): (1, [0, 4]),
}


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: f"{type(column).__name__} {column}")
def test_values_that_a_column_cannot_have_can_count_as_missing(column):
    good, bad = COLUMNS[column]
    data = {"x": [good, *bad, None], "row": [1.5] * (len(bad) + 2)}
    table = pv.data.Table(data, [column, Real("row")], invalid_as_missing=True)
    assert table.invalid.tolist() == [[False] * 2, *[[True, False]] * len(bad), [False] * 2]
    assert table.x.isnan()[:, 0].tolist() == [False, *[True] * len(bad), True]
    filled = pv.tasks.fill(data, table, table.x.nan_to_num(1.0))["x"].tolist()
    assert filled[: len(bad) + 1] == [good, *bad]  # impossible values stay as they are
    assert filled[-1] is not None


def results_of(command, run, path, *more):
    out = path.with_name(f"{command}.csv")
    out.unlink(missing_ok=True)
    assert main([command, str(run), str(path), f"--output={out}", "--quiet", *more]) == 0
    return read_csv(out)


@pytest.mark.parametrize("command", ["score", "embed", "impute", "reconstruct"])
@pytest.mark.parametrize("run", ["table", "whole"])
def test_an_impossible_value_costs_only_its_row(command, run, tmp_path, capsys):
    rows = table_rows(8)
    path = write_csv(tmp_path / "new.csv", NAMES, rows)
    names, expected = results_of(command, small_run(run), path)
    rows[2][1], rows[5][2], rows[6][:4] = "violet", "2.5", [""] * 4
    write_csv(path, NAMES, rows)
    capsys.readouterr()
    found_names, found = results_of(command, small_run(run), path)
    said = capsys.readouterr().err
    assert "2 values that the run cannot have, in 2 rows: colour in line 4 is violet" in said
    assert "1 row without any value, so without a result, such as in line 8" in said
    assert found_names == names
    same = [i for i in range(8) if i not in (2, 5, 6)]
    if command != "reconstruct":  # its latents are samples, drawn for all rows at once
        assert [found[i] for i in same] == [expected[i] for i in same]
    assert [row[names.index("group")] for row in found] == [row[-1] for row in rows]
    if command == "score":
        assert [row[-1] for row in found][2:7] == ["inf", *[row[-1] for row in expected][3:5], "inf", "nan"]
    elif command == "impute":
        assert found[2][1] == "violet"
    else:
        last = names.index("visits") if command == "reconstruct" else -1
        gone = {i for i, row in enumerate(found) if row[last] in ("", "nan")}
        assert gone == ({6} if run == "table" else {2, 5, 6})


def test_impossible_entries_of_arrays(tmp_path):
    """In a run on binary values a grey one is impossible."""
    run, x = small_run("binary"), np.zeros((4, 2, 3), np.float32)
    x[1, 0, 2] = 0.5
    np.save(tmp_path / "x.npy", x)
    rows = read_rows(str(tmp_path / "x.npy"), read_config(run), pv.load(run), each=True)
    assert rows.impossible.tolist() == [False, True, False, False]
    assert len(rows) == len(rows.data()) == 3
    assert "x[1, 0, 2] is 0.5" in rows.notes[0]
    assert main(["score", str(run), str(tmp_path / "x.npy"), f"--output={tmp_path / 'y.npy'}", "--quiet"]) == 0
    assert np.isinf(np.load(tmp_path / "y.npy")).tolist() == [False, True, False, False]


def test_results_keep_the_columns_that_identify_rows(tmp_path):
    """Columns that a run leaves out are in every result, in the order of the rows, also under a name of a result."""
    names, rows = ["score", *NAMES], [[f"p{i}", *row] for i, row in enumerate(table_rows(20))]
    path = write_csv(tmp_path / "x.csv", names, rows)
    options = ["--leave-out=score", "--label=group", "--program=SemiSupervised", "--classifier.net.hidden=[8]"]
    run = train(tmp_path / "run", f"--data={path}", *options[:3])
    new = write_csv(tmp_path / "new.csv", names, rows[::-1][:7])
    for command in ("score", "classify", "embed", "impute", "reconstruct"):
        found_names, found = results_of(command, run, new)
        for kept in ("score", "group"):
            assert [row[found_names.index(kept)] for row in found] == [r[names.index(kept)] for r in rows[::-1][:7]]
    assert results_of("score", run, new)[0] == ["score", "group", "score of the run"]


def test_results_name_images(tmp_path):
    """The rows of a folder of images have the names of their files."""
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "images").mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 255, (2, 3), dtype=np.uint8)
        image.fromarray(pixels).save(tmp_path / "images" / f"{i:02d}.png")
    run = train(tmp_path / "run", f"--data={tmp_path / 'images'}")
    names, found = results_of("score", run, tmp_path / "images")
    assert names == ["file", "score"]
    assert [row[0] for row in found] == [f"{i:02d}.png" for i in range(12)]
