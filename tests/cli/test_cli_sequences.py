"""Sequences in the command line: training, resuming, every command of a run, and bad input."""

import json

import numpy as np
import pytest
import torch
from helpers.small_tables import read_csv, train

import pyro_vae as pv
from pyro_vae.cli import main
from pyro_vae.cli.outcome import figures
from pyro_vae.config import data as run_data
from pyro_vae.config import run

N, STEPS = 20, 5


def arrays():
    """Return sequences of a real channel and one of counts, with holes, lengths and inputs of two more steps."""
    g = np.random.default_rng(0)
    x = np.stack([1e3 + 50 * g.normal(size=(N, STEPS)), g.poisson(2.0, (N, STEPS))], -1)
    x[3, 1, 0] = np.nan
    return {"x": x, "lengths": np.arange(N) % 4 + 2, "inputs": g.normal(size=(N, STEPS + 2, 1))}


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    """Return the folder of a run on sequences, and its data."""
    folder = tmp_path_factory.mktemp("sequences")
    np.savez(folder / "x.npz", **arrays())
    return train(folder / "run", f"--data={folder / 'x.npz'}", "--program.summary=4", "--program=SequenceVAE"), (
        folder / "x.npz"
    )


def call(*words):
    return main([*map(str, words), "--quiet"])


def test_the_run_has_the_channels_and_inputs_of_the_data(sequences):
    config, program = run.read(sequences[0]), pv.load(sequences[0])
    assert (config["shape"], config["steps"], config["inputs"]) == ([2], STEPS, 1)
    assert [column["name"] for column in config["units"]] == ["Real", "Count"]
    assert config["program"]["options"] == {"missing": True, "summary": 4}
    assert (program.inputs, program.missing, program.transition.context) == (1, True, 2 + 1)
    assert program.summary.takes_missing
    assert program.summary.gru.hidden_size == 4
    assert json.loads((sequences[0] / "results.json").read_text())["num_examples"] == 2


def test_the_program_follows_the_data(tmp_path, capsys):
    np.savez(tmp_path / "list.npz", *[np.random.default_rng(n).normal(size=(2 + n % 3, 2)) for n in range(12)])
    np.save(tmp_path / "array.npy", np.random.default_rng(0).normal(size=(12, 3, 2)))
    for name, options in (("list.npz", []), ("array.npy", ["--layout=tc"]), ("array.npy", ["--program=SequenceVAE"])):
        folder = train(tmp_path / f"run of {name}{''.join(options)}", f"--data={tmp_path / name}", *options)
        assert run.read(folder)["program"]["name"] == "SequenceVAE"
    said = capsys.readouterr().out
    assert "SequenceVAE, as the data are sequences (--program chooses another)" in said
    assert "lengths: 2 to 4 steps" in said


def test_results_have_the_steps_of_the_data(sequences, tmp_path):
    """Files have NaN after the end of each sequence, lengths, or one row per step."""
    folder, data = sequences
    lengths = torch.from_numpy(arrays()["lengths"])
    inside = torch.arange(STEPS) < lengths[:, None]
    assert call("reconstruct", folder, data, "--output", tmp_path / "r.npz") == 0
    found = np.load(tmp_path / "r.npz")
    assert found["lengths"].tolist() == lengths.tolist()
    assert np.array_equal(~np.isnan(found["x"]), inside[..., None].expand(-1, -1, 2).numpy())
    assert call("impute", folder, data, "--num-particles=4", "--output", tmp_path / "i.csv") == 0
    names, rows = read_csv(tmp_path / "i.csv")
    assert names == ["sequence", "step", "0", "1"]
    assert len(rows) == int(lengths.sum())
    known = torch.from_numpy(arrays()["x"])[inside][:, 0]
    assert not torch.isnan(imputed := torch.tensor([float(row[2]) for row in rows])).any()
    assert torch.allclose(imputed[~known.isnan()], known[~known.isnan()].float())
    assert call("embed", folder, data, "--num-samples=2", "--output", tmp_path / "e.npy") == 0
    assert np.array_equal(np.isnan(np.load(tmp_path / "e.npy")[:, 0, ::2]), ~inside.numpy())
    assert call("score", folder, data, "--score.num_particles=2", "--output", tmp_path / "s.npy") == 0
    assert np.isfinite(np.load(tmp_path / "s.npy")).all()
    assert call("sample", folder, "--num-samples=3", "--length=7", "--output", tmp_path / "x.npy") == 0
    assert np.load(tmp_path / "x.npy").shape == (3, 7, 2)


