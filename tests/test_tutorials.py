"""Every tutorial runs (with steps and data shortened), keeps its form, and has its figures in the repository."""

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
every = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


def named(script):
    """The figures that a script writes, by the calls of ``figure(drawn, "NN_name")`` in its text."""
    return set(re.findall(r'^figure\(.*?"(\w+)"\)$', script.read_text(), re.MULTILINE | re.DOTALL))


def small_machine():
    """8 GB of addresses for the process: what takes more there takes too much from a reader."""
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, resource.RLIM_INFINITY))


def run(*command, figures, mode="smoke"):
    # the package of this folder, installed or not
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    extra = {"PYRO_VAE_FIGURES": str(figures), "PYRO_VAE_TUTORIAL": mode, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=small_machine,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
@every
def test_runs_and_writes_the_figures_it_names(script, tmp_path):
    assert run(script, figures=tmp_path).strip(), "a tutorial prints what it finds"
    assert {path.stem for path in tmp_path.iterdir()} == named(script)


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.exists(), reason="PYRO_VAE_DATA names no folder with mnist/")
@pytest.mark.parametrize("script", [s for s in SCRIPTS if "pick(" in s.read_text()], ids=lambda path: path.stem)
def test_way_of_full(script, tmp_path):
    """What ``--full`` takes (MNIST, its networks, its settings), with the first few hundred rows and few steps."""
    run(script, figures=tmp_path, mode="walk")
    # beside them the folders of long trainings
    assert {path.stem for path in tmp_path.glob("*.png")} == named(script)


@every
def test_form(script):
    """A question, what ``--full`` costs, cells of text and code, an exercise, references, short enough to be read."""
    lines = script.read_text().splitlines()
    assert lines[0] == "# %% [markdown]"
    assert re.fullmatch(rf"# # {int(script.name[:2])}\. .*\?", lines[1]), "the title is the question"
    assert "# %%" in lines, "no cell of code"
    head = " ".join(line.lstrip("# ") for line in lines[: lines.index("# %%")])
    cost = re.search(r"With `--full`: .* about (an hour|\d+ (minutes|hours|days)) on one CPU core", head)
    assert cost, "nobody is told what --full costs"
    if cost[2] == "days" or (cost[2] == "hours" and int(cost[1].split()[0]) > 2):
        assert re.search(r"`--share 0\.\d+`", head), "nobody is told which share ends within two hours"
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
    values = "smoke=1, default=2, full=3"
    script.write_text(f"from budget import amount, pick\nprint('what', pick({values}), 'how much', amount({values}))")
    for words, mode, said in (
        ([], None, "what 2 how much 2"),
        (["--smoke"], None, "what 1 how much 1"),
        (["--full"], "smoke", "what 3 how much 3"),
        ([], "smoke", "what 1 how much 1"),
        (["--walk"], None, "what 3 how much 1"),
        ([], "fast", "expected one of smoke, default, full, walk, got 'fast'"),
        (["--ful1"], None, "unrecognized arguments: --ful1"),
    ):
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYRO_VAE")}
        env |= {"PYTHONPATH": str(ROOT / "tutorials")} | ({} if mode is None else {"PYRO_VAE_TUTORIAL": mode})
        done = subprocess.run([sys.executable, script, *words], env=env, capture_output=True, text=True)
        assert said in done.stdout + done.stderr


SHARED = "from budget import *\nprint(amount(smoke=1, default=2, full=3), epochs(smoke=4, default=5, full=100))"


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ("--full", {}, "3 100"),
        ("--full --share 0.07", {}, "3 7\n"),  # not 8: 0.07 * 100 is above 7 in floating point
        ("--full --share 0.071", {}, "3 8"),
        ("--full --share 1e-6", {}, "3 1\n"),
        ("--share 0.5", {"PYRO_VAE_TUTORIAL": "full"}, "3 50"),
        ("", {"PYRO_VAE_TUTORIAL": "full", "PYRO_VAE_SHARE": "0.02"}, "3 2"),
        ("--full --share 1", {"PYRO_VAE_SHARE": "0.02"}, "3 100"),
        ("--smoke", {"PYRO_VAE_SHARE": "0.02"}, "1 4"),
        ("--walk", {"PYRO_VAE_SHARE": "0.02"}, "1 4"),
        ("", {"PYRO_VAE_SHARE": "0.02"}, "2 5"),
        ("--smoke --share 0.5", {}, "--share: only --full has a budget"),
        ("--share 0.5", {}, "--share: only --full has a budget"),
        ("--full --share 0", {}, "--share: expected a number above 0 and at most 1, such as 0.03, got '0'"),
        ("--full --share 1.1", {}, "--share: expected a number above 0 and at most 1, such as 0.03, got '1.1'"),
        ("--full --share nan", {}, "--share: expected a number above 0 and at most 1, such as 0.03, got 'nan'"),
        ("--full", {"PYRO_VAE_SHARE": "3%"}, "PYRO_VAE_SHARE: expected a number above 0 and at most 1"),
    ],
)
def test_share_of_the_epochs(words, environment, said):
    """The share is of the epochs of ``--full`` alone, exact and rounded up; what is none is refused by name."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYRO_VAE")}
    env |= {"PYTHONPATH": str(ROOT / "tutorials"), **environment}
    done = subprocess.run([sys.executable, "-c", SHARED, *words.split()], env=env, capture_output=True, text=True)
    assert said in done.stdout + done.stderr
    assert (done.returncode == 0) == (": " not in said)


def test_only_full_keeps_its_trainings(tmp_path):
    """A folder for each share, beside the figures, gone on with by the same command."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYRO_VAE")}
    env |= {"PYTHONPATH": str(ROOT / "tutorials"), "PYRO_VAE_FIGURES": str(tmp_path)}
    told = [
        subprocess.check_output([sys.executable, "-c", "from budget import *\nprint(kept('05_a'))", *words], env=env)
        for words in ([], ["--smoke"], ["--full"], ["--full", "--share", "0.005"])
    ]
    assert told[:2] == [b"{}\n", b"{}\n"]
    for line, name in zip(told[2:], ("05_a 1", "05_a 0.005"), strict=True):
        assert str(tmp_path / "runs" / name) in line.decode()
        assert "'resume': True" in line.decode()


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
