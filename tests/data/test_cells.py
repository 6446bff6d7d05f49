"""Cells of text: missing values, numbers and dates as people write them, and all other text."""

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.data import files
from pyro_vae.data.tables import Dates, Numbers, Written

NAN = float("nan")
#: The markers of pandas.read_csv, and two more.
MARKERS = ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"]
MARKERS += ["NA", "NULL", "NaN", "None", "n/a", "nan", "null", "-", "?", " NA "]


def read(cells, **options):
    """Return the column of these cells, and its numbers."""
    table = pv.data.Table({"a": np.array(cells, object)}, **options)
    return table.columns[0], table.x[:, 0].tolist(), table


@pytest.mark.parametrize("marker", MARKERS)
def test_markers_are_missing_values(marker):
    """In columns of numbers, of labels and of dates; and in files."""
    for cells in (["1.5", marker, "2.5"], ["red", marker, "blue"], ["2024-01-01", marker, "2024-01-03"]):
        _, x, table = read(cells)
        assert [v != v for v in x] == [False, True, False]
        assert table.decode(table.x)["a"].tolist() == [cells[0], None, cells[2]]


def test_none_in_lower_case_is_a_label():
    column, x, _ = read(["none", "some", "none"])
    assert column.values == ("none", "some")
    assert x == [0, 1, 0]


#: Cells, the numbers in them, and how they are written.
NUMBERS = {
    "plain": (["1", "2.5", "-3e2"], [1, 2.5, -300], Numbers(places=1)),
    "thousands": (["1,234", "12", "1,000,000"], [1234, 12, 1e6], Written(thousands=",")),
    "thousands and decimals": (["1,234.5", "-0.25"], [1234.5, -0.25], Written(thousands=",", places=2)),
    "decimal commas": (["1,5", "-2,25", "3"], [1.5, -2.25, 3], Written(decimal=",", places=2)),
    "decimal commas below one": (["0,123", "0,456"], [0.123, 0.456], Written(decimal=",", places=3)),
    "points of thousands": (["1.234,5", "7,25"], [1234.5, 7.25], Written(thousands=".", decimal=",", places=2)),
    "spaces of thousands": (["1 234", "12"], [1234, 12], Written(thousands=" ")),
    "other spaces": (["1\u202f234,5", "12"], [1234.5, 12], Written(thousands=" ", decimal=",", places=1)),
    "apostrophes": (["1'234.5", "12"], [1234.5, 12], Written(thousands="'", places=1)),
    "percent": (["45%", "3.5%", "0"], [45, 3.5, 0], Written(suffix="%", places=1)),
    "percent after a space": (["45 %", "3 %"], [45, 3], Written(suffix=" %")),
    "dollars": (["$1,234.50", "-$7", "$-8", "9"], [1234.5, -7, -8, 9], Written("$", "", ",", ".", 2)),
    "euros": (["1.234,50 €", "7 €"], [1234.5, 7], Written("", " €", ".", ",", 2)),
    "parentheses": (["(123)", "45", "(7)"], [-123, 45, -7], Written(negative="()")),
    "parentheses and signs": (["($1,234.50)", "$2.00"], [-1234.5, 2], Written("$", "", ",", ".", 2, "()")),
    "minus signs": (["\u22125,5", "5"], [-5.5, 5], Written(decimal=",", places=1)),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_as_people_write_them(name):
    """They are read, come back as they were, and new ones are written alike."""
    cells, numbers, written = NUMBERS[name]
    column, x, table = read([*cells, None, *cells], types={"a": "Real"})
    assert x[: len(cells)] == pytest.approx(numbers)
    assert column.cells == written
    assert table.decode(table.x)["a"].tolist() == [*cells, None, *cells]
    again = column.encode(column.decode(np.array(numbers, float)))
    assert again.tolist() == pytest.approx(numbers)


def test_new_numbers_are_written_alike():
    assert Written("$", "", ",", ".", 2).write(np.array([-1234.567, 0.001, NAN])).tolist() == [
        "-$1,234.57",
        "$0.00",
        None,
    ]
    assert Written("", " €", ".", ",", 1).write(np.array([1234567.89])).tolist() == ["1.234.567,9 €"]
    assert Written(suffix="%").write(np.array([-0.3, 44.6])).tolist() == ["0%", "45%"]


def ages(*more):
    return [*map(str, range(20, 50)), *more]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (ages("old"), "expected numbers, got 'old' in row 30"),
        (["tall", *ages()], "expected numbers, got 'tall' in row 0"),
        ([*(f"${v}" for v in range(30)), "€5"], "expected numbers .*, got '€5' in row 30"),
        ([*(f"{v}%" for v in range(30)), "0.5"], "expected numbers .*, got '0.5' in row 30"),
        ([*(f"{v},5" for v in range(30)), "1.234.5"], "expected numbers.*, got '1.234.5' in row 30"),
        ([*(f"2024-01-{d:02d}" for d in range(1, 31)), "soon"], "expected dates, got 'soon' in row 30"),
        ([*(f"2024-01-{d:02d}" for d in range(1, 31)), "2024-02-30"], "expected dates, got '2024-02-30' in row 30"),
        ([None, *(f"person {i}" for i in range(40))], "40 different texts in 40 rows, such as 'person 0' in row 1"),
        ([f"0{i}" for i in range(40)], "different texts"),
        (["01/02/2024", "03/04/2024"], "dates in one way, got '01/02/2024'"),
        (["2.5", "1,5", None, "3"], "numbers written in one way, such as '2.5', got '1,5' in row 1"),
        (["$5", None, "€7", "8"], "numbers written in one way, such as '\\$5', got '€7' in row 2"),
        (["2024-01-31", "02.01.2024"], "dates in one way, such as '2024-01-31', got '02.01.2024' in row 1"),
        ([None, "31-Jan-65", "01-Feb-66"], "a year of four digits, got '31-Jan-65' in row 1"),
        (["65-01-31", "66-02-01"], "a year of four digits, got '65-01-31' in row 0"),
        (["2024-01-31 10:00Z", "2024-01-31 10:00"], "all have a zone, got '2024-01-31 10:00' in row 1"),
        (["1", "2", "inf"], "finite numbers .*, got inf in row 2"),
    ],
)
def test_cells_that_do_not_fit_are_named(cells, said):
    """With the column and the first row; a type or its own cells make them labels."""
    with pytest.raises(ValueError, match=f"column 'a': .*{said}"):
        read(cells)
    column, *_ = read(cells, types={"a": pv.data.tables.Categorical})
    assert set(column.values) == {cell for cell in cells if cell is not None}


