"""Programs of the command on every kind of data: covariates, hierarchies, classes, missing values and counts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_tables import FOLDER, images, read_csv, table_rows, train, with_missing_cells, write_csv
from scipy import sparse

import pyro_vae as pv
from pyro_vae import tasks
from pyro_vae.cli import main
from pyro_vae.config import data as run_data
from pyro_vae.config import parts, run
from pyro_vae.config.program import can_build

NAMES = ["a", "b", "site", "age", "group"]
SITES = ("north", "south")


def measured(n=60):
    """Return rows of two numbers, a site that shifts both of them, an age, and a class."""
    rng = np.random.default_rng(1)
    shift = np.arange(n) % 2
    numbers = rng.normal(size=(n, 2)) + 9.0 * shift[:, None]
    return [
        [f"{a:.3f}", f"{b:.3f}", SITES[s], f"{30 + i}", "xyz"[i % 3]]
        for i, ((a, b), s) in enumerate(zip(numbers, shift, strict=True))
    ]


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """Return the folder of a run with two covariates, and its table."""
    folder = tmp_path_factory.mktemp("conditional")
    data = write_csv(folder / "x.csv", NAMES, measured())
    return train(folder / "run", f"--data={data}", "--covariates=site,age", "--leave-out=group"), data


def call(*words):
    return main([*map(str, words), "--quiet"])


def test_covariates_are_context_and_no_columns(conditional):
    config, program = run.read(conditional[0]), pv.load(conditional[0])
    assert [c["options"]["name"] for c in config["columns"]] == ["a", "b"]
    assert [(c["name"], c["options"]["name"]) for c in config["context"]] == [("Binary", "site"), ("Count", "age")]
    assert program.context == 3  # one-hot site and standardized age
    assert {program.likelihood.context, program.posterior.context} == {3}


def test_covariates_of_new_rows_have_the_codes_of_the_run(conditional, tmp_path):
    """Scores are those of the program with the context of each row, also where new rows have one site only."""
    folder, _ = conditional
    south = [row for row in measured() if row[2] == "south"][:7]
    data = write_csv(tmp_path / "new.csv", NAMES, south)
    assert call("score", folder, data, "--output", tmp_path / "s.csv", "--score.num_particles=5") == 0
    config, program = run.read(folder), pv.load(folder)
    x = torch.tensor([[float(v) for v in row[:2]] for row in south])
    age = run.columns(config, "context")[1].features(torch.tensor([float(row[3]) for row in south]))
    context = torch.cat([torch.tensor([[0.0, 1.0]]).expand(7, -1), age], 1)
    expected = tasks.ImportanceWeighted(5)(program, (x, context))
    names, rows = read_csv(tmp_path / "s.csv")
    found = [float(row[names.index("score")]) for row in rows]
    assert found == pytest.approx(expected.tolist(), rel=1e-6)


def test_samples_have_the_chosen_covariates(conditional, tmp_path):
    folder, data = conditional
    for command in ("embed", "reconstruct"):
        assert call(command, folder, data, "--output", tmp_path / f"{command}.csv") == 0
    words = ["sample", folder, "--num-samples=5", "--output"]
    assert call(*words, tmp_path / "a.csv") == 0
    assert call(*words, tmp_path / "b.csv", "--covariates=site=south,age=33") == 0
    assert len(read_csv(tmp_path / "b.csv")[1]) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("site=south", "site, age"),
        ("site=west,age=3", "west"),
        ("site=south,age=", "age"),
        ("site=south,age=3,site=north", "site"),
    ],
)
def test_wrong_covariates_of_samples_are_refused(text, said, conditional, capsys):
    assert call("sample", conditional[0], f"--covariates={text}") == 2
    error = capsys.readouterr().err
    assert "covariates: " in error
    assert said in error


def test_missing_covariates_are_refused(conditional, tmp_path, capsys):
    rows = measured()
    rows[4][2] = ""
    data = write_csv(tmp_path / "new.csv", NAMES, rows)
    assert call("embed", conditional[0], data) == 1
    assert "'site' in each row, got none in line 6" in capsys.readouterr().err
    data = write_csv(tmp_path / "less.csv", NAMES[:2], [row[:2] for row in rows])
    assert call("embed", conditional[0], data) == 1
    assert "covariates: " in capsys.readouterr().err


def test_labels_of_arrays_are_covariates(tmp_path):
    """The labels y of a file make a conditional VAE."""
    y = np.array([4, 7, 9])[np.arange(40) % 3]
    np.savez(tmp_path / "x.npz", X=images(), y=y)
    folder = train(tmp_path / "run", f"--data={tmp_path / 'x.npz'}", "--covariates=y")
    assert pv.load(folder).context == 3
    assert run.read(folder)["context"][0]["options"]["values"] == [4, 7, 9]
    assert call("embed", folder, tmp_path / "x.npz", "--output", tmp_path / "z.npy") == 0
    assert call("sample", folder, "--covariates=y=7", "--output", tmp_path / "s.npy") == 0
    np.save(tmp_path / "x.npy", images())
    assert call("embed", folder, tmp_path / "x.npy") == 1


@pytest.mark.parametrize("options", [["--covariates=y"], ["--covariates=site", "--program=Hierarchical"]])
def test_covariates_that_nothing_takes_are_refused(options, tmp_path, capsys):
    np.save(tmp_path / "x.npy", images())
    assert main(["train", f"--data={tmp_path / 'x.npy'}", *options]) in (1, 2)
    assert "covariates: expected" in capsys.readouterr().err


@pytest.mark.parametrize("inference", ["TopDown", "BottomUp"])
def test_hierarchies_have_the_chosen_layers(inference, tmp_path):
    np.save(tmp_path / "x.npy", images())
    options = ["--program=Hierarchical", "--program.layers=[3,5]", f"--program.inference={inference}"]
    folder = train(tmp_path / "run", f"--data={tmp_path / 'x.npy'}", *options, "--program.skip=true")
    program = pv.load(folder)
    assert type(program.inference).__name__ == inference
    # the top has the latents of --latent, and the likelihood of z1 sees the others too
    assert [part().event_shape[0] for part in [program.prior]] == [2]
    assert program.layers[0](torch.zeros(1, 2)).event_shape == (3,)
    assert program.layers[1](torch.zeros(1, 3)).event_shape == (5,)
    assert program.likelihood.context == 5
    assert json.loads((folder / "results.json").read_text())["active_units"].keys() == {"z1", "z2", "z3"}
    assert call("reconstruct", folder, tmp_path / "x.npy", "--output", tmp_path / "r.npy") == 0


def test_programs_have_parts_that_suit_them(tmp_path, capsys):
    """Counts with topics need no further option, and the user's own options win."""
    sparse.save_npz(tmp_path / "x.npz", sparse.csr_matrix(np.random.default_rng(0).poisson(2.0, (40, 6)) + 1))
    data = f"--data={tmp_path / 'x.npz'}"
    train(tmp_path / "topics", data, "--program=TopicModel", "--posterior.net=MLP", "--likelihood.net=MLP")
    config = run.read(tmp_path / "topics")
    assert [config[axis]["name"] for axis in run.AXES] == ["LogisticNormal", "Multinomial", "LogisticNormal", "ELBO"]
    assert config["likelihood"]["options"]["net"]["name"] == "MLP"
    assert "Multinomial, which suits TopicModel (--likelihood chooses another)" in capsys.readouterr().out
    train(tmp_path / "zeros", data, "--likelihood=ZeroInflatedNegativeBinomial", "--program=CountVAE")
    likelihood = run.read(tmp_path / "zeros")["likelihood"]
    assert (likelihood["name"], likelihood["options"]["library"]) == ("ZeroInflatedNegativeBinomial", True)


