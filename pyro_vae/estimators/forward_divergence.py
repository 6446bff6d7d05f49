"""Training on simulations of the model: neural posterior estimation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.estimators.averages import mean, scaled_sum
from pyro_vae.estimators.base import Estimator
from pyro_vae.trace import Call, Detached, Recorder, Terms
from pyro_vae.trace.simulate import simulated_terms

__all__ = ["ForwardKL"]


class ForwardKL(Estimator):
    r"""The log-density of the guide at simulations of the model (neural posterior estimation).

    .. math:: \mathbb E_{p(z, x)}[\log q_\phi(z \mid x)]
              = -\mathbb E_{p(x)}\big[\mathrm{KL}(p(z \mid x) \,\|\, q_\phi(z \mid x))\big] + \mathrm{const}

    Its maximum is the exact posterior if the family of the guide contains it, and otherwise covers the posterior where
    the ELBO picks a part of it. Each step samples latents and data from the model, one pair for each row of the batch;
    the values of the data are not read, only their number of rows, their missing entries, and context that the model
    does not observe. The density of the likelihood is not needed: a distribution with ``sample`` alone will do. The
    guide learns and the model stays as it is. Latents may be of any kind. The estimate is no bound on the evidence.

    References:
        Fast epsilon-free inference of simulation models with Bayesian conditional density estimation (Papamakarios and
        Murray, 2016), https://arxiv.org/abs/1605.06376; the sleep phase of the wake-sleep algorithm (Hinton et al.,
        1995), https://doi.org/10.1126/science.7761831; reweighted wake-sleep (Bornschein and Bengio, 2015),
        https://arxiv.org/abs/1406.2751

    Raises:
        ValueError: in the first step, data that cannot be simulated, latents that all examples share, whose posterior
            depends on the observed data, or a guide that computes latents from another draw.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> ForwardKL().per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    draws = Detached

    def __init__(self) -> None:
        super().__init__()

    def terms_for(self, formula: Callable[[Terms], Any], call: Call) -> Terms:
        """Return the terms of a simulation."""
        terms = simulated_terms(call)
        self.check_terms(terms, Recorder())
        return terms

    def check_terms(self, terms: Terms, recorder: Recorder) -> None:
        """Raise if there is no latent, or one that examples share."""
        if not terms.latent:
            raise ValueError("guide: expected a latent, got none: ForwardKL trains the guide alone")
        for site in terms.latent:
            if not site.local:
                raise ValueError(
                    f"model: expected latents in the plate of the data, got {site.name!r}, which all examples share: "
                    "its posterior depends on all observed data, and not on a simulation of each row. Use ELBO"
                )

    def evaluate(self, terms: Terms) -> tuple[Tensor, dict[str, Tensor]]:
        """Return minus the scaled sum of the log-densities."""
        return -torch.stack([scaled_sum(site.scale, mean(site.log_q)) for site in terms.latent]).sum(), {}

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return log q of the simulated latents of each row."""
        return torch.stack([mean(site.log_q) for site in terms.latent]).sum(0)

    def per_datum(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Return log q of a simulation for each row in nats, ``(batch,)``; nothing is changed."""
        return self.bound(self.terms(model, guide, *args, **kwargs), 1.0)
