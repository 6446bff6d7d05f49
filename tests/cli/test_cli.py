"""The command `train`: from its arguments to the run folder and back; `list`, `--help` and usage errors."""

import functools
import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_tables import FOLDER, TINY, command, train
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae._util.differences import in_words
from pyro_vae.cli import choices as choices_module
from pyro_vae.cli import main
from pyro_vae.config import data as run_data
from pyro_vae.config import parts, run
from pyro_vae.config.program import build_program
from pyro_vae.data import Dataset, Split
from pyro_vae.data.sources import LOADERS

FIGURES = ["latent.png", "reconstructions.png", "samples.png", "training.png"]
CHOSEN = (
    "--data digits --latent 2 --posterior.net ConvEncoder --posterior.net.channels [4,4] "
    "--posterior.net.activation=Tanh "
    "--likelihood Normal --likelihood.scale Shared --likelihood.scale.initial 0.3 --likelihood.net.hidden [7] "
    "--estimator.beta Linear --estimator.beta.num_steps 5 --precision bfloat16 --lr-schedule MultiStep "
    "--lr-schedule.milestones [4,8] --epochs=1 --num-particles=3 --quiet"
).split()


@functools.cache
def trained():
    """Return the folder of a run with many choices, and its program as it was in memory after training."""
    folder, kept = f"{FOLDER.name}/chosen", []
    with pytest.MonkeyPatch.context() as patch:
        fit = command.fit
        patch.setattr(command, "fit", lambda program, *args, **how: kept.append(program) or fit(program, *args, **how))
        patch.setattr(command, "figures", lambda *args: {})
        assert main(["train", *CHOSEN, "--run-dir", folder]) == 0
    return Path(folder), kept[0]


def test_train_with_default_options(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyro_vae._util.progress.can_show_bars", lambda: True)
    state = torch.get_rng_state()
    assert main(["train", "--data", "digits", "--epochs", "1", "--num-particles", "5"]) == 0
    assert torch.equal(torch.get_rng_state(), state)
    out, err = capsys.readouterr()
    assert "ContinuousBernoulli, as the data are grey" in out
    for line in ("bound (ELBO)", "reconstruction", "KL", "log-likelihood", "active units"):
        assert f"\n  {line}" in out
    assert "nats/example" in out
    assert "5 particles" in out
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-")
    assert sorted(p.name for p in (folder / "figures").iterdir()) == FIGURES
    (row,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    assert {"loss", "reconstruction", "kl", "valid_bound"} <= set(row)
    assert run.read(folder)["likelihood"]["name"] == "ContinuousBernoulli"
    results = json.loads((folder / "results.json").read_text())
    assert results["num_examples"] == 300
    assert f"{results['bound']['mean']:.2f}" in out
    assert results["bound"]["mean"] == pytest.approx(results["reconstruction"]["mean"] - results["kl"]["mean"])


def test_configuration_holds_the_choices():
    config = json.loads((trained()[0] / "config.json").read_text())
    assert {k: config[k] for k in ("schema", "data", "binarize", "latent", "shape", "epochs", "precision")} == {
        "schema": 2,
        "data": "digits",
        "binarize": None,
        "latent": 2,
        "shape": [8, 8],
        "epochs": 1,
        "precision": "bfloat16",
    }
    tanh = {"name": "Tanh", "options": {}}
    net = {"channels": [4, 4], "hidden": 256, "activation": tanh, "dims": 2}
    assert config["posterior"]["options"]["net"] == {"name": "ConvEncoder", "options": net}
    assert config["likelihood"]["options"]["scale"] == {"name": "Shared", "options": {"initial": 0.3, "shape": []}}
    assert config["estimator"]["options"]["beta"]["options"] == {"num_steps": 5, "start": 0.0, "end": 1.0}
    assert config["lr_schedule"] == {"name": "MultiStep", "options": {"milestones": [4, 8], "factor": 0.1}}


def test_fit_gets_schedule_and_precision():
    """The checkpoint of the run names both."""
    (newest,) = (trained()[0] / "checkpoints").iterdir()
    settings = json.loads((newest / "state.json").read_text())["settings"]
    assert in_words(settings["lr_schedule"]) == "MultiStep(milestones=(4, 8), factor=0.1)"
    assert "bfloat16" in in_words(settings["precision"]["attributes"]["dtype"])
    assert command.PRECISIONS["bfloat16"].dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--lr-schedule=Cosine --lr-schedule.num_steps=9", "lr-schedule: "),
        ("--lr-schedule=MultiStep", "lr_schedule.milestones"),
        ("--precision=tf32", "precision: "),
    ],
)
def test_resume_rejects_other_options(options, said, capsys):
    assert main(["train", "--resume", *options.split(), "--run-dir", str(trained()[0])]) == 2
    assert said in capsys.readouterr().err


