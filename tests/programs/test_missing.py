"""Missing entries: against the exact marginal of the observed entries; MissingNotAtRandom and Autoencoder."""

import functools
import math

import pytest
import torch
from helpers.missing import holes, marginal, with_missing
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.testing import LinearGaussian


def test_importance_sampling_finds_the_marginal_of_the_observed():
    toy = LinearGaussian(5, 2)
    x = holes(toy.draw(12))
    # the guide ignores x: a little wider than the prior, it covers every posterior
    with torch.no_grad():
        toy.encoder.weight.zero_()
        toy.encoder.bias.copy_(torch.tensor([0.0, 0.0, 0.9, 0.9]))
    found = pv.evaluation.log_likelihood(with_missing(toy), x, num_particles=10000)
    exact = torch.stack([marginal(toy, row) for row in x]).detach()
    # 12 examples: 5 standard errors, because few effective particles make the error itself uncertain
    assert (found.ess > 100).all()
    assert ((found.per_example - exact).abs() < 5 * found.per_example_error).all()


def test_likelihood_and_gradient_are_those_of_the_observed_entries():
    toy = LinearGaussian(5, 2)
    x, z = holes(toy.draw(12)), torch.randn(12, 2, dtype=torch.float64)
    masked, filled = pv.programs.missing.hide_missing(toy.program.likelihood(z), x)
    every = toy.program.likelihood(z).base_dist.log_prob(torch.nan_to_num(x))
    expected = (every * ~torch.isnan(x)).sum(-1)
    assert torch.allclose(masked.log_prob(filled), expected)
    found = torch.autograd.grad(masked.log_prob(filled).sum(), list(toy.program.likelihood.parameters()))
    exact = torch.autograd.grad(expected.sum(), list(toy.program.likelihood.parameters()))
    assert all(torch.allclose(a, b) for a, b in zip(found, exact, strict=True))


def test_complete_data_have_the_same_bound_with_missing_true():
    toy = LinearGaussian(5, 2, off=0.1)
    x = toy.draw(6)
    vae, elbo = with_missing(toy), pv.estimators.ELBO()
    torch.manual_seed(0)
    whole = elbo.per_datum(toy.program.model, toy.program.guide, x)
    torch.manual_seed(0)
    assert torch.equal(elbo.per_datum(vae.model, vae.guide, x), whole)


@pytest.mark.parametrize("likelihood", [pv.likelihoods.Bernoulli, pv.likelihoods.ContinuousBernoulli])
@pytest.mark.parametrize("num_particles", [1, 4])
def test_trains_with_missing_entries(likelihood, num_particles):
    x = holes(torch.rand(64, 2, 2).round())
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(3),
        likelihood=likelihood(3, (2, 2)),
        posterior=pv.posteriors.MeanFieldNormal((2, 2), 3),
        missing=True,
    )
    elbo = pv.estimators.ELBO(num_particles=num_particles)
    history = pv.fit(vae, x, estimator=elbo, epochs=8, batch_size=16, progress=False)
    assert history["loss"][-1] < history["loss"][0]
    assert math.isfinite(pv.evaluation.log_likelihood(vae, x, num_particles=10).mean)
    assert vae.reconstruct(x).shape == x.shape


def test_missing_entries_are_refused_without_missing_true():
    toy = LinearGaussian(5, 2)
    x = holes(toy.draw(12))
    with pytest.raises(ValueError, match="^x: .*NaN.*missing=True"):
        pv.fit(toy.program, x, epochs=1, progress=False)
    x[3, 0] = float("inf")
    with pytest.raises(ValueError, match=r"^x: .*x\[3, 0\] is infinite"):
        pv.fit(with_missing(toy), x, epochs=1, progress=False)


class Probit(pv.Conditional):
    """p(s = 1 given x) = Phi(w x + c), whose mean under a normal x has a closed form."""

    def __init__(self, w, c):
        super().__init__()
        self.w, self.c = torch.nn.Parameter(torch.tensor(w).double()), torch.nn.Parameter(torch.tensor(c).double())

    def forward(self, x):
        return dist.Bernoulli(probs=phi(self.w * x + self.c)).to_event(1)


