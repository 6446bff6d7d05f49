"""Base of priors that share the encoder of the program.

A subclass calls the constructor with the posterior of the program and reads q(z given x) from ``encode``.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae.conditional import Conditional

__all__ = ["EncoderPrior"]


class EncoderPrior(Conditional):
    """A prior made from the posterior at a set of inputs.

    Args:
        posterior: q(z given x), the same object as in the program
    """

    def __init__(self, posterior: Conditional) -> None:
        if not isinstance(posterior, Conditional):
            raise TypeError(f"posterior: expected the posterior of the program, a Conditional, got {posterior!r}")
        super().__init__(context=posterior.context)
        self.posterior = posterior

    def encode(self, x: Tensor, context: Sequence[Tensor]) -> TorchDistributionMixin:
        """Return q(z given x), of batch shape ``(*batch, n)`` for x ``(n, *shape)`` and context ``(*batch, c)``."""
        return self.posterior(x, *([c.unsqueeze(-2) for c in context] if self.context else []))
