"""Runs of unusual programs: no plate, data at another dimension, tensors as scales, noise and buffers of a guide."""

import copy

import pyro
import pytest
import torch
from helpers import shelf
from pyro import distributions as dist
from pyro import poutine
from test_bounds import hierarchy

import pyro_vae as pv
from pyro_vae.estimators.over_batch import OverBatch
from pyro_vae.trace import Enumerated, Reparameterized

E = pv.estimators
X = torch.tensor([[0.8, -1.1], [0.1, 0.4], [-2.0, 0.3]], dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
PATHWISE = [
    cls for cls in shelf.classes() if issubclass(cls.draws, Reparameterized) and not issubclass(cls, OverBatch)
]


def pixels(x):
    """A latent per pixel; the data plate is at dimension -2."""
    with pyro.plate("data", 4, dim=-2), pyro.plate("pixels", 3, dim=-1):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def pixels_guide(x):
    with pyro.plate("data", 4, dim=-2), pyro.plate("pixels", 3, dim=-1):
        pyro.sample("z", dist.Normal(0.5 * x, 0.7))


def test_weights_of_examples_at_another_dimension():
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0]).double().unsqueeze(-1)
    model, guide = (poutine.scale(f, scale=weights) for f in (pixels, pixels_guide))
    torch.manual_seed(0)
    exact = pyro.infer.Trace_ELBO().differentiable_loss(model, guide, x)
    torch.manual_seed(0)
    torch.testing.assert_close(E.ELBO(analytic_kl=False).differentiable_loss(model, guide, x), exact)
    uneven = poutine.scale(pixels, scale=torch.ones(4, 3)), poutine.scale(pixels_guide, scale=torch.ones(4, 3))
    with pytest.raises(ValueError, match="scale: .*'"):
        E.ELBO().differentiable_loss(*uneven, x)


@pytest.mark.parametrize("cls", [cls for cls in PATHWISE if cls.draws is not Enumerated])
def test_tensors_as_scales(cls):
    """One number per example multiplies its bound, outside of any logarithm; other weights in the guide raise."""
    program = hierarchy(pv.programs.TopDown)
    estimator = shelf.build(cls)
    torch.manual_seed(0)
    with torch.no_grad():
        rows = estimator.bound(estimator.terms(program.model, program.guide, X), 1.0)
    model, guide = (poutine.scale(f, scale=WEIGHTS) for f in (program.model, program.guide))
    torch.manual_seed(0)
    assert estimator.loss(model, guide, X) == pytest.approx(-float((WEIGHTS * rows).sum()))
    with pytest.raises(ValueError, match="guide: .*scaled"):
        estimator.loss(model, poutine.scale(program.guide, scale=2 * WEIGHTS), X)


@pytest.mark.parametrize("cls", PATHWISE)
def test_a_program_without_a_plate_is_one_example(cls):
    x = torch.tensor([0.3, -1.0, 2.0]).double()

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(x[:2] * weight, 0.5).to_event(1))

    weight = torch.nn.Parameter(torch.tensor([0.2, -0.4]).double())
    loss = shelf.build(cls).differentiable_loss(model, guide, x)
    (slope,) = torch.autograd.grad(loss, [weight])
    assert slope.isfinite().all()


class Noisy(torch.nn.Module):
    """A network with a BatchNorm or a Dropout."""

    def __init__(self, layer, sizes):
        super().__init__()
        self.layers = torch.nn.Sequential(layer, torch.nn.Linear(*sizes)).double()

    def forward(self, x):
        return self.layers(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], 2, -1)


def noisy(layer):
    program = hierarchy(pv.programs.BottomUp)
    program.inference.posteriors[0].net = Noisy(layer, (2, 2))
    return program.train()


@pytest.mark.parametrize("cls", [E.DReG, E.StickingTheLanding, E.CUBO, E.PIWAE])
def test_guides_with_noise_of_their_own_are_refused(cls):
    """A guide that runs again would have another Dropout; in evaluation mode it has none."""
    program = noisy(torch.nn.Dropout(0.5))
    with pytest.raises(ValueError, match="guide: .*Dropout"):
        shelf.build(cls).differentiable_loss(program.model, program.guide, X)
    program.eval()
    assert shelf.build(cls).differentiable_loss(program.model, program.guide, X).isfinite()


@pytest.mark.parametrize("options", [{}, {"particles_per_pass": 2}])
@pytest.mark.parametrize("cls", [E.IWAE, E.DReG, E.PIWAE])
def test_a_step_updates_statistics_once(cls, options):
    program = noisy(torch.nn.BatchNorm1d(2))
    estimator = shelf.build(cls, **options)
    for step in range(1, 3):
        estimator.loss_and_grads(program.model, program.guide, X)
        assert int(program.inference.posteriors[0].net.layers[0].num_batches_tracked) == step


def test_masks_that_differ_rule_out_the_closed_form():
    toy = pv.testing.LinearGaussian(off=0.2)
    x = toy.draw(5)
    guide = poutine.mask(toy.program.guide, mask=False)
    losses = []
    for analytic in (True, False):
        torch.manual_seed(0)
        losses.append(E.ELBO(analytic_kl=analytic).differentiable_loss(toy.program.model, guide, x))
    torch.testing.assert_close(*losses)


def test_plates_may_depend_on_an_argument():
    def model(x, deep=False):
        with pyro.plate("data", 4, dim=-2 if deep else -1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.unsqueeze(-1) if deep else x)

    def guide(x, deep=False):
        with pyro.plate("data", 4, dim=-2 if deep else -1):
            pyro.sample("z", dist.Normal(0.5 * (x.unsqueeze(-1) if deep else x), 1.0))

    x = torch.randn(4)
    found = []
    for deep in (False, True):
        torch.manual_seed(0)
        E.IWAE(num_particles=3).loss(model, guide, x, deep=deep)  # the first call looks at the structure
        torch.manual_seed(0)
        found.append(E.IWAE(num_particles=3).loss(model, guide, x, deep=deep))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_capacity_leaves_the_divergence_of_shared_latents():
    program = pv.programs.BayesianDecoder.example()
    x = torch.zeros(3, *program.posterior.net.in_shape) if hasattr(program.posterior.net, "in_shape") else None
    x = torch.rand(3, 4) if x is None else x
    losses = []
    for weight in (1.0, 2.0):
        own = copy.deepcopy(program)
        torch.manual_seed(0)
        terms = E.ELBO(analytic_kl=False, capacity=E.Capacity(0.0, 1, gamma=0.0)).terms(own.model, own.guide, x)
        shared = sum(site.sampled_kl.sum() * site.scale for site in terms.split()[1].latent)
        losses.append(
            E.ELBO(analytic_kl=False, capacity=E.Capacity(0.0, 1, gamma=0.0)).evaluate(terms)[0] - weight * shared
        )
    reconstruction = -sum((site.log_p * site.scale).sum() for site in terms.split()[0].observed)
    torch.testing.assert_close(losses[0], reconstruction)
    assert not torch.allclose(losses[1], reconstruction)
