"""The command, from its arguments to the run folder and back."""

import json
import runpy
import sys

import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.cli import choices as choices_module
from pyro_vae.cli import command as cli
from pyro_vae.config import run
from pyro_vae.data import Dataset, Split
from pyro_vae.data.sources import LOADERS

TINY = ["--epochs=1", "--particles=3", "--quiet"]
FIGURES = ["latent.png", "reconstructions.png", "samples.png", "training.png"]
CHOSEN = (
    "--latent 2 --posterior.net ConvEncoder --posterior.net.channels [4,4] --posterior.net.activation=Tanh "
    "--likelihood Normal --likelihood.scale Shared --likelihood.scale.initial 0.3 --likelihood.net.hidden [7] "
    "--estimator.beta Linear --estimator.beta.steps 30 --precision bfloat16 --lr-factor MultiStep --lr-factor.at [4,8]"
).split()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One run with many choices: its folder, and the program as it stood in memory."""
    folder, kept = tmp_path_factory.mktemp("runs") / "run", []
    with pytest.MonkeyPatch.context() as patch:
        fit = cli.fit
        patch.setattr(cli, "fit", lambda program, *args, **kw: (kept.append(program), fit(program, *args, **kw))[1])
        assert cli.main(["train", *TINY, *CHOSEN, "--run-dir", str(folder)]) == 0
    return folder, kept[0]


def test_train_without_a_choice(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = torch.get_rng_state()
    assert cli.main(["train", "--epochs", "1", "--particles", "5"]) == 0
    assert torch.equal(torch.get_rng_state(), state)
    out, err = capsys.readouterr()
    assert "ContinuousBernoulli, as the data are grey" in out
    for line in ("bound (ELBO)", "reconstruction", "KL", "log-likelihood", "active units"):
        assert f"\n  {line}" in out
    assert "nats/datum" in out
    assert "5 particles" in out
    assert "epoch 1/1" in err
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-")
    assert sorted(p.name for p in (folder / "figures").iterdir()) == FIGURES
    (row,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    assert {"loss", "reconstruction", "kl", "valid_bound"} <= set(row)
    assert run.read(folder)["likelihood"]["name"] == "ContinuousBernoulli"


def test_the_configuration_says_what_was_chosen(trained):
    config = json.loads((trained[0] / "config.json").read_text())
    assert {k: config[k] for k in ("schema", "data", "binarize", "latent", "shape", "epochs")} == {
        "schema": 2,
        "data": "digits",
        "binarize": None,
        "latent": 2,
        "shape": [8, 8],
        "epochs": 1,
    }
    tanh = {"name": "Tanh", "options": {}}
    net = {"channels": [4, 4], "hidden": 256, "activation": tanh}
    assert config["posterior"]["options"]["net"] == {"name": "ConvEncoder", "options": net}
    assert config["likelihood"]["options"]["scale"] == {"name": "Shared", "options": {"initial": 0.3, "shape": []}}
    assert config["estimator"]["options"]["beta"]["options"] == {"steps": 30, "start": 0.0, "end": 1.0}


def test_the_rate_follows_the_schedule_that_was_asked_for(trained, capsys):
    """The configuration names it, the run follows it and goes on with no other."""
    folder = trained[0]
    config = json.loads((folder / "config.json").read_text())
    assert config["lr_factor"] == {"name": "MultiStep", "options": {"at": [4, 8], "factor": 0.1}}
    (newest,) = (folder / "checkpoints").iterdir()
    assert "MultiStep(at=(4, 8), factor=0.1)" in "".join(p.read_text() for p in newest.glob("*.json"))
    for asked, said in (
        ("--lr-factor=Cosine --lr-factor.steps=9", "lr-factor"),
        ("--lr-factor=MultiStep", "lr_factor.at"),
    ):
        assert cli.main(["train", "--resume", *asked.split(), "--run-dir", str(folder)]) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["train", "--resume", "--quiet", "--run-dir", str(folder)]) == 0


def test_layers_are_trained_in_the_bits_that_were_asked_for(trained, capsys):
    """The run says so, and goes on with no other."""
    folder = trained[0]
    assert json.loads((folder / "config.json").read_text())["precision"] == "bfloat16"
    assert cli.PRECISIONS["bfloat16"].dtype is torch.bfloat16
    (newest,) = (folder / "checkpoints").iterdir()
    assert "Autocast(torch.bfloat16)" in "".join(p.read_text() for p in newest.glob("*.json"))
    assert cli.main(["train", "--resume", "--precision=tf32", "--run-dir", str(folder)]) == 2
    assert "precision: the run in" in capsys.readouterr().err


def test_load_gives_what_was_trained(trained):
    folder, program = trained
    found = run.load(folder)
    assert not found.training
    assert isinstance(found.posterior.net, pv.nets.ConvEncoder)
    state = program.state_dict()
    assert found.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in found.state_dict().items())
    x = pv.data.load("digits").test.x[:5]
    draws = []
    for one in (found, program):
        torch.manual_seed(1)
        draws.append(one.reconstruct(x))
    assert torch.equal(*draws)


def test_quiet_shows_no_bar_and_a_used_folder_is_refused(trained, capsys):
    before = (trained[0] / "config.json").read_bytes()
    assert cli.main(["train", "--run-dir", str(trained[0]), "--data", "mnist"]) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert (trained[0] / "config.json").read_bytes() == before


class Centred(pv.Conditional):
    """A prior round the mean that a posterior has for zeros."""

    def __init__(self, latent, *, posterior, width: float = 1.0):
        super().__init__()
        self.posterior, self.width, self.shape = posterior, width, posterior.net.in_shape

    def forward(self, *context):
        return dist.Normal(self.posterior(torch.zeros(self.shape)).mean, self.width).to_event(1)


def test_a_new_part_is_found_and_gets_the_posterior(tmp_path, capsys, monkeypatch):
    def table():
        x = torch.rand(60, 5, generator=torch.Generator().manual_seed(0))
        return Dataset("table", Split(x[:40]), Split(x[40:50]), Split(x[50:]))

    monkeypatch.setitem(LOADERS, "table", table)
    monkeypatch.setattr(pv.priors, "Centred", Centred, raising=False)
    monkeypatch.setattr(pv.priors, "__all__", [*pv.priors.__all__, "Centred"])
    folder = tmp_path / "run"
    options = ["--data=table", "--prior", "Centred", "--prior.width=2", f"--run-dir={folder}", "--latent=1"]
    assert cli.main(["train", *TINY, *options]) == 0
    assert sorted(p.name for p in (folder / "figures").iterdir()) == FIGURES
    found = run.load(folder)
    assert found.prior.width == 2
    assert found.prior.posterior is found.posterior
    assert "%|" not in capsys.readouterr().err


def test_list_shows_the_shelves(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    for title in ("priors", "likelihoods", "posteriors", "estimators", "networks", "data sets"):
        assert f"{title}\n  " in out
    for shelf in (pv.priors, pv.likelihoods, pv.posteriors):
        assert all(f"\n  {name} " in out for name in shelf.__all__)
    assert "Independent normal latents of mean 0 and variance 1." in out
    assert "digits" in out


def test_help(capsys):
    assert cli.main([]) == cli.main(["--help"]) == 0
    assert "Show what there is to choose from." in capsys.readouterr().out
    assert cli.main(["train", "--likelihood", "Bernoulli", "--posterior.net", "ConvEncoder", "--help"]) == 0
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
        ("train --posterior.net os.system", "posterior.net: expected one of ConvDecoder, ConvEncoder, MLP"),
        ('train --posterior.net {"class_path":"os.system"}', "posterior.net: expected one of "),
        ("train --posterior.net.activation tanh", "(did you mean Tanh?)"),
        ("train --likelihood Normal --likelihood.scale Wide", "likelihood.scale: expected one of Fixed"),
        ("train --estimator.beta os.getcwd", "estimator.beta: expected one of Capacity, Cyclical, Linear"),
        (
            "train --lr-factor cosin",
            "lr-factor: expected one of Cosine, Linear, MultiStep, got cosin",
        ),
        ("train --estimator.num_particles many", "estimator.num_particles: Expected a int. Got value: many"),
        ("train --posterior.net.channels [3]", "recognized arguments: --posterior.net.channels"),
        ("train --data didgits", "(did you mean digits?)"),
        ("train --epochs 0", "epochs: "),
        ("train --binarize maybe", "argument --binarize: invalid choice"),
    ],
)
def test_a_mistake_is_told_in_one_line(line, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert (out, len(err.splitlines())) == ("", 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--likelihood Bernoulli", "outside the support of the likelihood Bernoulli"),
        ("--posterior.net.activation GLU", "these parts do not work together on these data: RuntimeError: mat1"),
        ("--device nowhere", "cannot use nowhere"),
        ("--data mnist_static --binarize static", "mnist"),
        ("--likelihood Normal --likelihood.scale -1", "expected a finite scale"),
    ],
)
def test_what_does_not_fit_leaves_no_folder(line, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path))
    assert cli.main(["train", *line.split()]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_interrupt_ends_without_a_traceback(tmp_path, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "fit", interrupted)
    assert cli.main(["train", f"--run-dir={tmp_path / 'run'}"]) == 130
    assert "interrupted" in capsys.readouterr().err


def altered(folder, tmp_path, change):
    """Copy a run, its configuration changed."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "eval", "Conditional", "torch.nn.Linear", 3, ["x"]])
