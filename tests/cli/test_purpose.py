"""``pyro-vae train --purpose``: settings of a table by what its VAE is for."""

import json

import numpy as np
import pytest
import torch
from helpers.small_tables import NAMES, images, table_rows, write_csv

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.training import PURPOSES, AnomalyDefaults

QUICK = ["--quiet", "--num-particles=2"]
COMPLETE = "--leave-out=group"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("table") / "x.csv", NAMES, table_rows())


def trained(data, folder, *options):
    assert main(["train", f"--data={data}", f"--run-dir={folder}", *QUICK, *options]) == 0
    return json.loads((folder / "config.json").read_text())


def test_a_run_for_anomalies_has_the_settings_of_the_density_for_them(table, tmp_path, capsys):
    """Its columns of numbers are alike: real, without ranges, with one scale; those of labels keep their types."""
    config = trained(table, tmp_path / "run", "--purpose=anomalies", "--epochs=1", COMPLETE)
    sizes = AnomalyDefaults(48, 4)
    assert (config["purpose"], config["latent"], config["learning_rate"]) == ("anomalies", 2, sizes.learning_rate)
    assert config.get("lr_schedule") is None
    assert config["estimator"]["name"] == "TrimmedELBO"
    assert config["likelihood"]["name"] == "StudentTTable"
    assert config["likelihood"]["options"]["net"]["options"]["hidden"] == list(sizes.hidden)
    assert "as the data are mixed and the purpose is anomalies" in capsys.readouterr().out
    types = {column["options"]["name"]: column["name"] for column in config["columns"]}
    assert types == {**dict.fromkeys(("age", "visits"), "Real"), **{n: types[n] for n in ("colour", "grade")}}
    assert types["colour"] == "Categorical"
    age = next(column["options"] for column in config["columns"] if column["options"]["name"] == "age")
    assert age.keys() - {"cells"} == {"name", "shift", "scale"}
    assert 30 < age["shift"] < 50


@pytest.mark.slow
def test_scores_of_a_run_for_another_purpose_come_with_a_note(table, tmp_path, capsys):
    for purpose, noted in (("density", True), ("imputation", True), ("anomalies", False)):
        trained(table, tmp_path / purpose, f"--purpose={purpose}", "--epochs=1", "--missing")
        capsys.readouterr()
        scores = tmp_path / f"{purpose}.npy"
        assert main(["score", str(tmp_path / purpose), str(table), f"--output={scores}", "--quiet"]) == 0
        assert ("--purpose anomalies" in capsys.readouterr().err) == noted
        assert np.isfinite(np.load(scores)).all()


def test_only_tables_have_a_purpose(tmp_path, capsys):
    np.save(tmp_path / "x.npy", images())
    words = ["train", f"--data={tmp_path / 'x.npy'}", "--purpose=anomalies", f"--run-dir={tmp_path / 'run'}"]
    assert main(words) == 2
    assert "purpose: expected" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_run_is_resumed_for_its_purpose_only(purpose, table, tmp_path, capsys):
    trained(table, tmp_path / "run", f"--purpose={purpose}", "--epochs=1", COMPLETE)
    words = ["train", f"--run-dir={tmp_path / 'run'}", "--resume", *QUICK]
    assert main([*words, "--epochs=1"]) == 0
    other = next(name for name in PURPOSES if name != purpose)
    assert main([*words, f"--purpose={other}"]) == 2
    assert "purpose: expected" in capsys.readouterr().err


@pytest.mark.slow
def test_unusual_rows_that_vary_little_have_high_scores(tmp_path):
    """Entries and their noise are proportional to the size of a row: small rows are rare, and their density is high.

    The area under the ROC curve exceeds 0.8 for anomalies, where a run for likelihood is worse than a coin.
    """
    rng = np.random.default_rng(0)
    size = np.concatenate([rng.uniform(0.5, 1, 460), rng.uniform(0.05, 0.15, 20)])[:, None]
    x = size * rng.uniform(1, 2, 6) * (1 + 0.1 * rng.normal(size=(480, 6))) * 10.0 ** np.arange(-3, 3)
    data = write_csv(tmp_path / "x.csv", list("abcdef"), x.tolist())
    areas = {}
    for purpose in ("anomalies", "density"):
        trained(data, tmp_path / purpose, f"--purpose={purpose}")
        program, rows = pv.load(tmp_path / purpose), torch.from_numpy(x).float()
        scores = pv.tasks.ImportanceWeighted(50)(program, rows).numpy()
        areas[purpose] = (scores[:460, None] < scores[460:]).mean()
    assert areas["anomalies"] > 0.8
    assert areas["density"] < 0.5
