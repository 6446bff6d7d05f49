"""The concrete (Gumbel-softmax) distribution, finite at the corners of the simplex."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor

__all__ = ["RelaxedOneHotCategorical"]


class RelaxedOneHotCategorical(dist.RelaxedOneHotCategorical):
    r"""The concrete distribution, whose draws never round to an exact 0.

    .. math:: z = \operatorname{softmax}\left(\frac{\log \pi + g}{\tau}\right), \qquad g_k \sim \mathrm{Gumbel}

    With logits far apart or a low temperature a coordinate underflows to 0 in float32, where the density is not
    defined: here it stays at the smallest normal number.

    References:
        The concrete distribution (Maddison et al., 2017), https://arxiv.org/abs/1611.00712;
        Categorical reparameterization with Gumbel-softmax (Jang et al., 2017), https://arxiv.org/abs/1611.01144

    Args:
        temperature: tau, a positive number as a tensor; as it goes to 0 the draws become one-hot
        logits: unnormalised log-probabilities, shape ``(*batch, categories)``

    Example:
        >>> RelaxedOneHotCategorical(torch.tensor(0.5), logits=torch.zeros(4)).rsample((2,)).shape
        torch.Size([2, 4])
    """

    def expand(
        self, batch_shape: torch.Size, _instance: RelaxedOneHotCategorical | None = None
    ) -> RelaxedOneHotCategorical:
        """Return the distribution with another batch shape."""
        return super().expand(batch_shape, self._get_checked_instance(RelaxedOneHotCategorical, _instance))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw a point of the simplex."""
        x = super().rsample(torch.Size(sample_shape))
        return x.clamp_min(torch.finfo(x.dtype).tiny)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw a point of the simplex, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)
