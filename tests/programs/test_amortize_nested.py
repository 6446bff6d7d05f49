"""Plates inside an example: repeated measurements, groups of unequal size, and latents of each measurement."""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import infer, poutine
from torch import nn

import pyro_vae as pv
from pyro_vae.programs import Forward, Inverse, MeanField

E = pv.estimators
DIMS = [(-2, -1), (-1, -2)]


def table(rows=5, columns=3):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).double()


def ragged():
    """Groups of 1, 2 and 3 measurements, padded by NaN."""
    x = table()
    x[0, 1:] = math.nan
    x[1, 2] = math.nan
    return x


class Fixed(nn.Module):
    """A network that is a function."""

    takes_missing = True

    def __init__(self, function):
        super().__init__()
        self.function, self.shift = function, nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, *inputs):
        return self.function(*inputs) + self.shift


def raw(std):
    return torch.log(torch.expm1(std - 1e-4))


def normal(loc, std):
    """The output of a network: location and std of one latent for each row."""
    return torch.stack([loc, raw(std.expand_as(loc))], -1).unsqueeze(-1)


def small(in_shape, out_shape, **options):
    return pv.nets.MLP(in_shape, out_shape, hidden=(8,), **options)


def random_effects(data, inner):
    """An effect of each group, and masked measurements."""

    def model(x):
        seen, values = ~torch.isnan(x), x.nan_to_num()
        if inner == -2:
            seen, values = seen.T, values.T
        with pyro.plate("groups", len(x), dim=data):
            u = pyro.sample("u", dist.Normal(torch.zeros(()).double(), 1.0))
            with pyro.plate("repeats", x.shape[1], dim=inner), poutine.mask(mask=seen):
                pyro.sample("x", dist.Normal(u, 1.0), obs=values)

    return model


def marginal(x, noise):
    """The evidence of measurements with variance ``noise`` around an effect of variance 1."""
    found = []
    for row in x:
        row = row[~torch.isnan(row)]
        covariance = noise * torch.eye(len(row)).double() + 1
        found.append(dist.MultivariateNormal(torch.zeros(len(row)).double(), covariance).log_prob(row))
    return torch.stack(found)


@pytest.mark.parametrize(("data", "inner"), DIMS)
def test_groups_of_unequal_size_reach_the_evidence(data, inner):
    def net(x):
        precision = 1 + (~torch.isnan(x)).sum(-1)
        return normal(x.nansum(-1) / precision, precision**-0.5)

    x = ragged()
    program = pv.amortize(random_effects(data, inner), x, net=lambda *shapes: Fixed(net))
    program.check(x)
    for options in ({}, {"num_particles": 3}):
        found = E.ELBO(analytic_kl=False, **options).per_datum(program.model, program.guide, x)
        torch.testing.assert_close(found, marginal(x, 1.0))
    torch.testing.assert_close(E.IWAE(num_particles=2).per_datum(program.model, program.guide, x), marginal(x, 1.0))


def test_a_set_encoder_trains_on_groups_of_unequal_size():
    x = ragged()
    program = pv.amortize(random_effects(-2, -1), x, net=pv.nets.SetEncoder)
    history = pv.fit(program, x, epochs=30, batch_size=5, progress=False)
    assert history["loss"][-1] < history["loss"][0]
    assert set(pv.evaluation.latents(program, x, progress=False).active) == {"u"}


