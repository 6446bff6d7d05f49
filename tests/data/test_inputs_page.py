"""The page of the documentation with what can be read has a row for each reader.

`python tests/data/test_inputs_page.py` writes it; `test_read.py` reads each source.
"""

import inspect
from pathlib import Path

from pyro_vae.data import read
from pyro_vae.data.readers import READERS

PAGE = Path(__file__).parents[2] / "tutorials" / "site" / "inputs.md"
HEAD = """# Inputs

`pyro_vae.data.read` reads the sources below. `fit`, the tasks and the evaluators take each of them directly as well,
and so do the command (`--data`, `INPUT`) and the estimators of `pyro_vae.sklearn` for paths.
`print(pyro_vae.data.read(source))` shows what was read and chosen: number and shape of the examples, axes of images,
types of columns, units and missing values, and the rows and columns that were left out. Everything else is refused by
an error that says what to do.
`python tests/data/test_inputs_page.py` writes this page.

An array in memory that is passed to `fit` or a task keeps its axes, and a table there needs the columns of the program
(those of its `Heterogeneous` likelihood) or numbers alone. What a program gets must not depend on the other rows that
are passed with an example.

| source | what is read | extra | options |
|---|---|---|---|
"""


def text():
    """Return the page."""
    rows = [(r.source, r.becomes, r.extra, ", ".join(f"`{o}`" for o in r.options)) for r in READERS]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def test_page_lists_every_reader():
    assert text() == PAGE.read_text(), "run `python tests/data/test_inputs_page.py`"


def test_page_is_linked():
    assert "\ninputs\n" in (PAGE.parent / "index.md").read_text()


def test_options_are_arguments():
    """Each option of a reader is an argument of `read`, and each argument is one of some reader."""
    own = set(inspect.signature(read).parameters) - {"source", "name", "classes"}
    assert {option for reader in READERS for option in reader.options} == own


if __name__ == "__main__":
    PAGE.write_text(text())
