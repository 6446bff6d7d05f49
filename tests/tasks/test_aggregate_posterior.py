"""A density fitted to the latents of data: every family against the exact aggregate posterior."""

import copy
import functools
import math
import pickle

import pytest
import torch
from helpers.small_parts import example

import pyro_vae as pv
from pyro_vae.tasks import AggregatePosterior, generate
from pyro_vae.testing import LinearGaussian, parts

ADAM = functools.partial(torch.optim.Adam, lr=1e-2)
SMALL = functools.partial(pv.nets.MLP, hidden=(32,))
QUIET = {"progress": False, "seed": 7}  # not that of the data, whose noise the latents would repeat
TRAINED = {**QUIET, "optimizer": ADAM, "batch_size": 200}


def second_vae():
    """A VAE of the latents."""
    return pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (2,), net=SMALL, scale=pv.scales.Shared()),
        posterior=pv.posteriors.MeanFieldNormal((2,), 2, net=SMALL),
    )


FAMILIES = {
    "mixture": lambda: 2,
    "mixture by gradients": lambda: pv.priors.MixtureOfNormals(2, num_components=2, full=True),
    "MAF": lambda: pv.priors.MaskedAutoregressiveFlow(2, layers=2, hidden=(16,)),
    "spline flow": lambda: pv.priors.NeuralSplineFlow(2, layers=2, net=SMALL),
    "flow matching": lambda: pv.priors.FlowMatching(2, net=SMALL),
    "second VAE": second_vae,
}
EPOCHS = {"flow matching": 150}  # its gradient has more noise


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_the_moments_of_the_latents(name):
    """Data far from the prior; means within 0.15 and covariances within 0.25, program and family unchanged."""
    torch.manual_seed(0)
    toy = LinearGaussian()
    x = toy.draw(2000) + 3 * toy.decoder.weight.detach()[:, 0]
    family = FAMILIES[name]()
    family = family if isinstance(family, int) else family.double()
    before = [p.clone() for m in (toy.program, family) if m != 2 for p in m.parameters()]
    fitted = AggregatePosterior(
        toy.program, x, family, **(QUIET if family == 2 else {**TRAINED, "epochs": EPOCHS.get(name, 40)})
    )
    after = [p for m in (toy.program, family) if m != 2 for p in m.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    mean, covariance = (v.detach() for v in toy.posterior(x))
    with torch.no_grad():
        z = fitted().expand((4000,)).sample()
    assert z.shape == (4000, 2)
    assert (z.mean(0) - mean.mean(0)).abs().max() < 0.15
    assert (torch.cov(z.T) - torch.cov(mean.T) - covariance).abs().max() < 0.25
    if name != "second VAE":
        # the entropy of the normal with these moments is the least possible loss
        least = torch.distributions.MultivariateNormal(mean.mean(0), torch.cov(mean.T) + covariance).entropy()
        true = toy.program.encode(x).sample()
        assert float(-fitted().log_prob(true).mean().detach()) < float(least) + 0.1
    for same in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        drawn = [generate(toy.program, 3, prior=p, mean=True) for p in (fitted, same)]
        assert torch.equal(*drawn)


def is_family(cls):
    """Whether a prior has parameters, no context, and samples of two real numbers."""
    part = example(cls, latent=2)
    fn = None if part.context else part()
    real = fn is not None and fn.support is torch.distributions.constraints.real_vector
    return real and fn.event_shape == (2,) and bool(list(part.parameters()))


@pytest.mark.parametrize("cls", [cls for cls in parts(pv.priors) if is_family(cls)])
def test_every_prior_of_real_vectors_is_a_family(cls):
    toy = LinearGaussian()
    family = example(cls, latent=2).to(toy.program.dtype)
    fitted = AggregatePosterior(toy.program, toy.draw(20), family, **TRAINED, epochs=1)
    assert fitted().sample().shape == (2,)
    changed = zip(family.parameters(), fitted.family.parameters(), strict=True)
    assert any(not torch.equal(before, after) for before, after in changed)


@pytest.mark.filterwarnings("ignore:program. expected latents that depend on the data")
def test_a_second_vae_given_a_context_follows_it():
    """The latents equal the context up to noise, so that the second VAE needs no latents of its own."""
    torch.manual_seed(0)
    options = {"context": 1, "net": SMALL}
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (2,), **options),
        posterior=pv.posteriors.MeanFieldNormal((2,), 2, net=Identity),
    )
    c = torch.randn(1000, 1)
    second = pv.VAE(
        prior=pv.priors.StandardNormal(1),
        likelihood=pv.likelihoods.Normal(1, (2,), scale=pv.scales.Shared(), **options),
        posterior=pv.posteriors.MeanFieldNormal((2,), 1, **options),
    )
    fitted = AggregatePosterior(vae, (c.expand(-1, 2), c), second, **{**TRAINED, "epochs": 40})
    given = torch.tensor([[-2.0], [2.0]])
    z = fitted(given).sample((200,))
    assert z.shape == (200, 2, 2)
    assert (z.mean((0, 2)) - given.squeeze(-1)).abs().max() < 0.3
    assert generate(vae, 2, context=[given], prior=fitted).shape == (2, 2)


