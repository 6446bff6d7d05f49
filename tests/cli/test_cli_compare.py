"""The command `pyro-vae compare`."""

import json

import pytest

from pyro_vae.cli import command as cli
from pyro_vae.cli.compare import estimators_of

SMALL = ["--estimators=ELBO, Renyi(alpha=0.3), pyro.Trace_ELBO", "--draws=8", "--particles=2", "--epochs=1", "--quiet"]
NET = ["--posterior.net.hidden=[8]", "--likelihood.net.hidden=[8]", "--latent=2"]


def test_tables_and_figures_are_written(tmp_path, capsys):
    folder = tmp_path / "run"
    assert cli.main(["compare", *SMALL, *NET, "--batch-size=8", "--total_particles=200", f"--run-dir={folder}"]) == 0
    out = capsys.readouterr().out
    assert "gradient, guide" in out
    assert "after 200 particles from the same weights" in out
    names = {p.name for p in folder.iterdir()} | {p.name for p in (folder / "figures").iterdir()}
    suffixes = ("csv", "json", "tex", "png")
    assert {f"{name}.{suffix}" for name in ("comparison", "training") for suffix in suffixes} <= names
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["ELBO", "Renyi(alpha=0.3)", "pyro.Trace_ELBO"]
    assert [row["num_particles"] for row in rows] == [2, 2, 2]


def test_help(capsys):
    assert cli.main(["compare", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"--{name}" in out for name in ("estimators", "particles", "draws", "steps", "seconds"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--estimators=IWEA", "did you mean IWAE?"),
        ("--estimators=IWAE(8)", "expected names or NAME(option=value)"),
        ("--estimators=os.system(command='ls')", "estimators: expected one of"),
        ("--estimators=IWAE(num_particles=print(1))", "expected names or NAME(option=value)"),
        ("--estimators=Renyi(alhpa=1)", "cannot build Renyi(alhpa=1)"),
        ("--steps=3 --seconds=2", "expected one budget, got 2"),
    ],
)
def test_usage_errors_are_one_line(line, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", *line.split(" ")]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, len(err.splitlines())) == ("", 1)
    assert not list(tmp_path.iterdir())


def test_options_of_estimators():
    found = estimators_of("MIWAE(M=2, K=3), IWAE, IWAE(num_particles=5), pyro.RenyiELBO(alpha=0)", 7)
    assert [e.num_particles for e in found.values()] == [6, 7, 5, 7]
    assert found["pyro.RenyiELBO(alpha=0)"].vectorize_particles
