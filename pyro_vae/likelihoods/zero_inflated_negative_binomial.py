"""The zero-inflated negative binomial likelihood, for counts with dropouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import ZeroInflatedNegativeBinomial as Family
from pyro_vae.distributions.negative_binomial import shares_of
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import Scale, Shared, as_scale, positive

__all__ = ["ZeroInflatedNegativeBinomial"]


class ZeroInflatedNegativeBinomial(Conditional):
    r"""Negative binomial counts with additional zeros, as of single cells; the network makes means and gates from z.

    .. math:: p(x \mid z) = \prod_i \pi_i [x_i = 0] + (1 - \pi_i)\, \mathrm{NB}(x_i; \mu_i, r_i), \qquad
              \operatorname{logit} \pi = \mathrm{net}_2(z), \quad
              \mu = \operatorname{softplus}(\mathrm{net}_1(z)) + 10^{-4}

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018),
        https://doi.org/10.1038/s41592-018-0229-2

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), (rows, *shape))`` with a row for the mean, one for
            the gate, and one for an inverse dispersion that is an output
        context: how many numbers of context one datum brings beside z
        inverse_dispersion: r: a number (fixed), or an object of ``pyro_vae.scales``; None for one
            learned number an entry
        library: whether the last number of the context is the size of a datum (the depth of sequencing, the length
            of a text), positive: the means are then shares of it,
            :math:`\mu = \ell \operatorname{softmax}(\mathrm{net}(z))`, and the network does not see it

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Raises:
        ValueError: a library size without a context to take it from.

    Example:
        >>> import torch
        >>> counts = ZeroInflatedNegativeBinomial(3, (2000,), context=1, library=True)
        >>> counts(torch.zeros(5, 3), torch.full((5, 1), 1e4)).event_shape
        torch.Size([2000])
    """

    hint = "Counts are 0, 1, 2, ...; normalized or log-transformed counts take Normal or Gamma."

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        inverse_dispersion: Scale | float | None = None,
        library: bool = False,
    ) -> None:
        super().__init__()
        self.context, self.shape = context, as_shape(shape)
        if library and context < 1:
            raise ValueError("library=True takes the library size from the context: build with context=1 or more")
        self.library = library
        shared = Shared(shape=self.shape) if inverse_dispersion is None else as_scale(inverse_dispersion)
        self.inverse_dispersion = shared
        self.net = build(net, (latent,), (2 + shared.outputs, *self.shape), context - library)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        if self.library:
            *context, last = context
            context, size = (*context, last[..., :-1]), last[..., -1]
        raw_mean, gate, *raw = self.net(z, *context).unbind(-1 - len(self.shape))
        mean = shares_of(size, raw_mean, len(self.shape)) if self.library else positive(raw_mean)
        return Family(mean, self.inverse_dispersion(*raw), gate).to_event(len(self.shape))
