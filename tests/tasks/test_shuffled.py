"""A law of all public functions that take a program and data: a DataLoader that shuffles.

The result is that of the rows in the order in which they were read, or the call is refused and names ``shuffle``.
"""

import contextlib
import inspect
import math

import pytest
import torch
from helpers.results import leaves
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler, TensorDataset

import pyro_vae as pv
from pyro_vae import evaluation, tasks

N, SIZE = 20, 6
g = torch.Generator().manual_seed(0)
X = torch.rand(N, 4, generator=g)
X[:, 1] = torch.where(torch.rand(N, generator=g) < 0.3, torch.nan, X[:, 1])
SCORE = tasks.NegativeBound(2)

#: Arguments by name. A new function with other required arguments needs a line here.
VALUES = {
    "batch_size": None,
    "estimators": [pv.estimators.ELBO()],
    "factors": torch.arange(2 * N).reshape(N, 2) % 2,
    "features": lambda x: x,
    "folder": "new",  # not made, as shuffled rows are refused
    "family": 2,
    "num_particles": 3,
    "num_samples": 10,
    "num_steps": 4,
    "num_simulated": 0,
    "progress": False,
    "score": SCORE,
    "seed": 0,
    "statistics": {"mean": lambda x: x.nanmean()},
    "train": X.nan_to_num(0.5),
    "values": [0.0, 1.0],
    "y": torch.arange(N) % 2,
}
#: Arguments that take data.
DATA = ("x", "normal", "train", "test", "start", "end")
#: They train programs instead of reading data.
OTHERS = {"train_under"}


def make(classes=False, sequences=False):
    torch.manual_seed(0)
    if sequences:
        return pv.programs.SequenceVAE.example()
    likelihood, posterior = pv.likelihoods.Normal(2, (4,)), pv.posteriors.MeanFieldNormal((4,), 2)
    if not classes:
        return pv.VAE(prior=pv.priors.StandardNormal(2), likelihood=likelihood, posterior=posterior, missing=True)
    return pv.programs.MixtureVAE(
        classes=pv.priors.OneHotCategorical(2, learned=True),
        prior=pv.priors.ConditionalNormal(2, context=2),
        likelihood=likelihood,
        classifier=pv.posteriors.OneHotCategorical((4,), 2),
        posterior=posterior,
        missing=True,
    )


class Rows(Dataset):
    """Rows that record the order in which they are read."""

    def __init__(self, x):
        self.x, self.order = x, []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.order.append(i)
        return self.x[i]


def loader(x, **options):
    return DataLoader(x, batch_size=SIZE, generator=torch.Generator().manual_seed(5), **options)


def parameters(function):
    return inspect.signature(function).parameters


def entries():
    """Yield name, function and argument of every function of a program and data; a score is such a function."""
    for module in (evaluation, tasks):
        for name in module.__all__:
            found = getattr(module, name)
            kind = inspect.isclass(found)
            if kind and issubclass(found, tasks.Score) and found is not tasks.Score:
                yield name, found, "x"
            if kind and inspect.isabstract(found):
                continue
            takes = parameters(found) if not kind else parameters(found.__init__)
            if name not in OTHERS and ({"program", "programs"} & set(takes)):
                yield from ((name, found, argument) for argument in DATA if argument in takes)
    yield "Typicality", tasks.Typicality, "train"


def call(found, argument, data):
    values = {**VALUES, argument: data}
    for name in DATA:
        values.setdefault(name, X.nan_to_num(0.5))

    def apply(function, **own):
        return function(**own, **{k: v for k, v in values.items() if k in parameters(function) and k not in own})

    classes = getattr(found, "__name__", "") in ("classify", "cluster", "init_clusters")
    program = make(classes, getattr(found, "__name__", "") == "forecast")
    if inspect.isclass(found) and issubclass(found, tasks.Score):
        return apply(apply(found), program=program, x=values["x"])
    own = {"programs": {1.0: program, 2.0: program}} if "programs" in parameters(found) else {"program": program}
    result = apply(found, **own)
    return list(program.parameters()) if result is None else result


ENTRIES = list(entries())
#: Results that do not depend on the order, or that return the rows themselves, are not refused.
ANY_ORDER = {f"{name}-x" for name in ("log_likelihood", "latents", "rate_distortion", "perplexity", "impute")}
ANY_ORDER |= {"Detector-normal", "Typicality-train", "AggregatePosterior-x", "init_clusters-x"}


@pytest.mark.parametrize(("name", "found", "argument"), ENTRIES, ids=[f"{e[0]}-{e[2]}" for e in ENTRIES])
def test_results_belong_to_the_rows_read_or_shuffling_is_refused(name, found, argument):
    rows = Rows(X.nan_to_num(0.5) if name in ("InputComplexity", "init_clusters", "perplexity") else X)
    try:
        first, refused = call(found, argument, loader(rows, shuffle=True)), ""
    except (ValueError, TypeError) as error:
        first, refused = None, str(error)
    if refused:  # a function of all rows at once refuses every DataLoader
        assert any(word in refused for word in ("shuffle", "stream", "DataLoader")), refused
        assert not rows.order
        assert f"{name}-{argument}" not in ANY_ORDER
        return
    assert f"{name}-{argument}" in ANY_ORDER
    assert sorted(rows.order) == list(range(N)), "read more than once"
    in_order = loader(TensorDataset(rows.x[rows.order]))
    second = call(found, argument, in_order)
    first, second = leaves(first), leaves(second)
    assert first
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        a, b = (torch.as_tensor(leaf).double() for leaf in (a, b))
        assert torch.allclose(a, b, rtol=1e-4, equal_nan=True)


def test_functions_are_discovered():
    names = {f"{name}-{argument}" for name, _, argument in ENTRIES}
    more = {"embed-x", "classify-x", "InputComplexity-x", "compare_estimators-x", "representation-x", "traverse-x"}
    assert ANY_ORDER | more <= names


def test_imputed_rows_agree_with_the_rows_read():
    rows = Rows(X)
    found = tasks.impute(make(), loader(rows, shuffle=True), num_particles=5, progress=False)
    read = X[rows.order]
    assert torch.equal(found.x[~read.isnan()], read[~read.isnan()])
    assert torch.equal(found.missing, read.isnan())


def test_random_samplers_are_refused_and_their_order_is_not_drawn():
    """Also a random sampler that a user passes; a sampler in order and batches of a user's choice are read."""
    for sampler, random in ((SubsetRandomSampler(range(N)), True), (range(N), False)):
        for options in (
            {"sampler": sampler, "batch_size": SIZE},
            {"batch_sampler": torch.utils.data.BatchSampler(sampler, SIZE, drop_last=False)},
        ):
            with pytest.raises(ValueError, match="shuffle") if random else contextlib.nullcontext():
                assert len(SCORE(make(), DataLoader(Rows(X), **options))) == N


def test_rate_distortion_reads_a_stream_once_for_all_programs():
    rows = Rows(X)
    found = evaluation.rate_distortion({1.0: make(), 2.0: make()}, loader(rows, shuffle=True), progress=False)
    assert len(rows.order) == N
    assert math.isclose(found.points[1.0].distortion, found.points[2.0].distortion, rel_tol=1e-6)
