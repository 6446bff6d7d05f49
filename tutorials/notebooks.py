"""Make notebooks, with their outputs, from the tutorials: ``python tutorials/notebooks.py [NN ...]``.

Needs the extra ``docs``. ``PYRO_VAE_TUTORIAL=smoke`` in the environment makes them quickly.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

HERE = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(script: Path, out: Path) -> Path:
    """Run a script as a notebook and write it, with all outputs, into the folder ``out``."""
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    notebook = jupytext.read(script)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel})
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(HERE)}}).execute()
    for cell in notebook.cells:
        # a progress bar is of no use in a page that stands still
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", ())]
    path = out / f"{script.stem}.ipynb"
    nbformat.write(notebook, path)
    return path


def main() -> None:
    """Make the notebooks whose numbers are given, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", metavar="NN", help="tutorials by number; all by default")
    parser.add_argument("--out", type=Path, default=HERE / "notebooks", help="folder to write to (%(default)s)")
    asked = parser.parse_args()
    scripts = {path.name[:2]: path for path in sorted(HERE.glob("[0-9][0-9]_*.py"))}
    unknown = sorted(set(asked.numbers) - set(scripts))
    if unknown:
        parser.error(f"no tutorial {', '.join(unknown)}: there are {', '.join(scripts)}")
    asked.out.mkdir(parents=True, exist_ok=True)
    # the figures stand in the notebooks: those of the repository come from the scripts
    os.environ.setdefault("PYRO_VAE_FIGURES", str(asked.out.resolve() / "figures"))
    for number in asked.numbers or scripts:
        print(execute(scripts[number], asked.out))


if __name__ == "__main__":
    main()
