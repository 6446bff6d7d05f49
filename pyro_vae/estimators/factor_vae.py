"""The bound minus a total correlation that a discriminator estimates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_vae._util.substitute import functional_call
from pyro_vae._util.validation import check_number
from pyro_vae.estimators.averages import mean
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.over_batch import OverBatch, divergence, draws, reconstruction
from pyro_vae.nets.shapes import wide
from pyro_vae.trace import Terms

__all__ = ["FactorVAE"]


class FactorVAE(OverBatch):
    r"""The ELBO minus the total correlation of the aggregate posterior, estimated by a discriminator.

    .. math:: \mathrm{ELBO}(x) - \gamma \, \mathbb E_{q(z \mid x)}[D(z)], \qquad
              D^*(z) = \log \frac{q(z)}{\prod_d q(z_d)}

    The discriminator D is trained in the same step, by the same optimizer, to distinguish the draws of a batch from
    draws with each dimension shuffled over the batch; in the bound its parameters are constant. The value is unbiased
    for the total correlation only if D is at its optimum :math:`D^*`.

    References:
        Disentangling by factorising (Kim and Mnih, 2018), https://arxiv.org/abs/1802.05983

    Args:
        discriminator: D, an ``nn.Module`` from ``(*batch, dims)`` to one logit per draw, such as
            ``nets.MLP((latent,), (1,))``
        gamma: :math:`\gamma`, weight of the total correlation
        options: ``num_particles``, ``beta`` (of the divergence alone) and ``free_bits`` of :class:`Estimator`

    Attributes:
        module: the discriminator, saved and moved like any other module; ``fit`` puts it on the device of the program

    Raises:
        TypeError: a discriminator that is not an ``nn.Module``.
        ValueError: a negative weight; in a run, a batch of one row, or a discriminator that returns more than one
            number per draw.

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
        self.module, self.gamma = discriminator, check_number("gamma", gamma, 0)

    @classmethod
    def example(cls, **options: Any) -> FactorVAE:
        """Build an instance for three latents."""
        return cls(discriminator=nn.Linear(3, 1), **options)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the bound minus the weighted logit per example; its gradient also trains the discriminator."""
        z = draws(terms)
        constants = {name: p.detach() for name, p in self.module.named_parameters()}
        correlation = one_number(lambda t: functional_call(self.module, constants, (t,)), z, "discriminator")
        bound = reconstruction(terms) - beta * divergence(terms) - self.gamma * mean(correlation)
        if not torch.is_grad_enabled():
            return bound
        return with_gradient_of(bound, bound - mean(self.confusion(z.detach(), terms.read(permutations))))

    def confusion(self, z: Tensor, order: Tensor) -> Tensor:
        """Return the cross-entropy of the discriminator at draws and shuffled draws, ``(particles, batch)``."""
        shuffled = z.gather(1, order)
        real, false = (one_number(self.module, t, "discriminator") for t in (z, shuffled))
        return 0.5 * (softplus(-real) + softplus(false))


def permutations(terms: Terms) -> Tensor:
    """Draw a permutation of the rows for each dimension, ``(particles, batch, dims)``."""
    return torch.rand_like(draws(terms)).argsort(1)


def one_number(net: Callable[..., Tensor], z: Tensor, name: str) -> Tensor:
    """Return one number of a network for each draw of all latents, side by side, as ``(particles, batch)``.

    Args:
        net: from ``(*batch, dims)``
        z: the draws, ``(particles, batch, dims)``
        name: the argument that the network is, for an error
    """
    try:
        found = net(z)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected a network for draws of {z.shape[2]} dimensions, those of all latents of an example, "
            f"got one that fails on them: {error}. Build it as nets.MLP(({z.shape[2]},), (1,))"
        ) from error
    if wide(found.shape) not in (wide(z.shape[:2]), wide((z.shape[0] * z.shape[1],))):
        raise ValueError(
            f"{name}: expected one number per draw for {z.shape[0] * z.shape[1]} draws of {z.shape[2]} dimensions, "
            f"got shape {tuple(found.shape)} for draws of shape {tuple(z.shape)}"
        )
    return found.reshape(z.shape[:2])
