"""Build the documentation site: ``python tutorials/site/build.py``.

Gathers this folder, the tutorials and a page for each module that ``pyro_vae`` exports into one folder, and calls
Sphinx, for which a warning is an error. The tutorials are executed, and executed again only when their code or the
package has changed. Needs the extra ``docs``. ``PYRO_VAE_TUTORIAL=smoke`` in the environment makes the site quickly;
options that are not known here are handed to Sphinx.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import inspect
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
TUTORIALS = HERE.parent
ROOT = TUTORIALS.parent
sys.path.insert(0, str(ROOT))

#: What opens the modules' pages in the sidebar; all other modules follow by name.
FIRST = ("programs", "priors", "likelihoods", "posteriors", "estimators", "training", "evaluation", "tasks")


def modules() -> list[ModuleType]:
    """Return the modules that the package exports, the shelves first."""
    import pyro_vae

    names = [name for name in pyro_vae.__all__ if inspect.ismodule(getattr(pyro_vae, name))]
    names.sort(key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    return [pyro_vae, *(importlib.import_module(f"pyro_vae.{name}") for name in names)]


def directive(module: ModuleType, name: str) -> str | None:
    """Return the autodoc directive for an exported name, None for a module, which has its own page."""
    value = getattr(module, name)
    if inspect.ismodule(value):
        return None
    if inspect.isclass(value):
        return "autoexception" if issubclass(value, BaseException) else "autoclass"
    return "autofunction" if callable(value) and hasattr(value, "__name__") else "autodata"


def home(module: ModuleType, name: str) -> str:
    """Return the module on whose page an exported name stands: the package itself only repeats names of others."""
    value = getattr(module, name)
    others = [other.__name__ for other in modules()[1:] if getattr(other, name, None) is value]
    return module.__name__ if module.__name__ in others or not others else others[0]


def page(module: ModuleType) -> Iterator[str]:
    """Write the page of a module: its first words, a table of its names, and each of them in full."""
    short = module.__name__.removeprefix("pyro_vae.")
    kinds = {name: directive(module, name) for name in sorted(module.__all__, key=str.lower)}
    kinds = {name: kind for name, kind in kinds.items() if kind}
    homes = {name: home(module, name) for name in kinds}
    yield from (short, "=" * len(short), "")
    yield from (f".. automodule:: {module.__name__}", "   :no-members:", "")
    yield from (f".. currentmodule:: {module.__name__}", "", ".. autosummary::", "   :nosignatures:", "")
    yield from (f"   ~{homes[name]}.{name}".replace(f"~{module.__name__}.", "~") for name in kinds)
    yield ""
    for name, kind in kinds.items():
        if homes[name] != module.__name__:
            continue
        yield from (name, "-" * len(name), "", f".. {kind}:: {name}")
        yield from (("   :members:", "   :show-inheritance:", "") if kind == "autoclass" else ("",))


def gather(source: Path) -> None:
    """Put all that Sphinx reads into the folder ``source``, made anew."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(HERE, source, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copytree(ROOT / "figures", source / "figures", ignore=shutil.ignore_patterns("full"))
    for script in TUTORIALS.glob("[0-9][0-9]_*.py"):
        shutil.copy(script, source)
    shutil.copy(ROOT / "README.md", source)
    (source / "api").mkdir()
    names = []
    for module in modules():
        names.append(module.__name__.rpartition(".")[2])
        (source / "api" / f"{names[-1]}.rst").write_text("\n".join(page(module)))
    # the order of the sidebar
    toctree = ["```{toctree}", ":caption: The library", ":hidden:", "", *(f"api/{name}" for name in names), "```", ""]
    with (source / "index.md").open("a") as index:
        index.write("\n" + "\n".join(toctree))


def state() -> str:
    """Return a name for all that the outputs of a tutorial depend on, beside its own text."""
    files = sorted([*(ROOT / "pyro_vae").rglob("*.py"), TUTORIALS / "budget.py"])
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return f"{os.environ.get('PYRO_VAE_TUTORIAL', 'default')}-{digest[:12]}"


def main() -> int:
    """Build the site and return Sphinx's exit status."""
    from sphinx.cmd.build import build_main

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="folder to write to (%(default)s)")
    asked, options = parser.parse_known_args()
    out = asked.out.resolve()
    gather(out / "source")
    # the figures of the repository come from the scripts; the kernel has to find the package and `budget`
    os.environ.setdefault("PYRO_VAE_FIGURES", str(out / "figures"))
    os.environ.setdefault("TQDM_DISABLE", "1")
    paths = [str(ROOT), str(TUTORIALS), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    cache = f"nb_execution_cache_path={out / 'cache' / state()}"
    places = ["-c", str(HERE), "-D", cache, "-d", str(out / "doctrees"), str(out / "source"), str(out / "html")]
    return build_main(["-W", "--keep-going", *options, *places])


if __name__ == "__main__":
    sys.exit(main())
