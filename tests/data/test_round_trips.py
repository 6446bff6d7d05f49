"""Tables come back as they were: values, types of columns, names and index, for random data frames and arrays."""

import datetime
from functools import partial

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.data.tables.values import blank, is_blank, plain, same
from pyro_vae.distributions.missing import hide_missing

hypothesis = pytest.importorskip("hypothesis")
pandas = pytest.importorskip("pandas")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

#: The same examples in every run, and as many as a second allows.
SOME = settings(max_examples=40, deadline=None, derandomize=True, database=None)
FEW = settings(SOME, max_examples=15)
#: Category C has what UTF-8 cannot encode; to name the codec takes hypothesis seconds.
TEXT = st.text(st.characters(exclude_categories=("C",)), max_size=6).filter(lambda v: not is_blank(v))
INTEGERS = st.one_of(
    st.integers(-9, 9),
    st.integers(-(2**31), 2**31),
    st.integers(2**24, 2**24 + 9),
    st.integers(2**53, 2**53 + 9),
    st.integers(-(2**63), 2**63 - 1),
)
FLOATS = st.one_of(st.floats(-1e30, 1e30), st.floats(0, 1), st.floats(1e9, 1e9 + 1), st.integers(-5, 5).map(float))
TIMES = st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2250, 1, 1))
DAYS = st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1))
ZONE = datetime.timezone(datetime.timedelta(hours=1))
LENGTHS = st.timedeltas(datetime.timedelta(-(10**4)), datetime.timedelta(10**4))


def holes(strategy, missing=None):
    return st.one_of(strategy, st.just(missing))


def categories(ordered):
    def series(labels):
        kind = pandas.CategoricalDtype(labels, ordered=ordered)
        return st.lists(holes(st.sampled_from(labels)), min_size=4, max_size=4).map(
            lambda values: pandas.Series(pandas.Categorical(values, dtype=kind))
        )

    return st.one_of(
        st.lists(TEXT, min_size=1, max_size=4, unique=True).flatmap(series),
        st.lists(st.integers(-9, 9), min_size=1, max_size=4, unique=True).flatmap(series),
    )


def column(values, dtype):
    """Return a strategy for a series of four values, at least one of them present."""
    return st.lists(values, min_size=4, max_size=4).map(lambda found: pandas.Series(found, dtype=dtype))


#: Columns of a data frame by kind.
COLUMNS = {
    "int64": column(INTEGERS, "int64"),
    "int8": column(st.integers(-128, 127), "int8"),
    "uint64": column(st.integers(0, 2**64 - 1), "uint64"),
    "negative counts": column(st.integers(-40, 0), "int64"),
    "constant": st.one_of(INTEGERS, FLOATS, TEXT).map(lambda v: pandas.Series([v] * 4)),
    "float64": column(holes(FLOATS, np.nan), "float64"),
    "float32": column(holes(st.floats(-(2.0**99), 2.0**99, width=32), np.nan), "float32"),
    "bool": column(st.booleans(), "bool"),
    "str": column(holes(TEXT), "str"),
    "object": column(holes(TEXT), "object"),
    "text of numbers": column(
        holes(st.one_of(INTEGERS, st.integers(0, 10**7).map("${:,}".format)).map(str)), "object"
    ),
    "text of dates": column(holes(DAYS.map(lambda d: d.strftime("%d.%m.%Y"))), "object"),
    "Int64": column(holes(INTEGERS), "Int64"),
    "UInt8": column(holes(st.integers(0, 255)), "UInt8"),
    "Float64": column(holes(FLOATS), "Float64"),
    "boolean": column(holes(st.booleans()), "boolean"),
    "string": column(holes(TEXT), "string"),
    "category": categories(False),
    "ordered category": categories(True),
    "datetime64[ns]": column(holes(TIMES), "datetime64[ns]"),
    "datetime64[s]": column(holes(TIMES), "datetime64[s]"),
    "datetime64[us, tz]": column(holes(TIMES), "datetime64[us]").map(
        lambda s: s.dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    ),
    "datetime64[ns, UTC]": column(holes(TIMES), "datetime64[ns]").map(lambda s: s.dt.tz_localize("UTC")),
    "timedelta64[ns]": column(holes(LENGTHS), "timedelta64[ns]"),
    "timedelta64[ms]": column(holes(LENGTHS), "timedelta64[ms]"),
    "dates": column(holes(DAYS), "object"),
    "times": column(holes(TIMES), "object"),
    "times with a zone": column(holes(TIMES.map(lambda t: t.replace(tzinfo=ZONE))), "object"),
    "timestamps": column(TIMES.map(lambda t: pandas.Timestamp(t) + pandas.Timedelta(1, "ns")), "object"),
    "decimals": column(holes(st.decimals(-(10**9), 10**9, allow_nan=False, places=3)), "object"),
    "bytes": column(holes(TEXT.map(str.encode)), "object"),
    **{
        f"period[{freq}]": column(holes(DAYS), "datetime64[ns]").map(lambda s, freq=freq: s.dt.to_period(freq))
        for freq in ("D", "M", "Y")
    },
}


