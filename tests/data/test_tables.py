"""Tables with columns of mixed types: inferred types, encoding and decoding, and the density of rows."""

import math
import time
from functools import partial

import numpy as np
import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv

C, L = pv.data.tables, pv.likelihoods
TYPES = [
    C.Real("income", 3e4, 1e4),
    C.Positive("size", 2.0, 0.5),
    C.Count("visits", 7.0),
    C.Ordinal("grade", (1, 2, 3, 4)),
    C.Categorical("colour", ("red", "green", "blue")),
    C.Binary("smokes", ("no", "yes")),
    C.Categorical("town", ("A", "B", "C")),
    C.Categorical("sort", (10, 20, 30, 40, 50)),
    C.Integer("year", 2000.0, 8.0, 1980, 2024),
    C.Real("share", 0.4, 0.2, 0.0, 1.0),
    C.Positive("weight", 0.3, 0.4, 0.5, 9.0),
    C.Count("children", 2.0, 8.0),
    C.Categorical("country", ("here",)),
]


def known_log_prob(part, z, x):
    """Return the sum over columns, from the outputs of the network in order."""
    raw, at, total = part.net(z), 0, 0
    for c, v in zip(part.columns, x.unbind(-1), strict=True):
        r = raw[..., at : at + c.outputs]
        at += c.outputs
        if isinstance(c, C.Integer) or getattr(c, "low", None) is not None:
            units = (torch.tensor([float(getattr(c, unit))]) for unit in c.units)
            total = total + c.family(r.unsqueeze(-2), *units).log_prob(v.unsqueeze(-1)).squeeze(-1)
        elif isinstance(c, C.Real):
            standard = dist.Normal(r[..., 0], pv.scales.positive(r[..., 1])).log_prob((v - c.shift) / c.scale)
            total = total + standard - math.log(c.scale)
        elif isinstance(c, C.Positive):
            scale = pv.scales.positive(r[..., 1])
            standard = dist.Normal(r[..., 0], scale).log_prob((v.log() - c.shift) / c.scale)
            total = total + standard - math.log(c.scale) - v.log()
        elif isinstance(c, C.Count):
            mean, size = c.scale * pv.scales.positive(r[..., 0]), pv.scales.positive(r[..., 1])
            mean = mean if c.high is None else c.high * (1 - (-mean / c.high).exp())
            total = total + dist.NegativeBinomial(size, logits=(mean / size).log()).log_prob(v)
        elif isinstance(c, C.Ordinal):
            cuts = -1 + torch.cat([torch.zeros_like(r[..., :1]), pv.scales.positive(r[..., 1:]).cumsum(-1)], -1)
            total = total + dist.OrderedLogistic(r[..., 0], cuts).log_prob(v)
        elif isinstance(c, C.Categorical):
            total = total + dist.Categorical(logits=r).log_prob(v)
        else:
            total = total + dist.Bernoulli(logits=r[..., 0]).log_prob(v)
    assert at == raw.shape[-1]
    return total


def test_heterogeneous_density_is_in_the_units_of_the_table():
    part = L.Heterogeneous(3, (len(TYPES),), columns=TYPES)
    pv.testing.check_part(part, (3,))
    z = torch.randn(7, 5, 3)
    fn = part(z)
    x = fn.sample()
    assert torch.allclose(fn.log_prob(x), known_log_prob(part, z, x), atol=1e-3)
    assert fn.base_dist.batch_shape == (7, 5, len(TYPES))
    assert fn.support.check(fn.base_dist.filler).all()
    assert fn.mean.shape == x.shape
    # computed once, not in each step
    assert fn.base_dist.filler is part.filler
    assert fn.base_dist.expand((7, 5, len(TYPES))).filler is part.filler
    assert "filler" not in part.state_dict()


@pytest.mark.parametrize("column", TYPES, ids=lambda c: c.name)
def test_each_column_has_mass_one(column):
    units = {"income": C.Real("income", 3.0, 2.0), "year": C.Integer("year", 20.0, 8.0, 0, 40)}
    units["share"] = C.Real("share", 4.0, 6.0, -10.0, 22.0)
    unit = units.get(column.name, column)
    part = L.Heterogeneous(1, (2,), columns=[unit, C.Binary("other")])
    for _ in range(3):
        assert pv.testing.check_mass(part(torch.randn(1)), part)


