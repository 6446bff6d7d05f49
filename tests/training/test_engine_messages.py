"""Errors and warnings of torch and Pyro that a user of `fit` can meet name the argument to change."""

import functools
import warnings

import pyro
import pytest
import torch
from helpers.runs import SMALL, X, program
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import pyro_vae as pv

SGD = functools.partial(torch.optim.SGD, lr=1e30)


def fit(vae, data=X, **options):
    return pv.fit(vae, data, **{"epochs": 1, "batch_size": 10, "progress": False, **options})


def layer(in_shape, out_shape, *before):
    return nn.Sequential(*before, nn.Linear(in_shape[0], out_shape[0] if len(out_shape) == 1 else 4))


def normalized(in_shape, out_shape):
    return layer(in_shape, out_shape, nn.BatchNorm1d(in_shape[0]))


class Large(nn.Module):
    """Fails in training like torch without memory."""

    def __init__(self, error, in_shape, out_shape):
        super().__init__()
        self.error, self.layer = error, layer(in_shape, out_shape)

    def forward(self, x):
        if self.training:
            raise self.error
        return self.layer(x)


class Rows(Dataset):
    """Examples that a function returns."""

    def __init__(self, row):
        self.row = row

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return self.row(i)


def with_nan():
    vae = program()
    with torch.no_grad():
        vae.posterior.net.body[0].weight.fill_(torch.nan)
    return vae


def invalid(in_shape, out_shape):
    """A network whose outputs are NaN for all weights."""
    return layer(in_shape, out_shape, nn.Softmax(-1), nn.Threshold(2.0, torch.nan))


ON_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")
ON_GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

CASES = {
    "BatchNorm, batches of 1": (lambda: fit(program(normalized), batch_size=1), ValueError, "batch_size: .*BatchNorm"),
    "BatchNorm, one row": (lambda: fit(program(normalized), X[:1]), ValueError, "batch_size: .*BatchNorm"),
    "BatchNorm, compiled": (
        lambda: fit(program(normalized), batch_size=1, compile=pv.training.eager_graph),
        ValueError,
        "batch_size: ",
    ),
    "BatchNorm, loader": (
        lambda: fit(program(normalized), DataLoader(TensorDataset(X), batch_size=1)),
        ValueError,
        "batch_size: ",
    ),
    "memory of the CPU": (
        lambda: fit(program(functools.partial(Large, ON_CPU))),
        torch.OutOfMemoryError,
        "batch_size: .*particles_per_pass",
    ),
    "memory of a GPU": (
        lambda: fit(program(functools.partial(Large, ON_GPU))),
        torch.OutOfMemoryError,
        "batch_size: .*20.00 GiB. Lower",
    ),
    "memory of samples": (lambda: program().sample(10**13), torch.OutOfMemoryError, "num_samples: "),
    "memory of generate": (lambda: pv.tasks.generate(program(), 10**13), torch.OutOfMemoryError, "num_samples: "),
    "memory of embed": (
        lambda: pv.tasks.embed(program(), X, num_samples=10**13, progress=False),
        torch.OutOfMemoryError,
        "batch_size: .*samples",
    ),
    "learning rate": (
        lambda: fit(program(), optimizer=functools.partial(torch.optim.Adam, lr=-1)),
        ValueError,
        "optimizer: .*lr",
    ),
    "unknown option": (
        lambda: fit(program(), optimizer=functools.partial(torch.optim.Adam, rate=1)),
        TypeError,
        "optimizer: .*rate",
    ),
    "a name of a compiler": (lambda: fit(program(), compile="auto"), TypeError, "compile: .*eager_graph"),
    "a name of a precision": (lambda: fit(program(), precision="bfloat16"), TypeError, "precision: .*Autocast"),
    "too large steps": (lambda: fit(program(), optimizer=SGD), pv.training.NonFiniteError, "optimizer: .*step 1"),
    "NaN in weights": (lambda: fit(with_nan()), ValueError, "program: .*posterior.net.body.0.weight"),
    "NaN in weights, evaluated": (
        lambda: pv.evaluation.log_likelihood(with_nan(), X, num_particles=2, progress=False),
        ValueError,
        "program: .*posterior.net.body.0.weight",
    ),
    "NaN from a network": (lambda: fit(program(invalid)), ValueError, "program: .*invalid parameters: .*Bernoulli"),
    "rows of several shapes": (lambda: fit(program(), Rows(lambda i: torch.zeros(5 + i % 2))), TypeError, "data: "),
    "rows without tensors": (lambda: fit(program(), Rows(lambda i: None)), TypeError, "data: "),
}


@pytest.mark.parametrize("name", CASES)
def test_errors_name_the_argument(name):
    work, error, said = CASES[name]
    with pytest.raises(error, match=said):
        work()


def read_only(x):
    x = x.numpy().copy()
    x.flags.writeable = False
    return x


def as_read_only(rows):
    return read_only(torch.stack([torch.as_tensor(row.copy()) for row in rows]))


@pytest.mark.parametrize(
    "data",
    [
        read_only(X),
        Rows(lambda i: read_only(X)[i]),
        DataLoader(Rows(lambda i: read_only(X)[i]), batch_size=5),
        DataLoader(Rows(lambda i: read_only(X)[i]), batch_size=5, collate_fn=as_read_only),
    ],
    ids=["array", "data set", "loader", "collate_fn"],
)
def test_read_only_arrays_need_no_warning(data):
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # torch warns once per process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fit(program(), data, batch_size=5)
    finally:
        torch.set_warn_always(always)


def test_a_scheduler_in_a_callback_needs_no_warning():
    """torch warns if a scheduler steps before its optimizer."""
    vae = program()
    optimizer = torch.optim.SGD(vae.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)

    def step(metrics, number):
        scheduler.step()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(vae, optimizer=optimizer, callbacks=[step], epochs=2)


def test_pyro_does_not_warn_before_the_error():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (6,), net=SMALL),
        posterior=pv.posteriors.MeanFieldNormal((6,), 2, net=SMALL),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(pv.training.NonFiniteError, match="optimizer: "):
            fit(vae, optimizer=SGD, estimator=pyro.infer.Trace_ELBO())


@pytest.mark.parametrize("estimator", [pv.estimators.ELBO(), pyro.infer.Trace_ELBO()])
def test_a_warning_of_a_network_is_not_shown_in_every_step(estimator):
    """Python shows a warning once per line of code, as long as nothing changes its filters."""

    def net(in_shape, out_shape):
        return layer(in_shape, out_shape, Warns())

    class Warns(nn.Module):
        def forward(self, x):
            warnings.warn("of a network", stacklevel=1)
            return x

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        fit(program(net), epochs=10, estimator=estimator)  # 20 steps
    assert 0 < [str(w.message) for w in found].count("of a network") < 5
