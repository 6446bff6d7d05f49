"""Rejection samplers: their draws carry a part of the gradient, and a score function the rest."""

import math

import pyro
import pytest
import torch
from helpers import shelf
from helpers.brute_force import draws_of, gradient_of
from helpers.checks import within
from pyro import distributions as dist
from pyro.distributions.testing.rejection_gamma import RejectionGamma, ShapeAugmentedGamma
from torch import nn
from torch.distributions import Gamma, Normal

import pyro_vae as pv
from pyro_vae.trace.score_function import rejection_sampler

E = pv.estimators
SHAPE, RATE = 1.2, 1.5
X = torch.tensor([0.4, 2.0]).double()
FAMILIES = {
    "rejection": RejectionGamma,
    "augmented": ShapeAugmentedGamma,
    "event": lambda shape, rate: ShapeAugmentedGamma(shape.unsqueeze(-1), rate.unsqueeze(-1)).to_event(1),
    "masked": lambda shape, rate: ShapeAugmentedGamma(shape, rate).mask(torch.ones(()).bool().expand(shape.shape)),
}


class Toy:
    """A Gamma latent of each example, or one of all of them, with a Gamma prior and a normal observation."""

    def __init__(self, family="rejection", shared=False):
        self.family, self.shared = FAMILIES[family], shared
        self.p = nn.ParameterDict({"a": nn.Parameter(torch.tensor(SHAPE).double().log())})
        self.event = family == "event"

    def prior(self, batch):
        prior = dist.Gamma(torch.tensor(1.5).double(), 1.0).expand(batch)
        return dist.Gamma(torch.full((*batch, 1), 1.5).double(), 1.0).to_event(1) if self.event else prior

    def sample(self, name, fn):
        z = pyro.sample(name, fn)
        return z.squeeze(-1) if self.event else z

    def model(self, x):
        plate = pyro.plate("data", len(x), dim=-1)
        if self.shared:
            z = self.sample("z", self.prior(()))
        with plate:
            if not self.shared:
                z = self.sample("z", self.prior(x.shape))
            pyro.sample("x", dist.Normal(z, 0.7), obs=x)

    def guide(self, x):
        plate = pyro.plate("data", len(x), dim=-1)
        batch = () if self.shared else x.shape
        with plate if not self.shared else pyro.poutine.scale(scale=1.0):
            shape = self.p["a"].exp().expand(batch)
            self.sample("z", self.family(shape, torch.full_like(shape, RATE)))

    def grid(self, nodes=4000):
        """Return log w ``(nodes, examples)``, or ``(nodes, 1)`` for a shared latent, and weights of an integral."""
        # the density behaves like z^(shape - 1) at 0: equal steps of log z
        log_z = torch.linspace(-20.0, math.log(25.0), nodes, dtype=torch.float64)
        z, step = log_z.exp(), log_z[1] - log_z[0]
        q = Gamma(self.p["a"].exp(), RATE).log_prob(z)
        log_x = Normal(z[:, None], 0.7).log_prob(X)
        log_x = log_x.sum(1, keepdim=True) if self.shared else log_x
        return Gamma(1.5, 1.0).log_prob(z)[:, None] + log_x - q[:, None], q.exp() * z * step

    def elbo(self):
        log_w, q = self.grid()
        return (q[:, None] * log_w).sum()

    def iwae(self):
        log_w, q = self.grid(600)
        both = torch.logaddexp(log_w[:, None], log_w) - math.log(2)
        return (q[:, None, None] * q[:, None] * both).sum()

    def unbiased(self, estimator, exact, num_draws=40, rows=300):
        """Rows are copies of the examples; a shared latent has copies as particles."""
        x = X if self.shared else X.repeat(rows)
        values, gradients = draws_of(estimator, self.model, self.guide, (x,), [self.p["a"]], num_draws)
        scale = 1 if self.shared else rows
        assert within(values / scale, exact.detach())
        return within(gradients / scale, gradient_of(exact, [self.p["a"]]))


def frozen():
    nvil = E.NVIL()
    nvil.module.double().mean.fill_(-3.0)
    nvil.module.update_moments = lambda residual, weights: None
    return nvil


@pytest.mark.parametrize("family", FAMILIES)
def test_reinforce_loo_honours_the_score_function(family):
    toy = Toy(family)
    assert toy.unbiased(E.ReinforceLOO(num_particles=4), toy.elbo())


def test_other_estimators_with_score_functions_do_so_as_well():
    toy = Toy()
    assert toy.unbiased(frozen(), toy.elbo())
    assert toy.unbiased(E.VIMCO(num_particles=2), toy.iwae())
    assert toy.unbiased(E.VIMCO(num_particles=2, particles_per_pass=1), toy.iwae())


@pytest.mark.slow
def test_a_latent_that_examples_share():
    toy = Toy(shared=True)
    assert toy.unbiased(E.ReinforceLOO(num_particles=400), toy.elbo())
    assert toy.unbiased(E.ReinforceLOO(num_particles=2, particles_per_pass=1), toy.elbo(), num_draws=150)


def test_the_path_alone_is_seen():
    """The fault: what every estimator did that left the score function out."""

    class Path(E.ReinforceLOO):
        def bound(self, terms, beta):
            return terms.log_w(beta).mean(0)

    toy = Toy()
    assert not toy.unbiased(Path(num_particles=4), toy.elbo())


@pytest.mark.parametrize("shared", [False, True])
def test_all_others_refuse_by_name(shared):
    toy = Toy(shared=shared)
    accepted = {E.ReinforceLOO} if shared else {E.ReinforceLOO, E.NVIL, E.VIMCO, E.OVIS, E.ReweightedWakeSleep, E.TVO}
    for cls in shelf.classes():
        if cls in accepted:
            assert math.isfinite(shelf.build(cls).loss(toy.model, toy.guide, X))
        elif shelf.for_bits(cls):
            with pytest.raises(ValueError, match="guide: .*'z'"):
                shelf.build(cls).loss(toy.model, toy.guide, X)
        else:
            with pytest.raises(ValueError, match="guide: .*'z'.*ReinforceLOO"):
                shelf.build(cls).loss(toy.model, toy.guide, X)


def test_a_transformed_rejection_sampler_is_refused():
    toy = Toy()
    toy.family = lambda shape, rate: dist.TransformedDistribution(
        ShapeAugmentedGamma(shape, rate), dist.transforms.AffineTransform(0.0, 2.0)
    )
    with pytest.raises(ValueError, match="guide: .*ShapeAugmentedGamma.*TransformedDistribution"):
        E.ReinforceLOO().loss(toy.model, toy.guide, X)


def test_exact_samplers_are_no_rejection_samplers():
    """No family of this library, nor one of torch, takes the slower way."""
    normal = dist.Normal(torch.zeros(3), 1.0)
    for fn in (normal.to_event(1), normal.expand([2, 3]), normal.mask(False), dist.Gamma(torch.ones(3), 1.0)):
        assert rejection_sampler(fn) is None
    for name in pv.distributions.__all__:
        assert "score_parts" not in vars(getattr(pv.distributions, name)), name
