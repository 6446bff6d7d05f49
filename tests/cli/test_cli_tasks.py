"""The commands that use a run, from file to file."""

import io
import json

import numpy as np
import pytest
import torch
from helpers.small_tables import (
    NAMES,
    images,
    read_csv,
    small_run,
    table_rows,
    with_missing_cells,
    write_csv,
)

import pyro_vae as pv
from pyro_vae.cli import main, shared
from pyro_vae.config import run
from pyro_vae.data import files


def call(*words):
    assert main([*map(str, words), "--quiet"]) == 0


def test_configurations_rebuild_tables_and_classes():
    """Program, columns and classes are plain values, from which the trained program is rebuilt."""
    config = json.loads((small_run("table") / "config.json").read_text())
    assert config["program"] == {"name": "VAE", "options": {"missing": True}}
    assert [c["name"] for c in config["columns"]] == ["Positive", "Categorical", "Count", "Ordinal"]
    assert config["columns"][1]["options"] == {"name": "colour", "values": ["blue", "green", "red"]}
    table = pv.load(small_run("table"))
    assert table.missing
    assert table.likelihood.columns == run.columns(config)
    assert isinstance(table.posterior.net.body, pv.data.tables.Features)
    assert isinstance(pv.load(small_run("array")).posterior.net, pv.nets.ZeroImputed)
    config = json.loads((small_run("classes") / "config.json").read_text())
    assert config["classes"] == [5, 6, 7]
    # the weight of the paper: 0.1 times the number of examples over that of labels
    assert config["program"]["options"]["alpha"] == pytest.approx(0.1 * 32 / 6)
    assert pv.load(small_run("classes")).classify(torch.rand(4, 2, 3)).shape == (4, 3)


def test_impute_changes_only_missing_cells(tmp_path):
    """Columns can be in any order and keep it; observed cells, types and labels do not change."""
    rows, out = with_missing_cells(table_rows(25, seed=1)), tmp_path / "out.csv"
    order = [4, 2, 0, 3, 1]
    new = write_csv(tmp_path / "new.csv", [NAMES[i] for i in order], [[row[i] for i in order] for row in rows])
    call("impute", small_run("table"), new, "--output", out, "--num-particles=50")
    names, found = read_csv(out)
    assert names == [NAMES[i] for i in order]
    kinds = {"age": float, "visits": int, "grade": int, "colour": str, "group": str}
    filled = 0
    for row, given in zip(found, rows, strict=True):
        for cell, i in zip(row, order, strict=True):
            if given[i] or NAMES[i] == "group":
                assert cell == given[i]
            else:
                filled += 1
                kinds[NAMES[i]](cell)
                assert NAMES[i] != "colour" or cell in {"red", "green", "blue"}
    assert filled > 10
    samples = tmp_path / "samples.csv"
    call("impute", small_run("table"), new, "--output", samples, "--num-particles=50", "--num-samples=3")
    names, found = read_csv(samples)
    assert names[0] == "sample"
    assert [row[0] for row in found] == ["0"] * 25 + ["1"] * 25 + ["2"] * 25
    assert all(cell for row in found for cell in row[2:])


def test_impute_an_array(tmp_path):
    """The result is that of `tasks.impute`; several samples have a dimension of their own."""
    x, array = images(10), small_run("array")
    x[::2, 0, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    tiny = [tmp_path / "x.npy", "--num-particles=50"]
    call("impute", array, *tiny, "--output", tmp_path / "a.npy", "--seed=4")
    call("impute", array, *tiny, "--output", tmp_path / "b.npz", "--num-samples=2")
    known = pv.tasks.impute(pv.load(array), torch.from_numpy(x), num_particles=50, num_samples=0, seed=4).x
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), known.numpy())
    with np.load(tmp_path / "b.npz") as found:
        assert found["x"].shape == (2, 10, 2, 3)
        assert not np.isnan(found["x"]).any()


def test_sample(tmp_path):
    """Rows of a table have values of its columns; a class can be chosen if the run has classes."""
    table, classes = small_run("table"), small_run("classes")
    call("sample", table, "--num-samples=7", "--output", tmp_path / "rows.csv")
    names, rows = read_csv(tmp_path / "rows.csv")
    assert names == NAMES[:4]
    assert len(rows) == 7
    assert all(row[1] in {"red", "green", "blue"} and row[3] in "1234" and int(row[2]) >= 0 for row in rows)
    call("sample", classes, "--num-samples=5", "--class=6", "--mean", "--output", tmp_path / "x.npy", "--seed=2")
    label = torch.tensor([[0.0, 1.0, 0.0]]).expand(5, 3)
    known = pv.tasks.generate(pv.load(classes), 5, context=[label], mean=True, seed=2)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), known.numpy())


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("classes", "--class=8", "class: expected one of 5, 6, 7"),
        ("table", "--mean", "mean: "),
        ("table", "--class=8", "class: expected none"),
        ("classes", "--temperature=0.5", "temperature: expected 1"),
    ],
)
def test_sample_rejects_options_that_do_not_fit_the_run(name, option, message, capsys):
    assert main(["sample", str(small_run(name)), option]) == 2
    assert message in capsys.readouterr().err


