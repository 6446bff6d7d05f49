"""Laws of all evaluation functions: nothing is changed, results depend on the seed alone, print, export and plot."""

import csv
import functools
import inspect
import json
import math
import random
from unittest import mock

import numpy as np
import pyro
import pytest
import torch
from matplotlib.figure import Figure

import pyro_vae as pv
from pyro_vae import evaluation
from pyro_vae.estimators import ELBO, IWAE
from pyro_vae.evaluation.samples import features
from pyro_vae.testing import LinearGaussian

#: Every exported function that takes a program.
FUNCTIONS = [
    name
    for name in evaluation.__all__
    if inspect.isfunction(f := getattr(evaluation, name))
    and next(iter(inspect.signature(f).parameters)) in ("program", "programs")
]

g = torch.Generator().manual_seed(0)
X, Y = (torch.rand(60, 4, 4, generator=g) < 0.4).float(), torch.arange(60) % 3

#: Arguments by name, small enough to be quick. An evaluation with other required arguments needs an entry here.
ARGUMENTS = {
    "x": X,
    "y": Y,
    "factors": torch.stack([Y, (X.sum((1, 2)) > 6).long()], 1),
    "statistics": {"mean": torch.mean},
    "train": (X, Y),
    "test": (X, Y),
    "data": X,
    "valid": X[:8],
    "estimators": [ELBO(), IWAE(num_particles=3)],
    "budget": evaluation.Steps(2),
    "num_particles": 30,
    "reference_num_particles": 100,
    "num_samples": 10,
    "num_simulations": 40,
    "num_simulated": 4,
    "num_chains": 3,
    "num_steps": 4,
    "num_leapfrog_steps": 1,
    "num_points": 1,
    "num_seeds": 1,
    "seed": 0,
    "progress": False,
}
#: Other optional arguments; this list keeps the names the same everywhere.
OTHERS = {"batch_size", "evidence", "features", "holdout", "learning_rate", "level", "num_aggregated", "num_bins"}
OTHERS |= {"num_neighbours", "optimizer", "prior", "reference", "sweep", "threshold", "until", "weights"}

#: Columns that depend on the clock.
CLOCK = {"milliseconds", "seconds"}
CLOCK |= {f"{group}_{name}" for group in ("guide", "model") for name in ("variance_times_cost", "signal")}


def net(in_shape, out_shape):
    """A network with what evaluation could change: running statistics and dropout."""
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(math.prod(in_shape), 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(8, math.prod(out_shape)),
        torch.nn.Unflatten(1, tuple(out_shape)),
    )


def make():
    """A program in mixed modes, with one frozen parameter."""
    torch.manual_seed(0)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli(2, (4, 4), net=functools.partial(pv.nets.MLP, hidden=(8,))),
        posterior=pv.posteriors.MeanFieldNormal((4, 4), 2, net=net),
    )
    vae.train()
    vae.likelihood.eval()
    next(vae.posterior.parameters()).requires_grad_(False)
    return vae


def run(name, vae, integer=int):
    function = getattr(evaluation, name)
    values = ARGUMENTS | {"program": vae, "programs": {1.0: vae, 2.0: vae}}
    values = {key: integer(value) if "num_" in key else value for key, value in values.items()}
    with mock.patch.object(features, "STEPS", 3):  # training steps of a classifier
        return function(**{key: values[key] for key in inspect.signature(function).parameters if key in values})


def state(vae):
    return {
        "weights and buffers": {k: v.clone() for k, v in vae.state_dict().items()},
        "modes": [m.training for m in vae.modules()],
        "frozen": [p.requires_grad for p in vae.parameters()],
        "gradients": [p.grad for p in vae.parameters()],
        "modules": [id(m) for m in vae.modules()],
        "hooks": [len(m._forward_hooks) for m in vae.modules()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),
        "random": random.getstate(),
        "settings": {key: pyro.settings.get(key) for key in pyro.settings.get()},
        "validation": torch.distributions.Distribution._validate_args,
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "store": sorted(pyro.get_param_store().keys()),
    }


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return bool(np.all(a == b)) if isinstance(a, np.ndarray) else a == b