def phi(x):
    return torch.special.ndtr(x).clamp(1e-12, 1 - 1e-12)


def test_missing_not_at_random_has_the_exact_evidence():
    toy = LinearGaussian(1, 1, sigma=0.6)
    parts = {"prior": toy.program.prior, "likelihood": toy.program.likelihood, "posterior": toy.program.posterior}
    program = pv.programs.MissingNotAtRandom(**parts, mask=Probit(1.3, -0.4)).double()
    with torch.no_grad():
        toy.encoder.weight.zero_()
        toy.encoder.bias.copy_(torch.tensor([0.0, 0.9]))
    x = toy.draw(6)
    x[:3] = float("nan")
    mean, variance = toy.decoder.bias, (toy.decoder.weight**2).sum() + toy.program.likelihood.scale() ** 2
    unseen = torch.log(1 - phi((1.3 * mean - 0.4) / torch.sqrt(1 + 1.3**2 * variance)))
    seen = toy.log_evidence(x[3:]) + torch.log(phi(1.3 * x[3:] - 0.4)).sum(-1)
    exact = torch.cat([unseen.expand(3), seen]).detach()
    found = pv.evaluation.log_likelihood(program, x, num_particles=10000)
    # 6 examples: 4 standard errors
    assert ((found.per_example - exact).abs() < 4 * found.per_example_error).all()
    elbo = pv.estimators.ELBO(num_particles=500)
    with torch.no_grad():
        bound = elbo.per_datum(program.model, program.guide, x)
    assert (bound < exact + 0.05).all()
    # guide and model sample the missing entries from the same distribution
    assert elbo.kl_forms(program.model, program.guide, x) == {"z": "closed form", "missing": "closed form"}


def test_missing_not_at_random_learns_which_entries_hide():
    """Large values of one column are missing: the mask model finds the sign, and imputed values are less biased."""
    torch.manual_seed(0)
    z = torch.randn(600, 1)
    x = torch.cat([z, 0.8 * z], 1) + 0.3 * torch.randn(600, 2)
    truth = float(x[:, 1].mean())
    x[(x[:, 1] > 0.3), 1] = float("nan")
    net = functools.partial(pv.nets.MLP, hidden=(32,))
    program = pv.programs.MissingNotAtRandom(
        prior=pv.priors.StandardNormal(1),
        likelihood=pv.likelihoods.Normal(1, (2,), net=functools.partial(pv.nets.MLP, hidden=()), scale=0.3),
        posterior=pv.posteriors.MeanFieldNormal((2,), 1, net=net),
        mask=pv.programs.SelfMasking((2,)),
    )
    fast = functools.partial(torch.optim.Adam, lr=1e-2)
    pv.fit(program, x, estimator=pv.estimators.ELBO(num_particles=4), optimizer=fast, epochs=40, progress=False)
    assert program.mask.weight[1].item() < -0.5
    imputed = torch.where(x.isnan(), program.reconstruct(x), x)[:, 1].mean()
    assert abs(float(imputed) - truth) < abs(float(x[:, 1].nanmean()) - truth) / 2


def test_autoencoder_is_the_likelihood_given_its_encoding():
    ae = pv.programs.Autoencoder(
        encoder=pv.nets.MLP((2, 2), (3,), hidden=(8,)),
        likelihood=pv.likelihoods.Normal(3, (2, 2), net=functools.partial(pv.nets.MLP, hidden=(8,))),
    )
    x = torch.randn(20, 2, 2)
    expected = ae.decode(ae.encode(x)).log_prob(x)
    assert torch.allclose(pv.estimators.ELBO().per_datum(ae.model, ae.guide, x), expected)
    history = pv.fit(ae, x, epochs=20, progress=False)
    assert history["loss"][-1] < history["loss"][0]
    assert history["kl"][-1] == 0
    assert ae.reconstruct(x).shape == x.shape