def test_heterogeneous_rejects_other_columns_and_values():
    with pytest.raises(ValueError, match="columns: "):
        L.Heterogeneous(3, (7,), columns=TYPES)
    part = L.Heterogeneous(3, (len(TYPES),), columns=TYPES)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(3), likelihood=part, posterior=pv.posteriors.MeanFieldNormal((len(TYPES),), 3)
    )
    x = part(torch.randn(4, 3)).sample()
    vae.check(x)
    for column, bad in (
        (1, 0.0),
        (2, 0.5),
        (3, 4.0),
        (4, -1.0),
        (5, 2.0),
        (7, 5.0),
        (8, 2000.5),
        (10, -1.0),
        (12, 1.0),
    ):
        worse = x.clone()
        worse[2, column] = bad
        with pytest.raises(ValueError, match=rf"x\[2, {column}\]"):
            vae.check(worse)


def make_table(n=60):
    rng = np.random.default_rng(0)
    return {
        "income": rng.normal(size=n) * 1e4,
        "size": np.exp(rng.normal(size=n)),
        "visits": rng.poisson(20, n),
        "grade": np.r_[1, 2, 3, 4, rng.integers(1, 5, n - 4)],
        "colour": np.array(["red", "green", "blue", *rng.choice(["red", "green"], n - 3)]),
        "smokes": rng.random(n) < 0.5,
        "side": np.r_[1, 2, rng.integers(1, 3, n - 2)],
        "low": rng.integers(-20, 20, n),
        "half": np.array(["a", None, "b", *rng.choice(["a", "b"], n - 3)], dtype=object),
    }


def test_schema_infers_the_types():
    found = [type(c).__name__ for c in L.Heterogeneous.schema(make_table())]
    known = ["Real", "Positive", "Count", "Ordinal", "Categorical", "Binary", "Binary", "Integer", "Binary"]
    assert found == known


def test_table_round_trip():
    data = make_table()
    table = pv.data.Table(data)
    assert table.x.dtype == torch.float32
    assert table.x.isnan().sum() == 1
    back = table.decode(table.x)
    for name, values in data.items():
        assert back[name].dtype.kind == values.dtype.kind, name
        if values.dtype.kind == "f":
            np.testing.assert_allclose(back[name], values, rtol=1e-6)
        else:
            assert back[name].tolist() == values.tolist()
    other = {name: values[:5] for name, values in data.items()}
    assert torch.equal(pv.data.Table(other, table.columns).x.nan_to_num(), table.x[:5].nan_to_num())
    with pytest.raises(ValueError, match="column 'colour': .*violet"):
        pv.data.Table({**other, "colour": np.array(["violet"] * 5)}, table.columns)
    with pytest.raises(ValueError, match="columns: "):
        pv.data.Table({"age": [1.5, 2.0]}, table.columns)
    with pytest.raises(ValueError, match="column 'age': .*missing"):
        pv.data.Table({"age": [None, None]})


def test_table_of_a_data_frame_and_of_an_array():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(make_table())
    frame["rank"] = pandas.Categorical(["low", "mid", "high"] * 20, categories=["low", "mid", "high"], ordered=True)
    frame["nullable"] = pandas.array([1, None, *range(58)], dtype="Int64")
    table = pv.data.Table(frame)
    assert [type(c).__name__ for c in table.columns[-2:]] == ["Ordinal", "Count"]
    assert table.columns[-2].values == ("low", "mid", "high")
    assert table.x.isnan().sum() == 2
    pandas.testing.assert_frame_equal(table.decode(table.x), frame, check_exact=False, rtol=1e-5)
    array = np.random.default_rng(0).normal(size=(9, 2))
    table = pv.data.Table(array)
    assert table.names == ("0", "1")
    np.testing.assert_allclose(np.stack(list(table.decode(table.x).values()), -1), array, rtol=1e-6)


