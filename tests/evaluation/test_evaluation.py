"""All evaluators at once: none moves anything, each is a function of its seed, prints, exports and plots."""

import csv
import functools
import json
import random

import numpy as np
import pyro
import pytest
import torch
from matplotlib.figure import Figure

import pyro_vae as pv
from pyro_vae import evaluation
from pyro_vae.estimators import ELBO, IWAE
from pyro_vae.testing import LinearGaussian


def net(in_shape, out_shape):
    """What evaluation could move: running statistics and dropout."""
    inputs, outputs = int(np.prod(in_shape)), int(np.prod(out_shape))
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(8, outputs),
        torch.nn.Unflatten(1, tuple(out_shape)),
    )


def flat(in_shape, out_shape):
    """The same over any number of leading dimensions, for the decoder, which sees particles."""
    return pv.nets.MLP(in_shape, out_shape, hidden=(8,))


def make(likelihood=pv.likelihoods.Bernoulli, shape=(4, 4), **options):
    torch.manual_seed(0)

    def encoder(in_shape, out_shape):
        return torch.nn.Sequential(torch.nn.Flatten(), net(in_shape, out_shape))

    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=likelihood(2, shape, net=flat, **options),
        posterior=pv.posteriors.MeanFieldNormal(shape, 2, net=encoder),
    )
    vae.train()
    vae.likelihood.eval()
    # what a user has frozen stays frozen, and the rest does not
    next(vae.posterior.parameters()).requires_grad_(False)
    return vae


g = torch.Generator().manual_seed(0)
X, Y = (torch.rand(60, 4, 4, generator=g) < 0.4).float(), torch.arange(60) % 3

EVALUATORS = {
    "log_likelihood": lambda vae: evaluation.log_likelihood(vae, X, num_particles=40),
    "marginal_bounds": lambda vae: evaluation.marginal_bounds(vae, X[:4], chains=3, steps=8, simulated=4),
    "inference_gaps": lambda vae: evaluation.inference_gaps(vae, X[:8], num_particles=20, steps=5),
    "latents": lambda vae: evaluation.latents(vae, X),
    "rate_distortion": lambda vae: evaluation.rate_distortion({1.0: vae, 2.0: vae}, X),
    "calibration": lambda vae: evaluation.calibration(vae, X, simulations=40, draws=9),
    "predictive_check": lambda vae: evaluation.predictive_check(vae, X, {"mean": torch.mean}, replicates=5),
    "samples": lambda vae: evaluation.samples(vae, (X, Y), (X, Y), size=40),
    "representation": lambda vae: evaluation.representation(vae, X, Y, seeds=1),
    "disentanglement": lambda vae: evaluation.disentanglement(vae, X, torch.stack([Y, (X.sum((1, 2)) > 6).long()], 1)),
    "compare_estimators": lambda vae: evaluation.compare_estimators(
        vae, X[:8], [ELBO(), IWAE(num_particles=3)], draws=8, reference_particles=100
    ),
}
SHOWN = sorted(set(EVALUATORS) - {"compare_estimators"})


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
def found(name):
    return EVALUATORS[name](make())


@pytest.mark.parametrize("name", EVALUATORS)
def test_evaluation_moves_nothing(name):
    """Not a weight, buffer, mode, gradient, random stream or setting, and it says the same again."""
    vae = make()
    torch.manual_seed(5)
    before = state(vae)
    first = EVALUATORS[name](vae)
    after = state(vae)
    assert [key for key in before if not same(before[key], after[key])] == []
    torch.manual_seed(6)
    again = EVALUATORS[name](vae)
    if name in SHOWN:
        assert str(first) == str(again)
        assert json.dumps(first.rows(), default=str) == json.dumps(again.rows(), default=str)


@pytest.mark.parametrize("name", SHOWN)
def test_results_print_export_and_plot(name, tmp_path):
    """Text, CSV and JSON with all rows, LaTeX, and a figure with a title or titled panels."""
    result = found(name)
    assert str(result)
    result.to_csv(tmp_path / "found.csv")
    result.to_json(tmp_path / "found.json")
    result.to_latex(tmp_path / "found.tex")
    with (tmp_path / "found.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(result.rows())
    assert len(json.loads((tmp_path / "found.json").read_text())["rows"]) == len(result.rows())
    assert r"\bottomrule" in (tmp_path / "found.tex").read_text()
    figure = result.plot()
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "found.png")
    assert figure.get_suptitle() or figure.axes[0].get_title()


