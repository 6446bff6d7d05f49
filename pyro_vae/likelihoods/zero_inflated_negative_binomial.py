"""The zero-inflated negative binomial likelihood, for counts with dropout."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.distributions import ZeroInflatedNegativeBinomial as Family
from pyro_vae.likelihoods.overdispersed_counts import OverdispersedCounts

__all__ = ["ZeroInflatedNegativeBinomial"]


class ZeroInflatedNegativeBinomial(OverdispersedCounts):
    r"""Independent negative binomial counts with excess zeros, as in single-cell data.

    .. math:: p(x \mid z) = \prod_i \pi_i [x_i = 0] + (1 - \pi_i)\, \mathrm{NB}(x_i; \mu_i, r_i), \qquad
              \operatorname{logit} \pi = \mathrm{net}_2(z), \quad
              \mu = \operatorname{softplus}(\mathrm{net}_1(z)) + 10^{-4}

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018),
        https://doi.org/10.1038/s41592-018-0229-2

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), (2, *shape))``, or ``(3, *shape)`` with a ``PerExample`` dispersion
        context: width of the context in addition to z
        inverse_dispersion: r: a number (fixed) or an object of ``pyro_vae.scales``; None for one learned number per
            entry
        library: whether the last number of the context is the library size :math:`\ell` of an example (sequencing
            depth, length of a text), positive: the means are then
            :math:`\mu = \ell \operatorname{softmax}(\mathrm{net}(z))`, and the network does not see it

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Raises:
        ValueError: ``library`` without a context.

    Example:
        >>> import torch
        >>> counts = ZeroInflatedNegativeBinomial(3, (2000,), context=1, library=True)
        >>> counts(torch.zeros(5, 3), torch.full((5, 1), 1e4)).event_shape
        torch.Size([2000])
    """

    outputs = 2

    def distribution(self, mean: Tensor, gate: Tensor, *raw: Tensor) -> Family:
        """Return the distribution of every entry."""
        return Family(mean, self.inverse_dispersion(*raw), gate)
