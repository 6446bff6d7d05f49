"""Every tutorial runs with few steps and little data, has the common form, and its figures are in the repository."""

import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "tutorials").glob("[0-9][0-9]_*.py"))
MNIST = Path(os.environ.get("PYRO_VAE_DATA", "")) / "mnist" / "train-images-idx3-ubyte.gz"
every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def figures_of(script):
    """The figures that a script writes, by the calls of ``figure(drawn, "NN_name")`` in its text."""
    return set(re.findall(r'^figure\(.*?"(\w+)"\)$', script.read_text(), re.MULTILINE | re.DOTALL))


def limit_memory():
    """Limit the address space to 8 GB, the memory of a reader's laptop."""
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, resource.RLIM_INFINITY))


def run(*command, figures, mode="smoke"):
    # the package of this repository, installed or not
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    extra = {"PYRO_VAE_FIGURES": str(figures), "PYRO_VAE_TUTORIAL": mode, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=limit_memory,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
@every_script
def test_runs_and_writes_the_figures_it_names(script, tmp_path):
    assert run(script, figures=tmp_path).strip(), "expected printed results"
    assert {path.stem for path in tmp_path.iterdir()} == figures_of(script)


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.exists(), reason="PYRO_VAE_DATA contains no folder mnist/")
@pytest.mark.parametrize("script", [s for s in SCRIPTS if "pick(" in s.read_text()], ids=lambda path: path.stem)
def test_full_settings_run(script, tmp_path):
    """The data, networks and settings of ``--full``, with a few hundred rows and few steps."""
    run(script, figures=tmp_path, mode="walk")
    # run folders of long trainings lie in the same folder
    assert {path.stem for path in tmp_path.glob("*.png")} == figures_of(script)


@every_script
def test_form(script):
    """The title is a question, the head has the cost of ``--full``; an exercise and references are last."""
    lines = script.read_text().splitlines()
    assert lines[0] == "# %% [markdown]"
    assert re.fullmatch(rf"# # {int(script.name[:2])}\. .*\?", lines[1]), "expected a question as title"
    assert "# %%" in lines, "expected a code cell"
    head = " ".join(line.lstrip("# ") for line in lines[: lines.index("# %%")])
    cost = re.search(r"With `--full`: .* about (an hour|\d+ (minutes|hours|days)) on one CPU core", head)
    assert cost, "expected the cost of --full in the head"
    if cost[2] == "days" or (cost[2] == "hours" and int(cost[1].split()[0]) > 2):
        assert re.search(r"`--share 0\.\d+`", head), "expected a --share that takes at most two hours"
    headings = [line.removeprefix("# ## ") for line in lines if line.startswith("# ## ")]
    assert headings[-2:] == ["Exercise", "References"]
    references = "\n".join(lines[lines.index("# ## References") :])
    assert re.search(r"\(.*, \d{4}\),\s+(# +)?https://", references)
    assert len(lines) <= 330


@every_script
def test_figures_of_the_repository(script):
    """The committed figures are those that the script names, and small."""
    committed = {path.stem: path.stat().st_size for path in (ROOT / "figures").glob(f"{script.name[:2]}_*.png")}
    assert set(committed) == figures_of(script)
    assert committed, "expected a figure"
    assert max(committed.values()) <= 150_000


@pytest.fixture
def load_budget(monkeypatch, capsys):
    """Import ``tutorials/budget.py`` as under a command line and environment; return its module or the error text."""

    def load(words, **environment):
        for name in [name for name in os.environ if name.startswith("PYRO_VAE")]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["tutorial.py", *words.split()])
        monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
        spec = importlib.util.spec_from_file_location("budget", ROOT / "tutorials" / "budget.py")
        budget = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(budget)
        except SystemExit:
            return capsys.readouterr().err
        except ValueError as error:
            return str(error)
        return budget

    return load


