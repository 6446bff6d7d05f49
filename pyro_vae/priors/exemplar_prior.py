"""The exemplar prior: a mixture of normals around encoded examples."""

from __future__ import annotations

from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional, UnitNormal
from pyro_vae.distributions import Mixture
from pyro_vae.priors.encoder_prior import EncoderPrior
from pyro_vae.scales import FLOOR, check_positive, inverse_positive, positive

__all__ = ["ExemplarPrior"]


class ExemplarPrior(EncoderPrior):
    r"""A mixture of equal normals centred at the posterior means of exemplars from the data.

    .. math:: p(z) = \frac 1 N \sum_{n=1}^{N} \mathcal N\big(z; \mathbb E_q[z \mid x_n], \sigma^2 I\big)

    It is shifted to mean 0 unless ``center`` is False. Only the scale is learned, in addition to the encoder, which
    prior and posterior share. An example that is its own exemplar is not left out of the sum: to keep the encoder from
    memorizing the exemplars, use other examples for training, or set ``subset_size``.

    References:
        Exemplar VAE (Norouzi et al., 2020), https://arxiv.org/abs/2004.04795

    Args:
        posterior: q(z given x), the same object as in the program
        exemplars: data ``(N, *shape)``, saved with the weights
        scale: initial value of :math:`\sigma`
        subset_size: number of random exemplars per forward pass in training mode (which underestimates the density on
            average); None for all
        center: shift the prior to mean 0, which keeps the latents from drifting to where the decoder saturates, and
            so from collapsing; False for the formula as published

    Shape:
        no context, to batch shape ``()`` (or that of the context, if the posterior takes one) and the event shape of
        the posterior.

    Raises:
        TypeError: the posterior is not a Conditional.
        ValueError: there are no exemplars, fewer than ``subset_size``, or the scale is not a finite number above 1e-4.

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
        subset_size: int | None = None,
        center: bool = True,
    ) -> None:
        super().__init__(posterior, center=center)
        if exemplars.dim() == 0 or not len(exemplars):
            raise ValueError(f"exemplars: expected one example per row, got shape {tuple(exemplars.shape)}")
        if subset_size is not None:
            check_int("subset_size", subset_size)
            if subset_size > len(exemplars):
                raise ValueError(f"subset_size: expected at most {len(exemplars)} (all exemplars), got {subset_size}")
        check_positive("scale", scale, FLOOR)
        self.subset_size = subset_size
        self.exemplars = nn.Buffer(exemplars.detach().clone())
        self.raw = nn.Parameter(inverse_positive(torch.tensor(float(scale))))

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> ExemplarPrior:
        """Build a small instance with its own posterior."""
        exemplars = torch.linspace(0, 1, 5).reshape(5, *[1] * len(shape)).expand(5, *shape)
        return cls(UnitNormal(shape, (latent,)), exemplars, **options)

    def forward(self, *context: Tensor) -> Mixture:
        """Return p(z), or p(z given c) if the posterior takes a context."""
        x: Tensor = self.exemplars
        if self.training and self.subset_size is not None:
            x = x[torch.randperm(len(x), device=x.device)[: self.subset_size]]
        loc = self.encode(x, context).mean
        return self.mixture(loc.new_zeros(loc.shape[:-1]), dist.Normal(loc, positive(self.raw)).to_event(1))
