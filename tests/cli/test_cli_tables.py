"""The command on tables as people write them: amounts, shares, dates and missing values, and types that are chosen."""

import json
import re

import numpy as np
import pytest
from helpers.small_tables import TINY, read_csv, train, write_csv

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.config import run

NAMES = ["who", "age", "pay", "share", "day", "size", "code"]
OPTIONS = ["--missing", "--leave-out=who", "--columns=size=Ordinal(S<M<L),code=Categorical"]
#: How the cells of each column look.
LOOKS = {"age": r"\d+(\.\d+)?", "pay": r"\$[\d,]+\.\d\d", "share": r"[\d.]+ %", "day": r"\d\d\.\d\d\.\d{4}"}
LOOKS |= {"size": "[SML]", "code": "0[0-3]"}


def rows(n=60):
    """Return rows of text with all kinds of missing values."""
    rng = np.random.default_rng(0)
    markers = ["", "NA", "N/A", "-", "None", "null", "NULL", "<NA>", "#N/A", "n/a", "?"]
    found = [
        [
            f"person {i}",
            f"{rng.uniform(20, 60):.1f}",
            f"${1e3 + 1e3 * rng.random() * i:,.2f}",
            f"{rng.uniform(0, 100):.1f} %",
            f"{1 + i % 28:02d}.{1 + i % 12:02d}.2024",
            "SML"[i % 3],
            f"0{i % 4}",
        ]
        for i in range(n)
    ]
    for i, row in enumerate(found):
        if i % 3 == 0:
            row[1 + i // 3 % 6] = markers[i // 3 % len(markers)]
    return found


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Return the folder of a run on such a table, and the file."""
    folder = tmp_path_factory.mktemp("table")
    data = write_csv(folder / "x.csv", NAMES, rows())
    return train(folder / "run", f"--data={data}", *OPTIONS), data


def test_types_are_chosen_and_saved(table):
    config = run.read(table[0])
    assert config["types"] == {"size": "Ordinal(S<M<L)", "code": "Categorical"}
    assert config["leave_out"] == ["who"]
    assert [c["name"] for c in config["columns"]] == [
        "Positive",
        "Positive",
        "Positive",
        "Integer",
        "Ordinal",
        "Categorical",
    ]
    columns = run.columns(config)
    assert run.columns(json.loads(json.dumps({"columns": run.describe(columns)}))) == columns
    assert columns[4].values == ("S", "M", "L")
    assert columns[5].values == ("00", "01", "02", "03")


def test_the_types_are_printed(tmp_path, capsys):
    data = write_csv(tmp_path / "x.csv", NAMES, rows())
    assert main(["train", *TINY, f"--data={data}", f"--run-dir={tmp_path / 'run'}", *OPTIONS]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["column", "type", "values", "missing"] in lines
    for name, kind in (("age", "Positive"), ("day", "Integer"), ("size", "Ordinal"), ("code", "Categorical")):
        assert any(line[:2] == [name, kind] and line[-1].isdigit() for line in lines), name


def test_filled_cells_look_like_the_others(table, tmp_path):
    """Observed cells are the same text, those of the column that was left out included."""
    folder, data = table
    words = ["impute", folder, data, "--output", tmp_path / "out.csv", "--num-particles=20", "--quiet"]
    assert main([*map(str, words)]) == 0
    names, found = read_csv(tmp_path / "out.csv")
    assert names == NAMES
    filled = 0
    for given, row in zip(rows(), found, strict=True):
        assert row[0] == given[0]
        for name, old, new in zip(NAMES[1:], given[1:], row[1:], strict=True):
            assert re.fullmatch(LOOKS[name], new), (name, new)
            if re.fullmatch(LOOKS[name], old):
                assert new == old
            else:
                filled += 1
    assert filled == 20


def test_samples_look_like_the_data(table, tmp_path):
    assert main([*map(str, ["sample", table[0], "--num-samples=30", "--output", tmp_path / "s.csv", "--quiet"])]) == 0
    names, found = read_csv(tmp_path / "s.csv")
    assert names == NAMES[1:]
    assert all(re.fullmatch(LOOKS[n], cell) for row in found for n, cell in zip(names, row, strict=True))
    days = [cell.split(".") for cell in (row[3] for row in found)]
    assert all("2023-12" <= f"{year}-{month}" <= "2025-01" for _, month, year in days)
    assert all(0 <= float(row[2].split()[0]) <= 100 for row in found)


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--missing"], 1, r"column 'who': .*60 different texts.* 'person 0' in line 2.*--leave-out NAME, --columns"),
        (["--missing", "--leave-out=whom"], 1, r"leave-out: expected names of columns .who, age.*got whom"),
        (["--missing", "--leave-out=who", "--columns=size"], 2, "columns: .*NAME=TYPE.*'size'"),
        (["--missing", "--leave-out=who", "--columns=size=Grade"], 1, "columns: expected one of Binary.*'Grade'"),
        (["--missing", "--leave-out=who", "--columns=sise=Count"], 1, "columns: expected names of columns.*sise"),
        (["--missing", "--leave-out=who", "--columns=size=Ordinal"], 1, "column 'size': .*Ordinal.L<M<S"),
        (
            ["--missing", "--leave-out=who", "--columns=size=Count"],
            1,
            "column 'size': expected numbers, got 'S' in line 2",
        ),
    ],
)
def test_wrong_columns_end_the_command(tmp_path, capsys, options, status, said):
    data = write_csv(tmp_path / "x.csv", NAMES, rows())
    assert main(["train", *TINY, f"--data={data}", f"--run-dir={tmp_path / 'run'}", *options]) == status
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_columns_are_for_tables(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 3)))
    words = ["train", *TINY, f"--data={tmp_path / 'x.npy'}", f"--run-dir={tmp_path / 'run'}", "--columns=0=Count"]
    assert main(words) == 1
    assert "columns: " in capsys.readouterr().err


def test_resume_compares_the_types(table, capsys):
    folder, data = table
    again = ["train", "--resume", f"--run-dir={folder}", f"--data={data}", "--quiet"]
    assert main([*again, *OPTIONS]) == 0
    capsys.readouterr()
    assert main([*again, "--columns=size=Categorical"]) == 2
    assert "columns: expected {" in capsys.readouterr().err
    assert main([*again, "--leave-out=age"]) == 2
    assert "leave-out: expected ['who']" in capsys.readouterr().err


@pytest.fixture(scope="module")
def real_table(tmp_path_factory):
    """Return a table of 300 rows and 4 columns with two factors."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 4)) + 0.1 * rng.normal(size=(300, 4))
    return write_csv(tmp_path_factory.mktemp("real") / "x.csv", list("abcd"), x.tolist())


def config_of(folder, *options):
    assert main(["train", f"--run-dir={folder}", "--num-particles=3", "--quiet", *options]) == 0
    return json.loads((folder / "config.json").read_text())


def test_defaults_follow_the_size_of_a_table(real_table, tmp_path):
    """240 training rows, 2 steps per epoch: 400 steps, whose size falls to 0 until then."""
    config = config_of(tmp_path / "run", f"--data={real_table}", "--patience=1")
    assert (config["epochs"], config["learning_rate"]) == (200, 1e-2)
    assert config["lr_schedule"]["name"] == "Cosine"
    assert config["lr_schedule"]["options"]["num_steps"] == 400
    for part in ("posterior", "likelihood"):
        assert config[part]["options"]["net"]["options"]["hidden"] == [128, 128]


def test_defaults_with_missing_entries_are_those_of_imputation(real_table, tmp_path):
    """Half as many latents as columns, a linear map plus a network of 32, four times as many steps."""
    options = [f"--data={real_table}", "--missing", "--epochs=2"]
    config = config_of(tmp_path / "run", *options)
    assert (config["latent"], config["lr_schedule"]["options"]["num_steps"]) == (2, 4)
    nets = {part: config[part]["options"]["net"]["options"] for part in ("posterior", "likelihood")}
    assert {part: (net["hidden"], net["linear"]) for part, net in nets.items()} == {
        "posterior": ([32], False),
        "likelihood": ([32], True),
    }
    assert config_of(tmp_path / "own", *options, "--latent=3", "--likelihood.net.linear=false")["latent"] == 3


@pytest.mark.slow
def test_defaults_with_labels_are_those_of_few_labels(tmp_path):
    """A linear map plus a network of 32 as classifier, whose weights have a standard normal prior."""
    rows = np.random.default_rng(0).normal(size=(100, 3)).round(2).tolist()
    cells = [[*row, "ab"[i % 2] if i % 5 == 0 else ""] for i, row in enumerate(rows)]
    data = write_csv(tmp_path / "x.csv", [*"xyz", "kind"], cells)
    options = [f"--data={data}", "--program=SemiSupervised", "--label=kind", "--epochs=1"]
    config = config_of(tmp_path / "run", *options)
    net = config["posterior"]["options"]["net"]["options"]
    assert (net["hidden"], net["linear"]) == ([32], True)
    chosen = config["program"]["options"]
    labels = 1 / chosen["weight_decay"]
    assert labels == pytest.approx(round(labels))
    assert 10 <= labels <= 20
    assert chosen["alpha"] == pytest.approx(100 * 80 / labels)
    program = pv.load(tmp_path / "run")
    assert (program.weight_decay, program.alpha) == (chosen["weight_decay"], chosen["alpha"])
    config = config_of(tmp_path / "own", *options, "--program.weight_decay=0.5", "--program.alpha", "3")
    assert config["program"]["options"] == {**chosen, "weight_decay": 0.5, "alpha": 3.0}


def test_options_of_the_user_win_over_those_of_the_table(real_table, tmp_path):
    given = ["--epochs=2", "--posterior.net.hidden=[500,500]", "--latent=3"]
    config = config_of(tmp_path / "run", f"--data={real_table}", *given)
    assert (config["epochs"], config["latent"], config["lr_schedule"]["options"]["num_steps"]) == (2, 3, 4)
    assert config["posterior"]["options"]["net"]["options"]["hidden"] == [500, 500]
    assert config["likelihood"]["options"]["net"]["options"]["hidden"] == [128, 128]


@pytest.mark.parametrize(
    "given", [["--learning-rate=0.02"], ["--lr-schedule=MultiStep", "--lr-schedule.milestones=[1]"]]
)
def test_a_chosen_learning_rate_has_no_other_schedule(given, real_table, tmp_path):
    config = config_of(tmp_path / "run", f"--data={real_table}", "--epochs=2", *given)
    chosen = (config.get("lr_schedule") or {"name": None})["name"]
    assert (config["learning_rate"], chosen) in {(0.02, None), (0.01, "MultiStep")}


def test_images_keep_the_general_defaults(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, 3, 3)).round().astype("float32"))
    config = config_of(tmp_path / "run", f"--data={tmp_path / 'x.npy'}", "--patience=1")
    assert (config["epochs"], config["learning_rate"]) == (150, 1e-3)
    assert config["posterior"]["options"]["net"]["options"]["hidden"] == [500, 500]


@pytest.mark.slow
def test_rows_off_the_plane_have_high_scores(real_table, tmp_path):
    """Rows whose columns do not fit together: the command trains and scores with its defaults."""
    config_of(tmp_path / "run", f"--data={real_table}")
    names, cells = read_csv(real_table)
    x = np.array(cells, float)
    odd = np.random.default_rng(1).permuted(x[:60], axis=0)
    data = write_csv(tmp_path / "new.csv", names, [*x[60:120].tolist(), *odd.tolist()])
    words = ["score", tmp_path / "run", data, "--output", tmp_path / "scores.npy", "--quiet"]
    assert main([str(word) for word in words]) == 0
    scores = np.load(tmp_path / "scores.npy")
    assert (scores[:60, None] < scores[60:]).mean() > 0.85
