"""NVIL: REINFORCE with a learned baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae._util.validation import check_number
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.mean_over_particles import MeanOverParticles
from pyro_vae.estimators.score import score_surrogate
from pyro_vae.estimators.shared import refuse_later
from pyro_vae.nets.shapes import wide
from pyro_vae.trace import Scored, Terms

__all__ = ["NVIL"]


class NVIL(MeanOverParticles):
    r"""The evidence lower bound for discrete latents, by score functions with a learned baseline.

    .. math:: \frac{\log w - b(x) - c}{\max(1, \sigma)} \, \nabla_\phi \log q_\phi(z \mid x)

    with c and :math:`\sigma` the running mean and standard deviation of :math:`\log w - b(x)` over earlier training
    steps, and b(x) a network trained together with the program by least squares. One particle is enough. The value is
    unbiased, and so is the gradient of the model; the score of the guide is divided by :math:`\sigma` where that is
    above 1, which changes its length and not its direction.

    References:
        Neural variational inference and learning in belief networks (Mnih and Gregor, 2014),
        https://arxiv.org/abs/1402.0030

    Args:
        baseline: b, an ``nn.Module`` from x to one number per example, such as ``nets.MLP(shape, (1,))``; none if None
        decay: weight of earlier steps in the running mean and variance
        options: ``num_particles``, ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of
            :class:`Estimator`

    Attributes:
        module: network, mean and variance, saved and moved like any other module; ``fit`` puts them on the device of
            the program

    Raises:
        ValueError: a decay outside of [0, 1).
        TypeError: a baseline that is not an ``nn.Module``.

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.Bernoulli(3),
        ...     likelihood=pv.likelihoods.Normal(3, (4,)),
        ...     posterior=pv.posteriors.Bernoulli((4,), 3),
        ... )
        >>> nvil = NVIL(baseline=pv.nets.MLP((4,), (1,)))
        >>> nvil.per_datum(vae.model, vae.guide, torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    draws = Scored

    def __init__(
        self, *, baseline: Callable[[Tensor], Tensor] | None = None, decay: float = 0.8, **options: Any
    ) -> None:
        super().__init__(**options)
        if baseline is not None and not isinstance(baseline, nn.Module):
            raise TypeError(f"baseline: expected an nn.Module, such as nets.MLP(shape, (1,)), got {baseline!r}")
        decay = check_number("decay", decay, 0, below=1)
        self.module = Baseline(baseline, decay)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the mean log weight; the signal of each draw is its log weight minus the baseline."""
        log_w = terms.log_w(beta)
        predicted = self.predicted(terms)
        signal = self.module.normalize((log_w - predicted).detach())
        # the gradient of the squared error of b, in the units of the signal
        regression = (signal * predicted).mean(0)
        return with_gradient_of(log_w.mean(0), score_surrogate(terms, beta, signal) + regression)

    def predicted(self, terms: Terms) -> Tensor | float:
        """Return the baseline of each example, ``(batch,)``, of one run of its network; 0.0 without a network."""
        return 0.0 if self.module.net is None else terms.read(self.run_baseline)

    def run_baseline(self, terms: Terms) -> Tensor:
        """Run the network of the baseline on the batch."""
        return self.module(terms.call.x)

    def check_shared(self, terms: Terms) -> None:
        """Raise if a site that examples share may depend on the latents of an example: their signal leaves it out."""
        super().check_shared(terms)
        refuse_later(terms, type(self).__name__, scored=True)

    @torch.no_grad()
    def update(self, terms: Terms) -> None:
        """Move the running mean and variance towards those of a training batch."""
        local = terms.split()[0]
        residual = local.log_w(self.current_beta()) - self.predicted(terms)
        self.module.update_moments(residual, local.sites[0].weights)


class Baseline(nn.Module):
    """A prediction of the learning signal from x, and the running mean and variance of its residual."""

    def __init__(self, net: nn.Module | None, decay: float) -> None:
        super().__init__()
        self.net, self.decay = net, decay
        self.mean = nn.Buffer(torch.zeros(()))
        self.variance = nn.Buffer(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return b(x), ``(batch,)``; missing entries of x are replaced by 0."""
        y = self.net(torch.nan_to_num(x))
        if wide(y.shape) != wide((len(x),)):
            raise ValueError(
                f"baseline: expected one number per example, of shape {(len(x),)}, got {tuple(y.shape)} from "
                f"{type(self.net).__name__}. Build it with one output, such as nets.MLP(shape, (1,))"
            )
        return y.reshape(len(x))

    def normalize(self, residual: Tensor) -> Tensor:
        """Subtract the mean, and divide by the standard deviation where that is above 1."""
        return (residual - self.mean) / self.variance.sqrt().clamp(min=1)

    @torch.no_grad()
    def update_moments(self, residual: Tensor, weights: Tensor | None = None) -> None:
        """Move mean and variance towards those of a batch, ``(particles, batch)``, whose examples may have weights."""
        if weights is None:
            mean, variance = residual.mean(), residual.var(correction=0)
        else:  # all may be 0
            share = (weights / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)).expand_as(residual)
            mean = (share * residual).sum() / len(residual)
            variance = (share * (residual - mean).square()).sum() / len(residual)
        self.mean.lerp_(mean.to(self.mean), 1 - self.decay)
        self.variance.lerp_(variance.to(self.variance), 1 - self.decay)
