"""The negative binomial likelihood, for counts with more variance than Poisson."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.distributions import NegativeBinomial as Family
from pyro_vae.likelihoods.overdispersed_counts import OverdispersedCounts

__all__ = ["NegativeBinomial"]


class NegativeBinomial(OverdispersedCounts):
    r"""Independent negative binomial counts with means from the decoder.

    .. math:: p(x \mid z) = \prod_i \frac{\Gamma(x_i + r_i)}{\Gamma(r_i)\, x_i!}
              \Bigl(\frac{r_i}{r_i + \mu_i}\Bigr)^{r_i} \Bigl(\frac{\mu_i}{r_i + \mu_i}\Bigr)^{x_i}, \qquad
              \mu = \operatorname{softplus}(\mathrm{net}(z)) + 10^{-4}

    The variance is :math:`\mu + \mu^2 / r`.

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018),
        https://doi.org/10.1038/s41592-018-0229-2

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), (1, *shape))``, or ``(2, *shape)`` with a ``PerExample`` dispersion
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
        >>> counts = NegativeBinomial(3, (2000,), context=1, library=True)
        >>> counts(torch.zeros(5, 3), torch.full((5, 1), 1e4)).mean.sum(-1).round()
        tensor([10000., 10000., 10000., 10000., 10000.], grad_fn=<RoundBackward0>)
    """

    outputs = 1

    def distribution(self, mean: Tensor, *raw: Tensor) -> Family:
        """Return the distribution of every entry."""
        return Family(mean, self.inverse_dispersion(*raw))