def test_few_labels_with_numbers_among_them_are_labels():
    """Also codes with a leading zero, which are names."""
    assert read(["0", "1", "2", "3+"] * 9)[0].values == ("0", "1", "2", "3+")
    assert read(["01", "10", "01"])[0].values == ("01", "10")
    assert type(read(["001", "010"], types={"a": "Count"})[0]).__name__ == "Count"


#: Cells, their distance from the first one, and how they are written.
DATES = {
    "days": (["2024-01-31", "2024-02-29"], [0, 29], Dates("2024-01-31", "D", "%Y-%m-%d")),
    "points": (["31.01.2024", "29.02.2024"], [0, 29], Dates("2024-01-31", "D", "%d.%m.%Y")),
    "slashes, day first": (["31/01/2024", "01/02/2024"], [0, 1], Dates("2024-01-31", "D", "%d/%m/%Y")),
    "slashes, month first": (["01/31/2024", "02/01/2024"], [0, 1], Dates("2024-01-31", "D", "%m/%d/%Y")),
    "names of months": (["31 Jan 2024", "01 Feb 2024"], [0, 1], Dates("2024-01-31", "D", "%d %b %Y")),
    "years first": (["2024.01.31", "2024.02.01"], [0, 1], Dates("2024-01-31", "D", "%Y.%m.%d")),
    "names of months alone": (["Jan 2024", "Mar 2024"], [0, 60], Dates("2024-01-01", "D", "%b %Y")),
    "half days": (
        ["01/31/2024 09:30 AM", "01/31/2024 01:30 PM"],
        [0, 4],
        Dates("2024-01-31T09:30", "h", "%m/%d/%Y %I:%M %p"),
    ),
    "months": (["2024-01", "2024-03"], [0, 60], Dates("2024-01-01", "D", "%Y-%m")),
    "minutes": (["2024-01-31 10:00", "2024-01-31 10:05"], [0, 5], Dates("2024-01-31T10:00", "m", "%Y-%m-%d %H:%M")),
    "seconds": (
        ["2024-01-31T10:00:01", "2024-01-31T10:00:00"],
        [1, 0],
        Dates("2024-01-31T10:00", "s", "%Y-%m-%dT%H:%M:%S"),
    ),
    "UTC": (
        ["2024-01-31T10:00:00Z", "2024-01-31T12:00:00Z"],
        [0, 2],
        Dates("2024-01-31T10:00", "h", "%Y-%m-%dT%H:%M:%S", "Z"),
    ),
    "an offset": (
        ["2024-01-31 10:00:00+01:00", "2024-02-01 10:00:00+01:00"],
        [0, 1],
        Dates("2024-01-31T09:00", "D", "%Y-%m-%d %H:%M:%S", "+01:00"),
    ),
}


@pytest.mark.parametrize("name", DATES)
def test_dates_are_numbers_with_a_unit(name):
    """They are decoded to dates, also where one is missing."""
    cells, numbers, dates = DATES[name]
    column, x, table = read([*cells, "NaT" if name == "days" else ""])
    assert type(column).__name__ == "Integer"
    assert column.cells == dates
    assert x[:2] == numbers
    assert x[2] != x[2]
    assert column.decode(np.array([*numbers, NAN])).tolist() == [*cells, None]
    assert table.decode(table.x)["a"].tolist() == [*cells, None]