def two_levels(data, inner):
    """An effect of each group and of each measurement."""

    def model(x):
        values = x.T if inner == -2 else x
        with pyro.plate("groups", len(x), dim=data):
            u = pyro.sample("u", dist.Normal(torch.zeros(()).double(), 1.0))
            with pyro.plate("repeats", x.shape[1], dim=inner):
                z = pyro.sample("z", dist.Normal(u, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=values)

    return model


@pytest.mark.parametrize(("data", "inner"), DIMS)
def test_a_latent_of_each_measurement_reaches_the_evidence(data, inner):
    def net(in_shape, out_shape, context=0):
        def group(x):
            precision = 1 + x.shape[-1] / 2
            return normal(x.sum(-1) / 2 / precision, torch.tensor(precision**-0.5).double())

        def measurement(x, context):
            return normal((x + context[..., -1]) / 2, torch.tensor(0.5**0.5).double())

        return Fixed(measurement if context else group)

    x = table()
    program = pv.amortize(two_levels(data, inner), x, net=net, structure=Forward())
    program.check(x)
    for options in ({}, {"num_particles": 3}):
        found = E.ELBO(analytic_kl=False, **options).per_datum(program.model, program.guide, x)
        torch.testing.assert_close(found, marginal(x, 2.0))


@pytest.mark.parametrize(("data", "inner"), DIMS)
@pytest.mark.parametrize("structure", [MeanField(), Forward(), Inverse()])
def test_every_structure_has_the_loss_of_stock_pyro(structure, data, inner):
    x = table()
    program = pv.amortize(two_levels(data, inner), x, net=small, structure=structure)
    if isinstance(structure, Inverse):
        assert program.parts["guide"].parents == {"z": [], "u": ["z"]}
    losses = []
    for estimator in (infer.Trace_ELBO(), E.ELBO(analytic_kl=False)):
        torch.manual_seed(0)
        losses.append(estimator.differentiable_loss(program.model, program.guide, x).detach())
    torch.testing.assert_close(*losses)
    values = program.guide(x)
    assert values["u"].shape == ((5, 1) if data == -2 else (5,))
    assert values["z"].shape == ((5, 3) if data == -2 else (3, 5))
    for options in ({"num_particles": 3}, {"num_particles": 2, "particles_per_pass": 1}):
        assert math.isfinite(E.IWAE(**options).loss(program.model, program.guide, x))
    options = {"compile": pv.training.eager_graph, "progress": False}
    assert math.isfinite(pv.fit(program, x, epochs=1, batch_size=5, **options)["loss"][0])


def test_the_encoder_of_a_measurement_sees_its_entry_and_its_row():
    x = table().requires_grad_()
    program = pv.amortize(two_levels(-2, -1), x.detach(), net=small)
    q = poutine.trace(program.guide).get_trace(x).nodes["z"]["fn"]
    (gradient,) = torch.autograd.grad(q.mean[1, 2], x)
    assert (gradient != 0).any(1).tolist() == [False, True, False, False, False]
    # one encoder for all entries: equal rows with equal entries have one posterior
    same = torch.ones(2, 3).double()
    q = poutine.trace(program.guide).get_trace(same).nodes["z"]["fn"]
    torch.testing.assert_close(q.mean, q.mean[:1, :1].expand(2, 3))


@pytest.mark.parametrize("structure", [Forward(), Inverse()])
def test_shared_latents_subsamples_and_measurements_together(structure):
    def model(x):
        tau = pyro.sample("tau", dist.Gamma(torch.tensor(20.0).double(), 10.0))
        with pyro.plate("groups", 100, subsample=torch.arange(len(x)), dim=-2):
            u = pyro.sample("u", dist.Normal(torch.zeros(()).double(), 1.0))
            with pyro.plate("repeats", 3, dim=-1):
                z = pyro.sample("z", dist.LogNormal(u, 1.0))
                pyro.sample("x", dist.Normal(u + z, tau), obs=x)

    x = table()
    program = pv.amortize(model, x, net=small, structure=structure)
    stock = infer.Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=2)
    for estimators in (
        (infer.Trace_ELBO(), E.ELBO(analytic_kl=False)),
        (stock, E.ELBO(num_particles=3, analytic_kl=False)),
    ):
        losses = []
        for estimator in estimators:
            torch.manual_seed(0)
            losses.append(estimator.differentiable_loss(program.model, program.guide, x).detach())
        torch.testing.assert_close(*losses)
    assert math.isfinite(E.IWAE(num_particles=3).loss(program.model, program.guide, x))