def has_number(values):
    """Whether there is a value, and a float32 holds one of the floats unless all are zero."""
    present = [v for v in values if v is not None and v == v]
    largest = max((abs(v) for v in present if isinstance(v, float)), default=0)
    return bool(present) and not 0 < largest < np.finfo(np.float32).tiny


COLUMNS = {kind: strategy.filter(lambda s: has_number(s.dropna().tolist())) for kind, strategy in COLUMNS.items()}


def at_once(frame):
    """Return the table of a data frame, and the rows of its tensor in another order with the frame in that order."""
    table, order = pv.data.Table(frame), [2, 0, 3]
    return table, table.x[order], frame.iloc[order].reset_index(drop=True)


def injective(table, j):
    """Whether values of a column that differ have different codes."""
    source, codes = table._parts[j].values, table.x[:, j].numpy()
    return len({str(v) for v in source[~blank(source)].tolist()}) == len(set(codes[~np.isnan(codes)].tolist()))


@pytest.mark.parametrize("examples", [40, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", COLUMNS)
def test_every_kind_of_column_comes_back(kind, examples):
    """In the order of the table, and in another one wherever float32 codes of different values differ."""

    @settings(SOME, max_examples=examples)
    @given(COLUMNS[kind])
    def law(series):
        frame = pandas.DataFrame({"a": series})
        table, x, other = at_once(frame)
        pandas.testing.assert_frame_equal(table.decode(table.x), frame)
        assert torch.equal(torch.isnan(table.x[:, 0]), torch.tensor(series.isna().tolist()))
        if injective(table, 0):
            pandas.testing.assert_frame_equal(table.decode(x), other)
        new = pv.data.Table(other.loc[:1], table.columns)
        assert torch.equal(new.x.nan_to_num(7e7), x[:2].nan_to_num(7e7))

    law()


#: Kinds of columns that a float32 holds.
SMALL = ["int8", "negative counts", "bool", "UInt8", "boolean", "category", "ordered category", "dates"]


@pytest.mark.parametrize("kind", SMALL)
def test_what_a_float32_can_hold_comes_back_from_any_table(kind):
    """A table of other rows with the same columns gives the values back, without a copy of them."""

    @FEW
    @given(COLUMNS[kind])
    def law(series):
        frame = pandas.DataFrame({"a": series})
        table, x, other = at_once(frame)
        assert table._exact == [True]
        one = pv.data.Table(frame[series.notna()].iloc[:1], table.columns)
        pandas.testing.assert_frame_equal(one.decode(x), other)

    law()


@pytest.mark.parametrize("examples", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_every_table_can_be_scored_and_sampled(examples):
    """Under a network of random weights: finite log-densities of the rows, and samples in the support."""

    @settings(SOME, max_examples=examples)
    @given(st.data())
    def law(data):
        kinds = data.draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=2, max_size=3))
        frame = pandas.DataFrame({str(i): data.draw(COLUMNS[kind]) for i, kind in enumerate(kinds)})
        table, net = pv.data.Table(frame), partial(pv.nets.MLP, hidden=())
        part = pv.likelihoods.Heterogeneous(2, (len(kinds),), columns=table.columns, net=net)
        fn, x = hide_missing(part(torch.randn(4, 2)), table.x)
        assert fn.log_prob(x).isfinite().all()
        assert fn.base_dist.base_dist.support.check(x).all()
        wide = part(torch.randn(50, 2))
        drawn = wide.sample()
        assert fn.base_dist.base_dist.support.check(drawn).all()
        assert wide.mean.isfinite().all()
        assert (table.decode(drawn).dtypes == frame.dtypes).all()

    law()


@pytest.mark.parametrize("kind", sorted(COLUMNS))
def test_every_kind_of_column_can_be_scored_and_sampled(kind):
    """One table of each kind, its first example: samples stay in the range of the column, and have its dtype."""

    @settings(SOME, max_examples=1)
    @given(COLUMNS[kind])
    def law(series):
        table = pv.data.Table(pandas.DataFrame({"a": series}))
        part = pv.likelihoods.Heterogeneous(2, (1,), columns=table.columns, net=partial(pv.nets.MLP, hidden=()))
        fn, x = hide_missing(part(torch.randn(4, 2)), table.x)
        assert fn.log_prob(x).isfinite().all()
        drawn = part(3 * torch.randn(50, 2)).sample()
        (column,) = table.columns
        if isinstance(column, pv.data.tables.Real | pv.data.tables.Positive | pv.data.tables.Integer):
            assert (drawn >= np.float32(column.low)).all()
            assert (drawn <= np.float32(column.high)).all()
        assert table.decode(drawn)["a"].dtype == series.dtype

    law()


@SOME
@given(
    st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=5).flatmap(
        lambda k: st.tuples(*map(COLUMNS.get, k))
    )
)
def test_frames_come_back_with_their_names_and_index(columns):
    """Names of any type, in order; the index of the rows of the table."""
    names = ["a", 3, ("b", 1), None, datetime.date(2024, 1, 1)]
    frame = pandas.DataFrame(dict(zip(names, columns, strict=False)))
    frame.index = [9, 7, 5, 3]
    table = pv.data.Table(frame)
    pandas.testing.assert_frame_equal(table.decode(table.x), frame)
    assert [type(name) for name in table.decode(table.x).columns] == [type(name) for name in frame.columns]
    pandas.testing.assert_frame_equal(pv.tasks.fill(frame, table, table.x), frame)


