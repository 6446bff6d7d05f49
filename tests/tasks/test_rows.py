"""Laws of results per example, for all programs and parts: they do not depend on the other examples of a batch."""

import functools
import math

import pyro
import pytest
import torch
from benchmarks.cross_product import build
from helpers.programs import PROGRAMS, context, rows
from pyro import distributions as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pyro_vae as pv
from pyro_vae import tasks
from pyro_vae._util.row_noise import RowNoise
from pyro_vae.evaluation.posterior.posterior_means import posterior_means
from pyro_vae.testing import parts

K, N = 5, 12
SCORE = tasks.NegativeBound(K)
#: Arguments of scores; a new score with a required argument needs a line here.
SCORES = {
    "InputComplexity": lambda x: {"score": SCORE},
    "Typicality": lambda x: {"score": SCORE, "train": x},
    "LikelihoodRegret": lambda x: {"num_steps": 1, "num_particles": K},
}


def scores(x):
    found = {cls.__name__: cls for cls in parts(tasks, tasks.Score)}
    return {name: cls(**SCORES.get(name, lambda x: {"num_particles": K})(x)) for name, cls in found.items()}


def moments(program, x):
    found = tasks.embed(program, x, num_samples=K, progress=False)
    return torch.cat([found.mean, found.std], 1)


def imputed(program, x):
    found = tasks.impute(program, with_holes(x), num_particles=K, num_samples=3, progress=False)
    return torch.cat([found.x.flatten(1), found.ess.unsqueeze(1)], 1)


def with_holes(x):
    """Return data or (data, context) with the last entry of each example missing."""
    first = x[0] if isinstance(x, tuple) else x
    first = first.clone()
    first.flatten(1)[:, -1] = math.nan
    return (first, *x[1:]) if isinstance(x, tuple) else first


def functions(x):
    return {
        **scores(x),
        "attribution": functools.partial(tasks.attribution, num_particles=K, progress=False),
        "classify": lambda program, x: tasks.classify(program, x, progress=False).probabilities,
        "embed": moments,
        "impute": imputed,
        "posterior_means": functools.partial(posterior_means, num_samples=K),
    }


def take(x, index):
    return tuple(column[index] for column in x) if isinstance(x, tuple) else x[index]


def check_rows(program, x, names=None):
    """Check all functions that the program has, and return their names."""
    n = len(x[0] if isinstance(x, tuple) else x)
    torch.manual_seed(3)
    order, found = torch.randperm(n), []
    for name, function in functions(x).items():
        if names is not None and name not in names:
            continue
        try:
            whole = function(program, x)
        except (TypeError, ValueError):
            continue
        for index in (torch.tensor([n - 1]), order.repeat(2)):
            same = torch.allclose(
                function(program, take(x, index)), whole[index], rtol=1e-6, atol=1e-7, equal_nan=True
            )
            assert same, f"{name}: another result for rows {index.tolist()}"
        found.append(name)
    return found


@pytest.mark.parametrize("cls", PROGRAMS, ids=lambda cls: cls.__name__)
def test_results_of_an_example_do_not_depend_on_the_others(cls):
    """Every program, every score and task: in another order, alone, in a part and in a larger batch."""
    torch.manual_seed(0)
    program = cls.example().double()
    x, more = rows(program, N).double(), context(program, N)
    for missing in (True, False):
        if hasattr(program, "missing"):
            program.missing = missing
        try:
            program.check(x, *more)
        except ValueError:  # such as TopicModel, which takes no missing entries
            assert missing
            continue
        found = check_rows(program, (x, *more) if more else x, ("impute",) if missing else None)
    assert {"ImportanceWeighted", "NegativeBound", "Reconstruction", "Typicality"} <= set(found)
    assert cls is pv.programs.Autoencoder or "embed" in found


@pytest.mark.slow
def test_results_do_not_depend_on_the_batch_size():
    """Loaders with other sizes of batches, also those of latents, data and particles, in single precision."""
    torch.manual_seed(0)
    program = pv.VAE.example()
    x = rows(program, 2 * N)
    for name, function in functions(x).items():
        if name not in ("impute", "classify", "InputComplexity"):
            whole = function(program, x)
            for size in (program.prior().event_shape.numel(), x.shape[-1], K):
                part = function(program, DataLoader(TensorDataset(x), batch_size=size))
                assert torch.allclose(part, whole, rtol=1e-4, atol=1e-5), name


def test_results_with_context_do_not_depend_on_the_others():
    """The context of an example is a part of it: the same x with another context has another result."""
    program, (x, c) = build(pv.priors.ConditionalNormal, pv.likelihoods.Normal, pv.posteriors.MeanFieldNormal)
    assert len(check_rows(program.double(), (x.double(), c.double()))) > 5


@pytest.mark.parametrize("cls", list(parts(pv.posteriors)), ids=lambda cls: cls.__name__)
def test_noise_of_every_posterior_belongs_to_its_example(cls):
    """Samples of each family, alone and in a batch; different for different examples."""
    torch.manual_seed(0)
    posterior, x = cls.example(), torch.randn(N, 2, 2)

    def draw(x):
        with RowNoise((x,), 0), torch.no_grad():
            return posterior(x).sample((K,))

    whole = draw(x)
    for index in (torch.tensor([N - 1]), torch.arange(N).flip(0), torch.arange(7)):
        assert torch.allclose(draw(x[index]), whole[:, index], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole, whole[:, :1])  # two rows may have the same nearest code


class Own(nn.Module):
    """A program of a user whose latent has a distribution that a function of the encoded row returns."""

    def __init__(self, make, plates=()):
        super().__init__()
        self.encoder, self.make, self.plates = nn.Linear(2, 6), make, plates

    def model(self, x):
        for name in self.plates:
            with pyro.plate(name, 4):
                pyro.sample(f"of {name}", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.make(torch.zeros(len(x), 6)))
            pyro.sample("x", dist.Normal(z.float().sum(-1, keepdim=True), torch.ones(2)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("own", self)
        for name in self.plates:
            with pyro.plate(name, 4):
                pyro.sample(f"of {name}", dist.Normal(0.5, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.make(self.encoder(x)))


OWN = {
    "as many latents as rows": lambda h: dist.Normal(h[:, :3], h[:, 3:].exp()).to_event(1),
    "as many categories as rows": lambda h: dist.Categorical(logits=h.unsqueeze(1).expand(-1, 4, -1)).to_event(1),
    "binomial": lambda h: dist.Binomial(10, logits=h).to_event(1),
    "von Mises": lambda h: dist.VonMises(h, h.exp()).to_event(1),
    "Cauchy": lambda h: dist.Cauchy(h[:, :3], h[:, 3:].exp()).to_event(1),
}


@pytest.mark.parametrize("name", [*OWN, "a plate of weights"])
def test_rows_of_own_programs_do_not_depend_on_other_rows(name):
    """In batches as large as another dimension, and with operations that have no numbers by row."""
    torch.manual_seed(0)
    own = Own(OWN.get(name, OWN["as many latents as rows"]), ["w"] if name not in OWN else ())
    program = pv.programs.FunctionProgram(own.model, own.guide)
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    whole = tasks.NegativeBound(5)(program, x)
    for n in (3, 4, 6, 1):
        torch.testing.assert_close(tasks.NegativeBound(5)(program, x[:n]), whole[:n], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [math.inf, -1.0, math.nan])
def test_invalid_parameters_do_not_wait_for_ever(value):
    with RowNoise((torch.arange(3.0).unsqueeze(1),), 0):
        found = torch._standard_gamma(torch.tensor([1.0, value, 2.0]))
    assert found.isfinite().tolist() == [True, False, True]
