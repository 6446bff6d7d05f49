"""Any prior with any posterior: what is possible trains, what is not is refused by name before the first step."""

import functools

import pytest
import torch

import pyro_vae as pv
from pyro_vae.testing import parts

ADAM = functools.partial(torch.optim.Adam, lr=1e-3)


def context_of(part):
    return getattr(part, "context", 0)


@pytest.mark.parametrize("prior", list(parts(pv.priors)))
def test_prior_with_every_posterior(prior):
    """Three steps each; a prior that needs a context is tested in a conditional program of its own."""
    possible, refused = [], []
    if context_of(prior.example()):
        pytest.skip(f"{prior.__name__} needs a context: tested in tests/test_priors.py")
    x = torch.rand(16, 2, 2)
    for posterior in parts(pv.posteriors):
        vae = pv.VAE(prior=prior.example(), likelihood=pv.likelihoods.Normal(3, (2, 2)), posterior=posterior.example())
        names = posterior.__name__, prior.__name__
        try:
            vae.check(x)
            svi = pv.training.SVI(vae, pv.estimators.ELBO(), ADAM)
            losses = [float(svi.update(x)["loss"]) for _ in range(3)]
        except ValueError as error:
            text = str(error)
            # one sentence that names both parts, or the site and what draws it
            assert ("posterior " in text and "prior " in text) or "no reparameterized sampler" in text, (names, text)
            refused.append(posterior.__name__)
        else:
            assert all(torch.isfinite(torch.tensor(losses))), (names, losses)
            possible.append(posterior.__name__)
    print(f"{prior.__name__}: {len(possible)} possible, {len(refused)} refused")
    assert possible or all(not p.example()(x).has_rsample for p in parts(pv.posteriors) if p.__name__ in refused[:1])
    if prior is pv.priors.StandardNormal:
        assert {"MeanFieldNormal", "FullRankNormal", "PlanarFlow", "InverseAutoregressiveFlow"} <= set(possible)
        assert {"Dirichlet", "PowerSpherical", "Bernoulli", "OneHotCategorical"} <= set(refused)