@pytest.mark.parametrize(
    ("words", "mode", "expected"),
    [
        ("", None, (2, 2)),
        ("--smoke", None, (1, 1)),
        ("--full", "smoke", (3, 3)),
        ("", "smoke", (1, 1)),
        ("--walk", None, (3, 1)),
        ("", "fast", "expected one of smoke, default, full, walk, got 'fast'"),
        ("--ful1", None, "unrecognized arguments: --ful1"),
    ],
)
def test_modes(load_budget, words, mode, expected):
    """The command line overrides the environment, and an unknown mode is an error."""
    budget = load_budget(words, **({} if mode is None else {"PYRO_VAE_TUTORIAL": mode}))
    if isinstance(expected, str):
        assert expected in budget
    else:
        values = {"smoke": 1, "default": 2, "full": 3}
        assert (budget.pick(**values), budget.amount(**values)) == expected


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ("--full", {}, (3, 100)),
        ("--full --share 0.07", {}, (3, 7)),  # not 8: 0.07 * 100 is above 7 in floating point
        ("--full --share 0.071", {}, (3, 8)),
        ("--full --share 1e-6", {}, (3, 1)),
        ("--share 0.5", {"PYRO_VAE_TUTORIAL": "full"}, (3, 50)),
        ("", {"PYRO_VAE_TUTORIAL": "full", "PYRO_VAE_SHARE": "0.02"}, (3, 2)),
        ("--full --share 1", {"PYRO_VAE_SHARE": "0.02"}, (3, 100)),
        ("--smoke", {"PYRO_VAE_SHARE": "0.02"}, (1, 4)),
        ("--walk", {"PYRO_VAE_SHARE": "0.02"}, (1, 4)),
        ("", {"PYRO_VAE_SHARE": "0.02"}, (2, 5)),
        ("--smoke --share 0.5", {}, "--share: "),
        ("--share 0.5", {}, "--share: "),
        ("--full --share 0", {}, "--share: expected a number above 0 and at most 1, such as 0.03, got '0'"),
        ("--full --share 1.1", {}, "--share: expected a number above 0 and at most 1, such as 0.03, got '1.1'"),
        ("--full --share nan", {}, "--share: expected a number above 0 and at most 1, such as 0.03, got 'nan'"),
        ("--full", {"PYRO_VAE_SHARE": "3%"}, "PYRO_VAE_SHARE: expected a number above 0 and at most 1"),
    ],
)
def test_share_of_the_epochs(load_budget, words, environment, expected):
    """The share applies to the epochs of ``--full`` alone, exact and rounded up; an invalid one is an error."""
    budget = load_budget(words, **environment)
    if isinstance(expected, str):
        assert expected in budget
    else:
        found = budget.amount(smoke=1, default=2, full=3), budget.epochs(smoke=4, default=5, full=100)
        assert found == expected


def test_only_full_is_resumable(load_budget, tmp_path):
    """A run folder for each share, next to the figures; the same command resumes it."""
    for words in ("", "--smoke"):
        assert load_budget(words, PYRO_VAE_FIGURES=str(tmp_path)).kept("05_a") == {}
    for words, name in (("--full", "05_a 1"), ("--full --share 0.005", "05_a 0.005")):
        options = load_budget(words, PYRO_VAE_FIGURES=str(tmp_path)).kept("05_a")
        assert options == {"run_dir": tmp_path / "runs" / name, "resume": True}


@pytest.mark.slow
def test_notebook_has_outputs(tmp_path):
    """One command makes a notebook with text, printed numbers and figures."""
    run(ROOT / "tutorials" / "notebooks.py", SCRIPTS[0].name[:2], "--out", tmp_path, figures=tmp_path / "figures")
    cells = json.loads((tmp_path / f"{SCRIPTS[0].stem}.ipynb").read_text())["cells"]
    assert {cell["cell_type"] for cell in cells} == {"markdown", "code"}
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", ())]
    assert len(pictures) == len(figures_of(SCRIPTS[0]))
    assert any(output.get("name") == "stdout" for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert not any("widget" in kind for output in outputs for kind in output.get("data", ())), "a progress bar"
