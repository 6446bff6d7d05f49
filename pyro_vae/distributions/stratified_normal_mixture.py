"""A mixture of diagonal normals with equal weights, sampled from every component equally often."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vae.distributions.normal_mixture import NormalMixture

__all__ = ["StratifiedNormalMixture"]


class StratifiedNormalMixture(NormalMixture):
    r"""A mixture of diagonal normals with equal weights and a stratified sampler.

    .. math:: q(z) = \frac{1}{|S|} \sum_{c \in S} \mathcal N(z; \mu_c, \operatorname{diag} \sigma_c^2), \qquad
              z_k \sim \mathcal N(\mu_{c_k}, \operatorname{diag} \sigma_{c_k}^2), \quad c_k = (k + u) \bmod |S|

    The offset u is uniform over the components S that take part. Each sample therefore has the density q, and any |S|
    consecutive samples come from |S| different components. Samples of one row are dependent: estimators whose
    gradient needs independent samples, such as DReG, refuse this family. The gradient through a sample is that of its
    component.

    References:
        Variational mixture-of-experts autoencoders (Shi et al., 2019), https://arxiv.org/abs/1911.03393;
        Automatic differentiation variational inference with mixtures (Morningstar et al., 2021),
        https://arxiv.org/abs/2003.01687

    Args:
        loc: means, shape ``(*batch, components, D)``
        scale: standard deviations, shape ``(*batch, components, D)``
        takes_part: which components are in S, shape ``(*batch, components)``; at least one per row

    Shape:
        batch shape ``batch`` and event shape ``(D,)``. Dimensions that ``expand`` adds on the left and those of
        ``rsample`` are stratified.

    Example:
        >>> q = StratifiedNormalMixture(torch.tensor([[-9.0], [9.0]]), torch.ones(2, 1), torch.ones(2, dtype=bool))
        >>> (q.rsample((6,)) > 0).sum()
        tensor(3)
    """

    def __init__(self, loc: Tensor, scale: Tensor, takes_part: Tensor, *, validate_args: bool | None = None) -> None:
        logits = torch.zeros_like(takes_part, dtype=loc.dtype).masked_fill(~takes_part, -torch.inf)
        super().__init__(loc, scale, logits, validate_args=validate_args)
        self._rows = len(self.batch_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample from each component that takes part equally often."""
        shape = self._extended_shape(sample_shape)
        draws, rows = shape[: len(shape) - 1 - self._rows], shape[len(shape) - 1 - self._rows : -1]
        takes_part = torch.isfinite(self.logits)
        number = takes_part.sum(-1)
        offset = (torch.rand(rows, dtype=self.loc.dtype, device=self.loc.device) * number).long()
        k = torch.arange(draws.numel(), device=number.device).reshape(*draws, *[1] * self._rows)
        which = ((k + offset) % number).unsqueeze(-1)
        # the components that take part come first
        order = (~takes_part).to(number.dtype).argsort(dim=-1, stable=True).expand(*which.shape[:-1], -1)
        index = order.gather(-1, which).unsqueeze(-1).expand(*which.shape, shape[-1])
        loc, scale = (p.expand(*which.shape[:-1], *p.shape[-2:]).gather(-2, index) for p in (self.loc, self.scale))
        noise = torch.randn(shape, dtype=loc.dtype, device=loc.device)
        return loc.squeeze(-2) + scale.squeeze(-2) * noise