ARRAYS = {
    "<i8": INTEGERS,
    ">i4": st.integers(-(2**31), 2**31 - 1),
    "u1": st.integers(0, 255),
    "<f8": holes(FLOATS, np.nan),
    "<f2": st.floats(-1000, 1000, width=16),
    "?": st.booleans(),
    "<U6": TEXT.map(str.strip).filter(bool),
    "<M8[D]": DAYS,
    "<M8[ns]": TIMES,
    "<m8[s]": LENGTHS,
    "O": holes(st.one_of(INTEGERS)),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_come_back(kind):
    """Columns of a dict and of a structured array have their dtype and their values."""

    @FEW
    @given(st.lists(ARRAYS[kind], min_size=3, max_size=5).filter(has_number))
    def law(values):
        array = np.array(values, kind)
        for data in ({"a": array}, np.array([(v,) for v in array], [("a", kind)])):
            table = pv.data.Table(data)
            back = table.decode(table.x)["a"]
            assert back.dtype == array.dtype
            assert same(plain(back), plain(array)).all()

    law()


def test_imputed_values_have_the_type_of_their_column():
    """Rounded to the nearest, not truncated; between the values that a float32 holds."""
    frame = pandas.DataFrame(
        {
            "year": [1990, 1995, 2024],
            "id": [10**12, 10**12 + 5, 10**12 + 9],
            "visits": pandas.array([0, None, 40], "Int64"),
            "day": pandas.to_datetime(["2024-01-01", "2024-02-01", "2024-03-01"]).tz_localize("UTC"),
            "delay": pandas.to_timedelta([1, 5, 9], unit="min"),
            "month": pandas.PeriodIndex(["2024-01", "2024-05", "2025-01"], freq="M"),
        }
    )
    table = pv.data.Table(frame)
    assert [type(c).__name__ for c in table.columns] == ["Integer", "Integer", "Binary", *["Integer"] * 3]
    x = table.x[:1].clone()
    x[0] = torch.tensor([2001.7, table.x[1, 1] + 1.4, 0.6, 31.6, 5.4, table.x[1, 5] + 1.2])
    back = table.decode(x)
    assert (back.dtypes == frame.dtypes).all()
    assert back.iloc[0].astype(str).tolist() == [
        "2002",
        str(10**12 + 6),
        "40",
        "2024-02-02 00:00:00+00:00",
        "0 days 00:05:00",
        "2024-06",
    ]


def test_text_stays_text():
    """Numbers in text come back as text, also those that were not there, and where one is missing."""
    table = pv.data.Table({"n": np.array(["3", None, "700", "12"], object), "v": ["1.5", "2.5", "3", "4"]})
    back = table.decode(torch.tensor([[5.0, 1.25], [float("nan"), 2.0]]))
    assert back["n"].tolist() == ["5", None]
    assert back["v"].tolist() == ["1.2", "2.0"]  # with the decimals of the column
    filled = pv.tasks.fill({"n": ["3", None, "x"]}, pv.data.Table({"n": ["3", None, "x"]}), torch.tensor([[0.0]] * 3))
    assert filled["n"].tolist() == ["3", "3", "x"]


def test_names_are_different_or_refused():
    twice = pandas.DataFrame([[1.5, 2, 3], [4, 5, 6]], columns=["a", "b", "a"])
    with pytest.raises(ValueError, match="different names, got 'a' of columns 0, 2"):
        pv.data.Table(twice)
    with pytest.raises(ValueError, match="different names, got '1' of columns 0, 1"):
        pv.data.Table({1: [1.5, 2], "1": [3, 4]})
    with pytest.raises(ValueError, match="of one length"):
        pv.data.Table({"a": [1.5, 2], "b": [3]})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[1], [2]], "one value per row"),
        ("ab", "one value per row, got text"),
        ([1j, 2j], "complex"),
        ([{}, {}], "a dict in row 0"),
        ([1.5, np.inf], "finite numbers .* in row 1"),
        ([None, 1e300], "finite numbers below 3.4e.* in row 1"),
        ([1e-300, 0.0], "numbers that a float32 holds"),
        ([None, None], "all are missing. Leave the column out"),
        ([b"a", b"\xff", None], "UTF-8, got .* in row 1"),
        ([datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1, 3)], "dates or times, got both.* in row 1"),
        (
            [datetime.datetime(2024, 1, 1), datetime.datetime(2024, 1, 1, tzinfo=ZONE)],
            "with a zone or without .* row 1",
        ),
    ],
)
def test_other_values_are_refused_by_name(values, said):
    with pytest.raises(ValueError, match=f"column 'b': .*{said}"):
        pv.data.Table({"a": [1.5, 2.5], "b": values})
    assert pv.data.Table({"a": [1.5, 2.5], "b": values}, leave_out="b").names == ("a",)  # its values are not read


