"""The unit sphere: its support (that of Pyro), its area, directions, and the uniform distribution on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pyro.distributions.constraints import sphere
from torch import Tensor
from torch.nn.functional import normalize

from pyro_vae._util.validation import check_int
from pyro_vae.distributions.base import Distribution

__all__ = ["HypersphericalUniform", "direction", "from_pole", "log_area", "sphere"]


def log_area(dim: int) -> float:
    r"""Return the log of the area of the unit sphere in R^dim, :math:`\log \frac{2 \pi^{n/2}}{\Gamma(n/2)}`."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


def direction(raw: Tensor) -> Tensor:
    r"""Return the unit vector along ``raw``, shape ``(*batch, dim)``.

    A shift of :math:`10^{-6}` along the first axis gives an output of exactly 0 (from a last layer that is
    initialized to zero, say) a direction and finite gradients.
    """
    shift = torch.zeros_like(raw)
    shift[..., 0] = 1e-6
    return normalize(raw + shift, dim=-1)


def from_pole(cosine: Tensor, sine: Tensor, around: Tensor, mean: Tensor) -> Tensor:
    r"""Return the point at an angle from ``mean``, by one reflection.

    The reflection takes :math:`s e_1` to the mean, with the sign s that makes the two farther apart. Its axis
    :math:`\mu - s e_1` then has a length of at least :math:`\sqrt 2`, so that no mean direction is singular.

    Args:
        cosine: cosine of the angle, shape ``(*batch,)``
        sine: sine of the angle, shape ``(*batch,)``
        around: unit vector of the direction around the mean, shape ``(*batch, dim - 1)``
        mean: unit vector, shape ``(*batch, dim)``

    Returns:
        Unit vectors, shape ``(*batch, dim)``.
    """
    first = mean[..., 0]
    sign = torch.where(first > 0, -torch.ones_like(first), torch.ones_like(first))
    point = torch.cat([(sign * cosine).unsqueeze(-1), sine.unsqueeze(-1) * around], -1)
    axis = torch.cat([(first - sign).unsqueeze(-1), mean[..., 1:]], -1)
    scale = (axis * point).sum(-1, keepdim=True) / (1 + first.abs()).unsqueeze(-1)
    return normalize(point - scale * axis, dim=-1)


class HypersphericalUniform(Distribution):
    r"""The uniform distribution on the unit sphere of :math:`\mathbb R^n`, a density per surface area.

    .. math:: p(z) = \frac{\Gamma(n/2)}{2 \pi^{n/2}}, \qquad \lVert z \rVert = 1

    Args:
        dim: n, the number of coordinates; for n = 1 the sphere consists of the points -1 and 1
        like: a tensor with the dtype and device of the samples
        batch_shape: batch shape

    Shape:
        batch shape ``batch_shape`` and event shape ``(dim,)``.

    Raises:
        ValueError: ``dim`` is below 1.

    Example:
        >>> HypersphericalUniform(3).sample((5,)).shape
        torch.Size([5, 3])
    """

    support = sphere
    has_rsample = True

    def __init__(
        self,
        dim: int,
        *,
        like: Tensor | None = None,
        batch_shape: Sequence[int] = (),
        validate_args: bool | None = None,
    ) -> None:
        self.dim = check_int("dim", dim)
        self.like = torch.zeros(()) if like is None else like.detach().new_zeros(())
        super().__init__(torch.Size(batch_shape), torch.Size((self.dim,)), validate_args=validate_args)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample the directions of standard normal vectors."""
        z = torch.randn(self._extended_shape(sample_shape), dtype=self.like.dtype, device=self.like.device)
        return normalize(z, dim=-1)

    def _log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(shape, -log_area(self.dim))

    def entropy(self) -> Tensor:
        """Return the entropy, the log of the area."""
        return self.like.new_full(self.batch_shape, log_area(self.dim))

    @property
    def mean(self) -> Tensor:
        """The centre of the sphere (not a point on it)."""
        return self.like.new_zeros(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        """The variance 1/n of each coordinate."""
        return self.like.new_full(self._extended_shape(), 1 / self.dim)

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariance I/n."""
        eye = torch.eye(self.dim, dtype=self.like.dtype, device=self.like.device) / self.dim
        return eye.expand(*self.batch_shape, self.dim, self.dim)
