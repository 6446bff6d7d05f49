"""Networks over data with missing entries, and the parts and wrappers that report that they take NaN."""

import functools
import math

import pytest
import torch
from helpers.small_parts import SMALL

import pyro_vae as pv
from pyro_vae import posteriors
from pyro_vae.data.tables import Features, Real
from pyro_vae.nets import SetEncoder, ZeroImputed

NETS = {"zeros": functools.partial(ZeroImputed, net=SMALL), "set": functools.partial(SetEncoder, hidden=(8,))}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("context", [0, 2])
def test_outputs_and_gradients_are_finite(name, context):
    net = NETS[name]((2, 2), (3,), context=context)
    x = torch.randn(7, 5, 2, 2)
    x[torch.rand(x.shape) < 0.4] = math.nan
    x[0, 0] = math.nan
    labels = [torch.randn(7, 5, 2)] if context else []
    y = net(x, *labels)
    assert y.shape == (7, 5, 3)
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
    assert torch.allclose(net(x[2], *(c[2] for c in labels)), y[2], atol=1e-6)
    part = posteriors.MeanFieldNormal((2, 2), 3, net=NETS[name], context=context)
    assert part(x, *labels).log_prob(torch.zeros(3)).isfinite().all()
    pv.testing.check_part(part, (2, 2), *([(2,)] if context else []))


def test_zero_imputed_distinguishes_zero_from_missing():
    net = ZeroImputed((3,), (2,))
    first, second = net(torch.tensor([[1.0, 0.0, 2.0], [1.0, math.nan, 2.0]]))
    assert not torch.allclose(first, second)
    assert ZeroImputed((1, 8, 8), (2,), net=pv.nets.ConvEncoder)(torch.full((4, 1, 8, 8), math.nan)).shape == (4, 2)


def test_set_encoder_does_not_depend_on_the_order_of_entries():
    net, fewer = SetEncoder((3,), (2,)), SetEncoder((2,), (2,))
    order = torch.tensor([2, 0])
    state = net.state_dict()
    fewer.load_state_dict({**state, "body.entries": state["body.entries"][order]})
    x = torch.tensor([[1.0, math.nan, 2.0]])
    assert torch.allclose(net(x), fewer(x[:, order]), atol=1e-6)


def semi_amortized(posterior):
    return posteriors.SemiAmortized(
        posterior, prior=pv.priors.StandardNormal(2), likelihood=pv.likelihoods.Normal(2, (2,), net=SMALL)
    )


def test_wrappers_report_whether_nan_may_mark_missing_entries():
    columns = [Real("a", 0.0, 1.0), Real("b", 0.0, 1.0)]
    for net, takes in (
        (NETS["zeros"], True),
        (NETS["set"], True),
        (SMALL, False),
        (functools.partial(Features, columns, net=SMALL, missing=True), True),  # wrapped in a Net by `build`
        (functools.partial(Features, columns, net=SMALL), False),
        (lambda i, o: torch.nn.Linear(2, 4), False),
    ):
        posterior = posteriors.MeanFieldNormal((2,), 2, net=net)
        assert posterior.net.takes_missing == takes
        assert posterior.takes_missing == takes
        assert semi_amortized(posterior).takes_missing  # its encoder sees 0 if it does not take NaN
        posterior.takes_missing = True
        assert posterior.takes_missing


def test_programs_pass_nan_to_posteriors_that_take_it():
    prior, likelihood = pv.priors.StandardNormal(2), pv.likelihoods.Normal(2, (2,), net=SMALL)
    amortized = posteriors.MeanFieldNormal((2,), 2, net=NETS["zeros"])
    refined = posteriors.SemiAmortized(amortized, prior=prior, likelihood=likelihood)
    x = torch.tensor([[1.0, 0.0], [1.0, math.nan]])
    bounds = []
    for q in (amortized, refined):
        vae = pv.VAE(prior=prior, likelihood=likelihood, posterior=q, missing=True)
        zero, missing = vae.encode(x).mean
        assert not torch.allclose(zero, missing)
        bounds.append(pv.estimators.ELBO(num_particles=2000).per_datum(vae.model, vae.guide, x).detach())
    assert (bounds[1] > bounds[0]).all()  # also of the row with a missing entry
