"""README, gallery and the pages of the site: snippets and commands run, and lists are complete.

`python tests/test_readme.py` rewrites the catalogue of parts and the gallery of tutorials;
`python tests/test_readme.py example` runs the README's example and rewrites its output and its figure.
"""

import contextlib
import inspect
import io
import re
import shlex
import sys
import typing
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pytest
import torch
from helpers.small_tables import command as train_module
from helpers.small_tables import train, write_csv
from scipy import sparse

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.data import Dataset, Split
from pyro_vae.data.sources import LOADERS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PARTS = ROOT / "tutorials" / "site" / "parts.md"
COMMAND = ROOT / "tutorials" / "site" / "command.md"
GALLERY = ROOT / "tutorials" / "README.md"
PAGES = [README, GALLERY, *sorted(PARTS.parent.glob("*.md")), ROOT / ".github" / "CONTRIBUTING.md"]
PAGES += [ROOT / "tests" / "benchmarks" / "README.md"]
SHELVES = ("priors", "likelihoods", "posteriors", "programs", "estimators", "nets")
CATALOGUE = re.compile(r"(<!-- catalogue: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
EXAMPLE = re.compile(
    r"(<!-- example -->\n```python\n(.*?)```\n<!-- output -->\n```\n).*?(```\n<!-- end -->)", re.DOTALL
)


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


def catalogue():
    """Return the page of parts with a new table for each shelf."""
    return CATALOGUE.sub(lambda m: m[1] + table(m[2]) + m[3], PARTS.read_text())


def gallery():
    """Return the page of tutorials, each with its question and its first figure."""
    lines = ["# Tutorials", "", "<!-- This page is made by `python tests/test_readme.py`. -->", ""]
    lines += ["| tutorial | question | |", "|---|---|---|"]
    for script in sorted(GALLERY.parent.glob("[0-9][0-9]_*.py")):
        number, question = script.read_text().splitlines()[1].removeprefix("# # ").split(". ", 1)
        pictures = sorted((ROOT / "figures").glob(f"{script.name[:2]}_*.png"))
        picture = f'<img src="../figures/{pictures[0].name}" width="320" alt="{pictures[0].stem}">' if pictures else ""
        lines.append(f"| [{int(number):02}]({script.name}) | {question} | {picture} |")
    return "\n".join(lines) + "\n"


def run_example():
    """Run the README's example and return its variables."""
    scope = {}
    exec(compile(EXAMPLE.search(README.read_text())[2], "README.md", "exec"), scope)
    return scope


def test_snippets_run(monkeypatch, capsys):
    """The example is short; here it trains for one epoch, and then Pyro's own classes take its model."""
    code = EXAMPLE.search(README.read_text())[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    fit, bounds = pv.fit, pv.evaluation.marginal_bounds
    monkeypatch.setattr(pv, "fit", lambda *args, **options: fit(*args, **{**options, "epochs": 1}))
    few = {"num_steps": 5, "num_leapfrog_steps": 1}
    monkeypatch.setattr(pv.evaluation, "marginal_bounds", lambda *args, **options: bounds(*args, **options, **few))
    scope = run_example()
    assert "nats per" in capsys.readouterr().out
    assert scope["images"].shape == (16, 28, 28)
    with pyro.get_param_store().scope():
        exec(re.search(r"<!-- pyro -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)[1], scope)
        assert not [*pyro.get_param_store().keys()]
    assert scope["draws"]["x"].shape == (10, 64, 28, 28)


def test_readme_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 160
    assert len(text.split()) <= 1600


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    """Links and pictures; those of the site may lead to what its build copies to its folder."""
    text = page.read_text()
    found = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|src=\"([^\":]+)\"", text)
    places = (page.parent, ROOT) if page.parent == PARTS.parent else (page.parent,)
    broken = [a or b for a, b in found if not any((place / (a or b)).exists() for place in places)]
    assert not broken


def test_catalogue_and_gallery_are_complete():
    assert [m[2] for m in CATALOGUE.finditer(PARTS.read_text())] == list(SHELVES)
    assert catalogue() == PARTS.read_text(), "run `python tests/test_readme.py`"
    assert gallery() == GALLERY.read_text(), "run `python tests/test_readme.py`"


def test_ci_finds_the_commands():
    text = README.read_text()
    assert command_lines()
    for name, end in (("train", "pyro-vae train"), ("test", "pytest")):
        block = re.search(rf"<!-- command: {name} -->\n```\n(.*?)\n```", text, re.DOTALL)
        assert block, f"no command {name}"
        assert block[1].startswith("pip install -c constraints.txt")
        assert block[1].endswith(end)


def command_lines():
    """Return the lines of the command in the blocks of the README and of its page."""
    text = README.read_text() + COMMAND.read_text()
    return [*dict.fromkeys(line for line in text.splitlines() if line.startswith("pyro-vae "))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the files that the README names, and a run with classes."""
    folder, rng = tmp_path_factory.mktemp("readme"), np.random.default_rng(0)
    rows = [[f"{v:.2f}", "" if i % 9 == 0 else str(20 + i), "ab"[i % 2]] for i, v in enumerate(rng.normal(size=200))]
    table = write_csv(folder / "table.csv", ["size", "weight", "kind"], rows)
    write_csv(folder / "whole.csv", ["size", "age", "kind"], [[v, a or "20", k] for v, a, k in rows])
    sparse.save_npz(folder / "counts.npz", sparse.csr_matrix(rng.poisson(2.0, (60, 6)) + 1))
    train(folder / "RUN", f"--data={table}", "--program=SemiSupervised", "--label=kind", "--missing")
    train(folder / "IMAGES")
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
    if command == "explore":
        words = ["IMAGES" if word == "RUN" else word for word in words]
    if command == "compare":
        words += ["--data=digits", "--epochs=0", "--num-samples=8", "--quiet", f"--run-dir={tmp_path / 'run'}"]
    if command == "train":
        monkeypatch.setattr(train_module, "figures", lambda *args: {})
        monkeypatch.setattr(train_module, "save", lambda *args: None)
        monkeypatch.setattr(pv.training.History, "plot", lambda self: None)
        words += ["--epochs=1", "--num-particles=3", "--quiet", f"--run-dir={tmp_path / 'run'}"]
        words = ["whole.csv" if word == "table.csv" and "--covariates" in words else word for word in words]
    assert main([command, *words]) == 0


def write_example():
    """Run the README's example, and write what it prints and its samples."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        images = run_example()["images"]
    README.write_text(EXAMPLE.sub(lambda m: m[1] + printed.getvalue().strip() + "\n" + m[3], README.read_text()))
    strip = torch.cat([*images], dim=1)
    plt.imsave(
        ROOT / "figures" / "samples.png", 1 - strip.repeat_interleave(2, 0).repeat_interleave(2, 1), cmap="gray"
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["example"]:
        write_example()
    PARTS.write_text(catalogue())
    GALLERY.write_text(gallery())
