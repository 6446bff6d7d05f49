"""Every public docstring has a summary, arguments, results, errors, a reference and an example; the site shows all."""

import ast
import functools
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


def sections(value):
    """The sections of the docstring by heading; the text before the first heading under ""."""
    # an inherited docstring does not describe the class
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
    """The arguments of a function, or of the constructor that a class defines itself."""
    if inspect.isclass(value) and not {"__init__", "__new__"} & set(vars(value)):
        return set()
    # torch documents validate_args
    return {name for name in inspect.signature(value).parameters if not name.startswith("_")} - {"validate_args"}


@functools.cache
def definitions(path):
    """The functions and classes of a file, by name."""
    body = ast.parse(Path(path).read_text()).body
    return [{n.name: n for n in body if isinstance(n, kind)} for kind in (ast.FunctionDef, ast.ClassDef)]


def raised(value):
    """The errors that a function or constructor raises itself or in functions of its file."""
    value = inspect.unwrap(value)
    functions, classes = definitions(inspect.getsourcefile(value))
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


def faults(module, value):
    """Yield what a docstring lacks."""
    own = sections(value)
    is_class = inspect.isclass(value)
    is_error = is_class and issubclass(value, BaseException)
    is_result = is_class and "Attributes" in own and "Args" not in own

    summary = own[""].split("\n\n")[0]
    if not summary.endswith(".") or "\n" in summary:
        yield "expected one sentence on the first line"
    if not is_error:
        missing = arguments(value) - described(own.get("Args", "")) - described(own.get("Attributes", ""))
        if missing:
            yield f"Args: expected {sorted(missing)}"
        missing = raised(value) - described(own.get("Raises", ""))
        if missing:
            yield f"Raises: expected {sorted(missing)}"
    returns = None if is_class else value.__annotations__.get("return")
    if returns not in {"None", None} and not {"Returns", "Yields"} & set(own):
        yield "expected Returns or Yields"
    # pytest --doctest-modules runs the example
    if not (is_error or is_result or ">>> " in own.get("Example", "")):
        yield "expected an Example with >>>"
    base = SHELVES.get(module)
    if base is not None and is_class and issubclass(value, base) and value is not base:
        references = " ".join(own.get("References", "").split())
        if not re.search(r"\S \([^()]+, \d{4}\),.* https?://", references):
            yield "References: expected `Title (Authors, year), https://...`"


@pytest.mark.parametrize(("module", "name", "value"), PUBLIC, ids=[f"{m}.{n}" for m, n, _ in PUBLIC])
def test_docstring(module, name, value):
    found = list(faults(module, value))
    assert not found, f"{module}.{name}: " + "; ".join(found)


class Undocumented(pv.Conditional):
    """A prior
    that says little"""

    def __init__(self, latent):
        if latent < 1:
            raise ValueError(latent)


def test_faults_are_found():
    assert [fault.split(":")[0] for fault in faults("priors", Undocumented)] == [
        "expected one sentence on the first line",
        "Args",
        "Raises",
        "expected an Example with >>>",
        "References",
    ]


def build_script():
    """The script that builds the site, as a module."""
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "tutorials" / "site" / "build.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_site_shows_every_public_name(tmp_path, monkeypatch):
    """One page documents each exported name in full; every tutorial is in the folder that Sphinx reads."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    build_script().gather(tmp_path / "source")
    pages = {path.stem: path.read_text() for path in (tmp_path / "source" / "api").glob("*.rst")}
    for module, name, _ in PUBLIC:
        assert re.search(rf"^   ~(\w+\.)?{name}$", pages[module], re.MULTILINE), f"{module} does not list {name}"
        full = [page for page in pages.values() if re.search(rf"^\.\. auto\w+:: {name}$", page, re.MULTILINE)]
        assert full, f"no page documents {module}.{name}"
    index = (tmp_path / "source" / "index.md").read_text()
    assert all(f"api/{page}\n" in index for page in pages)
    scripts = {path.name for path in (ROOT / "tutorials").glob("[0-9][0-9]_*.py")}
    assert scripts == {path.name for path in (tmp_path / "source").glob("*.py")}


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path):
    """One command builds the site, runs the tutorials, and leaves the figures of the repository unchanged."""
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
