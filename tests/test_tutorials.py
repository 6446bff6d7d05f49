"""Every tutorial runs (with steps and data shortened), keeps its form, and has its figures in the repository."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "tutorials").glob("[0-9][0-9]_*.py"))
every = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def named(script):
    """The figures that a script writes, by the calls of ``figure(drawn, "NN_name")`` in its text."""
    return set(re.findall(r'^figure\(.*?"(\w+)"\)$', script.read_text(), re.MULTILINE | re.DOTALL))


def run(*command, figures):
    # the package of this folder, installed or not
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    extra = {"PYRO_VAE_FIGURES": str(figures), "PYRO_VAE_TUTORIAL": "smoke", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *map(str, command)], env={**os.environ, **extra}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
@every
def test_runs_and_writes_the_figures_it_names(script, tmp_path):
    assert run(script, figures=tmp_path).strip(), "a tutorial prints what it finds"
    assert {path.stem for path in tmp_path.iterdir()} == named(script)


@every
def test_form(script):
    """A question first, cells of text and code, an exercise, references, short enough to be read."""
    lines = script.read_text().splitlines()
    assert lines[0] == "# %% [markdown]"
    assert re.fullmatch(rf"# # {int(script.name[:2])}\. .*\?", lines[1]), "the title is the question"
    assert "# %%" in lines, "no cell of code"
    headings = [line.removeprefix("# ## ") for line in lines if line.startswith("# ## ")]
    assert headings[-2:] == ["Exercise", "References"]
    references = "\n".join(lines[lines.index("# ## References") :])
    assert re.search(r"\(.*, \d{4}\),\s+(# +)?https://", references)
    assert len(lines) <= 330


@every
def test_figures_of_the_repository(script):
    """The committed figures are those that the script names, and small."""
    committed = {path.stem: path.stat().st_size for path in (ROOT / "figures").glob(f"{script.name[:2]}_*.png")}
    assert set(committed) == named(script)
    assert committed, "a tutorial without a figure"
    assert max(committed.values()) <= 150_000


def test_modes_are_told_apart(tmp_path):
    """The command line goes before the environment, and what is neither is refused."""
    script = tmp_path / "asks.py"
    script.write_text("from budget import MODE, pick\nprint(MODE, pick(smoke=1, default=2, full=3))")
    for words, mode, said in (
        ([], None, "default 2"),
        (["--smoke"], None, "smoke 1"),
        (["--full"], "smoke", "full 3"),
        ([], "smoke", "smoke 1"),
        ([], "fast", "expected one of smoke, default, full, got 'fast'"),
        (["--ful1"], None, "unrecognized arguments: --ful1"),
    ):
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYRO_VAE")}
        env |= {"PYTHONPATH": str(ROOT / "tutorials")} | ({} if mode is None else {"PYRO_VAE_TUTORIAL": mode})
        done = subprocess.run([sys.executable, script, *words], env=env, capture_output=True, text=True)
        assert said in done.stdout + done.stderr


@pytest.mark.slow
def test_notebook_holds_outputs(tmp_path):
    """One command makes a notebook with text, printed numbers and pictures."""
    run(ROOT / "tutorials" / "notebooks.py", SCRIPTS[0].name[:2], "--out", tmp_path, figures=tmp_path / "figures")
    cells = json.loads((tmp_path / f"{SCRIPTS[0].stem}.ipynb").read_text())["cells"]
    assert {cell["cell_type"] for cell in cells} == {"markdown", "code"}
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", ())]
    assert len(pictures) == len(named(SCRIPTS[0]))
    assert any(output.get("name") == "stdout" for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert not any("widget" in kind for output in outputs for kind in output.get("data", ())), "a progress bar"
