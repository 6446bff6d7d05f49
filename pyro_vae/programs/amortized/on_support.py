"""A posterior over real vectors as one over the support of a latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.base import Distribution

__all__ = ["OnSupport"]


class OnSupport(Distribution):
    r"""The image of a real vector under the transform of a support.

    .. math:: z = f(u), \quad u \sim p_{\mathrm{base}}, \qquad
              \log p(z) = \log p_{\mathrm{base}}(f^{-1}(z)) - \log |\det \partial f / \partial u|

    Unlike that of ``TransformedDistribution``, its support is that of the latent, whatever the last step of f is.

    Args:
        base_dist: a distribution of real vectors
        transform: f, on tensors of shape ``(*batch, *inner)``
        inner: the shape of one argument of f
        target: the support of z
    """

    def __init__(
        self, base_dist: Any, transform: Any, inner: torch.Size, target: Any, *, validate_args: bool | None = None
    ) -> None:
        self.base_dist, self.transform, self.inner, self.target = base_dist, transform, inner, target
        event = torch.Size(transform.forward_shape(inner))
        super().__init__(base_dist.batch_shape, event, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> Any:
        """The support of the latent."""
        return self.target

    @property
    def has_rsample(self) -> bool:
        """Whether the base has a reparameterized sampler."""
        return bool(self.base_dist.has_rsample)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample with a gradient."""
        return self.image(self.base_dist.rsample(torch.Size(sample_shape)))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample without a gradient."""
        with torch.no_grad():
            return self.image(self.base_dist.sample(torch.Size(sample_shape)))

    def image(self, u: Tensor) -> Tensor:
        """Return f(u) of flat vectors."""
        found: Tensor = self.transform(u.reshape([*u.shape[:-1], *self.inner]))
        return found

    def _log_prob(self, value: Tensor) -> Tensor:
        u = self.transform.inv(value)
        jacobian = self.transform.log_abs_det_jacobian(u, value)
        batch = value.shape[: value.dim() - len(self.event_shape)]
        return self.base_dist.log_prob(u.reshape(*batch, -1)) - jacobian.reshape(*batch, -1).sum(-1)
