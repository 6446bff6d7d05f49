"""Points on the unit sphere: from a network's output, and turned onto a mean direction."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["direction", "from_pole"]


def direction(raw: Tensor) -> Tensor:
    r"""Return the unit vector along ``raw``, shape ``(*batch, dim)``.

    An output of exactly 0 (a network whose last layer starts at zero, say) has no direction: a shift of
    :math:`10^{-6}` along the first axis gives it one, and finite gradients.
    """
    shift = torch.zeros_like(raw)
    shift[..., 0] = 1e-6
    return normalize(raw + shift, dim=-1)


def from_pole(cosine: Tensor, sine: Tensor, around: Tensor, mean: Tensor) -> Tensor:
    r"""Return the point at an angle from ``mean``, by one reflection.

    The reflection takes :math:`s e_1` to the mean, with the sign s that is farther from it: so its axis is
    :math:`\mu - s e_1`, of length :math:`\sqrt 2` or more, and no direction of the mean is singular.

    Args:
        cosine: of the angle, shape ``(*batch,)``
        sine: of the angle, shape ``(*batch,)``
        around: unit vector that says which way, shape ``(*batch, dim - 1)``
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