def test_load_returns_the_trained_program():
    folder, program = trained()
    found = pv.load(folder)
    assert not found.training
    assert isinstance(found.posterior.net, pv.nets.ConvEncoder)
    state = program.state_dict()
    assert found.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in found.state_dict().items())
    x = pv.data.load("digits").test.x[:5]
    means = []
    for one in (found, program):
        torch.manual_seed(1)
        means.append(one.reconstruct(x))
    assert torch.equal(*means)


def test_a_used_folder_is_refused(capsys):
    folder = trained()[0]
    before = (folder / "config.json").read_bytes()
    assert main(["train", "--run-dir", str(folder), "--data", "mnist"]) == 1
    assert "run-dir: " in capsys.readouterr().err
    assert (folder / "config.json").read_bytes() == before


class Centred(pv.Conditional):
    """A prior around the posterior mean of zeros."""

    def __init__(self, latent, *, posterior, width: float = 1.0):
        super().__init__()
        self.posterior, self.width, self.shape = posterior, width, posterior.net.in_shape

    def forward(self, *context):
        return dist.Normal(self.posterior(torch.zeros(self.shape)).mean, self.width).to_event(1)


class Noisy(pv.programs.VAE):
    """A program with an option of its own."""

    def __init__(self, *, prior, likelihood, posterior, noise: float = 0.0):
        super().__init__(prior=prior, likelihood=likelihood, posterior=posterior)
        self.noise = noise


class Needy(pv.programs.VAE):
    """A program that needs a part that a run cannot make."""

    def __init__(self, *, prior, likelihood, posterior, critic: torch.nn.Module):
        super().__init__(prior=prior, likelihood=likelihood, posterior=posterior)
        self.critic = critic


@pytest.fixture
def exported(monkeypatch):
    """Export a new prior and two new programs, as their export lines would, and a small data set."""
    x = torch.rand(60, 5, generator=torch.Generator().manual_seed(0))
    monkeypatch.setitem(LOADERS, "small", lambda: Dataset("small", Split(x[:40]), Split(x[40:50]), Split(x[50:])))
    for module, cls in ((pv.priors, Centred), (pv.programs, Noisy), (pv.programs, Needy)):
        monkeypatch.setattr(module, cls.__name__, cls, raising=False)
        monkeypatch.setattr(module, "__all__", [*module.__all__, cls.__name__])


def test_new_parts_and_programs_are_found(exported, tmp_path, capsys):
    """An export line is enough for `list`, `train` with options, and `load`; a prior gets the posterior."""
    folder = tmp_path / "run"
    chosen = "--prior Centred --prior.width=2 --program Noisy --program.noise=0.5 --latent=1".split()
    assert main(["train", *TINY, "--data=small", f"--run-dir={folder}", *chosen]) == 0
    assert sorted(p.name for p in (folder / "figures").iterdir()) == FIGURES
    found = pv.load(folder)
    assert type(found) is Noisy
    assert found.noise == 0.5
    assert found.prior.width == 2
    assert found.prior.posterior is found.posterior
    assert "%|" not in capsys.readouterr().err
    assert main(["list"]) == 0
    assert "\n  Needy " in capsys.readouterr().out


