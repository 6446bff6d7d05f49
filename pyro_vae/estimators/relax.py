"""RELAX: REBAR with a learned network in its control variate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from pyro_vae.estimators.rebar import REBAR

__all__ = ["RELAX"]


class RELAX(REBAR):
    r"""The evidence lower bound for Bernoulli latents, by score functions with a learned control variate.

    .. math:: c(z) = \eta \, \log w(\sigma(z / \lambda)) + r(z)

    in place of the control variate of :class:`REBAR`. The network r of the logistic draw z is learned with the
    program, as the scale :math:`\eta` and the temperature :math:`\lambda` are, to minimize the variance of the
    gradient. Value and gradient are unbiased whatever they are.

    References:
        Backpropagation through the void: optimizing control variates for black-box gradient estimation (Grathwohl et
        al., 2018), https://arxiv.org/abs/1711.00123

    Args:
        surrogate: r, an ``nn.Module`` from ``(*batch, dims)`` to one number per draw, such as
            ``nets.MLP((latent,), (1,))``; twice differentiable, so with smooth activations
        options: ``temperature`` and ``scale`` of :class:`REBAR`, ``num_particles``, ``beta``, ``free_bits`` and
            ``capacity`` of :class:`Estimator`

    Attributes:
        module: the network, :math:`\log \lambda` and :math:`\eta`, saved and moved like any other module

    Raises:
        TypeError: a surrogate that is not an ``nn.Module``.
        ValueError: as :class:`REBAR`; in a run, a surrogate that returns more than one number per draw.

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.Bernoulli(3),
        ...     likelihood=pv.likelihoods.Normal(3, (4,)),
        ...     posterior=pv.posteriors.Bernoulli((4,), 3),
        ... )
        >>> relax = RELAX(surrogate=pv.nets.MLP((3,), (1,), hidden=(8,)))
        >>> relax.per_datum(vae.model, vae.guide, torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    def __init__(self, *, surrogate: Callable[[Tensor], Tensor], **options: Any) -> None:
        super().__init__(**options)
        if not isinstance(surrogate, nn.Module):
            raise TypeError(f"surrogate: expected an nn.Module, such as nets.MLP((latent,), (1,)), got {surrogate!r}")
        self.module.surrogate = surrogate

    @classmethod
    def example(cls, **options: Any) -> RELAX:
        """Build an instance for three latents."""
        return cls(**{"surrogate": nn.Linear(3, 1), **options})
