"""The bound less a total correlation that a discriminator estimates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from pyro_vae.estimators.base import mean
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.over_batch import OverBatch, divergence, draws, reconstruction
from pyro_vae.trace.terms import Terms

__all__ = ["FactorVAE"]


class FactorVAE(OverBatch):
    r"""The ELBO less the total correlation of the aggregate posterior, by a discriminator.

    .. math:: \mathrm{ELBO}(x) - \gamma \, \mathbb E_{q(z \mid x)}[D(z)], \qquad
              D^*(z) = \log \frac{q(z)}{\prod_d q(z_d)}

    The discriminator D is trained in the same step, by the same optimizer, to tell the draws of a batch from draws of
    which each dimension was shuffled over the batch; the bound sees it with its parameters held. The value is unbiased
    for the total correlation only where D is at its optimum :math:`D^*`.

    References:
        Disentangling by factorising (Kim and Mnih, 2018), https://arxiv.org/abs/1802.05983

    Args:
        discriminator: D, an ``nn.Module`` from ``(*batch, dims)`` to one number, the logit, for each draw, such as
            ``nets.MLP((latent,), (1,))``
        gamma: :math:`\gamma`, weight of the total correlation
        options: ``num_particles``, ``beta`` (of the divergence alone) and ``free_bits`` of :class:`Estimator`

    Attributes:
        module: the discriminator, to be saved and moved like any other module; ``fit`` puts it on the device of the
            program

    Raises:
        TypeError: a discriminator that is no ``nn.Module``.
        ValueError: a negative weight; in a run, a batch of one row, or a discriminator that gives more than one number
            for each draw.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> bound = FactorVAE(discriminator=pv.nets.MLP((2,), (1,)).double())
        >>> bound.per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    def __init__(self, *, discriminator: Callable[[Tensor], Tensor], gamma: float = 10.0, **options: Any) -> None:
        super().__init__(**options)
        if not isinstance(discriminator, nn.Module):
            raise TypeError(
                f"discriminator: expected an nn.Module, such as nets.MLP((latent,), (1,)), got {discriminator!r}"
            )
        if not 0 <= gamma < float("inf"):
            raise ValueError(f"gamma: expected a number of at least 0, got {gamma}")
        self.module, self.gamma = discriminator, gamma

    @classmethod
    def example(cls, **options: Any) -> FactorVAE:
        """Build an instance for three latents."""
        return cls(discriminator=nn.Linear(3, 1), **options)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the bound less the weighted logit of each datum; its gradient trains the discriminator along."""
        z = draws(terms)
        held = {name: p.detach() for name, p in self.module.named_parameters()}
        correlation = one_each(functional_call(self.module, held, (z,)), z)
        bound = reconstruction(terms) - beta * divergence(terms) - self.gamma * mean(correlation)
        if not torch.is_grad_enabled():
            return bound
        return with_gradient_of(bound, bound - mean(self.confusion(z.detach())))

    def confusion(self, z: Tensor) -> Tensor:
        """Return the cross-entropy of the discriminator at draws and shuffled draws, (particles, batch)."""
        order = torch.rand_like(z).argsort(1)
        shuffled = z.gather(1, order)
        real, false = (one_each(self.module(t), t) for t in (z, shuffled))
        return 0.5 * (softplus(-real) + softplus(false))


def one_each(logits: Tensor, z: Tensor) -> Tensor:
    """Return the logits as (particles, batch)."""
    if logits.numel() != z.shape[0] * z.shape[1]:
        raise ValueError(
            f"discriminator: expected one number for each of {z.shape[0] * z.shape[1]} draws of {z.shape[2]} "
            f"dimensions, got shape {tuple(logits.shape)} for draws of shape {tuple(z.shape)}"
        )
    return logits.reshape(z.shape[:2])
