"""Distances between two sets of vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae._util.validation import check_int

__all__ = ["frechet_distance", "kernel_distance", "precision_recall"]

#: Rows of a distance matrix in memory at once.
ROWS = 1024


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""Return the squared Frechet distance between the normals with the moments of two sets (FID).

    .. math:: \lVert \mu_a - \mu_b \rVert^2 +
              \operatorname{tr}\left(\Sigma_a + \Sigma_b - 2 (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2}\right)

    It is biased upwards for small sets: compare values for sets of the same size only.

    References:
        GANs trained by a two time-scale update rule converge to a local Nash equilibrium (Heusel et al., 2017),
        https://arxiv.org/abs/1706.08500

    Args:
        a: vectors, of shape ``(n, d)``, n at least 2
        b: vectors, of shape ``(m, d)``, m at least 2

    Returns:
        The distance, at least 0.

    Raises:
        ValueError: the shapes are wrong.

    Example:
        >>> a = torch.randn(1000, 3)
        >>> round(frechet_distance(a, a + 2.0), 3)
        12.0
    """
    a, b = two_sets(a=a, b=b)
    root = square_root(torch.cov(a.T).reshape(a.shape[1], -1))
    other = torch.cov(b.T).reshape(a.shape[1], -1)
    mixed = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0.0).sqrt().sum()
    spread = root.square().sum() + other.diagonal().sum() - 2 * mixed
    return max(0.0, float((a.mean(0) - b.mean(0)).square().sum() + spread))


def kernel_distance(a: Tensor, b: Tensor) -> float:
    r"""Return the unbiased squared maximum mean discrepancy with a cubic kernel (KID).

    .. math:: k(u, v) = \left(\tfrac1d u^\top v + 1\right)^3

    References:
        Demystifying MMD GANs (Binkowski et al., 2018), https://arxiv.org/abs/1801.01401

    Args:
        a: vectors, of shape ``(n, d)``, n at least 2
        b: vectors, of shape ``(m, d)``, m at least 2

    Returns:
        The estimate. Its mean is 0 for equal distributions, so it may be negative.

    Raises:
        ValueError: the shapes are wrong.

    Example:
        >>> kernel_distance(torch.randn(500, 3), torch.randn(500, 3) + 1.0) > 0.5
        True
    """
    a, b = two_sets(a=a, b=b)

    def sum_between(u: Tensor, v: Tensor) -> Tensor:
        return sum((part @ v.T / u.shape[1] + 1).pow(3).sum() for part in u.split(ROWS))

    def mean_within(u: Tensor) -> Tensor:
        n = len(u)
        diagonal = (u.square().sum(1) / u.shape[1] + 1).pow(3).sum()
        return (sum_between(u, u) - diagonal) / (n * (n - 1))

    return float(mean_within(a) + mean_within(b) - 2 * sum_between(a, b) / (len(a) * len(b)))


def precision_recall(real: Tensor, sampled: Tensor, *, num_neighbours: int = 3) -> tuple[float, float]:
    """Return the share of samples inside the real set (precision), and of real vectors inside the samples (recall).

    A vector is inside a set if it is closer to a member than that member's k-th nearest neighbour.

    References:
        Improved precision and recall metric for assessing generative models (Kynkaanniemi et al., 2019),
        https://arxiv.org/abs/1904.06991

    Args:
        real: vectors, of shape ``(n, d)``
        sampled: vectors, of shape ``(m, d)``
        num_neighbours: k

    Returns:
        Precision and recall, both in [0, 1].

    Raises:
        ValueError: the shapes are wrong, or there are too few vectors for k.

    Example:
        >>> a = torch.randn(100, 2)
        >>> precision_recall(a, a), precision_recall(a, a + 100.0)
        ((1.0, 1.0), (0.0, 0.0))
    """
    num_neighbours = check_int("num_neighbours", num_neighbours)
    real, sampled = two_sets(real=real, sampled=sampled)
    most = min(len(real), len(sampled)) - 1
    if num_neighbours > most:
        raise ValueError(f"num_neighbours: expected at most {most}, one less than vectors, got {num_neighbours}")
    return covered(sampled, real, num_neighbours), covered(real, sampled, num_neighbours)


def covered(points: Tensor, members: Tensor, num_neighbours: int) -> float:
    """Return the share of points that are inside the set of members."""
    # the nearest neighbour of a member is the member itself
    radius = torch.cat([torch.cdist(p, members).kthvalue(num_neighbours + 1).values for p in members.split(ROWS)])
    inside = torch.cat([(torch.cdist(p, members) <= radius).any(1) for p in points.split(ROWS)])
    return float(inside.double().mean())


def square_root(matrix: Tensor) -> Tensor:
    """Return the square root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T


def two_sets(**sets: Tensor) -> tuple[Tensor, Tensor]:
    """Return two sets of vectors, by the names of the arguments, in double precision, or raise if shapes are wrong."""
    a, b = sets.values()
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"{', '.join(sets)}: expected two sets of at least two vectors of the same length, got shapes "
            f"{tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a.double(), b.double()
