"""Imports point downwards without circles, files stay short, and nothing in the package runs code from a file."""

import ast
import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pyro_vae"

#: The folders and modules from bottom to top: each may import those of earlier lines. Those of one line do not import
#: each other.
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
FILES = sorted(PACKAGE.rglob("*.py"))
#: Most lines of a file.
LONGEST = 250
CODE_FROM_FILES = (
    r"\bpickle\.",
    r"import (pickle|marshal|shelve|dill|cloudpickle|joblib)",
    "weights_only=False",
    r"torch\.load\(",
    r"(?<![.\w])eval\(",
    r"(?<![.\w])exec\(",
)


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


@functools.cache
def imported(path):
    """Return (line, module) of the modules of this package that a file names in an import, typing-only or not."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "pyro_vae":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.append((node.lineno, name if name in MODULES else node.module))
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.append((node.lineno, "a relative import"))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, a.name) for a in node.names if a.name.split(".")[0] == "pyro_vae"]
    return found


def test_names_of_packages_are_not_hidden_by_their_modules():
    """A module with the name of a function replaces it in its package as soon as it is imported."""
    hidden = []
    for path in PACKAGE.rglob("__init__.py"):
        package = importlib.import_module(module_of(path))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in MODULES:
                source = importlib.import_module(node.module)
                names = [(a.asname or a.name, a.name) for a in node.names]
                hidden += [
                    f"{package.__name__}.{name}"
                    for name, original in names
                    if getattr(package, name) is not getattr(source, original)
                ]
    assert not hidden


def unit_of(module):
    """Return the folder or module directly below the package."""
    return (module.split(".") + ["__init__"])[1]


def test_imports_point_downwards():
    wrong = []
    for path in FILES:
        unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for line, module in imported(path):
            if module not in MODULES:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {module}: expected a module of the package")
            elif unit_of(module) != unit and RANK[unit_of(module)] >= RANK[unit]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {unit} imports {module}")
    assert not wrong, "\n".join(wrong)


def circle_through(graph, start):
    """Return a shortest path from a node back to itself, None if there is none."""
    paths, seen = [[start]], set()
    while paths:
        path = paths.pop(0)
        if start in graph[path[-1]]:
            return path
        for other in sorted(graph[path[-1]] - seen):
            seen.add(other)
            paths.append([*path, other])
    return None


def circles(graph):
    """Return circles, shortest first, such that the graph has none once the last edge of each is removed."""
    graph, found = {node: set(others) for node, others in graph.items()}, []
    while remaining := [circle for node in graph if (circle := circle_through(graph, node))]:
        found.append(min(remaining, key=len))
        graph[found[-1][-1]].remove(found[-1][0])
    return found


def test_no_import_circles():
    """Imports under `if TYPE_CHECKING` and inside functions count as well."""
    graph = {module: {name for _, name in imported(path) if name in MODULES} for module, path in MODULES.items()}
    found = [" -> ".join([*circle, circle[0]]) for circle in circles(graph)]
    assert not found, "\n".join(found)


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) == [["d"], ["b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_file_is_long():
    lines = {path: path.read_text().count("\n") for path in FILES}
    found = [f"{path.relative_to(ROOT)}: {n} lines" for path, n in lines.items() if n > LONGEST]
    assert not found, f"expected at most {LONGEST} lines per file\n" + "\n".join(found)


def test_nothing_runs_code_from_a_file():
    found = []
    for path in FILES:
        text = path.read_text()
        found += [f"{path.relative_to(ROOT)}: {p}" for p in CODE_FROM_FILES if re.search(p, text)]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load":
                safe = ("allow_pickle", "False") in [(k.arg, ast.unparse(k.value)) for k in node.keywords]
                found += [] if safe else [f"{path.relative_to(ROOT)}:{node.lineno}: np.load with pickles"]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("text", ["pickle.load(f)", "import joblib", "torch.load(path)", "eval(text)"])
def test_code_from_files_is_found(text):
    assert any(re.search(pattern, text) for pattern in CODE_FROM_FILES)


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
    """A failed assertion in the fresh process raises CalledProcessError here."""
    subprocess.run([sys.executable, "-c", IMPORT], check=True)


def test_a_command_that_plots_nothing_does_not_import_matplotlib():
    code = "import sys; from pyro_vae.cli import main; main(['score', '-h']); assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
