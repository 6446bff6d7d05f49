"""The Bernoulli likelihood, for binary data."""

from __future__ import annotations

from collections.abc import Sequence

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import GreyBernoulli, IndependentBernoulli
from pyro_vae.nets import MLP, NetBuilder, build

__all__ = ["Bernoulli"]


class Bernoulli(Conditional):
    r"""Independent binary entries with logits from the decoder.

    .. math:: p(x \mid z) = \prod_i \lambda_i^{x_i} (1 - \lambda_i)^{1 - x_i}, \qquad
              \operatorname{logit} \lambda = \mathrm{net}(z)

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), shape)``
        context: width of the context in addition to z
        grey: accept values between 0 and 1; the result is then a cross-entropy and no longer a log-probability
            (prefer ContinuousBernoulli)

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Example:
        >>> import torch
        >>> Bernoulli(3, (28, 28))(torch.zeros(5, 3)).event_shape
        torch.Size([28, 28])
    """

    hint = (
        "For grey values use ContinuousBernoulli or Normal, or sample binary values with "
        'pyro_vae.data.load(name, binarize="dynamic"). Bernoulli(..., grey=True) accepts grey values; its result is '
        "a cross-entropy, not a log-probability."
    )

    def __init__(
        self, latent: int, shape: Sequence[int], *, net: NetBuilder = MLP, context: int = 0, grey: bool = False
    ) -> None:
        super().__init__(latent=latent, context=context)
        self.net = build(net, (latent,), shape, context)
        self.family = GreyBernoulli if grey else dist.Bernoulli

    def forward(self, z: Tensor, *context: Tensor) -> IndependentBernoulli:
        """Return p(x given z)."""
        return IndependentBernoulli(self.family(logits=self.net(z, *context)), len(self.net.out_shape))