def test_programs_that_cannot_be_built_are_refused_by_name(exported, capsys):
    config = run.read(trained()[0])
    assert main(["train", "--program=Needy"]) == 2
    assert "program: Needy needs `critic`" in capsys.readouterr().err
    with pytest.raises(ValueError, match="program: Needy needs critic"):
        build_program({**config, "program": {"name": "Needy", "options": {}}})


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("Amortized", "model"),
        ("Autoencoder", "encoder"),
        ("FunctionProgram", "model"),
        ("Multilevel", "group_prior"),
    ],
)
def test_exported_programs_with_other_parts_are_refused(name, needs, capsys):
    assert main(["train", "--program", name]) == 2
    assert f"program: {name} needs `{needs}`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("BayesianDecoder", ""),
        ("CountVAE", ""),
        ("Hierarchical", "--program.layers=[3,4]"),
        ("MissingNotAtRandom", "--likelihood Normal"),
        ("MixtureVAE", ""),
        ("SemiSupervised", ""),
        ("SemiSupervisedCountVAE", "--program.alpha=3"),
        ("StackedSemiSupervised", ""),
        ("TopicModel", "--likelihood.net MLP --posterior.net MLP"),
        ("VAE", ""),
    ],
)
@pytest.mark.slow
def test_exported_programs_with_standard_parts_are_trained(name, options, monkeypatch, tmp_path):
    """The command trains, evaluates and loads every program that it can build."""
    x = torch.arange(240.0).view(60, 4) % 3 + 1
    y = torch.arange(60) % 3
    if not re.search("Count|Topic|MissingNot", name):
        x = (x > 1).float()
    data = Dataset("small", Split(x[:40], y[:40]), Split(x[40:50], y[40:50]), Split(x[50:], y[50:]))
    monkeypatch.setitem(LOADERS, "small", lambda: data)
    folder = train(tmp_path / "run", "--data=small", "--program", name, *options.split())
    program = pv.load(folder)
    assert type(program) is getattr(pv.programs, name)
    if name == "StackedSemiSupervised":
        assert program.top.alpha == pytest.approx(0.1)  # 0.1 times the number of examples per label
    if "alpha" in options:
        assert program.top.alpha == 3
        assert pv.load(folder).classify(x).shape == (60, 3)
    if name == "CountVAE":  # its samples need a library size
        source = run_data.Source(data, "counts", {})
        assert set(command.figures(program, source, 0)) == {"reconstructions", "latent"}
    if "Count" in name:
        words = ["sample", str(folder), "--num-samples=300", "--output", str(tmp_path / "x.npy"), "--quiet"]
        words += ["--class=1"] if name == "SemiSupervisedCountVAE" else []
        assert main([*words, "--library=40"]) == 0
        assert np.load(tmp_path / "x.npy").sum(1).mean() == pytest.approx(40, rel=0.2)
        assert main([*words[:4], str(tmp_path / "own.npy"), *words[5:]]) == 0
        # by default the totals are those of the training rows
        assert np.load(tmp_path / "own.npy").sum(1).mean() == pytest.approx(float(x[:40].sum(1).mean()), rel=0.2)


