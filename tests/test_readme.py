"""The README's example runs, its catalogue lists every export, and CI finds its commands.

`python tests/test_readme.py` rewrites the catalogue and the list of tutorials.
"""

import inspect
import re
import typing
from pathlib import Path

import pyro_vae as pv

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
    for name, end in (("train", "pyro-vae train"), ("test", "pytest")):
        block = re.search(rf"<!-- command: {name} -->\n```\n(.*?)\n```", text, re.DOTALL)
        assert block, f"no command {name}"
        assert block[1].startswith("pip install -c constraints.txt")
        assert block[1].endswith(end)


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
