"""Masks and scales of guide and model: tensors that a step cannot read, on a GPU or in a compiled step, included."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine

import pyro_vae as pv
from pyro_vae.trace import layout

X = torch.tensor([0.3, -0.7]).double()
FIRST = torch.tensor([True, False])
E = pv.estimators


@pytest.fixture(params=[True, False], ids=["read", "unread"])
def read(request, monkeypatch):
    """Whether tensors are read in a step: those of the CPU are not where they count as on another device."""
    if not request.param:
        monkeypatch.setattr(layout, "HOST", "another device")
    return request.param


class Toy:
    """Three latents for each of two examples, with handlers on the latents of model and guide, and on the data."""

    def __init__(self, model, guide, data=lambda: poutine.scale(scale=1.0)):
        self.handlers = model, guide, data

    def model(self, x):
        with pyro.plate("data", len(x)):
            with self.handlers[0]():
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 3).double(), 1.0).to_event(1))
            with self.handlers[2]():
                pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)), self.handlers[1]():
            pyro.sample("z", dist.Normal(torch.ones(len(x), 3).double(), 0.5).to_event(1))


def masked(mask):
    return lambda: poutine.mask(mask=mask.clone() if isinstance(mask, torch.Tensor) else mask)


def scaled(scale):
    return lambda: poutine.scale(scale=torch.tensor(scale).double())


def latent_site(toy, num_particles=3):
    torch.manual_seed(0)
    return pv.trace.run(toy.model, toy.guide, (X,), num_particles=num_particles).latent[0]


@pytest.mark.parametrize("mask", [~FIRST, True, FIRST | True], ids=["the other one", "none", "all"])
@pytest.mark.parametrize("num_particles", [1, 3])
def test_divergences_leave_out_what_each_mask_leaves_out(mask, num_particles, read):
    """Where the masks differ, all forms of the divergence are the difference of the masked log-densities."""
    site = latent_site(Toy(masked(mask), masked(FIRST)), num_particles)
    closed = site.sampled_kl if site.closed_form_kl is None else site.closed_form_kl
    for kl in (site.kl_per_dimension.sum(-1), closed.expand(num_particles, 2)):
        torch.testing.assert_close(kl[:, FIRST != mask], site.sampled_kl[:, FIRST != mask])


def test_equal_masks_have_a_divergence_in_closed_form(read):
    site = latent_site(Toy(masked(FIRST), masked(FIRST)))
    exact = 3 * torch.distributions.kl_divergence(dist.Normal(1.0, 0.5), dist.Normal(0.0, 1.0)).double()
    for kl in (site.closed_form_kl, site.kl_per_dimension.sum(-1)):
        torch.testing.assert_close(kl.mean(0), torch.stack([exact, 0 * exact]))


@pytest.mark.parametrize("estimator", [E.ELBO(), E.IWAE(num_particles=2), E.ReinforceLOO(num_particles=2)])
def test_scales_of_guide_and_model_are_compared(estimator, read):
    toy = Toy(scaled([1.0, 2.0]), scaled([2.0, 1.0]))
    for _ in range(2):
        with pytest.raises(ValueError, match="guide: site 'z' is scaled"):
            estimator.loss(toy.model, toy.guide, X)


def test_scales_of_sites_are_compared(read):
    toy = Toy(scaled([1.0, 2.0]), scaled([1.0, 2.0]), scaled([1.0, 3.0]))
    with pytest.raises(ValueError, match="model: IWAE needs one scale"):
        E.IWAE(num_particles=2).loss(toy.model, toy.guide, X)
    assert torch.isfinite(torch.tensor(E.ELBO().loss(toy.model, toy.guide, X)))


def test_equal_scales_are_one_scale(read):
    weights = [1.0, 2.0]
    toy = Toy(scaled(weights), scaled(weights), scaled(weights))
    elbo = E.IWAE(num_particles=1)
    torch.manual_seed(0)
    loss = elbo.loss(toy.model, toy.guide, X)
    torch.manual_seed(0)
    plain = Toy(masked(True), masked(True))
    each = elbo.per_datum(plain.model, plain.guide, X)
    assert loss == pytest.approx(-float((torch.tensor(weights).double() * each).sum()))