@functools.cache
def evaluated(name):
    """Two runs under different global random states and with numpy integers, and what the first one changed."""
    vae = make()
    torch.manual_seed(5)
    before = state(vae)
    first = run(name, vae)
    after = state(vae)
    torch.manual_seed(6)
    return first, run(name, vae, np.int64), [key for key in before if not same(before[key], after[key])]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_evaluation_changes_nothing(name):
    """Weights, buffers, modes, gradients, random states and settings stay, and the result depends on the seed."""
    first, again, changed = evaluated(name)
    assert changed == []
    rows = [[{k: v for k, v in row.items() if k not in CLOCK} for row in r.rows()] for r in (first, again)]
    assert json.dumps(rows[0], default=str) == json.dumps(rows[1], default=str)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_print_export_and_plot(name, tmp_path):
    """Each function returns an exported type with text, CSV, JSON and LaTeX of all rows, and a figure with a title."""
    result = evaluated(name)[0]
    assert isinstance(result, evaluation.Result)
    assert type(result).__name__ in evaluation.__all__
    assert str(result)
    rows = result.rows()
    result.to_csv(tmp_path / "found.csv")
    result.to_json(tmp_path / "found.json")
    result.to_latex(tmp_path / "found.tex")
    with (tmp_path / "found.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    record = json.loads((tmp_path / "found.json").read_text())
    assert record["evaluation"] == type(result).__name__
    assert [list(row) for row in record["rows"]] == [list(row) for row in rows]
    assert (tmp_path / "found.tex").read_text().count(r"\bottomrule") == len(result.tables())
    figure = result.plot()
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "found.png", dpi=30)
    assert figure.get_suptitle() or figure.axes[0].get_title()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_have_the_same_names_and_defaults(name):
    parameters = dict(list(inspect.signature(getattr(evaluation, name)).parameters.items())[1:])
    assert parameters.keys() <= ARGUMENTS.keys() | OTHERS
    assert parameters["seed"].default == 0
    assert parameters["progress"].default is True
    optional = [p for p in parameters.values() if p.default is not p.empty]
    assert all(p.kind is p.KEYWORD_ONLY for p in optional)


@pytest.mark.parametrize("name", ["log_likelihood", "marginal_bounds", "inference_gaps", "latents", "calibration"])
def test_bad_data_are_refused(name):
    """A wrong shape, NaN, no rows: the error names the argument."""
    vae = make()
    for bad in (torch.zeros(3, 5), torch.full((3, 4, 4), float("nan")), torch.zeros(0, 4, 4)):
        with pytest.raises(ValueError, match="x|data"):
            getattr(evaluation, name)(vae, bad)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("log_likelihood", {"num_particles": 0}),
        ("marginal_bounds", {"num_chains": 1}),
        ("marginal_bounds", {"num_steps": 1}),
        ("marginal_bounds", {"num_leapfrog_steps": 0}),
        ("marginal_bounds", {"num_simulated": -1}),
        ("inference_gaps", {"num_particles": 1}),
        ("inference_gaps", {"num_steps": 0}),
        ("latents", {"num_samples": 1}),
        ("latents", {"num_aggregated": 0}),
        ("calibration", {"num_simulations": 3}),
        ("calibration", {"num_samples": 0}),
        ("predictive_check", {"num_samples": 0}),
        ("samples", {"num_samples": 2}),
        ("representation", {"num_neighbours": 0}),
        ("representation", {"num_seeds": 0}),
        ("disentanglement", {"num_bins": 1}),
        ("compare_estimators", {"num_samples": 2}),
        ("compare_estimators", {"reference_num_particles": 0}),
        ("train_under", {"num_points": 0}),
    ],
)
def test_numbers_out_of_range_are_refused(name, options):
    function, (wrong,) = getattr(evaluation, name), options
    required = {k for k, p in inspect.signature(function).parameters.items() if p.default is p.empty}
    arguments = {k: v for k, v in (ARGUMENTS | {"program": make()}).items() if k in required}
    with pytest.raises(ValueError, match=f"^{wrong}"):
        function(**arguments, **options)


@pytest.mark.parametrize("name", ["log_likelihood", "latents", "calibration", "marginal_bounds", "inference_gaps"])
def test_model_and_guide_as_functions(name):
    """A program made of two functions gives the same results as the program itself."""
    toy = LinearGaussian(off=0.1)
    functions = pv.programs.FunctionProgram(toy.program.model, toy.program.guide, vae=toy.program)
    with mock.patch.dict(ARGUMENTS, x=toy.draw(8)):
        assert str(run(name, functions)) == str(run(name, toy.program))


def test_programs_without_local_latents_are_refused():
    """An autoencoder has no latents; the weights of a Bayesian decoder are shared by all examples."""
    ae = pv.programs.Autoencoder(encoder=pv.nets.MLP((4,), (2,)), likelihood=pv.likelihoods.Normal(2, (4,)))
    x = torch.zeros(5, 4)
    for evaluate in (evaluation.latents, lambda p, x: evaluation.representation(p, x, torch.arange(5))):
        with pytest.raises(ValueError, match="program.*latents"):
            evaluate(ae, x)
    bayes = pv.programs.BayesianDecoder(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (4,)),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2),
        num_examples=5,
    )
    with pytest.raises(ValueError, match="'weights'"):
        evaluation.calibration(bayes, x)
    assert evaluation.latents(bayes, x).active.keys() == {"z"}


def test_streams():
    """A stream gives the same as its rows at once, with evenly spaced rows in the aggregate posterior."""
    toy = LinearGaussian()
    x = toy.draw(30)

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(x)

    loader = torch.utils.data.DataLoader(Stream(), batch_size=10)
    found = evaluation.latents(toy.program, loader, num_aggregated=20)
    whole = evaluation.latents(toy.program, x, num_aggregated=20)
    assert found.num_examples == 30
    assert found.information["z"].num_examples == 20
    assert torch.allclose(found.variance["z"], whole.variance["z"])
    assert evaluation.log_likelihood(toy.program, loader, num_particles=3).per_example.shape == (30,)