def test_reconstruct(tmp_path):
    """A table is reconstructed as a table, images as images."""
    rows, table = table_rows(9), small_run("table")
    call("reconstruct", table, write_csv(tmp_path / "new.csv", NAMES, rows), "--output", tmp_path / "out.npy")
    found = np.load(tmp_path / "out.npy")
    assert found.dtype.names == tuple(NAMES)
    assert found["grade"].dtype.kind == "i"
    cells = {name: files.typed(np.array(c, object)) for name, c in zip(NAMES, zip(*rows, strict=True), strict=True)}
    columns = run.columns(run.read(table))
    x = pv.data.Table({c.name: cells[c.name] for c in columns}, columns).x
    known = pv.tasks.reconstruct(pv.load(table), x)
    for column, values in zip(columns, known.T.numpy(), strict=True):
        decoded, got = column.decode(values), found[column.name]
        assert (got == decoded).all() if got.dtype.kind == "U" else np.allclose(got, decoded)
    np.save(tmp_path / "x.npy", images(3))
    call("reconstruct", small_run("classes"), tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    assert np.load(tmp_path / "y.npy").shape == (3, 2, 3)


def test_score_classify_and_embed(tmp_path, capsys):
    """Results are those of the tasks, one row per example; without --output they go to the terminal as .csv."""
    x, classes = torch.from_numpy(images(6)), small_run("classes")
    np.save(tmp_path / "x.npy", x.numpy())
    program = pv.load(classes)
    call("score", classes, tmp_path / "x.npy", "--score.num_particles=20", "--output", tmp_path / "s.npy")
    known = pv.tasks.ImportanceWeighted(20)(program, x)
    np.testing.assert_allclose(np.load(tmp_path / "s.npy"), known.numpy())
    call("classify", classes, tmp_path / "x.npy", "--output", tmp_path / "p.csv")
    names, rows = read_csv(tmp_path / "p.csv")
    assert names == ["5", "6", "7", "class"]
    probabilities = program.classify(x)
    np.testing.assert_allclose(np.array(rows)[:, :3].astype(float), probabilities.numpy(), rtol=1e-6)
    assert [row[3] for row in rows] == [names[i] for i in probabilities.argmax(1)]
    call("classify", classes, tmp_path / "x.npy", "--output", tmp_path / "p.npz")
    assert np.load(tmp_path / "p.npz")["class"].tolist() == [row[3] for row in rows]
    array = small_run("array")
    capsys.readouterr()
    call("embed", array, tmp_path / "x.npy")
    header, *rows = capsys.readouterr().out.splitlines()
    assert header == "z[0].mean,z[1].mean,z[0].std,z[1].std"
    with torch.no_grad():
        q = pv.load(array).encode(x)
    found = np.array([row.split(",") for row in rows], float)
    np.testing.assert_allclose(found, torch.cat([q.mean, q.stddev], -1).numpy(), rtol=1e-4)


@pytest.mark.parametrize("command", ["score", "classify", "embed", "impute"])
def test_results_do_not_depend_on_other_rows(command, tmp_path, monkeypatch):
    """The same in another order and, for scores, in chunks of 4 rows."""
    x = images(9)
    run_dir = small_run("classes" if command == "classify" else "array")
    if command == "impute":
        x[:, 0, 1] = np.nan
    found = []
    for name, rows in (("a", x), ("b", x[::-1].copy())):
        np.save(tmp_path / f"{name}.npy", rows)
        call(command, run_dir, tmp_path / f"{name}.npy", "--output", tmp_path / f"{name}_out.npy")
        found.append(np.load(tmp_path / f"{name}_out.npy"))
        monkeypatch.setattr(shared, "CHUNK", 4)
    np.testing.assert_allclose(found[1][::-1], found[0], rtol=1e-4)


def test_compress(tmp_path, capsys):
    """Binary data come back bit for bit, through a file; other outputs are refused."""
    x, data, out = np.round(images(12)), tmp_path / "x.npy", tmp_path / "x.bin"
    np.save(data, x)
    pytest.importorskip("constriction")
    folder = small_run("binary")
    call("compress", folder, data, "--output", out)
    assert "12 " in capsys.readouterr().out
    call("compress", folder, out, "--decompress", "--output", tmp_path / "y.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), x)
    for options in ([], ["--output", str(tmp_path / "y.csv")], ["--output", str(tmp_path / "z.bin"), "--decompress"]):
        assert main(["compress", str(folder), str(data), *options]) in (1, 2)
        assert "output: " in (error := capsys.readouterr().err) or "expected a file name" in error


@pytest.mark.slow
def test_evaluate_and_resume_a_run_on_a_file(capsys):
    table, array = small_run("table"), small_run("array")
    call("evaluate", table, "--num-particles=20")
    assert "log_likelihood" in capsys.readouterr().out
    before = json.loads((array / "config.json").read_text())
    again = ["train", "--missing", f"--data={array}.npy", "--resume", f"--run-dir={array}"]
    assert main([*again, "--quiet"]) == 0
    assert json.loads((array / "config.json").read_text()) == before
    assert main([*again, "--latent=5"]) == 2
    assert "latent: " in capsys.readouterr().err
    assert main(["train", "--resume", f"--run-dir={small_run('classes')}", "--missing"]) == 2
    assert "missing: expected False, as in the run" in capsys.readouterr().err


def test_terminal_output_is_input_of_the_next_command(capsys, tmp_path):
    table = small_run("table")
    capsys.readouterr()
    call("sample", table, "--num-samples=12")
    text = capsys.readouterr().out
    (tmp_path / "new.csv").write_text(text)
    assert len(text.splitlines()) == 13
    call("score", table, tmp_path / "new.csv", "--score=Reconstruction")
    scores = np.loadtxt(io.StringIO(capsys.readouterr().out), skiprows=1)
    assert scores.shape == (12,)
    assert np.isfinite(scores).all()
