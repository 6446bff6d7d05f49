"""Every public docstring tells what its reader needs: summary, arguments, results, errors, source and an example."""

import ast
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import pyro_vae as pv

ROOT = Path(__file__).parents[1]
SHELVES = {
    "priors": pv.Conditional,
    "likelihoods": pv.Conditional,
    "posteriors": pv.Conditional,
    "estimators": pv.estimators.Estimator,
    "programs": pv.Program,
}
HEADINGS = ("Args", "Attributes", "Example", "Raises", "References", "Returns", "Shape", "Yields")


def public():
    """Every class and function in the ``__all__`` of an exported module, as (module, name, object)."""
    modules = [module for name in pv.__all__ if inspect.ismodule(module := getattr(pv, name))]
    for module in (pv, *modules):
        for name in module.__all__:
            value = getattr(module, name)
            if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith("pyro_vae"):
                yield module.__name__.rpartition(".")[2], name, value


PUBLIC = list(public())
every = pytest.mark.parametrize(("module", "name", "value"), PUBLIC, ids=[f"{m}.{n}" for m, n, _ in PUBLIC])


def sections(value):
    """The docstring's own sections, by heading; the words before them under ""."""
    # what a class inherits says nothing of the class
    text = inspect.cleandoc((value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__) or "")
    parts = re.split(rf"^({'|'.join(HEADINGS)}):\n", text, flags=re.MULTILINE)
    return {
        "": parts[0],
        **{heading: textwrap.dedent(body) for heading, body in zip(parts[1::2], parts[2::2], strict=True)},
    }


def described(body):
    """The names that a section describes, each at the start of a line: ``name: ...`` or ``one, other: ...``."""
    heads = re.findall(r"^([*\w]+(?:, [*\w]+)*):", body, re.MULTILINE)
    return {name.lstrip("*") for head in heads for name in head.split(", ")}


def arguments(value):
    """The names of the arguments of a function or of the constructor that a class has of its own."""
    if inspect.isclass(value) and not {"__init__", "__new__"} & set(vars(value)):
        return set()
    # the last is told by torch, for every distribution
    return {name for name in inspect.signature(value).parameters if not name.startswith("_")} - {"validate_args"}


def raised(value):
    """The errors that a function or constructor raises by itself or through the functions of its file."""
    value = inspect.unwrap(value)
    tree = ast.parse(Path(inspect.getsourcefile(value)).read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if inspect.isclass(value):
        body = classes[value.__name__].body
        first = [node for node in body if getattr(node, "name", "") in {"__init__", "__post_init__", "__new__"}]
    else:
        first = [functions[value.__name__]]
    found, seen = set(), set()
    while first:
        node = first.pop()
        seen.add(node.name)
        for part in ast.walk(node):
            if isinstance(part, ast.Raise) and isinstance(part.exc, ast.Call):
                found.add(ast.unparse(part.exc.func))
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Name):
                called = functions.get(part.func.id)
                first += [called] if called and called.name not in seen else []
    return found


@every
def test_summary(module, name, value):
    """The first paragraph is one sentence on one line."""
    summary = sections(value)[""].split("\n\n")[0]
    assert summary.endswith(".")
    assert "\n" not in summary


@every
def test_arguments_and_results(module, name, value):
    """Each argument is described, and so is what a function returns."""
    told = sections(value)
    names = described(told.get("Args", "")) | described(told.get("Attributes", ""))
    if inspect.isfunction(value) or not issubclass(value, BaseException):
        assert arguments(value) <= names, f"Args lacks {sorted(arguments(value) - names)}"
    if inspect.isfunction(value) and value.__annotations__.get("return") not in {"None", None}:
        assert {"Returns", "Yields"} & set(told)


@every
def test_errors(module, name, value):
    """What is raised is told."""
    if inspect.isclass(value) and issubclass(value, BaseException):
        return
    missing = raised(value) - described(sections(value).get("Raises", ""))
    assert not missing, f"Raises lacks {sorted(missing)}"


@every
def test_example(module, name, value):
    """There is an example, which `pytest --doctest-modules` runs; errors and results stand where they come from."""
    told = sections(value)
    error = inspect.isclass(value) and issubclass(value, BaseException)
    result = inspect.isclass(value) and "Attributes" in told and "Args" not in told
    assert error or result or ">>> " in told.get("Example", "")


@every
def test_reference(module, name, value):
    """A prior, likelihood, posterior, estimator or program names its source: title, authors, year, address."""
    base = SHELVES.get(module)
    if base is None or value is base or not (inspect.isclass(value) and issubclass(value, base)):
        return
    references = " ".join(sections(value).get("References", "").split())
    assert re.search(r"\S \([^()]+, \d{4}\),.* https?://", references)


def build_script():
    """The script that builds the site, as a module."""
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "tutorials" / "site" / "build.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_site_shows_every_public_name(tmp_path, monkeypatch):
    """Each exported name stands in full on one page, each tutorial and page in the folder that Sphinx reads."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    build_script().gather(tmp_path / "source")
    pages = {path.stem: path.read_text() for path in (tmp_path / "source" / "api").glob("*.rst")}
    for module, name, _ in PUBLIC:
        assert re.search(rf"^   ~(\w+\.)?{name}$", pages[module], re.MULTILINE), f"{module} does not list {name}"
        full = [page for page in pages.values() if re.search(rf"^\.\. auto\w+:: {name}$", page, re.MULTILINE)]
        assert full, f"{module}.{name} stands on no page"
    index = (tmp_path / "source" / "index.md").read_text()
    assert all(f"api/{page}\n" in index for page in pages)
    scripts = {path.name for path in (ROOT / "tutorials").glob("[0-9][0-9]_*.py")}
    assert scripts == {path.name for path in (tmp_path / "source").glob("*.py")}


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path):
    """One command builds the whole site, tutorials executed, and leaves the repository's figures alone."""
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_nb")
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "figures").iterdir()}
    environment = {**os.environ, "PYRO_VAE_TUTORIAL": "smoke"}
    command = [sys.executable, ROOT / "tutorials" / "site" / "build.py", "--out", tmp_path, "-q"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in (ROOT / "figures").iterdir()}
    page = (tmp_path / "html" / "01_from_autoencoder_to_vae.html").read_text()
    assert "output_area" in page or "cell_output" in page
    assert (tmp_path / "html" / "api" / "priors.html").read_text().count('class="sig ') >= len(pv.priors.__all__)
