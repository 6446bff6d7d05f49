"""The resampled prior: a normal with a learned acceptance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import AcceptReject
from pyro_vae.nets import MLP, Net, build

__all__ = ["Lars"]

#: It runs over all points at each step.
SMALL = partial(MLP, hidden=(100, 100))


class Lars(Conditional):
    r"""A standard normal whose draws a network accepts or rejects: the first accepted of at most T, or the T-th.

    .. math:: p(z) = \mathcal N(z; 0, I) \left[ \frac{1 - (1 - Z)^{T-1}}{Z}\, a(z) + (1 - Z)^{T-1} \right],
              \qquad a(z) = \operatorname{sigmoid} \mathrm{net}(z), \quad Z = \mathbb E_{\mathcal N(0, I)}[a]

    Z is the mean of a over fixed points that fill the normal evenly (a scrambled Sobol sequence). ``log_prob``
    is thus the same at every call, and its mass is one as exactly as the points integrate a: to about 1e-3 with
    the default in a few dimensions. With many latents raise ``points`` before numbers are quoted.

    References:
        Resampled priors for variational autoencoders (Bauer and Mnih, 2019), https://arxiv.org/abs/1810.11428

    Args:
        latent: number of latents
        net: makes the network of the log-odds of acceptance, ``net((latent,), ())``
        context: how many numbers of context (labels) one datum brings
        truncation: T, at least 2
        points: how many points estimate Z, at best a power of 2

    Shape:
        no context, to batch shape ``()`` (or that of the context) and event shape ``(latent,)``.

    Raises:
        ValueError: the truncation is below 2, or there is no point.

    Example:
        >>> Lars(3)().event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        latent: int,
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = SMALL,
        context: int = 0,
        truncation: int = 100,
        points: int = 1024,
    ) -> None:
        super().__init__()
        if truncation < 2 or points < 1:
            raise ValueError(f"truncation, points: expected at least 2 and 1, got {truncation} and {points}")
        self.context, self.truncation = context, truncation
        self.net = build(net, (latent,), (), context)
        # a generator of its own: the engine leaves torch's random stream alone
        even = torch.quasirandom.SobolEngine(latent, scramble=True, seed=0).draw(points, dtype=torch.float64)
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