HEADERS = {
    "categories": pandas.CategoricalIndex(["x", "y"]),
    "a name": pandas.Index(["x", "y"], name="quantity"),
    "two levels": pandas.MultiIndex.from_tuples([("x", "a"), ("x", "b")], names=["p", None]),
    "an empty name": pandas.Index(["", "y"]),
    "no name": pandas.Index([None, "y"]),
    "days": pandas.to_datetime(["2024-01-01", "2024-01-05"]),
}


@pytest.mark.parametrize("header", HEADERS)
def test_headers_of_pandas_come_back(header):
    frame = pandas.DataFrame([[1.5, "r"], [2.5, "g"]]).set_axis(HEADERS[header], axis=1).rename_axis("row")
    table = pv.data.Table(frame)
    pandas.testing.assert_frame_equal(table.decode(table.x), frame)
    assert table.decode(table.x[:1]).columns.equals(frame.columns)


def test_arrays_of_pandas_in_a_dict_keep_their_dtype():
    values = {
        "n": pandas.array([1, None, 5], "Int64"),
        "t": pandas.date_range("2024-01-01", periods=3, tz="Europe/Berlin"),
        "c": pandas.Categorical(["x", "y", None]),
    }
    table = pv.data.Table(values)
    back = table.decode(table.x)
    assert {key: found.dtype for key, found in back.items()} == {key: found.dtype for key, found in values.items()}
    assert back["t"].tolist() == values["t"].tolist()


