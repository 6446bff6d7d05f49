"""Data files: what is read is what was written."""

import numpy as np
import pytest

import pyro_vae as pv
from pyro_vae.data import files


@pytest.mark.parametrize("kind", files.ENDINGS)
def test_round_trip_through_files(kind, tmp_path):
    """A table of numbers, text and integers is read as it was written, in each kind of file."""
    table = {
        "file": np.array([1.5, 0.1, 2.0], np.float32),
        "word, with a comma": np.array(["a", 'b "c"', "d;e"]),
        "n": np.array([3, 4, 5]),
    }
    path = tmp_path / f"table{kind}"
    path.write_bytes(files.encode(kind, table))
    found = {name: files.typed(values) for name, values in files.read(path).items()}
    assert {name: values.tolist() for name, values in found.items()} == {
        **{name: values.tolist() for name, values in table.items()},
        **({"file": [1.5, 0.1, 2.0]} if kind == ".csv" else {}),
    }


def test_cells_keep_their_types():
    """A column with text labels keeps text that looks like numbers; integers with missing values stay integers."""
    cells = np.array(["1", None, "20"], object)
    assert files.typed(cells).tolist() == [1, None, 20]
    assert pv.data.tables.Categorical("a", ("1", "20", "x")).encode(cells)[[0, 2]].tolist() == [0, 1]
    assert files.typed(np.array(["1_000", "2"], object)).tolist() == ["1_000", "2"]
