"""The beta-binomial likelihood, for counts out of a known total with more variance than binomial."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.distributions import BetaBinomial as Family
from pyro_vae.likelihoods.trials import Trials
from pyro_vae.scales import positive

__all__ = ["BetaBinomial"]


class BetaBinomial(Trials):
    r"""Independent binomial counts whose success probability follows a beta.

    .. math:: p(x \mid z) = \prod_i \binom{n}{x_i} \frac{B(x_i + a_i, n - x_i + b_i)}{B(a_i, b_i)}, \qquad
              (a, b) = \operatorname{softplus}(\mathrm{net}(z)) + 10^{-4}

    References:
        The beta-binomial distribution for regression (Skellam, 1948), https://www.jstor.org/stable/2983779

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), (2, *shape))``
        context: width of the context in addition to z
        total: number n of trials, the largest count
        grid: whether the data are proportions ``k / total`` (within 1e-4) instead of counts ``k = 0, 1, ..., total``

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Raises:
        ValueError: ``total`` is below 1.

    Example:
        >>> import torch
        >>> BetaBinomial(3, (8, 8), total=16)(torch.zeros(5, 3)).event_shape
        torch.Size([8, 8])
    """

    outputs = 2

    def counts(self, total: Tensor, a: Tensor, b: Tensor) -> Family:
        """Return the distribution of every count."""
        return Family(positive(a), positive(b), total)