class OtherFrame:
    """A data frame of another package; an array of it would lose the names."""

    columns = ("a", "b")

    def __array__(self, dtype=None, copy=None):
        return np.zeros((2, 2))


@pytest.mark.parametrize("table", [OtherFrame(), pandas.Series([1.5, 2.5]), [{"a": 1.5}], "x.csv", None, np.zeros(3)])
def test_other_tables_are_refused_by_name(table):
    with pytest.raises(ValueError, match="table: expected a data frame of pandas"):
        pv.data.Table(table)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"types": {"a": 3}}, "types: expected one of Binary"),
        ({"types": {"a": int}}, "types: expected one of Binary"),
        ({"types": {"a": "Count("}}, "types: expected one of Binary"),
        ({"types": ["Real"]}, "types: expected a dict"),
        ({"leave_out": ["a", "b"]}, "leave_out: expected at least one other column"),
    ],
)
def test_options_of_other_kinds_are_refused_by_name(options, said):
    with pytest.raises((ValueError, TypeError), match=said):
        pv.data.Table({"a": [1.5, 2.5], "b": [1, 5]}, **options)


def test_infinity_is_not_decoded():
    table = pv.data.Table({"a": [1, 5, 70], "b": [1.5, 2.5, 3.5]})
    with pytest.raises(ValueError, match="x: expected finite numbers or NaN, got -inf in row 1 of 'b'"):
        table.decode(torch.tensor([[1.0, 2.0], [3.0, -torch.inf]]))


@pytest.mark.parametrize("value", [0.1, -0.2083, 1e9 + 0.3, 7.5])
def test_columns_of_one_value_have_a_scale_and_a_range_of_their_size(value):
    """The rounding of their mean is no spread: another value would have a log-density of -1e17."""
    table = pv.data.Table({"a": [value] * 30})
    (column,) = table.columns
    assert column.scale == 1
    assert column.high - column.low >= 0.01 * abs(value)
    part = pv.likelihoods.Heterogeneous(2, (1,), columns=table.columns)
    other = column.decode(np.array([2.0 * (column.shift or 1)]))
    assert (part(torch.zeros(1, 2)).log_prob(torch.tensor(column.encode(other)).float()[None]) > -1000).all()
    assert table.decode(table.x)["a"].tolist() == [value] * 30


@pytest.mark.parametrize("large", [2**63, 2**63 + 1, 2**64 - 1024, 2**64 - 1])
def test_two_integers_above_int64_come_back(large):
    frame = pandas.DataFrame({"a": pandas.Series([0, 0, 0, large], dtype="uint64")})
    table = pv.data.Table(frame)
    pandas.testing.assert_frame_equal(table.decode(table.x), frame)
    assert table.decode(table.x[[3, 0]]).a.tolist() == [large, 0]