def test_the_networks_are_printed_with_the_options_that_change_them(tmp_path, capsys):
    np.save(tmp_path / "x.npy", images())
    train(tmp_path / "run", f"--data={tmp_path / 'x.npy'}", "--posterior.net=MLP")
    assert "MLP and MLP (--likelihood.net chooses others)" in capsys.readouterr().out


def test_values_missing_not_at_random_in_a_table(tmp_path):
    """Columns have no range, outside of which values may be missing, and the mask sees standardized values."""
    rows = [["" if float(row[0]) > 9 else row[0], *row[1:]] for row in measured()]
    data = write_csv(tmp_path / "x.csv", NAMES, rows)
    options = ["--program=MissingNotAtRandom", "--missing", "--leave-out=site,group,age"]
    program = pv.load(train(tmp_path / "run", f"--data={data}", *options))
    assert all(c.low is None for c in program.likelihood.columns)
    assert program.mask.columns == program.likelihood.columns
    assert call("impute", tmp_path / "run", data, "--output", tmp_path / "i.csv", "--num-particles=5") == 0
    assert all(row[0] for row in read_csv(tmp_path / "i.csv")[1])


def test_labels_missing_not_at_random_are_refused(tmp_path, capsys):
    data = write_csv(tmp_path / "x.csv", NAMES, measured())
    assert main(["train", f"--data={data}", "--program=MissingNotAtRandom"]) == 1
    assert "columns: expected real numbers" in capsys.readouterr().err


