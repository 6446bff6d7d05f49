"""The commands that use a run, from a file to a file."""

import io
import json

import numpy as np
import pytest
import torch
from helpers.small_tables import NAMES, images, read_csv, table_rows, train, with_missing_cells, write_csv

import pyro_vae as pv
from pyro_vae.cli import command as cli
from pyro_vae.config import run
from pyro_vae.data import files


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs: a table with holes, arrays with holes, and arrays of which some have a class."""
    folder = tmp_path_factory.mktemp("runs")
    write_csv(folder / "table.csv", NAMES, with_missing_cells(table_rows()), delimiter=";")
    x = images()
    np.savez(folder / "classes.npz", x=x, y=np.where(np.arange(40) % 4 == 3, -1, np.arange(40) % 4 + 5))
    x[np.arange(40) % 3 == 0, 1, 2] = np.nan
    np.save(folder / "holes.npy", x)
    train(folder / "table", "--missing", f"--data={folder / 'table.csv'}", "--label=group")
    train(folder / "holes", "--missing", f"--data={folder / 'holes.npy'}")
    train(folder / "classes", "--program", "SemiSupervised", f"--data={folder / 'classes.npz'}", "--labels=6")
    return folder


def call(*words):
    assert cli.main([*map(str, words), "--quiet"]) == 0


def test_a_run_says_what_it_holds(runs):
    """Program, columns and classes are plain values, from which the program is built as it was trained."""
    config = json.loads((runs / "table" / "config.json").read_text())
    assert config["program"] == {"name": "VAE", "options": {"missing": True}}
    assert [c["name"] for c in config["columns"]] == ["Positive", "Categorical", "Count", "Ordinal"]
    assert config["columns"][1]["options"] == {"name": "colour", "values": ["blue", "green", "red"]}
    table = pv.load(runs / "table")
    assert table.missing
    assert table.likelihood.columns == run.columns(config)
    assert isinstance(table.posterior.net.body, pv.data.tables.Features)
    assert isinstance(pv.load(runs / "holes").posterior.net, pv.nets.ZeroImputed)
    config = json.loads((runs / "classes" / "config.json").read_text())
    assert config["classes"] == [5, 6, 7]
    # the weight of the paper: a tenth of all data over those with a label
    assert config["program"]["options"]["alpha"] == pytest.approx(0.1 * 32 / 6)
    assert pv.load(runs / "classes").classify(torch.rand(4, 2, 3)).shape == (4, 3)


def test_a_configuration_of_the_first_schema_is_a_plain_vae(tmp_path):
    """Runs from before there were programs are read as ever."""
    train(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    del config["program"]
    path.write_text(json.dumps({**config, "schema": 1}))
    found = pv.load(tmp_path / "run")
    assert type(found) is pv.VAE
    assert not found.missing
    call("score", tmp_path / "run", "digits", "--score=NegativeBound", "--output", tmp_path / "s.npy")
    assert np.load(tmp_path / "s.npy").shape == (300,)


def test_impute_fills_the_holes_of_a_table_and_nothing_else(runs, tmp_path):
    """Columns come in any order and go out in it; what was observed stays; types and labels are those of the table."""
    rows, out = with_missing_cells(table_rows(25, seed=1)), tmp_path / "out.csv"
    order = [4, 2, 0, 3, 1]
    new = write_csv(tmp_path / "new.csv", [NAMES[i] for i in order], [[row[i] for i in order] for row in rows])
    call("impute", runs / "table", new, "--output", out, "--particles=50")
    names, found = read_csv(out)
    assert names == [NAMES[i] for i in order]
    kinds = {"age": float, "visits": int, "grade": int, "colour": str, "group": str}
    holes = 0
    for row, given in zip(found, rows, strict=True):
        for cell, i in zip(row, order, strict=True):
            if given[i] or NAMES[i] == "group":
                assert cell == given[i]
            else:
                holes += 1
                kinds[NAMES[i]](cell)
                assert NAMES[i] != "colour" or cell in {"red", "green", "blue"}
    assert holes > 10
    call("impute", runs / "table", new, "--output", tmp_path / "draws.csv", "--particles=50", "--draws=3")
    names, found = read_csv(tmp_path / "draws.csv")
    assert names[0] == "draw"
    assert [row[0] for row in found] == ["0"] * 25 + ["1"] * 25 + ["2"] * 25
    assert all(cell for row in found for cell in row[2:])


def test_impute_gives_what_the_task_gives(runs, tmp_path):
    """An array comes back as the array that tasks.impute makes, several draws with a dimension for them."""
    x = images(10)
    x[::2, 0, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    call("impute", runs / "holes", tmp_path / "x.npy", "--output", tmp_path / "a.npy", "--particles=50", "--seed=4")
    call("impute", runs / "holes", tmp_path / "x.npy", "--output", tmp_path / "b.npz", "--particles=50", "--draws=2")
    known = pv.tasks.impute(pv.load(runs / "holes"), torch.from_numpy(x), num_particles=50, num_samples=0, seed=4).x
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), known.numpy())
    with np.load(tmp_path / "b.npz") as found:
        assert found["x"].shape == (2, 10, 2, 3)
        assert not np.isnan(found["x"]).any()


def test_sample(runs, tmp_path):
    """As many rows as were asked for, in the values of the table; a class can be chosen where there are some."""
    call("sample", runs / "table", "--n=7", "--output", tmp_path / "rows.csv")
    names, rows = read_csv(tmp_path / "rows.csv")
    assert names == NAMES[:4]
    assert len(rows) == 7
    assert all(row[1] in {"red", "green", "blue"} and row[3] in "1234" and int(row[2]) >= 0 for row in rows)
    call("sample", runs / "classes", "--n=5", "--class=6", "--mean", "--output", tmp_path / "x.npy", "--seed=2")
    program = pv.load(runs / "classes")
    label = torch.tensor([[0.0, 1.0, 0.0]]).expand(5, 3)
    known = pv.tasks.generate(program, 5, context=[label], mean=True, seed=2)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), known.numpy())
    assert cli.main(["sample", str(runs / "classes"), "--class=8"]) == 2
    assert cli.main(["sample", str(runs / "table"), "--mean"]) == 2
    assert cli.main(["sample", str(runs / "table"), "--class=8"]) == 2
    assert cli.main(["sample", str(runs / "classes"), "--temperature=0.5"]) == 2


def test_reconstruct(runs, tmp_path):
    """A table is reconstructed as a table, images as images."""
    new = write_csv(tmp_path / "new.csv", NAMES, table_rows(9))
    call("reconstruct", runs / "table", new, "--output", tmp_path / "out.npy")
    found = np.load(tmp_path / "out.npy")
    assert found.dtype.names == tuple(NAMES)
    assert set(found["colour"]) <= {"red", "green", "blue"}
    assert found["grade"].dtype.kind == "i"
    np.save(tmp_path / "x.npy", images(3))
    call("reconstruct", runs / "classes", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    assert np.load(tmp_path / "y.npy").shape == (3, 2, 3)


def test_score_classify_and_embed(runs, tmp_path, capsys):
    """They are those of the tasks, one row a datum; without --output the terminal gets them as .csv."""
    x = torch.from_numpy(images(6))
    np.save(tmp_path / "x.npy", x.numpy())
    program = pv.load(runs / "classes")
    call("score", runs / "classes", tmp_path / "x.npy", "--score.num_particles=20", "--output", tmp_path / "s.npy")
    known = pv.tasks.ImportanceWeighted(20)(program, x)
    np.testing.assert_allclose(np.load(tmp_path / "s.npy"), known.numpy())
    call("classify", runs / "classes", tmp_path / "x.npy", "--output", tmp_path / "p.csv")
    names, rows = read_csv(tmp_path / "p.csv")
    assert names == ["5", "6", "7"]
    np.testing.assert_allclose(np.array(rows, float), program.classify(x).numpy(), rtol=1e-6)
    capsys.readouterr()
    call("embed", runs / "holes", tmp_path / "x.npy")
    header, *rows = capsys.readouterr().out.splitlines()
    assert header == "z[0].mean,z[1].mean,z[0].sd,z[1].sd"
    vae = pv.load(runs / "holes")
    with torch.no_grad():
        q = vae.encode(x)
    found = np.array([row.split(",") for row in rows], float)
    np.testing.assert_allclose(found, torch.cat([q.mean, q.stddev], -1).numpy(), rtol=1e-4)


def test_embed_without_a_closed_form_is_that_of_the_mixture():
    """Over draws of a class, mean and sd are those of the mixture of its posteriors, within four standard errors."""
    torch.manual_seed(0)
    net = {"net": lambda i, o, context=0: pv.nets.MLP(i, o, hidden=(8,), context=context)}
    program = pv.programs.SemiSupervised(
        classes=pv.priors.OneHotCategorical(3),
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (4,), context=3, **net),
        classifier=pv.posteriors.OneHotCategorical((4,), 3, **net),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2, context=3, **net),
    )
    program.posterior.net.body[0].weight.data.mul_(6)  # so that classes differ
    x, draws = 3 * torch.randn(5, 4), 4000
    found = pv.tasks.embed(program, x, num_samples=draws)
    with torch.no_grad():
        share = program.classify(x)
        q = program.posterior(x.expand(3, 5, 4), torch.eye(3).unsqueeze(1).expand(3, 5, 3))
        mean = torch.einsum("nk,knd->nd", share, q.mean)
        second = torch.einsum("nk,knd->nd", share, q.variance + q.mean.square())
        sd = (second - mean.square()).sqrt()
        spread = (torch.einsum("nk,knd->nd", share, q.mean.square()) - mean.square()).clamp(min=1e-12).sqrt()
    assert found.names == ("y[0]", "y[1]", "y[2]", "z[0]", "z[1]")
    torch.testing.assert_close(found.mean[:, :3], share, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.std[:, :3], (share * (1 - share)).sqrt(), rtol=0, atol=1e-4)
    assert ((found.mean[:, 3:] - mean).abs() < 4 * spread / draws**0.5 + 1e-5).all()
    torch.testing.assert_close(found.std[:, 3:], sd, rtol=0.1, atol=0)


def test_reconstruction_of_labels_is_the_most_probable_one():
    """Not the rounded mean of codes, which between the first and the last of three is the one in the middle."""
    columns = [pv.data.tables.Categorical("colour", ("red", "green", "blue")), pv.data.tables.Real("size")]
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(1),
        likelihood=pv.likelihoods.Heterogeneous(1, (2,), columns=columns),
        posterior=pv.posteriors.MeanFieldNormal((2,), 1),
    )
    last = vae.likelihood.net.body[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([1.0, -9.0, 1.1, 0.5, 0.0]))
    found = pv.tasks.reconstruct(vae, torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.5], [2.0, 0.5]]))


@pytest.mark.parametrize("kind", files.ENDINGS)
def test_files_there_and_back(kind, tmp_path):
    """A table of numbers, words and whole numbers is read as it was written, in each kind of file."""
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
    """A column with words for labels keeps text that looks like numbers; whole numbers with holes stay whole."""
    cells = np.array(["1", None, "20"], object)
    assert files.typed(cells).tolist() == [1, None, 20]
    assert files.typed(cells, pv.data.tables.Categorical("a", ("1", "20", "x"))).tolist() == ["1", None, "20"]
    assert files.typed(np.array(["1_000", "2"], object)).tolist() == ["1_000", "2"]


def test_evaluate_and_resume_know_the_file(runs, capsys):
    """A run on a file is evaluated and gone on with as one on a data set."""
    call("evaluate", runs / "table", "--particles=20")
    assert "log_likelihood" in capsys.readouterr().out
    before = json.loads((runs / "holes" / "config.json").read_text())
    again = ["train", "--missing", f"--data={runs / 'holes.npy'}", "--resume", f"--run-dir={runs / 'holes'}"]
    assert cli.main([*again, "--quiet"]) == 0
    assert json.loads((runs / "holes" / "config.json").read_text()) == before
    assert cli.main([*again, "--latent=5"]) == 2
    plain = ["train", "--resume", f"--run-dir={runs / 'classes'}", "--missing"]
    assert cli.main(plain) == 2
    assert "program.missing" in capsys.readouterr().err


def test_the_default_output_is_a_csv_that_is_read_again(runs, capsys, tmp_path):
    """What the terminal gets is a file for the next command."""
    call("sample", runs / "table", "--n=12")
    text = capsys.readouterr().out
    (tmp_path / "new.csv").write_text(text)
    assert len(text.splitlines()) == 13
    call("score", runs / "table", tmp_path / "new.csv", "--score=Reconstruction")
    scores = np.loadtxt(io.StringIO(capsys.readouterr().out), skiprows=1)
    assert scores.shape == (12,)
    assert np.isfinite(scores).all()
