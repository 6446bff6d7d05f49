"""The negative binomial likelihood, for counts with more spread than Poisson."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import NegativeBinomial as Family
from pyro_vae.distributions.negative_binomial import shares_of
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import Scale, Shared, as_scale, positive

__all__ = ["NegativeBinomial"]


class NegativeBinomial(Conditional):
    r"""Independent counts with more spread than Poisson, whose means the network makes from z.

    .. math:: p(x \mid z) = \prod_i \frac{\Gamma(x_i + r_i)}{\Gamma(r_i)\, x_i!}
              \Bigl(\frac{r_i}{r_i + \mu_i}\Bigr)^{r_i} \Bigl(\frac{\mu_i}{r_i + \mu_i}\Bigr)^{x_i}, \qquad
              \mu = \operatorname{softplus}(\mathrm{net}(z)) + 10^{-4}

    The variance is :math:`\mu + \mu^2 / r`.

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018),
        https://doi.org/10.1038/s41592-018-0229-2

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), (rows, *shape))`` with a row for the mean
            and one for an inverse dispersion that is an output
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
        >>> counts = NegativeBinomial(3, (2000,), context=1, library=True)
        >>> counts(torch.zeros(5, 3), torch.full((5, 1), 1e4)).mean.sum(-1).round()
        tensor([10000., 10000., 10000., 10000., 10000.], grad_fn=<RoundBackward0>)
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
        self.net = build(net, (latent,), (1 + shared.outputs, *self.shape), context - library)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        if self.library:
            *context, last = context
            context, size = (*context, last[..., :-1]), last[..., -1]
        raw_mean, *raw = self.net(z, *context).unbind(-1 - len(self.shape))
        mean = shares_of(size, raw_mean, len(self.shape)) if self.library else positive(raw_mean)
        return Family(mean, self.inverse_dispersion(*raw)).to_event(len(self.shape))
