"""`pyro-vae explore` and `pyro-vae report`: pages of a run that need nothing else."""

import base64
import json
import shutil

import numpy as np
import pytest
from helpers.webpages import content, is_self_contained

import pyro_vae as pv
from pyro_vae.cli import command as cli


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a run <&>"
    tiny = ["--epochs=2", "--particles=3", "--quiet", "--latent=2", "--posterior.net.hidden=[8]"]
    assert cli.main(["train", *tiny, "--likelihood.net.hidden=[8]", "--run-dir", str(folder)]) == 0
    assert cli.main(["evaluate", str(folder), "--particles=30", "--quiet"]) == 0
    return folder


def test_explore_a_run(trained, tmp_path, capsys):
    """A page of some test data is left in the run, the same twice; other data come from a file."""
    command = ["explore", str(trained), "--points=20", "--particles=30"]
    assert cli.main(command) == 0
    assert "explore.html" in capsys.readouterr().out
    first = (trained / "explore.html").read_text()
    found = content(first)
    test = pv.data.load("digits").test
    assert len(found["rows"]) == 20
    assert found["labels"] == test.y[found["rows"]].tolist()
    assert "digits" in found["about"]
    assert cli.main(command) == 0
    assert (trained / "explore.html").read_text() == first
    np.save(tmp_path / "own.npy", test.x[:4].numpy())
    assert cli.main([*command, f"--data={tmp_path / 'own.npy'}", f"--output={tmp_path / 'new' / 'page.html'}"]) == 0
    own = content((tmp_path / "new" / "page.html").read_text())
    assert own["rows"] == [0, 1, 2, 3]
    assert own["labels"] is None


def test_bad_data_of_explore_are_told(trained, tmp_path, capsys):
    """Files that hold no data of this program, or objects, are refused and leave nothing."""
    out = tmp_path / "page.html"
    np.save(tmp_path / "wide.npy", np.zeros((3, 9, 9), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    for name, said in (("wide", "(3, 9, 9)"), ("objects", "objects.npy"), ("text", "text.npy"), ("none", "none.npy")):
        assert cli.main(["explore", str(trained), f"--data={tmp_path / name}.npy", f"--output={out}"]) == 1
        assert said in capsys.readouterr().err
    assert cli.main(["explore", str(tmp_path)]) == 1
    assert cli.main(["explore"]) == 2
    assert not out.exists()


def test_report_of_a_run(trained, capsys):
    """The page holds every epoch, every figure, the evaluations and the configuration, and escapes names."""
    assert cli.main(["report", str(trained)]) == 0
    text = (trained / "report.html").read_text()
    is_self_contained(text)
    assert "a run &lt;&amp;&gt;" in text
    pictures = [*(trained / "figures").glob("*.png"), *(trained / "evaluation").glob("*.png")]
    assert text.count("data:image/png;base64,") == len(pictures) == 7
    assert all(base64.b64encode(path.read_bytes()).decode() in text for path in pictures)
    assert "MeanFieldNormal(net=MLP(hidden=[8]" in text
    bounds = [json.loads(line)["valid_bound"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert f"best validation bound {max(bounds):.2f}" in text
    found = json.loads((trained / "evaluation" / "log_likelihood.json").read_text())["rows"]
    mean = sum(row["log_likelihood"] for row in found) / len(found)
    assert f"<td>{len(found)}</td><td>{mean:.5g}".replace("-", "\u2212") in text


def test_report_escapes_and_tells_damage(trained, tmp_path, capsys):
    """Markup in files stays text, an unfinished run has a report, and what is damaged is named."""
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / "metrics.jsonl").write_text('{"epoch": 0, "<script>alert(1)</script>": "<img src=x>"}\n')
    shutil.rmtree(folder / "evaluation")
    assert cli.main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    is_self_contained(text)
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text
    for broken in ("[1, 2]", '{"valid_bound": 3.0}', '{"epoch": 0'):
        (folder / "metrics.jsonl").write_text(broken)
        assert cli.main(["report", str(folder)]) == 1
        assert "metrics.jsonl" in capsys.readouterr().err
    (folder / "metrics.jsonl").unlink()
    assert cli.main(["report", str(folder), "--output", str(tmp_path / "other.html")]) == 0
    assert "0 epochs" in (tmp_path / "other.html").read_text()
    (folder / "evaluation").mkdir()
    for broken in ("[1, 2", "[1, 2]", '{"rows": [3]}'):
        (folder / "evaluation" / "latents.json").write_text(broken)
        assert cli.main(["report", str(folder)]) == 1
        assert "latents.json" in capsys.readouterr().err
    assert (folder / "report.html").read_text() == text


def test_pages_of_a_table_and_of_another_program(tmp_path, monkeypatch, capsys):
    """Columns by name and type in the report, the test rows of the file on the map; other programs are named."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{1 + 0.1 * i:.1f},{'red' if i % 3 else 'blue'},{i % 2}\n" for i in range(40))
    (tmp_path / "own.csv").write_text(f"size,<b>colour,kind\n{rows}")
    tiny = ["train", "--data=own.csv", "--epochs=1", "--particles=3", "--quiet", "--latent=2"]
    assert cli.main([*tiny, "--run-dir=table"]) == 0
    assert cli.main(["report", "table"]) == 0
    page = (tmp_path / "table" / "report.html").read_text()
    assert "size (Positive), &lt;b&gt;colour (Binary), kind (Binary)" in page
    assert cli.main(["explore", "table", "--particles=5"]) == 0
    assert len(content((tmp_path / "table" / "explore.html").read_text())["rows"]) == 4
    assert cli.main([*tiny, "--program=SemiSupervised", "--label=kind", "--run-dir=classes"]) == 0
    assert cli.main(["explore", "classes"]) == 1
    assert "classes is a SemiSupervised; a page is drawn of a VAE" in capsys.readouterr().err
