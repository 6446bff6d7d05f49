"""Distances between two sets of vectors."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["frechet_distance", "kernel_distance", "precision_recall"]

#: Rows of a distance matrix that are held at once.
ROWS = 1024


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""Return the squared Frechet distance of the normals with the moments of two sets (FID).

    .. math:: \lVert \mu_a - \mu_b \rVert^2 +
              \operatorname{tr}\left(\Sigma_a + \Sigma_b - 2 (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2}\right)

    It is biased upwards for small sets: compare at the same number only.

    References:
        GANs trained by a two time-scale update rule converge to a local Nash equilibrium (Heusel et al., 2017),
        https://arxiv.org/abs/1706.08500

    Args:
        a: vectors, of shape ``(n, d)``, n above 1
        b: vectors, of shape ``(m, d)``

    Returns:
        The distance, at least 0.

    Raises:
        ValueError: the two are not sets of vectors of one width, or hold too few.

    Example:
        >>> a = torch.randn(1000, 3)
        >>> round(frechet_distance(a, a + 2.0), 3)
        12.0
    """
    a, b = checked(a, b)
    root = square_root(torch.cov(a.T).reshape(a.shape[1], -1))
    other = torch.cov(b.T).reshape(a.shape[1], -1)
    mixed = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0.0).sqrt().sum()
    spread = root.square().sum() + other.diagonal().sum() - 2 * mixed
    return max(0.0, float((a.mean(0) - b.mean(0)).square().sum() + spread))


def kernel_distance(a: Tensor, b: Tensor) -> float:
    r"""Return the squared maximum mean discrepancy under a cubic kernel (KID), without bias.

    .. math:: k(u, v) = \left(\tfrac1d u^\top v + 1\right)^3

    References:
        Demystifying MMD GANs (Binkowski et al., 2018), https://arxiv.org/abs/1801.01401

    Args:
        a: vectors, of shape ``(n, d)``, n above 1
        b: vectors, of shape ``(m, d)``

    Returns:
        The estimate, which may fall below 0: its mean is 0 for equal distributions.

    Raises:
        ValueError: the two are not sets of vectors of one width, or hold too few.

    Example:
        >>> kernel_distance(torch.randn(500, 3), torch.randn(500, 3) + 1.0) > 0.5
        True
    """
    a, b = checked(a, b)

    def mean_kernel(u: Tensor, v: Tensor) -> Tensor:
        return sum((part @ v.T / u.shape[1] + 1).pow(3).sum() for part in u.split(ROWS))

    def mean_within(u: Tensor) -> Tensor:
        n = len(u)
        same = (u.square().sum(1) / u.shape[1] + 1).pow(3).sum()
        return (mean_kernel(u, u) - same) / (n * (n - 1))

    return float(mean_within(a) + mean_within(b) - 2 * mean_kernel(a, b) / (len(a) * len(b)))


def precision_recall(real: Tensor, made: Tensor, *, neighbours: int = 3) -> tuple[float, float]:
    """Return how many made vectors lie among the real ones, and how many real ones among those made.

    A vector lies among a set if it is closer to one of its members than that member's k-th neighbour.

    References:
        Improved precision and recall metric for assessing generative models (Kynkaanniemi et al., 2019),
        https://arxiv.org/abs/1904.06991

    Args:
        real: vectors, of shape ``(n, d)``
        made: vectors, of shape ``(m, d)``
        neighbours: k

    Returns:
        Precision and recall, both in [0, 1].

    Raises:
        ValueError: the two are not sets of vectors of one width, or hold too few.

    Example:
        >>> a = torch.randn(100, 2)
        >>> precision_recall(a, a), precision_recall(a, a + 100.0)
        ((1.0, 1.0), (0.0, 0.0))
    """
    real, made = checked(real, made)
    if min(len(real), len(made)) <= neighbours:
        raise ValueError(f"neighbours: expected fewer than {min(len(real), len(made))}, the vectors, got {neighbours}")
    return covered(made, real, neighbours), covered(real, made, neighbours)


def covered(points: Tensor, members: Tensor, neighbours: int) -> float:
    """Return the share of points that lie among the members."""
    # the nearest of all is the member itself
    radius = torch.cat([torch.cdist(p, members).kthvalue(neighbours + 1).values for p in members.split(ROWS)])
    inside = torch.cat([(torch.cdist(p, members) <= radius).any(1) for p in points.split(ROWS)])
    return float(inside.double().mean())


def square_root(matrix: Tensor) -> Tensor:
    """Return the root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T


def checked(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return two sets of vectors in double precision, refusing what is none."""
    for name, x in (("first", a), ("second", b)):
        if x.dim() != 2 or len(x) < 2 or x.shape[1:] != a.shape[1:]:
            raise ValueError(
                f"expected two sets of at least two vectors of the same length, got shape {tuple(x.shape)} for the "
                f"{name} and {tuple(a.shape)} for the first"
            )
    return a.double(), b.double()