def test_every_evaluator_is_here():
    """A new evaluator is in these tests, or is none that sees a program."""
    others = {"Particles", "Seconds", "Steps", "clustering_accuracy", "disentanglement_of_codes", "frechet_distance"}
    others |= {"Inception", "clustering_scores", "kernel_distance", "pareto_k", "precision_recall", "train_under"}
    assert set(EVALUATORS) == set(evaluation.__all__) - others


@pytest.mark.parametrize("name", ["log_likelihood", "marginal_bounds", "inference_gaps", "latents", "calibration"])
def test_bad_data_are_refused_before_the_work(name):
    """Another shape, NaN, no rows: the program's own error."""
    vae = make()
    for bad, message in (
        (torch.zeros(3, 5), "expected shape"),
        (torch.full((3, 4, 4), float("nan")), "expected finite values"),
        (torch.zeros(0, 4, 4), "expected at least one datum"),
    ):
        with pytest.raises(ValueError, match=message):
            getattr(evaluation, name)(vae, bad)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("log_likelihood", {"num_particles": 0}),
        ("marginal_bounds", {"chains": 1}),
        ("marginal_bounds", {"steps": 1}),
        ("inference_gaps", {"num_particles": 1}),
        ("latents", {"draws": 1}),
        ("calibration", {"simulations": 3}),
        ("predictive_check", {"replicates": 0, "statistics": {}}),
    ],
)
def test_numbers_out_of_range_are_refused(name, options):
    """The error names the argument and the least that is possible."""
    wrong = next(iter(options))
    with pytest.raises(ValueError, match=f"{wrong}: expected an int of at least"):
        getattr(evaluation, name)(make(), X, **options)


def test_a_user_s_own_two_functions():
    """Evaluation takes any program: the same answers for the parts as for functions made of them."""
    toy = LinearGaussian(off=0.1)
    own = pv.programs.FunctionProgram(toy.program.model, toy.program.guide, vae=toy.program)
    x = toy.draw(20)
    quick = {"num_particles": 50}
    assert str(evaluation.log_likelihood(own, x, **quick)) == str(evaluation.log_likelihood(toy.program, x, **quick))
    assert str(evaluation.latents(own, x)) == str(evaluation.latents(toy.program, x))
    quick = {"simulations": 50, "draws": 9}
    assert str(evaluation.calibration(own, x, **quick)) == str(evaluation.calibration(toy.program, x, **quick))
    quick = {"chains": 2, "steps": 8, "simulated": 2}
    assert str(evaluation.marginal_bounds(own, x, **quick)) == str(evaluation.marginal_bounds(toy.program, x, **quick))
    quick = {"num_particles": 20, "steps": 3}
    assert str(evaluation.inference_gaps(own, x, **quick)) == str(evaluation.inference_gaps(toy.program, x, **quick))


def test_programs_without_latents_of_the_data_are_refused():
    """An autoencoder has none; the weights of a Bayesian decoder are no latent of a datum that could be calibrated."""
    ae = pv.programs.Autoencoder(encoder=pv.nets.MLP((4,), (2,)), likelihood=pv.likelihoods.Normal(2, (4,)))
    x = torch.zeros(5, 4)
    for evaluate in (evaluation.latents, lambda p, x: evaluation.representation(p, x, torch.arange(5))):
        with pytest.raises(ValueError, match="draws no latents"):
            evaluate(ae, x)
    bayes = pv.programs.BayesianDecoder(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (4,)),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2),
        size=5,
    )
    with pytest.raises(ValueError, match="'weights' is shared"):
        evaluation.calibration(bayes, x)
    assert evaluation.latents(bayes, x).active.keys() == {"z"}


def test_a_stream_is_evaluated():
    """Data without a known size: log-likelihood and latents as for the same rows at once."""
    toy = LinearGaussian()
    x = toy.draw(30)

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(x)

    loader = torch.utils.data.DataLoader(Stream(), batch_size=10)
    found = evaluation.latents(toy.program, loader, aggregate=20)
    whole = evaluation.latents(toy.program, x)
    assert found.data == 30
    assert found.information["z"].data == 20
    assert torch.allclose(found.variance["z"], whole.variance["z"])
    assert evaluation.log_likelihood(toy.program, loader, num_particles=3).per_example.shape == (30,)
