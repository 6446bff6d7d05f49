"""Every prior with every posterior, the likelihoods in turn: compatible parts train, others are refused by name."""

import functools

import pytest
from benchmarks.cross_product import Refused, attempt

import pyro_vae as pv
from pyro_vae.testing import parts

PRIORS, LIKELIHOODS, POSTERIORS = (list(parts(shelf)) for shelf in (pv.priors, pv.likelihoods, pv.posteriors))


@functools.cache
def outcome(prior, likelihood, posterior):
    try:
        attempt(prior, likelihood, posterior)
    except Refused:
        return "refused"
    return "trained"


@pytest.mark.slow
@pytest.mark.parametrize("prior", PRIORS)
def test_prior_with_every_posterior(prior):
    """Ten steps each under the ELBO and the bound of five importance samples; every pair of parts occurs once.

    `tests/benchmarks/cross_product.py` runs the whole product.
    """
    i = PRIORS.index(prior)
    found = {
        posterior: outcome(prior, LIKELIHOODS[(i + j) % len(LIKELIHOODS)], posterior)
        for j, posterior in enumerate(POSTERIORS)
    }
    trained = {posterior.__name__ for posterior, result in found.items() if result == "trained"}
    print(f"{prior.__name__}: {len(trained)} trained, {len(found) - len(trained)} refused")
    assert trained
    if prior is pv.priors.StandardNormal:
        assert {"MeanFieldNormal", "FullRankNormal", "PlanarFlow", "InverseAutoregressiveFlow"} <= trained
        assert not {"Dirichlet", "PowerSpherical", "Bernoulli", "OneHotCategorical"} & trained


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_likelihood_with_continuous_and_discrete_latents(likelihood):
    """Every likelihood trains with these two pairs."""
    for prior, posterior in (("StandardNormal", "MeanFieldNormal"), ("Bernoulli", "Bernoulli")):
        assert outcome(getattr(pv.priors, prior), likelihood, getattr(pv.posteriors, posterior)) == "trained"
