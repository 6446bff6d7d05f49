"""The ordered logistic distribution, accurate for every predictor."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.special import log_interval

__all__ = ["OrderedLogistic"]


class OrderedLogistic(dist.Categorical):
    r"""Ordered classes, cut out of a logistic variable by thresholds.

    .. math:: p(k) = \operatorname{sigmoid}(c_k - \eta) - \operatorname{sigmoid}(c_{k - 1} - \eta), \qquad
              c_{-1} = -\infty,\ c_{L - 1} = \infty

    Pyro's takes differences of probabilities, which are 0 in float32 for predictors beyond 17; here they are
    logarithms throughout.

    Args:
        predictor: :math:`\eta`, of shape ``batch``
        gaps: distances of neighbouring thresholds, positive, of shape ``(*batch, L - 2)``
        first: the lowest threshold, of shape ``batch``

    References:
        Regression models for ordinal data (McCullagh, 1980), https://www.jstor.org/stable/2984952

    Example:
        >>> OrderedLogistic(torch.zeros(5), torch.ones(2), torch.tensor(-1.0)).probs.shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        predictor: Tensor,
        gaps: Tensor,
        first: Tensor,
        *,
        validate_args: bool | None = None,
    ) -> None:
        above = torch.cat([gaps.new_zeros(*gaps.shape[:-1], 1), gaps.cumsum(-1)], -1)
        cuts = (first - predictor).unsqueeze(-1) + above
        inner = log_interval(cuts[..., :-1], cuts[..., 1:], gaps)  # the gaps, as a difference of cuts would round
        logits = torch.cat([logsigmoid(cuts[..., :1]), inner, logsigmoid(-cuts[..., -1:])], -1)
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: OrderedLogistic | None = None) -> OrderedLogistic:
        """Return the distribution with another batch shape."""
        return super().expand(batch_shape, self._get_checked_instance(OrderedLogistic, _instance))
