"""Shared by all tests: examples in docstrings start from the same random state."""

import math

import pyro
import pytest
import torch


def pytest_make_parametrize_id(val):
    """Name parameters without their address in memory, which differs between the workers of pytest-xdist."""
    return type(val).__name__ if " at 0x" in repr(val) and not hasattr(val, "__name__") else None


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        # without a GPU this is all that torch.manual_seed does, in a thousandth of its time
        (torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed)(0)
        yield
    pyro.clear_param_store()


@pytest.fixture
def digits():
    import pyro_vae as pv

    return pv.data.load("digits", binarize="static")


@pytest.fixture
def vae():
    return make_vae()


def make_vae(latent=3, shape=(8, 8), hidden=(16,)):
    import functools

    import pyro_vae as pv

    net = functools.partial(pv.nets.MLP, hidden=hidden)
    return pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=pv.likelihoods.Bernoulli(latent, shape, net=net),
        posterior=pv.posteriors.MeanFieldNormal(shape, latent, net=net),
    )


def within(found, exact, standard_errors=4.0):
    """`found` has a row a draw; its mean must be the exact value within so many standard errors, everywhere."""
    error = found.std(0) / math.sqrt(len(found))
    return bool(((found.mean(0) - exact).abs() <= standard_errors * error + 1e-10).all())