def test_forecasts_have_intervals_and_a_figure(sequences, tmp_path):
    folder, data = sequences
    words = ["forecast", folder, data, "--num-steps=2", "--num-samples=30"]
    assert call(*words, "--output", tmp_path / "f.csv", "--figure", tmp_path / "f.png") == 0
    names, rows = read_csv(tmp_path / "f.csv")
    assert names[:5] == ["sequence", "step", "0.mean", "0.lower", "0.upper"]
    assert len(rows) == 2 * N
    assert all(float(row[3]) <= float(row[4]) for row in rows)
    assert (tmp_path / "f.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["forecast", "RUN", "DATA", "--num-steps=9"], "inputs: expected"),
        (["sample", "RUN", "--length=99"], "length: expected at most 7"),
        (["classify", "RUN", "DATA"], "--program SemiSupervised"),
        (["compress", "RUN", "DATA", "--output=x.bin"], "SequenceVAE"),
        (["explore", "RUN"], "pyro-vae embed"),
    ],
)
def test_commands_that_do_not_apply_are_refused(words, said, sequences, capsys):
    run_dir, data = sequences
    assert main([{"RUN": str(run_dir), "DATA": str(data)}.get(word, word) for word in words]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_figures_are_those_of_sequences(sequences):
    config = run.read(sequences[0])
    found = figures(pv.load(sequences[0]), run_data.load(config), 0)
    assert found.keys() == {"reconstructions", "latent", "samples", "forecasts"}


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights(sequences, tmp_path):
    options = [f"--data={sequences[1]}", "--program.summary=4", "--program=SequenceVAE", "--epochs=3"]
    whole = pv.load(train(tmp_path / "whole", *options)).state_dict()
    end_epoch, epochs = pv.training.EarlyStopping.on_epoch_end, []

    def interrupt(self, *args):
        epochs.append(1)
        if len(epochs) == 2:
            raise RuntimeError("interrupted")
        return end_epoch(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pv.training.EarlyStopping, "on_epoch_end", interrupt)
        with pytest.raises(RuntimeError, match="interrupted"):
            train(tmp_path / "part", *options)
    resumed = pv.load(train(tmp_path / "part", "--resume", *options)).state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


BAD = {
    "no step": ({"lengths": [0, *[2] * (N - 1)]}, "lengths[0] is 0"),
    "too long": ({"lengths": [9, *[2] * (N - 1)]}, "lengths[0] is 9"),
    "all missing": ({"x": np.full((N, STEPS, 2), np.nan)}, "all of x[0] are missing"),
    "few inputs": ({"inputs": np.zeros((N, 1, 1))}, "inputs: expected"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_sequences_are_refused_before_the_training(kind, tmp_path, capsys):
    changed, said = BAD[kind]
    np.savez(tmp_path / "x.npz", **{**arrays(), **changed})
    assert main(["train", f"--data={tmp_path / 'x.npz'}", f"--run-dir={tmp_path / 'run'}"]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_other_channels_are_refused(sequences, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", np.zeros((3, 2)), np.zeros((4, 3)))
    assert main(["train", f"--data={tmp_path / 'a.npz'}", f"--run-dir={tmp_path / 'run'}"]) == 1
    assert "2 channels" in capsys.readouterr().err
    np.save(tmp_path / "b.npy", np.zeros((3, 4, 3)))
    assert main(["embed", str(sequences[0]), str(tmp_path / "b.npy")]) == 1
    assert "expected 2 channels per step" in capsys.readouterr().err


def test_programs_that_do_not_fit_the_data_are_refused(sequences, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((20, 4)))
    for name, data in (("SequenceVAE", tmp_path / "x.npy"), ("VAE", sequences[1])):
        assert main(["train", f"--program={name}", f"--data={data}", f"--run-dir={tmp_path / 'run'}"]) in (1, 2)
        assert capsys.readouterr().err.count("\n") == 1
        assert not (tmp_path / "run").exists()