def test_programs_without_missing_values_refuse_the_option(capsys):
    assert main(["train", "--program=Hierarchical", "--missing"]) == 2
    error = capsys.readouterr().err
    assert "missing: expected a --program" in error
    assert "SemiSupervised" in error
    assert main(["train", "--help"]) == 0
    assert "--missing" in capsys.readouterr().out


def test_accuracy_is_that_of_the_test_rows(tmp_path, capsys):
    """The table and results.json have the share of the test rows whose class is right; holes are seen as holes."""
    data = write_csv(tmp_path / "x.csv", NAMES, with_missing_cells(measured(120)))
    options = ["--program=SemiSupervised", "--label=group", "--missing"]
    folder = train(tmp_path / "run", f"--data={data}", *options)
    assert "accuracy" in capsys.readouterr().out
    program, test = pv.load(folder), run_data.load(run.read(folder)).dataset.test
    assert program.classifier.takes_missing
    assert program.posterior.takes_missing
    right = (program.classify(test.x).argmax(1) == test.y).double()
    found = json.loads((folder / "results.json").read_text())["accuracy"]
    assert found["mean"] == pytest.approx(float(right.mean()))
    assert found["num_examples"] == len(test)


def test_accuracy_ignores_rows_without_a_label(tmp_path):
    data = write_csv(tmp_path / "x.csv", ["age", "colour", "visits", "grade", "group"], table_rows())
    folder = train(tmp_path / "run", f"--data={data}", "--program=SemiSupervised", "--label=group")
    test = run_data.load(run.read(folder)).dataset.test
    known = int((test.y >= 0).sum())
    assert 0 < known < len(test)
    assert json.loads((folder / "results.json").read_text())["accuracy"]["num_examples"] == known


def test_scores_above_the_threshold_are_anomalous(tmp_path, capsys):
    """The threshold is that of a Detector on the validation rows."""
    rows = measured(200)
    data = write_csv(tmp_path / "x.csv", NAMES[:2], [row[:2] for row in rows])
    folder = train(tmp_path / "run", f"--data={data}")
    options = ["--score=NegativeBound", "--contamination=0.1"]
    assert call("score", folder, data, *options, "--output", tmp_path / "s.csv") == 0
    names, found = read_csv(tmp_path / "s.csv")
    assert names == ["score", "anomalous"]
    valid = run_data.load(run.read(folder)).split("valid")
    detector = tasks.Detector(pv.load(folder), tasks.NegativeBound(), valid, false_alarm_rate=0.1)
    assert [row[1] == "yes" for row in found] == [float(row[0]) > detector.threshold for row in found]
    assert 0 < sum(row[1] == "yes" for row in found) < 60
    assert call("score", folder, data, options[0], "--contamination=0.001", "--output", tmp_path / "t.csv") == 1
    assert "contamination: expected" in capsys.readouterr().err  # too few validation rows
    assert not (tmp_path / "t.csv").exists()


