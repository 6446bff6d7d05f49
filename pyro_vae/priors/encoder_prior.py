"""Base of priors that share the encoder of the program.

A subclass calls the constructor with the posterior of the program and reads q(z given x) from ``encode``.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import Mixture

__all__ = ["EncoderPrior"]


class EncoderPrior(Conditional):
    """A prior made from the posterior at a set of inputs.

    Args:
        posterior: q(z given x), the same object as in the program
        center: shift the prior to mean 0. Without it the prior follows the posterior wherever that moves: no term of
            the bound holds the latents near 0, where a decoder does not saturate, and the latents soon collapse. The
            shift excludes no model, as the decoder can shift them back. Posteriors without a known mean, or not over
            all real numbers, are not shifted
    """

    def __init__(self, posterior: Conditional, *, center: bool) -> None:
        if not isinstance(posterior, Conditional):
            raise TypeError(f"posterior: expected the posterior of the program, a Conditional, got {posterior!r}")
        super().__init__(context=posterior.context)
        self.posterior, self.center = posterior, center

    def mixture(self, logits: Tensor, components: TorchDistributionMixin) -> Mixture:
        """Return the mixture of components, shifted to mean 0 if ``center`` is set and the mean is known."""
        return Mixture(logits, components, center=self.center and has_center(components))

    def encode(self, x: Tensor, context: Sequence[Tensor]) -> TorchDistributionMixin:
        """Return q(z given x), of batch shape ``(*batch, n)`` for x ``(n, *shape)`` and context ``(*batch, c)``."""
        return self.posterior(x, *([c.unsqueeze(-2) for c in context] if self.context else []))


def has_center(fn: TorchDistributionMixin) -> bool:
    """Whether a distribution is over all real vectors and has a mean in closed form."""
    support = fn.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is not constraints.real and support is not constraints.real_vector:
        return False
    try:
        return fn.mean is not None
    except NotImplementedError:
        return False
