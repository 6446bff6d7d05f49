"""The resampled prior (LARS): learned rejection sampling from a standard normal."""

from __future__ import annotations

from functools import partial

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import AcceptReject
from pyro_vae.nets import MLP, NetBuilder, build

__all__ = ["Lars"]

#: The default network: it runs over all quasi-random samples in each step.
SMALL = partial(MLP, hidden=(100, 100))


class Lars(Conditional):
    r"""Learned rejection sampling from a standard normal, truncated after T proposals.

    .. math:: p(z) = \mathcal N(z; 0, I) \left[ \frac{1 - (1 - Z)^{T-1}}{Z}\, a(z) + (1 - Z)^{T-1} \right],
              \qquad a(z) = \operatorname{sigmoid} \mathrm{net}(z), \quad Z = \mathbb E_{\mathcal N(0, I)}[a]

    A network gives the acceptance probability a; the T-th proposal is always accepted. Z is the mean of a over fixed
    quasi-random samples of the normal (a scrambled Sobol sequence), so that ``log_prob`` is deterministic. Its error
    is about 1e-3 with the default in a few dimensions: increase ``num_samples`` for many latents before you report
    numbers.

    References:
        Resampled priors for variational autoencoders (Bauer and Mnih, 2019), https://arxiv.org/abs/1810.11428

    Args:
        latent: number of latents
        net: builds the network of the logit of a, ``net((latent,), ())``
        context: width of the context (labels, covariates)
        truncation: T, at least 2
        num_samples: number of quasi-random samples that estimate Z, preferably a power of 2

    Shape:
        no context, to batch shape ``()`` (or that of the context) and event shape ``(latent,)``.

    Raises:
        ValueError: ``truncation`` is below 2, or ``num_samples`` below 1.

    Example:
        >>> Lars(3)().event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        latent: int,
        *,
        net: NetBuilder = SMALL,
        context: int = 0,
        truncation: int = 100,
        num_samples: int = 1024,
    ) -> None:
        super().__init__(latent=latent, context=context)
        check_int("truncation", truncation, 2)
        check_int("num_samples", num_samples)
        self.truncation = truncation
        self.net = build(net, (latent,), (), context)
        # with a seed of its own, the engine leaves torch's random state alone
        even = torch.quasirandom.SobolEngine(latent, scramble=True, seed=0).draw(num_samples, dtype=torch.float64)
        normal = torch.special.ndtri(even.clamp(1e-9, 1 - 1e-9)).to(torch.get_default_dtype())
        self.points = nn.Buffer(normal, persistent=False)
        self.loc = nn.Buffer(torch.zeros(latent), persistent=False)
        self.scale = nn.Buffer(torch.ones(latent), persistent=False)

    def forward(self, *context: Tensor) -> AcceptReject:
        """Return p(z), or p(z given c)."""
        context = context if self.context else ()
        batch = torch.broadcast_shapes(*(c.shape[:-1] for c in context))
        points = self.points.reshape(len(self.points), *[1] * len(batch), -1)
        base = dist.Normal(self.loc, self.scale).expand((*batch, len(self.loc))).to_event(1)
        logits = self.net(points, *context)
        return AcceptReject(base, lambda z: self.net(z, *context), logits, truncation=self.truncation)
