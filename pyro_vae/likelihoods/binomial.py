"""The binomial likelihood, for counts out of a known total."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.distributions import Binomial as Family
from pyro_vae.likelihoods.trials import Trials

__all__ = ["Binomial"]


class Binomial(Trials):
    r"""Independent binomial counts with logits from the decoder.

    .. math:: p(x \mid z) = \prod_i \binom{n}{x_i} \lambda_i^{x_i} (1 - \lambda_i)^{n - x_i}, \qquad
              \operatorname{logit} \lambda = \mathrm{net}(z)

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), shape)``
        context: width of the context in addition to z
        total: number n of trials, the largest count
        grid: whether the data are proportions ``k / total`` (within 1e-4) instead of counts ``k = 0, 1, ..., total``.
            The encoder reads the data unscaled, so that with a total of 100 or more proportions train better

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Raises:
        ValueError: ``total`` is below 1.

    Example:
        >>> import torch
        >>> Binomial(3, (8, 8), total=16)(torch.zeros(5, 3)).event_shape
        torch.Size([8, 8])
    """

    outputs = None

    def counts(self, total: Tensor, logits: Tensor) -> Family:
        """Return the distribution of every count."""
        return Family(total, logits=logits)