def test_dates_of_several_zones_come_back_in_utc():
    column, x, _ = read(["2024-03-30 12:00:00+01:00", "2024-03-31 12:00:00+02:00"])
    assert x == [0, 23]
    assert column.decode(np.array([1.0])).tolist() == ["2024-03-30 12:00:00+00:00"]


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("a", "Integer", None),
        ("a", pv.data.tables.Count, None),
        ("a", pv.data.tables.Real("a", 3.0, 2.0), None),
        ("b", "Ordinal(low<mid<high)", None),
        ("b", "Count", "column 'b': expected numbers, got 'low' in row 0"),
        ("b", "Ordinal", "text has no order.*Ordinal.high<low<mid"),
        ("a", "Grade", "types: expected one of Binary, Categorical, Count, .* for 'a', got 'Grade'"),
        ("c", "Count", r"types: expected names of columns \(a, b\), got c"),
        ("a", "Binary", "two values"),
        ("d", "Positive", "column 'd': expected positive numbers, got 0"),
        ("d", "Count", "column 'd': expected counts 0, 1, 2, ..., got 0.5"),
    ],
)
def test_types_can_be_chosen(name, kind, said):
    data = {"a": [1, 2, 3], "b": ["low", "mid", "high"], **({"d": [0, 0.5, 2]} if name == "d" else {})}
    if said:
        with pytest.raises(ValueError, match=said):
            pv.data.Table(data, types={name: kind})
        return
    table = pv.data.Table(data, types={name: kind})
    column = table.columns[table.names.index(name)]
    assert column == kind if isinstance(kind, pv.data.tables.Column) else type(column).__name__ in str(kind)
    back = table.decode(table.x)
    assert {key: values.tolist() for key, values in back.items()} == data


def test_columns_can_be_left_out():
    data = {"name": ["Ann", "Bob", None], "age": [31.5, None, 40.5]}
    table = pv.data.Table(data, leave_out=["name"])
    assert table.names == ("age",)
    filled = pv.tasks.fill(data, table, torch.tensor([[0.0], [35.5], [0.0]]))
    assert list(filled) == ["name", "age"]
    assert filled["name"] == data["name"]
    assert filled["age"].tolist() == [31.5, 35.5, 40.5]
    with pytest.raises(ValueError, match=r"leave_out: expected names of columns \(name, age\), got nme"):
        pv.data.Table(data, leave_out=["nme"])


def test_a_file_whose_commas_have_two_meanings_is_refused(tmp_path):
    """Where cells are not separated by commas; one number with another form decides."""
    path = tmp_path / "x.csv"
    path.write_text("a;b\n1,234;5\n2,345;6\n")
    with pytest.raises(ValueError, match=r"x.csv: column 'a': .*'1,234', which is 1234 or 1.234"):
        files.read(path)
    path.write_text("a;b\n1,234;5\n2,3;6\n")
    assert pv.data.Table(files.read(path)).x[:, 0].tolist() == pytest.approx([1.234, 2.3])


def test_the_types_of_a_table_are_printed():
    table = pv.data.Table(
        {
            "age": [20, 31, 58, None, 44, 71],
            "pay": ["$1,200", "$900.50", None, "$800", "$300", "$15"],
            "day": np.array(["2024-01-31", "2024-03-01", "NaT", "2024-02-01", "2024-02-03", "2024-02-04"], "M8[D]"),
            "size": ["S", "M", "S", "L", "M", "S"],
        },
        types={"size": "Ordinal(S<M<L)"},
    )
    assert str(table).splitlines() == [
        "column  type      values                            missing",
        "age     Count     0, 1, 2, ...                      1",
        "pay     Positive  $12.05 to $1,493.95               1",
        "day     Integer   2024-01-30 to 2024-03-02 in days  1",
        "size    Ordinal   S < M < L                         0",
    ]


def test_percentages_are_no_counts():
    """Samples of counts have no upper limit."""
    shares = np.array([f"{i}%" for i in np.random.default_rng(0).integers(50, 101, 300)], object)
    column = pv.data.tables.infer("share", shares)
    assert type(column) is pv.data.tables.Integer
    assert column.high == 100


@pytest.mark.parametrize(
    ("values", "decoded"),
    [
        (np.array([1.25, 3.5, 7.75, 2.1]), 3.35),
        (np.array([0.1, 0.2, 0.7, 0.4], np.float32), 3.3),
        (["1.5", "2.5", "9.0", "4.1"], "3.3"),
        (np.array([1000000.25, 1000000.5, 1000001.75]), 3.35),
        (np.array([1 / 3, 2 / 3, 0.5, 0.25]), 3.347291),
    ],
)
def test_new_values_have_the_decimals_of_their_column(values, decoded):
    """Two decimals, one decimal in single precision or in text, far from 0, and thirds, which no decimals hold."""
    (column,) = pv.data.tables.schema({"x": values})
    table = pv.data.Table({"x": values}, [column])
    new = torch.tensor([[3.347291 - float(column.cells.origin)]], dtype=torch.float64)
    (found,) = table.decode(new)["x"]
    assert found == decoded if isinstance(decoded, str) else found == pytest.approx(decoded, rel=1e-6)
    assert np.array_equal(table.decode(table.x)["x"], np.asarray(values))
