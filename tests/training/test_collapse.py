"""The warning about latents that are not used."""

import warnings

import pytest
import torch
from helpers.small_parts import SMALL

import pyro_vae as pv
from pyro_vae.training.collapse import is_due


def fit(x, **options):
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Bernoulli(2, (4,), net=SMALL),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2, net=SMALL),
    )
    return pv.fit(vae, x, batch_size=10, epochs=60, progress=False, **options)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=3e-2)


def test_an_unused_latent_is_named_once():
    x = torch.ones(100, 4)
    with pytest.warns(UserWarning, match="site 'z'") as found:
        fit(x, optimizer=adam, estimator=pv.estimators.ELBO(beta=20.0))
    assert len(found) == 1


def test_a_used_latent_gives_no_warning():
    x = torch.randint(2, (100, 1)).float().expand(100, 4).contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(x, optimizer=adam)["kl"][-1] > 0.1


def test_latents_are_judged_in_one_epoch_after_the_schedule():
    def row(epoch, beta=1.0):
        return {"epoch": epoch, "step": 100 * (epoch + 1), "beta": beta, "kl": 0.0}

    elbo, warm = pv.estimators.ELBO(), pv.estimators.ELBO(beta=pv.training.Linear(600))
    assert [is_due(elbo, [row(i) for i in range(n + 1)]) for n in range(5)] == [False, False, True, False, False]
    assert [is_due(warm, [row(i) for i in range(n + 1)]) for n in range(7)] == [False] * 5 + [True, False]
    assert not is_due(elbo, [row(5, beta=0.0)])
    assert not is_due(object(), [row(5)])
