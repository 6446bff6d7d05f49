"""All exported programs and data for them; small programs, and batches of binary values to train them on."""

import functools
import inspect
from itertools import islice

import torch
from benchmarks.cross_product import build

import pyro_vae as pv
from pyro_vae.testing import parts

EXPORTED = [getattr(pv.programs, name) for name in pv.programs.__all__]
PROGRAMS = [c for c in EXPORTED if inspect.isclass(c) and issubclass(c, pv.Program) and c is not pv.Program]
#: Arguments of `sample` without a default.
REQUIRED = {"library": 50.0, "length": 4}


def sample(program, n=6, **options):
    """Samples of a program, with values for the arguments that it requires."""
    return program.sample(n, *context(program, n), **{name: REQUIRED[name] for name in required(program)}, **options)


def required(program):
    """The names of the keyword arguments of `sample` without a default."""
    parameters = inspect.signature(program.sample).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]


def rows(program, n=6):
    """Data that the program accepts."""
    return (
        sample(program, n, seed=1) if type(program).decode_prior is not pv.Program.decode_prior else torch.randn(n, 4)
    )


def columns(program, n=6):
    """Data with every column that the program observes, as a tuple."""
    if isinstance(program, pv.programs.Multimodal):
        return tuple(program.sample(n, target=name, seed=1) for name in program.names)
    return rows(program, n), *context(program, n)


def context(program, n=6):
    """The columns without which the program takes no data: the groups of a multilevel one."""
    return (torch.arange(n) % program.num_groups,) if isinstance(program, pv.programs.Multilevel) else ()


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
            for prior, posterior in islice((pair for pair in pairs if fits(*pair)), 1):
                yield prior, pv.likelihoods.Normal, posterior


def fits(prior, posterior):
    """Return whether the two have compatible supports."""
    program, data = build(prior, pv.likelihoods.Normal, posterior)
    try:
        program.check(*data)
    except ValueError:
        return False
    return True
