"""The prior of several categorical latents, as concatenated one-hot vectors."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import Flattened

__all__ = ["ProductOfOneHotCategoricals"]


class ProductOfOneHotCategoricals(Conditional):
    r"""Independent categorical groups: one one-hot vector per group, concatenated to ``latent`` numbers.

    .. math:: p(z) = \prod_{g=1}^{G} \prod_{k=1}^{K} \pi_{gk}^{z_{gk}}, \qquad G K = \mathrm{latent}

    References:
        Categorical reparameterization with Gumbel-softmax (Jang et al., 2017), https://arxiv.org/abs/1611.01144

    Args:
        latent: length of the vector, groups times classes
        groups: number of groups G
        learned: learn the probabilities, which are 1/K otherwise

    Shape:
        no context, to batch shape ``()`` and event shape ``(latent,)``, group by group.

    Raises:
        ValueError: ``latent`` is not a multiple of ``groups``.

    Example:
        >>> ProductOfOneHotCategoricals(12, groups=4)().sample().sum()
        tensor(4.)
    """

    def __init__(self, latent: int, *, groups: int = 1, learned: bool = False) -> None:
        super().__init__(latent=latent)
        check_int("groups", groups)
        if latent % groups:
            raise ValueError(f"groups: expected a divisor of latent = {latent}, got {groups}")
        self.logits = (nn.Parameter if learned else nn.Buffer)(torch.zeros(groups, latent // groups))

    def forward(self, *context: Tensor) -> Flattened:
        """Return p(z), which ignores any context."""
        return Flattened(dist.OneHotCategorical(logits=self.logits).to_event(1))
