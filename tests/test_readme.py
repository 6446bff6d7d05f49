"""The README's example runs, its catalogue lists every export, and CI finds its commands.

`python tests/test_readme.py` rewrites the catalogue and the list of tutorials.
"""

import inspect
import re
import shlex
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_tables import command as train_module
from helpers.small_tables import train, write_csv
from scipy import sparse

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.data import Dataset, Split
from pyro_vae.data.sources import LOADERS

README = Path(__file__).parents[1] / "README.md"
SHELVES = ("priors", "likelihoods", "posteriors", "programs", "estimators", "nets")
CATALOGUE = re.compile(r"(<!-- catalogue: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
TUTORIALS = re.compile(r"(<!-- tutorials -->\n).*?(<!-- end -->)", re.DOTALL)


def rows(shelf):
    module = getattr(pv, shelf)
    bases = {"Estimator", "Program", "Net"}
    found = [getattr(module, n) for n in module.__all__ if n not in bases]
    # in Python 3.10 tuple[int, ...] is a class
    return [c for c in found if inspect.isclass(c) and not typing.get_origin(c)]


def table(shelf):
    lines = ["| name | what it is |", "|---|---|"]
    for cls in rows(shelf):
        lines.append(f"| `{cls.__name__}` | {inspect.getdoc(cls).splitlines()[0]} |")
    return "\n".join(lines) + "\n"


def tutorials():
    """The list of tutorials, each with the question it answers."""
    lines = []
    for script in sorted((README.parent / "tutorials").glob("[0-9][0-9]_*.py")):
        number, question = script.read_text().splitlines()[1].removeprefix("# # ").split(". ", 1)
        lines.append(f"* [{int(number):02}](tutorials/{script.name}) {question}\n")
    return "".join(lines)


def updated(text):
    text = CATALOGUE.sub(lambda m: m[1] + table(m[2]) + m[3], text)
    return TUTORIALS.sub(lambda m: m[1] + tutorials() + m[2], text)


def test_example_runs_and_is_short(monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    fit = pv.fit
    monkeypatch.setattr(pv, "fit", lambda *args, **options: fit(*args, **{**options, "epochs": 1}))
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert "nats per" in capsys.readouterr().out
    assert scope["images"].shape == (16, 8, 8)


def test_catalogue_and_tutorials_are_complete():
    text = README.read_text()
    assert TUTORIALS.search(text)
    assert [m[2] for m in CATALOGUE.finditer(text)] == list(SHELVES)
    assert updated(text) == text, "run `python tests/test_readme.py`"


def test_ci_finds_the_commands():
    text = README.read_text()
    assert command_lines()
    for name, end in (("train", "pyro-vae train"), ("test", "pytest")):
        block = re.search(rf"<!-- command: {name} -->\n```\n(.*?)\n```", text, re.DOTALL)
        assert block, f"no command {name}"
        assert block[1].startswith("pip install -c constraints.txt")
        assert block[1].endswith(end)


def command_lines():
    """Return the lines of the command in the blocks of the README."""
    return [line for line in README.read_text().splitlines() if line.startswith("pyro-vae ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the files that the README names, and a run with classes."""
    folder, rng = tmp_path_factory.mktemp("readme"), np.random.default_rng(0)
    rows = [[f"{v:.2f}", "" if i % 9 == 0 else str(20 + i), "ab"[i % 2]] for i, v in enumerate(rng.normal(size=200))]
    table = write_csv(folder / "table.csv", ["size", "weight", "kind"], rows)
    write_csv(folder / "whole.csv", ["size", "age", "kind"], [[v, a or "20", k] for v, a, k in rows])
    sparse.save_npz(folder / "counts.npz", sparse.csr_matrix(rng.poisson(2.0, (60, 6)) + 1))
    train(folder / "RUN", f"--data={table}", "--program=SemiSupervised", "--label=kind", "--missing")
    return folder


#: Parts of lines that take more than a few seconds.
SLOW = re.compile("LikelihoodRegret|impute|Hierarchical|--estimator|pyro-vae export")


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=[pytest.mark.slow] * bool(SLOW.search(line))) for line in command_lines()]
)
def test_every_line_of_the_command_runs(line, folder, monkeypatch, tmp_path):
    """Each line is run, on small data and for one epoch."""
    monkeypatch.chdir(folder)
    binary = (torch.rand(100, 28, 28) > 0.5).float()
    small = Dataset("mnist_static", *(Split(binary[rows]) for rows in (slice(60), slice(60, 80), slice(80, 100))))
    monkeypatch.setitem(LOADERS, "mnist_static", lambda: small)
    _, command, *words = shlex.split(line)
    words = [str(tmp_path / word) if word in ("new.csv", "filled.csv") else word for word in words]
    if command == "train":
        monkeypatch.setattr(train_module, "figures", lambda *args: {})
        monkeypatch.setattr(train_module, "save", lambda *args: None)
        monkeypatch.setattr(pv.training.History, "plot", lambda self: None)
        words += ["--epochs=1", "--num-particles=3", "--quiet", f"--run-dir={tmp_path / 'run'}"]
        words = ["whole.csv" if word == "table.csv" and "--covariates" in words else word for word in words]
    assert main([command, *words]) == 0


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
