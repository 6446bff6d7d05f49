"""Base of likelihoods of counts with more variance than a Poisson, with an optional library size.

A subclass sets ``outputs``, the number of decoder outputs per entry of which the first is the mean, and defines
``distribution(mean, ...)``.
"""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.distributions.negative_binomial import shares_of
from pyro_vae.likelihoods.per_entry import PerEntry
from pyro_vae.nets import MLP, NetBuilder, Shape
from pyro_vae.nets.shapes import as_shape
from pyro_vae.scales import Scale, Shared, as_scale, positive

__all__ = ["OverdispersedCounts"]


class OverdispersedCounts(PerEntry):
    """Independent counts with a mean and an inverse dispersion each; arguments as of ``NegativeBinomial``."""

    outputs: int
    inverse_dispersion: Scale

    hint = "Counts are 0, 1, 2, ...; for normalized or log-transformed counts use Normal or Gamma."

    def __init__(
        self,
        latent: int,
        shape: Shape,
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        inverse_dispersion: Scale | float | None = None,
        library: bool = False,
    ) -> None:
        check_int("context", context, 0)
        if library and context < 1:
            raise ValueError("context: expected at least 1 with library=True (its last number is the library size)")
        r = Shared(shape=as_shape(shape)) if inverse_dispersion is None else inverse_dispersion
        r = as_scale(r, "inverse_dispersion")
        super().__init__(latent, shape, net=net, context=context - library, outputs=self.outputs, inverse_dispersion=r)
        self.context, self.library = context, library

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        k = len(self.shape)
        if self.library:
            last = context[-1]
            raw_mean, *raw = self.net(z, *context[:-1], last[..., :-1]).unbind(-1 - k)
            mean = shares_of(last[..., -1], raw_mean, k)
        else:
            raw_mean, *raw = self.net(z, *context).unbind(-1 - k)
            mean = positive(raw_mean)
        return self.distribution(mean, *raw).to_event(k)