def test_help_of_labels_names_every_program_that_learns_from_them(capsys):
    assert main(["train", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--program MixtureVAE, SemiSupervised, SemiSupervisedCountVAE, StackedSemiSupervised (type" in said


def test_list_shows_the_shelves(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for title in ("priors", "likelihoods", "posteriors", "estimators", "networks", "lr schedules", "data"):
        assert f"{title}\n  " in out
    for shelf in (pv.priors, pv.likelihoods, pv.posteriors):
        assert all(f"\n  {name} " in out for name in shelf.__all__)
    assert choices_module.first_line(pv.priors.StandardNormal) in out
    assert all(f"\n  {name} " in out for name in parts.shelves()["program"])
    assert "digits" in out


def test_list_shows_one_kind(capsys):
    assert main(["list", "priors", "lr-schedules"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line[:1].isalpha()] == ["priors", "lr-schedules"]
    assert "  StandardNormal " in out
    assert "  Cosine " in out
    assert main(["list", "prior"]) == 2
    assert "did you mean priors?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("train --latnt 3", "--latent"),
        ("train --posterior.net.hiden=[3]", "--posterior.net.hidden"),
        ("list --hlp", "--help"),
        ("train table.csv", "--data table.csv"),
    ],
)
def test_an_unknown_option_names_the_nearest_one(words, hint, capsys):
    assert main(words.split()) == 2
    assert f"did you mean {hint}?" in capsys.readouterr().err


def test_help(capsys):
    assert main([]) == main(["--help"]) == 0
    assert "List everything that can be chosen." in capsys.readouterr().out
    assert main(["train", "--likelihood", "Bernoulli", "--posterior.net", "ConvEncoder", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--likelihood.grey" in out
    assert "--posterior.net.channels" in out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trian", "train, got trian (did you mean train?)"),
        ("list --all", "recognized arguments: --all"),
        ("train --prior Foo", "prior: expected one of "),
        ("train --prior standardnormal", "(did you mean StandardNormal?)"),
        ("train --posterior", "argument --posterior: expected one argument"),
        ("train --prior os.system", "prior: expected one of "),
        ("train --prior prior.json", "got prior.json"),
        ("train --prior pyro_vae.priors.StandardNormal", "prior: expected one of "),
        ("train --posterior.net os.system", "posterior.net: expected one of "),
        ('train --posterior.net {"class_path":"os.system"}', "posterior.net: expected one of "),
        ("train --posterior.net.activation tanh", "(did you mean Tanh?)"),
        ("train --likelihood Normal --likelihood.scale Wide", "likelihood.scale: expected one of Fixed"),
        ("train --estimator.beta os.getcwd", "estimator.beta: expected one of "),
        ("train --program os.system", "program: expected one of "),
        ("train --lr-schedule cosin", "lr-schedule: expected one of Cosine, Linear, MultiStep, got cosin"),
        ("score run x.csv --contamination 1", "contamination: expected a number above 0 and below 1, got '1'"),
        ("train --learning-rate inf", "learning-rate: expected a finite number above 0, got 'inf'"),
        ("train --num-labels 0", "num-labels: expected an integer of at least 1, got '0'"),
        ("train --epochs=", "epochs: expected an integer of at least 1, got ''"),
        ("train --data x.csv --leave-out a,b,a", "leave-out: expected different names, got 'a' more than once"),
        ("train --data x.csv --leave-out a,,b", "leave-out: expected names, separated by commas"),
        ("train --data x.csv --covariates a,a", "covariates: expected different names, got 'a' more than once"),
        ("train --data x.csv --columns a=Real,a=Real", "columns: expected different names, got 'a' more than once"),
        ("compare --estimators ELBO,ELBO", "estimators: expected different names, got 'ELBO' more than once"),
        ("compare --estimators IWAE(num_particle=3)", "(did you mean num_particles?)"),
        ("train --precision float33", "precision: expected one of bfloat16, float32, tf32, got float33 (did you mean"),
        ("train --data x.cvs", "got x.cvs (did you mean .csv?)"),
        ("score run x.csv --scor NegativeBound", "(did you mean --score?)"),
        ("train --estimator.num_particles many", "estimator.num_particles: expected an integer, got 'many'"),
        ("train --posterior.net.channels [3]", "recognized arguments: --posterior.net.channels"),
        ("train --data didgits", "(did you mean digits?)"),
        ("train --epochs 0", "epochs: "),
        ("train --num-labels 5", "num-labels: "),
        ("train --binarize maybe", "binarize: expected one of dynamic, none"),
        ("compare --num-steps 5 --seconds 1", "num-steps, seconds: expected one budget"),
    ],
)
def test_usage_errors_are_one_line(line, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert (out, len(err.splitlines())) == ("", 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--data digits --likelihood Bernoulli", "outside the support of the likelihood Bernoulli"),
        ("--posterior.net.activation GLU", "these parts do not work together on these data: RuntimeError: mat1"),
        ("--device nowhere", "device: "),
        ("--data mnist_static --binarize static", "mnist"),
        ("--likelihood Normal --likelihood.scale -1", "likelihood: "),
    ],
)
def test_errors_before_training_leave_no_folder(line, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path))
    assert main(["train", *line.split()]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_interrupt_has_its_exit_status(tmp_path, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "fit", interrupted)
    assert main(["train", f"--run-dir={tmp_path / 'run'}"]) == 130
    assert "interrupted" in capsys.readouterr().err


def altered(tmp_path, change):
    """Return a copy of a run with a changed configuration."""
    folder = trained()[0]
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "eval", "Conditional", "torch.nn.Linear", 3, ["x"]])
@pytest.mark.parametrize("place", ["prior", "estimator", "program", "posterior.net", "posterior.net.activation"])
def test_load_follows_no_import_path(tmp_path, name, place):
    def change(config):
        spec = config
        for step in place.replace(".", ".options.").split("."):
            spec = spec[step]
        spec["name"] = name

    with pytest.raises(ValueError, match=f"{place}: expected one of "):
        pv.load(altered(tmp_path, change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("schema"), "schema number, got None"),
        (lambda c: c.update(schema=3), "schema 3 is newer than 2"),
        (lambda c: c.pop("prior"), "prior is missing"),
        (lambda c: c.update(prior="StandardNormal"), "prior: expected"),
        (lambda c: c["prior"]["options"].update(widht=3), "prior: cannot build StandardNormal"),
        (lambda c: c.update(latent=3), "weights"),
        (lambda c: c.update(latent="2"), "latent"),
        (lambda c: c.update(shape=[0]), "shape"),
    ],
)
def test_load_rejects_a_wrong_configuration(tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        pv.load(altered(tmp_path, change))


def leaves(value, path=()):
    """Yield the path and the value of each plain value inside of a JSON value."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def test_load_names_the_file_and_the_key_of_a_value_of_the_wrong_type(tmp_path):
    """A text in place of every number, and a number in place of every text."""
    config = json.loads((trained()[0] / "config.json").read_text())
    config.setdefault("num_labels", 3)
    checked = 0
    for path, value in leaves(config):
        if value is None or path[0] in ("pyro_vae", "quiet"):
            continue

        wrong = 3 if isinstance(value, str) else "x"

        def change(config, path=path, wrong=wrong):
            for key in path[:-1]:
                config = config[key]
            config[path[-1]] = wrong

        key = next(name for name in reversed(path) if isinstance(name, str) and name != "name")
        with pytest.raises(ValueError, match=rf"config\.json: .*{'' if key == 'options' else key}"):
            pv.load(altered(tmp_path, change))
        checked += 1
    assert checked > 30


def test_resume_refuses_a_folder_without_a_run(tmp_path, capsys):
    """Such as a mistyped one; a run that stopped before its first checkpoint starts again."""
    folder = tmp_path / "mistyped"
    assert main(["train", "--resume", "--run-dir", str(folder)]) == 2
    assert "resume: expected the folder of a run in --run-dir" in capsys.readouterr().err
    assert not folder.exists()


def test_load_rejects_missing_and_damaged_files(tmp_path):
    with pytest.raises(ValueError, match="run_dir: "):
        pv.load(tmp_path)
    weights = altered(tmp_path, lambda config: None) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(ValueError, match="damaged"):
        pv.load(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match="run_dir: expected weights.safetensors"):
        pv.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="expected JSON"):
        pv.load(tmp_path)


def test_a_configuration_without_a_program_is_a_vae(tmp_path):
    """Configurations of the first schema have none."""
    found = pv.load(altered(tmp_path, lambda c: (c.pop("program"), c.update(schema=1))))
    assert type(found) is pv.VAE
    assert not found.missing


@pytest.mark.parametrize(("axis", "name"), [(axis, name) for axis in run.AXES for name in parts.shelves()[axis]])
def test_every_part_is_built_from_the_command_line(axis, name):
    choices = choices_module.Choices("train", [f"--{axis}", name])
    cls, shelf = parts.shelves()[axis][name], parts.shelves()[axis]
    if cls is pv.estimators.BetaTC:  # a number that only the user knows
        choices = choices_module.Choices("train", ["--estimator", "BetaTC", "--estimator.data_size", "100"])
    elif not set(parts.required(cls)) <= choices_module.GIVEN:
        with pytest.raises(choices_module.UsageError, match="which the command cannot make"):
            choices.add(axis, shelf, None)
        return
    choices.add(axis, shelf, None)
    spec = run.plain(choices.describe(axis, choices.parse()))
    given = {"latent": 4, "shape": (8, 8), "posterior": pv.posteriors.MeanFieldNormal((8, 8), 4)}
    if "columns" in parts.required(cls):
        given |= {"shape": (2,), "columns": [pv.data.tables.Real("a"), pv.data.tables.Binary("b")]}
    assert type(parts.build(axis, spec, **given)) is cls


def test_names_of_options_are_unique():
    names = [name for kind in parts.NESTED if kind != "schedule" for name in parts.shelves()[kind]]
    assert len(names) == len(set(names))


def test_module_is_the_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pyro_vae", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("pyro_vae", run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out == f"pyro-vae {pv.__version__}\n"


@pytest.mark.parametrize(
    ("options", "capacity", "free_bits"),
    [
        ("--estimator.capacity Capacity --estimator.capacity.nats 3 --estimator.capacity.num_steps 10", 3.0, 0.0),
        ("--estimator.free_bits PerSite --estimator.free_bits.nats 2", None, 2.0),
        ("--estimator.free_bits 0.5", None, 0.5),
    ],
)
def test_penalties_are_chosen_by_name(tmp_path, monkeypatch, options, capacity, free_bits):
    monkeypatch.setattr(command, "figures", lambda *args: {})
    folder = tmp_path / "run"
    common = ["train", "--latent", "2", "--posterior.net.hidden", "[8]", "--likelihood.net.hidden", "[8]"]
    assert main([*common, "--epochs=1", "--num-particles=3", "--quiet", *options.split(), f"--run-dir={folder}"]) == 0
    estimator = parts.build("estimator", run.read(folder)["estimator"])
    assert (estimator.capacity and estimator.capacity.nats) == capacity
    assert estimator.free_bits.nats == free_bits
