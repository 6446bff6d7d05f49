"""The exemplar prior: a mixture of normals round encoded data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import Mixture
from pyro_vae.nets import MLP, build
from pyro_vae.scales import check_scale, inverse_positive, positive

__all__ = ["ExemplarPrior"]


class ExemplarPrior(Conditional):
    r"""A mixture of equal normals whose means are the posterior's at exemplars from the data.

    .. math:: p(z) = \frac 1 N \sum_{n=1}^{N} \mathcal N\big(z; \mathbb E_q[z \mid x_n], \sigma^2 I\big)

    Only the width is learned beside the encoder, which prior and posterior share. Nothing is left out where a
    datum is its own exemplar: keep exemplars and training data apart, or draw a ``subset``, against an encoder
    that learns them by heart.

    References:
        Exemplar VAE (Norouzi et al., 2020), https://arxiv.org/abs/2004.04795

    Args:
        posterior: q(z given x), the same object that the program has
        exemplars: data ``(N, *shape)``; kept with the weights
        scale: :math:`\sigma` where learning starts
        subset: in training mode, how many exemplars each forward draws at random (a density that is too low on
            average); all of them if None

    Shape:
        no context, to batch shape ``()`` (with a posterior that takes a context: that of the context) and the
        event shape of the posterior.

    Raises:
        TypeError: the posterior is no Conditional.
        ValueError: there is no exemplar, fewer than ``subset``, or the scale is not positive and finite.

    Example:
        >>> import pyro_vae as pv
        >>> posterior = pv.posteriors.MeanFieldNormal((2, 2), 3)
        >>> ExemplarPrior(posterior, torch.zeros(7, 2, 2))().components.batch_shape
        torch.Size([7])
    """

    def __init__(
        self,
        posterior: Conditional,
        exemplars: Tensor,
        *,
        scale: float = 1.0,
        subset: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(posterior, Conditional):
            raise TypeError(f"posterior: expected the posterior of the program, got {posterior!r}")
        if exemplars.dim() == 0 or not len(exemplars):
            raise ValueError(f"exemplars: expected a datum a row, got shape {tuple(exemplars.shape)}")
        if subset is not None and not 1 <= subset <= len(exemplars):
            raise ValueError(f"subset: expected 1 to {len(exemplars)} exemplars, got {subset}")
        check_scale("scale", scale)
        self.posterior, self.subset = posterior, subset
        self.context = posterior.context
        self.exemplars = nn.Buffer(exemplars.detach().clone())
        self.raw = nn.Parameter(inverse_positive(torch.tensor(float(scale))))

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2)) -> ExemplarPrior:
        """Return a small instance with a posterior of its own."""
        return cls(_UnitNormal(shape, latent), torch.linspace(0, 1, 5).reshape(5, *[1] * len(shape)).expand(5, *shape))

    def forward(self, *context: Tensor) -> Mixture:
        """Return p(z), or p(z given c) if the posterior takes a context."""
        x = self.exemplars
        if self.training and self.subset is not None:
            x = x[torch.randperm(len(x), device=x.device)[: self.subset]]
        columns = [c.unsqueeze(-2) for c in context] if self.context else []
        loc = self.posterior(x, *columns).mean
        return Mixture(loc.new_zeros(loc.shape[:-1]), dist.Normal(loc, positive(self.raw)).to_event(1))


class _UnitNormal(Conditional):
    """A posterior for the example, of scale 1: this shelf knows nothing of the other ones."""

    def __init__(self, shape: Sequence[int], latent: int) -> None:
        super().__init__()
        self.net = build(partial(MLP, hidden=(16,)), shape, (latent,))

    def forward(self, x: Tensor, *context: Tensor) -> dist.Independent:
        loc = self.net(x)
        return dist.Normal(loc, torch.ones_like(loc)).to_event(1)
