"""Data files: what is read is what was written."""

import numpy as np
import pytest

import pyro_vae as pv
from pyro_vae.config import data
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


#: Bytes of a .csv with the columns a (1.5 and 2.5) and b (x and y).
WRITTEN = {
    "commas": b"a,b\n1.5,x\n2.5,y\n",
    "a byte order mark": b"\xef\xbb\xbfa,b\n1.5,x\n2.5,y\n",
    "lines of Windows": b"a,b\r\n1.5,x\r\n2.5,y\r\n",
    "lines of old Macs": b"a,b\r1.5,x\r2.5,y\r",
    "semicolons": b"a;b\n1.5;x\n2.5;y\n",
    "tabs": b"a\tb\n1.5\tx\n2.5\ty\n",
    "vertical bars": b"a|b\n1.5|x\n2.5|y\n",
    "UTF-16": "a,b\n1.5,x\n2.5,y\n".encode("utf-16"),
    "spaces": b" a , b \n 1.5 , x \n 2.5 , y \n",
    "empty lines": b"\n\na,b\n\n1.5,x\n\n2.5,y\n\n",
    "quotes": b'"a","b"\n"1.5","x"\n"2.5","y"\n',
}


@pytest.mark.parametrize("name", WRITTEN)
def test_tables_as_programs_write_them(name, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(WRITTEN[name])
    found = files.read(path)
    assert {key: cells.tolist() for key, cells in found.items()} == {"a": ["1.5", "2.5"], "b": ["x", "y"]}


def test_delimiters_in_quotes_are_text(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('"a,b,c";d\n"1;5";"x\ny"\n2;"""q"""\n')
    assert {key: cells.tolist() for key, cells in files.read(path).items()} == {
        "a,b,c": ["1;5", "2"],
        "d": ["x\ny", '"q"'],
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n\n", "names of the columns in the first line, got none"),
        (b",,a\n0,0,1.5\n1,1,2.5\n", "names of the columns in the first line, got '', '', 'a'"),
        (b"1.5,2\n2.5,3\n", "names of the columns in the first line, got '1.5', '2'"),
        (b"a,b\n", "expected rows below the names"),
        (b"a, a\n1,2\n", "different names, got several of the name a. Rename them"),
        (b"a,b\n1,2\n3\n", "expected 2 cells, one per column, got 1 in line 3"),
        (b'a,b\n1,"x\ny"\n3,4,5\n', "expected 2 cells, one per column, got 3 in line 4"),
        (b'a,b\n1,"x\n', "not a .csv file: line 2"),
        (b"a b\n1.5 2\n2.5 3\n", "got spaces in line 1: 'a b'"),
        ("a,b\n1,2\n".encode("utf-16-le"), "UTF-8 text, got other bytes"),
        ("a,b\n1,é\n".encode("latin1"), "UTF-8 text, got other bytes"),
    ],
)
def test_other_files_are_refused_by_line(content, said, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"x.csv.*{said}"):
        files.read(path)


def test_errors_name_the_line_of_a_file(tmp_path):
    """Also after empty lines and cells of several lines."""
    rows = "".join(f'{i},"w\nz"\n' for i in range(20, 50))
    (tmp_path / "x.csv").write_text(f"\na,b\n\n{rows}old,y\n")
    with pytest.raises(ValueError, match="column 'a': expected numbers, got 'old' in line 64"):
        data.load({"data": str(tmp_path / "x.csv")})
    assert files.place("x.npy", 3) == "row 3 (counted from 0)"


def test_a_point_in_a_file_with_decimal_commas_is_refused(tmp_path):
    """It may separate thousands: 1.234 would be read as 1.234."""
    path = tmp_path / "a.csv"
    path.write_text("price;people\n3,50;1.234\n4,20;12.500\n5,75;999\n")
    with pytest.raises(ValueError, match="column 'people': .*'1.234', which may be 1234.*'price'"):
        files.read(path)
    path.write_text("price;people\n3,50;1.234,5\n4,20;12.500,0\n5,75;999,0\n")
    assert pv.data.Table(files.read(path)).x[:, 1].tolist() == [1234.5, 12500.0, 999.0]
