"""Autoregressive distributions over several categories, as concatenated one-hot vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import one_hot

from pyro_vae.distributions.autoregressive import Autoregressive
from pyro_vae.distributions.flattened import Flattened, FlattenedConstraint

__all__ = ["OneHotAutoregressive"]


class OneHotAutoregressive(Autoregressive):
    r"""One-hot vectors, each given those before it: one of K categories per group, concatenated to G K numbers.

    .. math:: p(z) = \prod_{g=1}^{G} p(z_g \mid z_1, \dots, z_{g - 1})

    A density takes one call of the network, a sample one call per group.

    Args:
        logits: ``logits(z, condition)`` for z of shape ``(*batch, groups * categories)`` returns logits of shape
            ``(*batch, groups, categories)``; the logits of a group depend only on the groups before it
        condition: condition of all groups, of shape ``(*batch, *condition_shape)``
        groups: G
        categories: K
        condition_dim: number of dimensions of ``condition_shape``

    References:
        Neural discrete representation learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937

    Example:
        >>> def logits(z, condition):
        ...     return torch.zeros(*z.shape[:-1], 4, 3)
        >>> OneHotAutoregressive(logits, torch.zeros(5, 1), 4, 3).sample().sum(-1)
        tensor([4., 4., 4., 4., 4.])
    """

    def __init__(
        self,
        logits: Callable[[Tensor, Tensor], Tensor],
        condition: Tensor,
        groups: int,
        categories: int,
        *,
        condition_dim: int = 1,
        validate_args: bool | None = None,
    ) -> None:
        self.groups = groups
        super().__init__(
            logits,
            condition,
            (groups * categories,),
            range(groups),
            categories,
            condition_dim=condition_dim,
            validate_args=validate_args,
        )

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        """One-hot vectors, concatenated."""
        return FlattenedConstraint(
            constraints.independent(constraints.one_hot, 1), torch.Size((self.groups, self.levels))
        )

    #: Whether the values can be enumerated.
    has_enumerate_support = True

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return all values, of shape ``(n, *batch, groups * categories)``.

        Raises:
            ValueError: there are more than a million values.
        """
        uniform = dist.OneHotCategorical(self.condition.new_zeros(*self.batch_shape, self.groups, self.levels) + 1)
        return Flattened(uniform.to_event(1)).enumerate_support(expand)

    def values(self, codes: Tensor) -> Tensor:
        """Return the one-hot vectors of category numbers ``(*batch, groups)``."""
        return one_hot(codes, self.levels).to(self.condition.dtype).flatten(-2)

    def codes(self, value: Tensor) -> Tensor:
        """Return the category numbers ``(*batch, groups)`` of one-hot vectors."""
        return value.unflatten(-1, (self.groups, self.levels)).argmax(-1)

    def _log_prob(self, value: Tensor) -> Tensor:
        # as for every categorical: a gradient through the earlier codes alone would be a part of one
        return super()._log_prob(value.detach())
