"""Imports point one way, and nothing in the package runs code from a file."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pyro_vae"

#: The rooms from bottom to top: each may import those before it. Rooms of one line do not import each other.
LAYERS = (
    ("_util",),
    ("nets", "distributions"),
    ("scales", "conditional"),
    ("data",),
    ("priors", "likelihoods", "posteriors"),
    ("programs",),
    ("trace",),
    ("estimators",),
    ("plots",),
    ("training",),
    ("evaluation",),
    ("tasks",),
    ("testing", "config", "sklearn"),
    ("pages",),
    ("cli",),
    ("__init__", "__main__"),
)
RANK = {unit: rank for rank, layer in enumerate(LAYERS) for unit in layer}
FILES = sorted(p for p in PACKAGE.rglob("*.py"))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pyro_vae":
            rest = node.module.split(".")[1:]
            yield from [rest] if rest else [[alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1:] for a in node.names if a.name.startswith("pyro_vae."))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    wrong = [".".join(name) for name in imported(path) if name[0] != unit and RANK[name[0]] >= RANK[unit]]
    assert not wrong, f"{path.relative_to(PACKAGE)} imports {wrong}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_runs_code_from_a_file(path):
    text = path.read_text()
    for pattern in (
        r"\bpickle\.",
        r"import (pickle|marshal|shelve|dill|cloudpickle|joblib)",
        "weights_only=False",
        r"torch\.load\(",
        r"(?<![.\w])eval\(",
        r"(?<![.\w])exec\(",
    ):
        assert not re.search(pattern, text), f"{path.name} contains {pattern}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load":
            assert ("allow_pickle", "False") in [(k.arg, ast.unparse(k.value)) for k in node.keywords]


IMPORT = """
import random, warnings, numpy, torch, pyro
def state():
    return (torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist(),
            torch.get_default_dtype(), torch.get_num_threads(), list(warnings.filters),
            sorted((k, pyro.settings.get(k)) for k in pyro.settings.get()), sorted(pyro.get_param_store().keys()),
            torch.distributions.Distribution._validate_args)
before = state()
import pyro_vae
assert state() == before
import sys
assert "matplotlib" not in sys.modules
assert "plots" in dir(pyro_vae) and pyro_vae.plots.training_curve
assert "matplotlib.pyplot" not in sys.modules
"""


def test_import_changes_nothing_global():
    """In a fresh process, whose own assertions end it with a status that raises CalledProcessError here."""
    subprocess.run([sys.executable, "-c", IMPORT], check=True)