def test_a_missing_label_is_decoded_as_none():
    """Also in columns of numpy strings, where astype would make it the text None (or Non)."""
    table = pv.data.Table({"colour": np.array(["red", "blue", "red"]), "age": np.array([3.5, 4.5, 5.0])})
    x = table.x.clone()
    x[1] = torch.nan
    torn = table.decode(x)
    assert torn["colour"].tolist() == ["red", None, "red"]
    assert pv.tasks.fill(torn, table, table.x)["colour"].tolist() == ["red", "blue", "red"]


def test_features_with_a_mask():
    """Without ``missing`` a missing value looks like 0; with it, the last features are the mask."""
    columns = (C.Count("visits", 3.0), C.Binary("smokes", ("no", "yes")), C.Ordinal("grade", (1, 2, 3)))
    x = torch.tensor([[0.0, 0.0, 1.0], [torch.nan, torch.nan, torch.nan]])
    blind = C.Features(columns, (3,), (2,))
    assert torch.equal(*blind.features(x))
    seen = C.Features(columns, (3,), (2,), missing=True)
    assert torch.equal(seen.features(x)[:, -3:], torch.tensor([[1.0] * 3, [0.0] * 3]))
    assert (seen.takes_missing, blind.takes_missing) == (True, False)


def test_heterogeneous_learns_a_table_with_missing_values():
    torch.manual_seed(0)
    table = pv.data.Table(make_table())
    x = table.x.clone()
    x[torch.rand(x.shape) < 0.1] = torch.nan
    posterior = pv.posteriors.MeanFieldNormal((9,), 2, net=partial(C.Features, table.columns, missing=True))
    assert torch.isfinite(posterior(x).base_dist.loc).all()
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=L.Heterogeneous(2, (9,), columns=table.columns),
        posterior=posterior,
        missing=True,
    )
    history = pv.fit(vae, x, epochs=30, batch_size=20, seed=0, progress=False)
    assert history["loss"][-1] < history["loss"][0] - 1
    drawn = table.decode(vae.sample(6))
    assert set(drawn["colour"]) <= {"red", "green", "blue"}
    assert drawn["visits"].dtype.kind == "i"
    assert table.decode(vae.reconstruct(x))["smokes"].dtype == bool


def ranges(n=200):
    """Return columns with natural ends, skewed ones, and integers far from 0."""
    rng = np.random.default_rng(1)
    return {
        "share": np.clip(rng.beta(0.5, 0.5, n), 0, 1),
        "percent": np.round(rng.uniform(0, 100, n), 1),
        "income": rng.normal(size=n) * 1e4,
        "price": np.exp(3 * rng.normal(size=n)),
        "amount": np.where(rng.random(n) < 0.7, 0.0, rng.exponential(size=n)),
        "visits": rng.negative_binomial(1, 0.05, n),
        "year": rng.integers(1990, 2024, n),
        "debt": -rng.integers(0, 500, n),
        "identifier": 10**12 + rng.integers(0, 10**6, n),
        "grade": rng.integers(1, 6, n),
    }


@pytest.mark.parametrize("gain", [1.0, 30.0])
def test_samples_and_means_stay_inside_of_the_column(gain):
    """Also those of a network that extrapolates far beyond the data: inside the range and its margin."""
    data = ranges()
    table = pv.data.Table(data)
    part = L.Heterogeneous(4, (len(data),), columns=table.columns)
    with torch.no_grad():
        for p in part.parameters():
            p.mul_(gain)
    fn = part(5 * torch.randn(500, 4))
    means = torch.stack([c.nearest(m) for c, m in zip(table.columns, fn.mean.unbind(-1), strict=True)], -1)
    assert fn.support.check(means).all()
    for name, found in (("sample", fn.sample()), ("mean", means)):
        for (key, values), column in zip(table.decode(found).items(), table.columns, strict=True):
            low, high = data[key].min(), data[key].max()
            if isinstance(column, C.Count):
                assert values.min() >= 0
                assert values.dtype.kind == "i"
                assert name == "sample" or values.max() <= high * 1.06 + 1
                continue
            margin = 0.05 * (high - low)
            if isinstance(column, C.Positive):
                low, high = low * (low / high) ** 0.05, high * (high / low) ** 0.05
            else:
                low, high = low - margin if low < 0 or low > margin else 0, high + margin
            assert low - 1e-4 * margin <= values.min() <= values.max() <= high + 1e-4 * margin, (name, key)
            assert values.dtype.kind == data[key].dtype.kind
    assert data["share"].max() < 1
    assert table.decode(fn.sample())["share"].max() <= 1
    assert table.decode(fn.sample())["debt"].max() <= 0


