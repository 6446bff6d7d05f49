"""The nearest code of a codebook, as a point mass on one-hot vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import one_hot

from pyro_vae.distributions.base import Distribution
from pyro_vae.distributions.flattened import FlattenedConstraint

__all__ = ["NearestCode"]


class NearestCode(Distribution):
    r"""A point mass: for each group the one-hot vector of the code nearest to an encoder output, concatenated.

    .. math:: q(k \mid u) = \prod_{g=1}^{G} \mathbb 1\big[k_g = \operatorname{argmin}_k \lVert u_g - e_k \rVert^2\big]

    The probability of the nearest codes is 1 and the entropy 0, so that :math:`\log p(k) + \log p(x \mid k)` is an
    exact evidence lower bound. Samples are exactly one-hot and pass on a straight-through gradient, which is biased:
    with the pseudo-inverse :math:`E^+` of the codebook E they are

    .. math:: z_g = \operatorname{onehot}(k_g) + u_g E^+ - \operatorname{stop}(u_g E^+),

    so that the code vectors :math:`z_g E` pass their gradient to :math:`u_g` unchanged, as in the VQ-VAE, where the
    codes span the space (in the span of the codes elsewhere).

    References:
        Neural discrete representation learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937

    Args:
        outputs: encoder outputs u, of shape ``(*batch, groups, dims)``
        codebook: the codes e, of shape ``(codes, dims)``

    Shape:
        batch shape ``batch``, event shape ``(groups * codes,)``.

    Example:
        >>> codes = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> NearestCode(torch.tensor([[0.9, 1.2], [0.1, 0.3]]), codes).sample()
        tensor([0., 1., 1., 0.])
    """

    arg_constraints = {
        "outputs": constraints.independent(constraints.real, 2),
        "one_hot": constraints.real_vector,
    }
    has_rsample = True

    def __init__(self, outputs: Tensor, codebook: Tensor, *, validate_args: bool | None = None) -> None:
        self.outputs, self.codebook = outputs, codebook
        with torch.no_grad():
            self.one_hot = nearest(outputs, codebook).flatten(-2)
        super().__init__(outputs.shape[:-2], self.one_hot.shape[-1:], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        """One-hot vectors, concatenated."""
        return FlattenedConstraint(constraints.independent(constraints.one_hot, 1), self._shape)

    @property
    def _shape(self) -> torch.Size:
        return torch.Size((self.outputs.shape[-2], len(self.codebook)))

    @property
    def mean(self) -> Tensor:
        """The one-hot vectors."""
        return self.one_hot

    @property
    def variance(self) -> Tensor:
        """Zero."""
        return torch.zeros_like(self.one_hot)

    def entropy(self) -> Tensor:
        """Return zero."""
        return self._zero()

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return the one-hot vectors, without a gradient."""
        return self.one_hot.expand(self._extended_shape(sample_shape)).clone()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return the one-hot vectors, with the straight-through gradient of the encoder outputs."""
        weights = (self.outputs @ torch.linalg.pinv(self.codebook.detach())).flatten(-2)
        # the difference is exactly 0, so that the vectors stay one-hot
        return (self.one_hot + (weights - weights.detach())).expand(self._extended_shape(sample_shape))

    def code_vectors(self) -> Tensor:
        """Return the nearest codes, of shape ``(*batch, groups, dims)``."""
        return self.one_hot.unflatten(-1, self._shape) @ self.codebook

    def _log_prob(self, value: Tensor) -> Tensor:
        same = (value == self.one_hot).all(-1)
        return torch.where(same, self._zero(), -math.inf)

    def _zero(self) -> Tensor:
        # the mass is 1 for all parameters: their gradient is 0
        return 0.0 * (self.outputs.sum((-2, -1)) + self.codebook.sum())


def nearest(outputs: Tensor, codebook: Tensor) -> Tensor:
    """Return the one-hot vector of the nearest code for each output ``(*batch, dims)``, of shape ``(*batch, codes)``.

    Of equally near codes it is the first.
    """
    # minus half of the squared distance, up to a term that is the same for all codes
    closeness = outputs @ codebook.T - codebook.square().sum(-1) / 2
    return one_hot(closeness.argmax(-1), len(codebook)).to(codebook.dtype)