class Identity(torch.nn.Module):
    """The mean of z is x, with a std of e^-2."""

    def __init__(self, in_shape, out_shape):
        super().__init__()
        self.raw = torch.nn.Parameter(torch.tensor(-2.0))

    def forward(self, x):
        return torch.stack([x, self.raw.expand_as(x)], 1)


def test_a_second_vae_has_no_density():
    toy = LinearGaussian()
    fitted = AggregatePosterior(toy.program, toy.draw(20), second_vae().double(), **TRAINED, epochs=1)
    refitted = pv.VAE(prior=fitted, likelihood=toy.program.likelihood, posterior=toy.program.posterior)
    with pytest.raises(ValueError, match="^density.*at site 'z'"):
        pv.evaluation.log_likelihood(refitted, toy.draw(5), num_particles=2, progress=False)


def test_invalid_arguments():
    toy, x = LinearGaussian(), LinearGaussian().draw(20)
    for family in (0, "MAF", 1.5, pv.priors.StandardNormal):
        with pytest.raises(TypeError, match="^family"):
            AggregatePosterior(toy.program, x, family, **QUIET)
    with pytest.raises(ValueError, match="^epochs"):
        AggregatePosterior(toy.program, x, 2, **QUIET, epochs=3)
    with pytest.raises(ValueError, match="^num_samples"):
        AggregatePosterior(toy.program, x, pv.priors.Normal(2), **QUIET, num_samples=3)
    with pytest.raises(ValueError, match="z: "):
        AggregatePosterior(toy.program, x, pv.priors.Normal(3).double(), **QUIET)


def test_aggregate_posterior_is_the_average_of_posteriors():
    """Data far from the prior: the fitted density has the exact moments of their latents, and generates such data."""
    toy = LinearGaussian()
    x = toy.draw(4000) + 3 * toy.decoder.weight.detach()[:, 0]
    fitted = AggregatePosterior(toy.program, x, 1, num_samples=5, progress=False)
    mean, covariance = toy.posterior(x)
    exact = torch.cov(mean.detach().T) + covariance.detach()
    assert torch.allclose(fitted.family.loc[0], mean.detach().mean(0), atol=0.05)
    assert torch.allclose(fitted().components.covariance_matrix[0], exact, atol=0.05)
    from_fitted, from_prior = (generate(toy.program, 4000, prior=p, mean=True).mean(0) for p in (fitted, None))
    exact = (mean.mean(0) @ toy.decoder.weight.T + toy.decoder.bias).detach()
    # 4 standard errors of the mean of the widest latent
    assert (from_fitted - exact).abs().max() < 4 * 1.5 / math.sqrt(4000)
    assert (from_prior - exact).abs().max() > 1
    refitted = pv.VAE(prior=fitted, likelihood=toy.program.likelihood, posterior=toy.program.posterior)
    new, old = (pv.evaluation.log_likelihood(p, x[:50], num_particles=100).mean for p in (refitted, toy.program))
    assert new > old
    with pytest.raises(ValueError, match="^family"):
        AggregatePosterior(toy.program, x[:20], 21)
