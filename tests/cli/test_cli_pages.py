"""The commands `evaluate`, `report` and `explore`: tables, figures and pages of a run."""

import base64
import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from benchmarks.compile_everything import program_case
from helpers import small_tables
from helpers.small_tables import FOLDER, TINY, small_run, table_rows, with_missing_cells, write_csv
from helpers.webpages import content, is_self_contained

import pyro_vae as pv
from pyro_vae.cli import main

NAMES = {"log_likelihood", "latents", "calibration", "inference_gaps", "marginal_bounds"}


@functools.cache
def evaluated():
    """Return the folder of a run with figures and all evaluations."""
    folder = Path(FOLDER.name) / "a run <&>"
    assert main(["train", *TINY, "--run-dir", str(folder)]) == 0
    options = ["--num-particles=30", "--gaps=2", "--bounds=1", "--num-steps=4", "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        # of the default number of steps a tenth is enough for a table
        patch.setattr(pv.evaluation, "inference_gaps", functools.partial(pv.evaluation.inference_gaps, num_steps=50))
        assert main(["evaluate", str(folder), *options]) == 0
    return folder


def test_evaluate_a_run():
    """There is a table and a figure of each evaluation, and the run is unchanged."""
    folder = evaluated() / "evaluation"
    assert {p.name for p in folder.iterdir()} == {
        f"{name}.{kind}" for name in NAMES for kind in ("csv", "json", "png")
    }
    assert len(json.loads((folder / "inference_gaps.json").read_text())["rows"]) == 2
    assert len(json.loads((folder / "log_likelihood.json").read_text())["rows"]) == 300
    rows = json.loads((folder / "marginal_bounds.json").read_text())["rows"]
    assert len([row for row in rows if row["data"] == "given"]) == 1


@pytest.mark.parametrize("command", ["evaluate", "explore", "report"])
def test_commands_need_a_run(command, tmp_path, capsys):
    assert main([command, str(tmp_path)]) == 1
    assert "RUN: " in capsys.readouterr().err
    assert main([command]) == 2
    assert main([command, "--help"]) == 0
    assert "RUN" in capsys.readouterr().out


def test_explore_a_run(tmp_path, capsys):
    """A page of test data is in the run folder, the same each time; other data come from a file."""
    command = ["explore", str(evaluated()), "--num-points=20", "--num-particles=30"]
    assert main(command) == 0
    assert "explore.html" in capsys.readouterr().out
    first = (evaluated() / "explore.html").read_text()
    found = content(first)
    test = pv.data.load("digits").test
    assert len(found["rows"]) == 20
    assert found["labels"] == test.y[found["rows"]].tolist()
    assert "digits" in found["about"]
    assert main(command) == 0
    assert (evaluated() / "explore.html").read_text() == first
    np.save(tmp_path / "own.npy", test.x[:4].numpy())
    assert main([*command, f"--data={tmp_path / 'own.npy'}", f"--output={tmp_path / 'new' / 'page.html'}"]) == 0
    own = content((tmp_path / "new" / "page.html").read_text())
    assert own["rows"] == [0, 1, 2, 3]
    assert own["labels"] is None


@pytest.mark.slow
@pytest.mark.parametrize("data", ["test data", "new data"])
def test_explore_a_table_with_missing_cells(data, tmp_path):
    """Missing cells are imputed, and the page says so; other data can be a table as well."""
    out, rows = tmp_path / "page.html", with_missing_cells(table_rows(25, seed=1))
    words = [] if data == "test data" else ["--data", str(write_csv(tmp_path / "new.csv", small_tables.NAMES, rows))]
    assert main(["explore", str(small_run("table")), "--num-particles=20", f"--output={out}", *words]) == 0
    assert "missing entries are imputed by conditional means" in out.read_text()


def test_explore_rejects_other_data(tmp_path, capsys):
    """Files without data for this program, or with Python objects, are refused and leave no page."""
    out = tmp_path / "page.html"
    np.save(tmp_path / "wide.npy", np.zeros((3, 9, 9), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    for name, said in (("wide", "(3, 9, 9)"), ("objects", "objects.npy"), ("text", "text.npy"), ("none", "none.npy")):
        assert main(["explore", str(evaluated()), f"--data={tmp_path / name}.npy", f"--output={out}"]) == 1
        assert said in capsys.readouterr().err
    assert main(["explore", str(small_run("classes"))]) == 1
    said = capsys.readouterr().err
    assert "run: expected a VAE" in said
    assert "pyro-vae embed" in said
    assert not out.exists()


def test_report_of_a_run():
    """The page has all figures, evaluations and parts, the best epoch, and escaped names."""
    folder = evaluated()
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    is_self_contained(text)
    assert "a run &lt;&amp;&gt;" in text
    pictures = [*(folder / "figures").glob("*.png"), *(folder / "evaluation").glob("*.png")]
    assert text.count("data:image/png;base64,") == len(pictures) == 9
    assert all(base64.b64encode(path.read_bytes()).decode() in text for path in pictures)
    assert "MeanFieldNormal(net=MLP(hidden=[8]" in text
    bounds = [json.loads(line)["valid_bound"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert f"best validation bound {max(bounds):.2f}" in text
    found = json.loads((folder / "evaluation" / "log_likelihood.json").read_text())["rows"]
    mean = sum(row["log_likelihood"] for row in found) / len(found)
    assert f"<td>{len(found)}</td><td>{mean:.5g}".replace("-", "\u2212") in text


def test_report_of_a_run_of_fit(tmp_path):
    """Program, estimator and settings, in words, and the epochs; here of an amortized guide."""
    program, data = pv.programs.Amortized.example(), program_case(pv.programs.Amortized).data
    pv.fit(program, data, epochs=2, batch_size=4, run_dir=tmp_path / "run", progress=False)
    assert main(["report", str(tmp_path / "run")]) == 0
    text = (tmp_path / "run" / "report.html").read_text()
    is_self_contained(text)
    for said in ("2 epochs", "Amortized(", "ELBO(", "Adam(", "<th>batch_size</th><td>4</td>"):
        assert said in text


def test_report_escapes_markup_and_names_damaged_files(tmp_path, capsys):
    """An unfinished run has a report as well."""
    folder = tmp_path / "run"
    shutil.copytree(evaluated(), folder)
    (folder / "metrics.jsonl").write_text('{"epoch": 0, "<script>alert(1)</script>": "<img src=x>"}\n')
    shutil.rmtree(folder / "evaluation")
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    is_self_contained(text)
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text
    for broken in ("[1, 2]", '{"valid_bound": 3.0}', '{"epoch": 0'):
        (folder / "metrics.jsonl").write_text(broken)
        assert main(["report", str(folder)]) == 1
        assert "metrics.jsonl" in capsys.readouterr().err
    (folder / "metrics.jsonl").unlink()
    assert main(["report", str(folder), "--output", str(tmp_path / "other.html")]) == 0
    assert "0 epochs" in (tmp_path / "other.html").read_text()
    (folder / "evaluation").mkdir()
    for broken in ("[1, 2", "[1, 2]", '{"rows": [3]}'):
        (folder / "evaluation" / "latents.json").write_text(broken)
        assert main(["report", str(folder)]) == 1
        assert "latents.json" in capsys.readouterr().err
    assert (folder / "report.html").read_text() == text


def test_pages_of_a_table(tmp_path):
    """Columns have names and types in the report, and the page has the test rows of the file."""
    folder = small_run("whole")
    assert main(["report", str(folder), f"--output={tmp_path / 'report.html'}"]) == 0
    columns = "age (Positive), colour (Categorical), visits (Count), grade (Ordinal)"
    assert columns in (tmp_path / "report.html").read_text()
    assert main(["explore", str(folder), "--num-particles=5", f"--output={tmp_path / 'explore.html'}"]) == 0
    assert len(content((tmp_path / "explore.html").read_text())["rows"]) == 6
