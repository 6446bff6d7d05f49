"""Kernels, and the maximum mean discrepancy that they define."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["InverseMultiquadratic", "Kernel", "RBF", "mmd"]

#: From ``(*batch, n, dims)`` and ``(*batch, m, dims)`` to ``(*batch, n, m)``.
Kernel = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class RBF:
    r"""The Gaussian kernel.

    .. math:: k(a, b) = \exp\left(-\frac{\|a - b\|^2}{2 s^2}\right)

    Args:
        variance: :math:`s^2`; the number of dimensions if None, half the mean squared distance of two draws of a
            standard normal

    Shape:
        ``(*batch, n, dims)`` and ``(*batch, m, dims)`` to ``(*batch, n, m)``.

    Raises:
        ValueError: a variance that is not positive.

    Example:
        >>> import torch
        >>> RBF()(torch.zeros(3, 2), torch.ones(5, 2)).shape
        torch.Size([3, 5])
    """

    variance: float | None = None

    def __post_init__(self) -> None:
        check_positive("variance", self.variance)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the kernel of each pair of rows."""
        variance = a.shape[-1] if self.variance is None else self.variance
        return (squared_distance(a, b) / (-2 * variance)).exp()


@dataclass(frozen=True)
class InverseMultiquadratic:
    r"""The inverse multiquadratic kernel, whose heavy tails still act between draws that are far apart.

    .. math:: k(a, b) = \frac{c}{c + \|a - b\|^2}

    Args:
        c: the squared distance at which the kernel is one half; twice the number of dimensions if None, the mean
            squared distance of two draws of a standard normal

    Shape:
        ``(*batch, n, dims)`` and ``(*batch, m, dims)`` to ``(*batch, n, m)``.

    Raises:
        ValueError: a distance that is not positive.

    Example:
        >>> import torch
        >>> InverseMultiquadratic()(torch.zeros(3, 2), torch.ones(5, 2)).shape
        torch.Size([3, 5])
    """

    c: float | None = None

    def __post_init__(self) -> None:
        check_positive("c", self.c)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the kernel of each pair of rows."""
        c = 2 * a.shape[-1] if self.c is None else self.c
        return c / (c + squared_distance(a, b))


def mmd(kernel: Kernel, a: Tensor, b: Tensor) -> Tensor:
    r"""Return the unbiased estimate (a U-statistic) of the squared maximum mean discrepancy.

    .. math:: \mathrm{MMD}^2 = \mathbb E[k(a, a')] - 2\, \mathbb E[k(a, b)] + \mathbb E[k(b, b')]

    No draw is paired with itself, so that the estimate is unbiased and single values may be negative.

    References:
        A kernel two-sample test (Gretton et al., 2012), https://jmlr.org/papers/v13/gretton12a.html

    Args:
        kernel: such as :class:`RBF`
        a: draws of one distribution, ``(*batch, n, dims)``
        b: draws of the other, ``(*batch, m, dims)``

    Returns:
        Estimates of shape ``batch``.

    Example:
        >>> import torch
        >>> mmd(RBF(), torch.randn(7, 10, 2), torch.randn(7, 12, 2)).shape
        torch.Size([7])
    """
    return mean_of_pairs(kernel(a, a)) - 2 * kernel(a, b).mean((-2, -1)) + mean_of_pairs(kernel(b, b))


def mean_of_pairs(gram: Tensor) -> Tensor:
    """Return the mean over pairs of two different draws."""
    n = gram.shape[-1]
    return (gram.sum((-2, -1)) - gram.diagonal(dim1=-2, dim2=-1).sum(-1)) / (n * (n - 1))


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared distance of each pair of rows, without forming all differences."""
    squares = a.square().sum(-1).unsqueeze(-1) + b.square().sum(-1).unsqueeze(-2)
    return torch.relu(squares - 2 * a @ b.transpose(-2, -1))


def check_positive(name: str, value: float | None) -> None:
    """Raise unless a value is None or a positive number."""
    if value is not None and not 0 < value < float("inf"):
        raise ValueError(f"{name}: expected a positive number or None, got {value}")