@pytest.mark.parametrize("place", ["prior", "estimator", "posterior.net", "posterior.net.activation"])
def test_load_follows_no_import_path(trained, tmp_path, name, place):
    def change(config):
        spec = config
        for step in place.replace(".", ".options.").split("."):
            spec = spec[step]
        spec["name"] = name

    with pytest.raises(ValueError, match=f"{place}: expected one of "):
        run.load(altered(trained[0], tmp_path, change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("schema"), "schema number, got None"),
        (lambda c: c.update(schema=3), "schema 3 is newer than 2"),
        (lambda c: c.pop("prior"), "prior missing"),
        (lambda c: c.update(prior="StandardNormal"), "prior: expected"),
        (lambda c: c["prior"]["options"].update(widht=3), "prior: cannot build StandardNormal"),
        (lambda c: c.update(latent=3), "not the weights of this configuration"),
        (lambda c: c.update(latent="2"), "latent of MeanFieldNormal"),
        (lambda c: c.update(shape=[0]), "shape"),
    ],
)
def test_load_refuses_a_wrong_configuration(trained, tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        run.load(altered(trained[0], tmp_path, change))


def test_load_refuses_missing_and_damaged_files(trained, tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        run.load(tmp_path)
    folder = altered(trained[0], tmp_path, lambda config: None)
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(ValueError, match="damaged"):
        run.load(folder)
    weights.unlink()
    with pytest.raises(ValueError, match="weights.safetensors is missing"):
        run.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="expected JSON"):
        run.load(folder)


@pytest.mark.parametrize(("axis", "name"), [(axis, name) for axis in run.AXES for name in run.shelves()[axis]])
def test_every_part_on_a_shelf_is_built_from_the_command_line(axis, name):
    choices = choices_module.Choices("train", [f"--{axis}", name])
    cls, shelf = run.shelves()[axis][name], run.shelves()[axis]
    if cls is pv.estimators.BetaTC:  # a number that only the user knows
        choices = choices_module.Choices("train", ["--estimator", "BetaTC", "--estimator.data_size", "100"])
    elif not set(run.required(cls)) <= choices_module.GIVEN:
        with pytest.raises(choices_module.UsageError, match="which the command cannot make"):
            choices.add(axis, shelf, None)
        return
    choices.add(axis, shelf, None)
    spec = run.plain(choices.describe(axis, choices.parse()))
    given = {"latent": 4, "shape": (8, 8), "posterior": pv.posteriors.MeanFieldNormal((8, 8), 4)}
    if "columns" in run.required(cls):
        given |= {"shape": (2,), "columns": [pv.data.tables.Real("a"), pv.data.tables.Binary("b")]}
    assert type(run.build(axis, spec, **given)) is cls


def test_names_of_options_are_unique():
    names = [name for kind in run.NESTED if kind != "schedule" for name in run.shelves()[kind]]
    assert len(names) == len(set(names))


def test_module_is_the_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pyro_vae", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("pyro_vae", run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out == f"pyro-vae {pv.__version__}\n"
