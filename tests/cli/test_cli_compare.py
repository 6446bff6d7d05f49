"""The command `compare`."""

import json

import pytest
from helpers.small_tables import small_run
from helpers.webpages import is_self_contained

from pyro_vae.cli import main
from pyro_vae.cli.compare import estimators_of

TINY = (
    "--num-samples=8 --num-particles=2 --epochs=1 --quiet --posterior.net.hidden=[8] --likelihood.net.hidden=[8] "
    "--latent=2 --batch-size=8 --total-particles=200"
).split()


def test_tables_and_figures_are_written(tmp_path, capsys):
    folder = tmp_path / "run"
    three = "--estimators=ELBO, Renyi(alpha=0.3), pyro.Trace_ELBO"
    data = f"--data={small_run('binary')}.npy"
    assert main(["compare", three, data, *TINY, f"--run-dir={folder}"]) == 0
    out = capsys.readouterr().out
    assert "gradient, guide" in out
    assert "200 particles" in out
    names = {p.name for p in folder.iterdir()} | {p.name for p in (folder / "figures").iterdir()}
    suffixes = ("csv", "json", "tex", "png")
    assert {f"{name}.{suffix}" for name in ("comparison", "training") for suffix in suffixes} <= names
    page = (folder / "comparison.html").read_text()
    is_self_contained(page)
    assert page.count("<figure>") == 2
    assert "best after 200 particles: " in page
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["ELBO", "Renyi(alpha=0.3)", "pyro.Trace_ELBO"]
    assert {value for row in rows for key, value in row.items() if "particles" in key} == {2}


def test_help(capsys):
    assert main(["compare", "--help"]) == 0
    out = capsys.readouterr().out
    names = ("estimators", "num-particles", "num-samples", "num-steps", "total-particles", "seconds")
    assert all(f"--{name}" in out for name in names)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--estimators=IWEA", "did you mean IWAE?"),
        ("--estimators=IWAE(8)", "estimators: expected NAME or NAME(option=value)"),
        ("--estimators=os.system(command='ls')", "estimators: expected one of"),
        ("--estimators=IWAE(num_particles=print(1))", "estimators: expected NAME or NAME(option=value)"),
        ("--estimators=Renyi(alhpa=1)", "estimators: cannot build Renyi(alhpa=1)"),
        ("--num-steps=3 --seconds=2", "num-steps, seconds: "),
    ],
)
def test_usage_errors_are_one_line(line, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *line.split(" ")]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert (out, len(err.splitlines())) == ("", 1)
    assert not list(tmp_path.iterdir())


def test_options_of_estimators():
    found = estimators_of("MIWAE(M=2, K=3), IWAE, IWAE(num_particles=5), pyro.RenyiELBO(alpha=0)", 7)
    assert [e.num_particles for e in found.values()] == [6, 7, 5, 7]
    assert found["pyro.RenyiELBO(alpha=0)"].vectorize_particles


def test_tables_with_missing_entries(tmp_path, capsys):
    rows = [f"{i % 7}.5,{'' if i % 5 == 0 else i / 4}\n" for i in range(60)]
    (tmp_path / "t.csv").write_text("".join(["a,b\n", *rows]))
    line = ["compare", f"--data={tmp_path / 't.csv'}", "--estimators=ELBO", *TINY, f"--run-dir={tmp_path / 'run'}"]
    assert main(line) == 1
    assert "pass --missing" in capsys.readouterr().err
    assert main([*line, "--missing"]) == 0
