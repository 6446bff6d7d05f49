"""`pyro-vae evaluate`: tables and figures of a finished run, and its errors."""

import json

from pyro_vae.cli import command as cli


def test_evaluate_a_run(tmp_path, capsys):
    """A run of one epoch: all tables are printed, and left with their figures beside the run."""
    folder = tmp_path / "run"
    tiny = ["--epochs=1", "--particles=3", "--quiet", "--latent=2", "--posterior.net.hidden=[8]"]
    assert cli.main(["train", *tiny, "--likelihood.net.hidden=[8]", "--run-dir", str(folder)]) == 0
    capsys.readouterr()
    options = ["--particles=30", "--gaps=3", "--bounds=2", "--temperatures=8", "--quiet"]
    weights = (folder / "weights.safetensors").read_bytes()
    assert cli.main(["evaluate", str(folder), *options]) == 0
    out = capsys.readouterr().out
    names = {"log_likelihood", "latents", "calibration", "inference_gaps", "marginal_bounds"}
    assert all(f"{name}\n\n" in out for name in names)
    assert "30 particles" in out
    found = {p.name for p in (folder / "evaluation").iterdir()}
    assert found == {f"{name}.{kind}" for name in names for kind in ("csv", "json", "png")}
    assert len(json.loads((folder / "evaluation" / "inference_gaps.json").read_text())["rows"]) == 3
    assert (folder / "weights.safetensors").read_bytes() == weights


def test_what_is_no_run_is_told(tmp_path, capsys):
    """A folder without a run ends with status 1, a missing argument with 2, the help with 0."""
    assert cli.main(["evaluate", str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err
    assert cli.main(["evaluate"]) == 2
    assert cli.main(["evaluate", "--help"]) == 0
    assert "RUN" in capsys.readouterr().out