def test_values_outside_of_the_range_are_scored():
    """They are accepted, have a finite log-density and are the most unusual ones."""
    data = ranges()
    table = pv.data.Table(data)
    part = L.Heterogeneous(2, (len(data),), columns=table.columns)
    posterior = pv.posteriors.MeanFieldNormal((len(data),), 2, net=partial(C.Features, table.columns))
    vae = pv.VAE(prior=pv.priors.StandardNormal(2), likelihood=part, posterior=posterior)
    x = table.x[:50].clone()
    x[0, table.names.index("income")] = 1e7
    x[1, table.names.index("price")] = 1e9
    x[2, table.names.index("year")] = 1500
    vae.check(x)
    scores = pv.tasks.ImportanceWeighted(20)(vae, x)
    assert scores.isfinite().all()
    assert scores[:3].min() > scores[3:].max()


def test_numbers_that_float32_rounds_have_an_origin():
    """Times in nanoseconds and numbers near a billion keep their differences."""
    now = np.datetime64("2024-05-01T10:00:00", "ns") + np.arange(50).astype("m8[ns]") * 1001
    near = 1e9 + np.linspace(0, 1, 50)
    table = pv.data.Table({"now": now, "near": near, "id": 2**40 + np.arange(50), "far": np.arange(50) * 2**30})
    assert [len(codes.unique()) for codes in table.x.T] == [50] * 4
    assert (
        torch.stack([c.features(v)[:, 0] for c, v in zip(table.columns, table.x.T, strict=True)]).std(1) > 0.1
    ).all()
    back = table.decode(table.x[[3, 1]])
    assert back["now"].tolist() == now[[3, 1]].tolist()
    assert back["id"].tolist() == [2**40 + 3, 2**40 + 1]
    np.testing.assert_allclose(back["near"], near[[3, 1]], atol=1e-7)


def test_features_of_columns_together():
    """Columns of one type are computed together, and their features are in the order of the columns."""
    likelihood = pv.likelihoods.Heterogeneous.example(shape=(18,))
    x = likelihood(torch.randn(50, 3)).sample()
    x[::7] = float("nan")
    columns = list(reversed(likelihood.columns))
    features = pv.data.tables.Features(columns, (18,), (2,)).features(x.flip(-1))
    each = torch.cat(
        [column.features(values) for column, values in zip(columns, x.flip(-1).unbind(-1), strict=True)], -1
    )
    assert torch.allclose(features, torch.nan_to_num(each), rtol=1e-6)


WIDE = 2000


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_wide_tables(kind, tmp_path):
    """The time grows with the number of columns, also for a training, and messages name a few of them."""
    x = np.random.default_rng(0).normal(size=(12, WIDE)).round(3)
    names = [f"g{i}" for i in range(WIDE)]
    if kind == "csv":
        np.savetxt(tmp_path / "a.csv", x, delimiter=",", header=",".join(names), comments="", fmt="%.3f")
    else:
        np.savez(tmp_path / "a.npz", **dict(zip(names, x.T, strict=True)))
    start = time.process_time()
    found = pv.data.read(tmp_path / f"a.{kind}")
    net = partial(pv.nets.MLP, hidden=(4,))
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Heterogeneous(2, (WIDE,), columns=found.columns, net=net),
        posterior=pv.posteriors.MeanFieldNormal(
            (WIDE,), 2, net=partial(pv.data.tables.Features, found.columns, net=net)
        ),
    )
    assert len(pv.fit(vae, found, epochs=5, batch_size=6, progress=False)) == 5
    assert time.process_time() - start < 60
    with pytest.raises(ValueError, match=r"g0, g1, .* and 1,980 more") as raised:
        pv.data.read(tmp_path / f"a.{kind}", label="none")
    assert len(str(raised.value)) < 500
