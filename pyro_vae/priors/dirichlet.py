"""The Dirichlet prior, for proportions."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.scales import FLOOR, check_positive, inverse_positive, positive

__all__ = ["Dirichlet"]


class Dirichlet(Conditional):
    r"""Proportions that sum to 1, such as the topic proportions of a document.

    .. math:: p(z) = \frac{\Gamma(\sum_k \alpha_k)}{\prod_k \Gamma(\alpha_k)} \prod_k z_k^{\alpha_k - 1}

    References:
        Latent Dirichlet allocation (Blei et al., 2003), https://www.jmlr.org/papers/v3/blei03a.html

    Args:
        latent: number of proportions
        concentration: :math:`\alpha`, the same for all, or its initial value if it is learned: below 1 few proportions
            are large, above 1 they are similar
        learned: learn one concentration per proportion

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``.

    Raises:
        ValueError: the concentration is not a finite number above 1e-4.

    Example:
        >>> Dirichlet(3)().event_shape
        torch.Size([3])
    """

    def __init__(self, latent: int, *, concentration: float = 1.0, learned: bool = False) -> None:
        super().__init__(latent=latent)
        check_positive("concentration", concentration, FLOOR)
        hold = nn.Parameter if learned else nn.Buffer
        self.raw = hold(inverse_positive(torch.full((latent,), float(concentration))))

    def forward(self, *context: Tensor) -> dist.Dirichlet:
        """Return p(z), which ignores any context."""
        return dist.Dirichlet(positive(self.raw))
