"""Variants of the categorical distribution: from normalized log-probabilities, and ordered classes."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from pyro_vae.distributions.special import log_interval

__all__ = ["LogCategorical", "OrderedLogistic"]


class LogCategorical(dist.Categorical):
    r"""A categorical over 0, 1, ..., L - 1 with log-probabilities that are already normalized.

    .. math:: \log p(k) = l_k, \qquad \sum_k e^{l_k} = 1

    ``Categorical(logits=...)`` normalizes a second time, which takes a third of a training step at 256 levels per
    pixel, and adds rounding errors.

    Args:
        logits: normalized log-probabilities l, of shape ``(*batch, L)``; the normalization is not checked

    Example:
        >>> LogCategorical(torch.zeros(5, 3).log_softmax(-1)).log_prob(torch.zeros(5)).shape
        torch.Size([5])
    """

    arg_constraints = {"logits": constraints.real_vector}

    def __init__(self, logits: Tensor, *, validate_args: bool | None = None) -> None:
        self.logits = self._param = logits
        self._num_events = logits.shape[-1]
        torch.distributions.Distribution.__init__(self, logits.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: LogCategorical | None = None) -> LogCategorical:
        """Return the distribution expanded to ``batch_shape``."""
        return super().expand(batch_shape, self._get_checked_instance(LogCategorical, _instance))


class OrderedLogistic(dist.Categorical):
    r"""Ordered classes: intervals of a logistic variable between thresholds, accurate for every predictor.

    .. math:: p(k) = \operatorname{sigmoid}(c_k - \eta) - \operatorname{sigmoid}(c_{k - 1} - \eta), \qquad
              c_{-1} = -\infty,\ c_{L - 1} = \infty

    Pyro subtracts probabilities, which gives 0 in float32 for predictors beyond 17. This class computes logarithms
    throughout.

    Args:
        predictor: :math:`\eta`, of shape ``batch``
        gaps: positive distances between neighbouring thresholds, of shape ``(*batch, L - 2)``
        first: lowest threshold, of shape ``batch``

    References:
        Regression models for ordinal data (McCullagh, 1980), https://www.jstor.org/stable/2984952

    Example:
        >>> OrderedLogistic(torch.zeros(5), torch.ones(2), torch.tensor(-1.0)).probs.shape
        torch.Size([5, 4])
    """

    def __init__(self, predictor: Tensor, gaps: Tensor, first: Tensor, *, validate_args: bool | None = None) -> None:
        above = torch.cat([gaps.new_zeros(*gaps.shape[:-1], 1), gaps.cumsum(-1)], -1)
        cuts = (first - predictor).unsqueeze(-1) + above
        inner = log_interval(cuts[..., :-1], cuts[..., 1:], gaps)  # a difference of cuts would round the gaps
        logits = torch.cat([logsigmoid(cuts[..., :1]), inner, logsigmoid(-cuts[..., -1:])], -1)
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: OrderedLogistic | None = None) -> OrderedLogistic:
        """Return the distribution expanded to ``batch_shape``."""
        return super().expand(batch_shape, self._get_checked_instance(OrderedLogistic, _instance))
