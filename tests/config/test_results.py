"""The results of a run on its test data."""

import itertools

import pytest
import torch

import pyro_vae as pv
from pyro_vae.config.results import results

LATENT = 3


def test_bound_of_discrete_latents_is_the_exact_one():
    """Independent bits: the sum over all their values is the mean that the sampled bound estimates."""
    torch.manual_seed(0)
    vae = pv.VAE(
        prior=pv.priors.Bernoulli(LATENT),
        likelihood=pv.likelihoods.Normal(LATENT, (4,)),
        posterior=pv.posteriors.Bernoulli((4,), LATENT),
    )
    x = torch.randn(400, 4)
    found = results(vae, x, num_particles=10, progress=False)
    with torch.no_grad():
        q, p = vae.posterior(x), vae.prior()
        terms = []
        for code in itertools.product((0.0, 1.0), repeat=LATENT):
            z = torch.tensor(code).expand(len(x), -1)
            both = torch.stack([vae.likelihood(z).log_prob(x), p.log_prob(z) - q.log_prob(z)])
            terms.append((q.log_prob(z).exp() * both).mean(-1))
    reconstruction, minus_kl = sum(terms).tolist()
    assert found["kl"]["mean"] == pytest.approx(-minus_kl, rel=1e-4)
    assert found["reconstruction"]["mean"] == pytest.approx(reconstruction, abs=0.02)
    assert found["bound"]["mean"] == pytest.approx(reconstruction + minus_kl, abs=0.02)
