"""One run of guide and model: the unscaled log-densities of each site, per example and per particle.

``run`` returns :class:`Terms`, which hold a :class:`Site` for each sample statement. Estimators, the laboratory,
importance sampling and the tasks read nothing else.
"""

from pyro_vae.trace.call import Call
from pyro_vae.trace.handlers import Enumerated, Recorder, Reparameterized, Sampled
from pyro_vae.trace.resampled import Resampled
from pyro_vae.trace.scored import Detached, Scored, ScoredEverywhere
from pyro_vae.trace.site import Site
from pyro_vae.trace.terms import Draw, Terms
from pyro_vae.trace.tracing import run

__all__ = [
    "Call",
    "Detached",
    "Draw",
    "Enumerated",
    "Recorder",
    "Reparameterized",
    "Resampled",
    "Sampled",
    "Scored",
    "ScoredEverywhere",
    "Site",
    "Terms",
    "run",
]
