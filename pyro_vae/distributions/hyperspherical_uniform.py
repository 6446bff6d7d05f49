"""The uniform distribution on the unit sphere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.distributions.sphere import log_area, sphere

__all__ = ["HypersphericalUniform"]


class HypersphericalUniform(dist.TorchDistribution):
    r"""The uniform distribution on the unit sphere of :math:`\mathbb R^n`, as a density by surface area.

    .. math:: p(z) = \frac{\Gamma(n/2)}{2 \pi^{n/2}}, \qquad \lVert z \rVert = 1

    Args:
        dim: n, the number of coordinates; the sphere has one dimension less (for n = 1 it is the two points
            -1 and 1)
        like: a tensor whose dtype and device the draws get
        batch_shape: how many of them

    Shape:
        batch shape ``()`` and event shape ``(dim,)``.

    Raises:
        ValueError: ``dim`` is below 1.

    Example:
        >>> HypersphericalUniform(3).sample((5,)).shape
        torch.Size([5, 3])
    """

    arg_constraints = {}
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
        check_int("dim", dim)
        self.dim = dim
        self.like = torch.zeros(()) if like is None else like.detach().new_zeros(())
        super().__init__(torch.Size(batch_shape), torch.Size((dim,)), validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: HypersphericalUniform | None = None) -> HypersphericalUniform:
        """Return the distribution with another batch shape."""
        new = self._get_checked_instance(HypersphericalUniform, _instance)
        new.dim, new.like = self.dim, self.like
        super(HypersphericalUniform, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw directions of standard normal vectors."""
        z = torch.randn(self._extended_shape(sample_shape), dtype=self.like.dtype, device=self.like.device)
        return torch.nn.functional.normalize(z, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at ``value`` of length 1, by surface area."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(shape, -log_area(self.dim))

    def entropy(self) -> Tensor:
        """Return the entropy: the log of the area."""
        return self.like.new_full(self.batch_shape, log_area(self.dim))

    @property
    def mean(self) -> Tensor:
        """The centre of the sphere, which is not on it."""
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
