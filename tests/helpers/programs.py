"""Small programs, and batches of binary values to train them on."""

import functools

import torch
from benchmarks.cross_product import build

import pyro_vae as pv
from pyro_vae.testing import parts


def make_vae(latent=3, shape=(8, 8), hidden=(16,)):
    net = functools.partial(pv.nets.MLP, hidden=hidden)
    return pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=pv.likelihoods.Bernoulli(latent, shape, net=net),
        posterior=pv.posteriors.MeanFieldNormal(shape, latent, net=net),
    )


def small():
    return pv.VAE(
        prior=pv.priors.StandardNormal(3),
        likelihood=pv.likelihoods.Bernoulli(3, (8,)),
        posterior=pv.posteriors.MeanFieldNormal((8,), 3),
    )


def discrete():
    return pv.VAE(
        prior=pv.priors.Bernoulli(3),
        likelihood=pv.likelihoods.Bernoulli(3, (8,)),
        posterior=pv.posteriors.Bernoulli((8,), 3),
    )


def bits(*sizes):
    """Return one batch of binary rows of each size."""
    torch.manual_seed(2)
    return [(torch.rand(n, 8).bernoulli(),) for n in sizes]


def triples():
    """Yield (prior, likelihood, posterior) such that every exported part that fits some program occurs."""
    priors, likelihoods, posteriors = (list(parts(s)) for s in (pv.priors, pv.likelihoods, pv.posteriors))
    for likelihood in likelihoods:
        yield pv.priors.StandardNormal, likelihood, pv.posteriors.MeanFieldNormal
    for first, others in ((priors, posteriors), (posteriors, priors)):
        for part in first:
            pairs = [(part, other) if first is priors else (other, part) for other in others]
            for prior, posterior in [pair for pair in pairs if fits(*pair)][:1]:
                yield prior, pv.likelihoods.Normal, posterior


def fits(prior, posterior):
    """Return whether the two have compatible supports."""
    program, data = build(prior, pv.likelihoods.Normal, posterior)
    try:
        program.check(*data)
    except ValueError:
        return False
    return True
