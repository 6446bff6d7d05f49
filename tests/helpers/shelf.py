"""Every estimator that the package exports, so that a new one meets the laws without an edit here."""

import inspect

import pyro_vae as pv
from pyro_vae.estimators.over_batch import OverBatch
from pyro_vae.trace import Enumerated, Reparameterized, Resampled
from pyro_vae.trace.antithetic import Antithetic
from pyro_vae.trace.relaxed import Binary


def classes():
    """Return the classes of estimators, without the base and those with laws of their own.

    These are the estimators on simulations, and those that resample the steps of a sequence.
    """
    found = [getattr(pv.estimators, name) for name in pv.estimators.__all__]
    kinds = [cls for cls in found if inspect.isclass(cls) and issubclass(cls, pv.estimators.Estimator)]
    apart = (pv.estimators.Estimator, pv.estimators.ForwardKL)
    return [cls for cls in kinds if cls not in apart and not issubclass(cls.draws, Resampled)]


def build(cls, num_particles=6, **options):
    """Build an estimator with an even number of particles, whatever its constructor calls them."""
    try:
        return cls.example(num_particles=num_particles, **options)
    except TypeError:  # M groups of K
        return cls.example(M=2, K=num_particles // 2, **options)


def separate():
    """Return the kinds of estimators that treat the examples of a batch separately and take normal latents."""
    return [cls for cls in classes() if not issubclass(cls, OverBatch) and not for_bits(cls)]


def for_bits(cls):
    """Whether an estimator takes binary latents alone."""
    return issubclass(cls.draws, (Antithetic, Binary))


def takes_passes(cls):
    """Whether an estimator takes ``particles_per_pass``."""
    return not issubclass(cls, (OverBatch, pv.estimators.DAIS)) and cls.draws is not Binary


def per_example(**options):
    """Return an estimator of each kind that treats the examples of a batch separately and takes normal latents."""
    return [build(cls, **options) for cls in separate()] + [pv.estimators.ELBO(num_particles=6, analytic_kl=False)]


def over_batch():
    """Return the kinds of estimators that compare the rows of a batch."""
    return [cls for cls in classes() if issubclass(cls, OverBatch)]


def discrete():
    """Return the kinds of estimators that take discrete latents."""
    return [cls for cls in classes() if not issubclass(cls.draws, Reparameterized) or cls.draws is Enumerated]


def needs_discrete(cls):
    """Whether an estimator is for discrete latents."""
    return cls in discrete()
