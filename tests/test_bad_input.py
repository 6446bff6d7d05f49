"""Bad input ends before the first step, in an error that says where and what to do."""

import functools

import numpy as np
import pytest
import torch
from conftest import make_vae
from safetensors.torch import load_file

import pyro_vae as pv

X = torch.rand(30, 8, 8).round()


def spoiled(value, index=(3, 0, 5)):
    x = X.clone()
    x[index] = value
    return x


BAD = {
    "nan": (spoiled(float("nan")), r"x: expected finite values, but x\[3, 0, 5\] is NaN \(1 of 1,920"),
    "infinite": (spoiled(float("inf")), r"x\[3, 0, 5\] is infinite"),
    "grey": (spoiled(0.25), r"x\[3, 0, 5\] is 0.25, outside the support of the likelihood Bernoulli, 0 or 1 .*"),
    "grey ways out": (spoiled(0.25), "ContinuousBernoulli or Normal, .* binarize=.*grey=True"),
    "bytes 0..255": (spoiled(255.0), r"x\[3, 0, 5\] is 255"),
    "wrong width": (X[:, :, :7], r"x: expected shape \(n, 8, 8\) with one datum a row, got \(30, 8, 7\)"),
    "would broadcast": (X[:, :, :1], r"x: expected shape \(n, 8, 8\) with one datum a row, got \(30, 8, 1\)"),
    "flat": (X.flatten(1), r"got \(30, 64\)"),
    "one datum without its row": (X[0], r"got \(8, 8\)"),
    "a number": (torch.tensor(1.0), "a single number"),
    "int64": (X.long(), "x: expected dtype torch.float32 .* got torch.int64"),
    "uint8": ((X * 255).byte(), "got torch.uint8; convert it"),
    "bool": (X.bool(), "got torch.bool"),
    "complex": (X.to(torch.complex64), "got torch.complex64"),
    "int array": (X.numpy().astype(int), "got torch.int64"),
    "strings": (np.array(["a", "b"]), "x: expected an array of floating-point numbers, got numpy dtype <U1"),
    "objects": (np.array([None, 1.0]), "got numpy dtype object"),
    "complex array": (X.numpy().astype(complex), "got numpy dtype complex128"),
    "empty": (X[:0], "data: expected at least one datum, got an empty array"),
    "labels not asked for": ((X, torch.ones(30, 10)), "no part of this program takes a context"),
    "columns of other length": ((X, torch.ones(29, 10)), "same length, got x: 30, context.0.: 29"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data(name, vae):
    data, message = BAD[name]
    before = [p.clone() for p in vae.parameters()]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        pv.fit(vae, data, epochs=1, progress=False)
    assert all(torch.equal(p, b) for p, b in zip(vae.parameters(), before, strict=True))


def test_bad_data_elsewhere(vae):
    bad = spoiled(float("nan"))
    with pytest.raises(ValueError, match=r"x\[3, 0, 5\] is NaN"):
        pv.fit(vae, X, valid=bad, epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"x\[3, 0, 5\] is NaN"):
        pv.evaluation.log_likelihood(vae, bad)


@pytest.mark.parametrize("data", [5, "text", None, {"x": 1}])
def test_data_of_no_known_kind(vae, data):
    with pytest.raises(TypeError, match="x: expected a tensor, numpy array"):
        pv.fit(vae, data, epochs=1, progress=False)


def conditional():
    return pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli(2, (8, 8), context=10),
        posterior=pv.posteriors.MeanFieldNormal((8, 8), 2, context=10),
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X, "needs 10 numbers of context"),
        ((X, torch.zeros(30).long()), "context: expected dtype torch.float32"),
        ((X, torch.zeros(30)), r"context: expected shape \(30, 10\)"),
        ((X, torch.zeros(30, 9)), "context: expected 10 numbers a datum"),
        ((X, torch.full((30, 10), float("nan"))), r"context\[0, 0\] is NaN"),
    ],
)
def test_labels_missing_or_wrong(data, message):
    with pytest.raises(ValueError, match=message):
        pv.fit(conditional(), data, epochs=1, progress=False)


