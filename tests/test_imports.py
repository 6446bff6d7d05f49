"""Imports point one way, and nothing in the package runs code from a file."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pyro_vae"

#: What every unit may import, and what imports nothing itself: checks of arguments, tensors that are kept.
ANY = {"counts", "kept"}

#: What each unit may import of the rest of the package beside that.
MAY = {
    "counts": set(),
    "kept": set(),
    "nets": set(),
    "scales": set(),
    "missing_nets": {"nets"},
    "topic_nets": {"nets"},
    "distributions": set(),
    "rng": set(),
    "progress": set(),
    "devices": set(),
    "parameters": set(),
    "columns": {"nets", "distributions", "scales"},
    "data": {"columns"},
    "conditional": {"nets", "distributions"},
    "priors": {"conditional", "nets", "distributions", "scales"},
    "likelihoods": {"conditional", "nets", "distributions", "scales", "columns"},
    "posteriors": {"conditional", "nets", "distributions", "scales"},
    "programs": {"conditional", "distributions", "priors", "likelihoods", "posteriors", "rng", "parameters", "scales"},
    "estimators": {"rng", "parameters"},
    "training": {"programs", "estimators", "rng", "progress", "devices", "plots", "data"},
    "plots": set(),
    "evaluation": {"conditional", "programs", "estimators", "training", "rng", "progress", "plots"},
    "tasks": {
        *("conditional", "distributions", "columns", "data", "rng", "progress", "plots"),
        *("programs", "estimators", "training", "evaluation"),
    },
}
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
    if unit not in MAY:  # the top, which may see all
        return
    wrong = []
    for name in imported(path):
        sibling = len(name) > 1 and name[0] == unit
        shelf = unit in {"priors", "likelihoods", "posteriors"}
        if name[0] == unit and not (shelf and sibling and path.name != "__init__.py"):
            continue
        if name[0] not in MAY[unit] | ANY:
            wrong.append(".".join(name))
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