def test_corrections_of_scores(tmp_path, capsys):
    np.save(tmp_path / "x.npy", images())
    folder = train(tmp_path / "run", f"--data={tmp_path / 'x.npy'}")
    words = ["score", folder, tmp_path / "x.npy", "--score=NegativeBound", "--output"]
    assert call(*words, tmp_path / "t.npy", "--correction=Typicality") == 0
    program, x = pv.load(folder), torch.from_numpy(images())
    train_rows = run_data.load(run.read(folder)).split("train")
    expected = tasks.Typicality(tasks.NegativeBound(), train_rows)(program, x)
    assert np.load(tmp_path / "t.npy") == pytest.approx(expected.numpy(), rel=1e-5)
    assert call(*words, tmp_path / "c.npy", "--correction=InputComplexity", "--correction.levels=16") == 0
    expected = tasks.InputComplexity(tasks.NegativeBound(), levels=16)(program, x)
    assert np.load(tmp_path / "c.npy") == pytest.approx(expected.numpy(), rel=1e-5)
    assert call(*words, tmp_path / "d.npy", "--correction=Complexity") == 2
    assert "did you mean InputComplexity?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "shows", "hides"),
    [
        ("train --prior.help VampPrior", "--prior.num_components", "--posterior.net"),
        ("train --posterior.help", "--posterior.net.hidden", "--prior"),
        ("train --likelihood Normal --likelihood.scale.help PerExample", "likelihood.scale PerExample", "--prior"),
        ("score --score.help LikelihoodRegret", "--score.num_steps", "--output"),
    ],
)
def test_help_of_one_part(words, shows, hides, capsys):
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    assert shows in out
    assert hides not in out


def test_help_of_an_unknown_part_is_refused(capsys):
    assert main(["train", "--prior.help", "VampPrio"]) == 2
    assert "did you mean VampPrior?" in capsys.readouterr().err


def test_values_outside_of_a_support_are_named_by_column_and_line(tmp_path, capsys):
    rows = [["1", "2"] for _ in range(30)]
    rows[17][1] = "2.5"
    data = write_csv(tmp_path / "x.csv", ["first", "second"], rows)
    assert main(["train", f"--data={data}", "--likelihood=Poisson", "--run-dir", str(tmp_path / "run")]) == 1
    assert "second in line 19 is 2.5" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


DATA = ("image", "real", "mixed", "holes", "counts")
COMMANDS = ("score", "embed", "impute", "reconstruct", "classify", "sample", "evaluate")


def write_data(kind):
    """Write data of a kind, and return the options to train on them."""
    folder = FOLDER.name
    if kind == "image":
        y = np.arange(60) % 3
        np.savez(f"{folder}/image.npz", X=np.random.default_rng(0).random((60, 4, 4)).astype("float32"), y=y)
        return f"{folder}/image.npz", []
    if kind == "counts":
        sparse.save_npz(f"{folder}/counts.npz", sparse.csr_matrix(np.random.default_rng(0).poisson(2.0, (60, 6)) + 1))
        return f"{folder}/counts.npz", []
    rows = measured() if kind == "real" else table_rows()
    names = NAMES if kind == "real" else ["age", "colour", "visits", "grade", "group"]
    data = write_csv(Path(folder) / f"{kind}.csv", names, with_missing_cells(rows) if kind == "holes" else rows)
    more = {"real": ["--leave-out=site"], "holes": ["--missing"]}.get(kind, [])
    return data, ["--label=group", *more]


@pytest.mark.slow
@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("name", [name for name, cls in parts.shelves()["program"].items() if can_build(cls)])
def test_every_command_works_or_says_why_not_in_one_sentence(name, kind, tmp_path, capsys):
    data, options = write_data(kind)
    folder = tmp_path / "run"
    small = ["--epochs=1", "--num-particles=3", "--quiet", "--latent=2"]
    status = main(["train", f"--data={data}", *options, *small, "--program", name, f"--run-dir={folder}"])
    error = capsys.readouterr().err
    if status:
        assert error.startswith("pyro-vae train: error: ")
        assert error.count("\n") == 1
        assert not folder.exists()
        return
    for command in COMMANDS:
        words = [command, folder, *([] if command in ("sample", "evaluate") else [data])]
        status = call(*words, *(["--num-particles=3"] if command in ("impute", "evaluate") else []))
        error = capsys.readouterr().err
        if command == "classify" and not hasattr(pv.load(folder), "classify"):
            assert status == 1
            assert "--program SemiSupervised" in error
        else:
            assert status == 0, error