def test_parts_that_do_not_fit_each_other():
    net = functools.partial(pv.nets.MLP, hidden=(4,))
    with pytest.raises(ValueError, match="build both with the same `latent`"):
        pv.fit(
            pv.VAE(
                prior=pv.priors.StandardNormal(3),
                likelihood=pv.likelihoods.Bernoulli(3, (8, 8), net=net),
                posterior=pv.posteriors.MeanFieldNormal((8, 8), 2, net=net),
            ),
            X,
            epochs=1,
            progress=False,
        )
    with pytest.raises(TypeError, match="prior: expected an object"):
        pv.VAE(
            prior=pv.priors.StandardNormal,
            likelihood=pv.likelihoods.Bernoulli(3, (8, 8), net=net),
            posterior=pv.posteriors.MeanFieldNormal((8, 8), 2, net=net),
        )


def test_posterior_without_reparameterized_sampler_is_refused(vae):
    from pyro import distributions as dist

    class Bits(pv.Conditional):
        def __init__(self):
            super().__init__()
            self.net = pv.nets.MLP((8, 8), (3,))

        def forward(self, x, *context):
            return dist.Bernoulli(logits=self.net(x)).to_event(1)

    vae.prior, vae.posterior = pv.priors.Bernoulli(3), Bits()
    with pytest.raises(ValueError, match="ELBO follows the gradient .* site 'z' from Bernoulli.*MeanFieldNormal"):
        pv.fit(vae, X, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: expected an int of at least 1"),
        ({"batch_size": 0}, "batch_size: expected an int of at least 1"),
        ({"clip_norm": -1.0}, "clip_norm: expected a positive number"),
    ],
)
def test_bad_options(vae, options, message):
    with pytest.raises(ValueError, match=message):
        pv.fit(vae, X, progress=False, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": pv.estimators.ELBO}, "estimator: expected an object"),
        ({"estimator": "elbo"}, "estimator: expected an object"),
        ({"optimizer": 1e-3}, "optimizer: expected a callable"),
    ],
)
def test_options_of_wrong_type(vae, options, message):
    with pytest.raises(TypeError, match=message):
        pv.fit(vae, X, progress=False, **options)


@pytest.mark.parametrize("options", [{"num_particles": 0}, {"num_particles": 1.5}, {"beta": -1.0}])
def test_bad_estimators(options):
    with pytest.raises(ValueError, match="expect(ed|s)"):
        pv.estimators.ELBO(**options)


def test_schedule_that_turns_negative(vae):
    with pytest.raises(ValueError, match="beta: expected a number of at least 0, got -1.* at step 1"):
        pv.fit(vae, X, estimator=pv.estimators.ELBO(beta=lambda t: -float(t)), epochs=2, progress=False)


def test_a_program_is_expected():
    with pytest.raises(TypeError, match="Functions"):
        pv.fit(torch.nn.Linear(2, 2), X)


def state(program):
    return {k: v.clone() for k, v in program.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[k], b[k]) for k in b)


def test_a_loss_that_turns_nan_stops_with_the_last_good_weights(vae, tmp_path):
    kept = []

    def poison(metrics, step):
        kept.append(state(vae))
        if metrics["epoch"] == 1:
            with torch.no_grad():
                vae.likelihood.net.body[0].weight[0, 0] = float("nan")

    with pytest.raises(pv.training.NonFiniteError, match="(?s)step 2: .*site 'x' in the model.*largest gradient"):
        pv.fit(vae, X, epochs=5, callbacks=[poison], run_dir=tmp_path, progress=False)
    # the weights that gave the last finite loss: those of the first epoch, also in the run folder
    assert equal(state(vae), kept[0])
    assert equal(load_file(tmp_path / "weights.safetensors"), kept[0])


def test_a_rate_too_high_never_leaves_nan_in_the_weights():
    vae = make_vae()
    first = state(vae)
    huge = functools.partial(torch.optim.SGD, lr=1e38)
    with pytest.raises(pv.training.NonFiniteError, match="step 1"):
        pv.fit(vae, X, optimizer=huge, epochs=5, progress=False)
    assert equal(state(vae), first)


def test_nan_in_a_stream_stops_before_its_step(vae):
    from torch.utils.data import DataLoader

    before = [p.clone() for p in vae.parameters()]
    with pytest.raises(ValueError, match="is NaN"):
        pv.fit(vae, DataLoader(spoiled(float("nan")), batch_size=30), epochs=1, progress=False)
    assert all(torch.equal(p, b) for p, b in zip(vae.parameters(), before, strict=True))
