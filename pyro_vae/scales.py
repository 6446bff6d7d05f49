"""How wide a location-scale distribution is: fixed, one learned number, or an output of the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

__all__ = ["Fixed", "OptimalSigma", "PerExample", "Scale", "Shared", "positive"]

#: No learned scale falls below it: densities and their gradients stay finite in float32.
FLOOR = 1e-4


def positive(raw: Tensor) -> Tensor:
    r"""Map real numbers to scales: :math:`\log(1 + e^r) + 10^{-4}`, which neither vanishes nor overflows.

    Args:
        raw: real numbers of any shape

    Returns:
        Scales of the same shape.

    Example:
        >>> positive(torch.tensor([-100.0, 100.0]))
        tensor([1.0000e-04, 1.0000e+02])
    """
    # a part of a network's output has short rows, whose ends a CPU would take one by one
    return softplus(raw.contiguous()) + FLOOR


def inverse_positive(scale: Tensor) -> Tensor:
    """Return the ``raw`` that :func:`positive` maps to ``scale``."""
    above = scale - FLOOR
    return above + torch.log(-torch.expm1(-above))


class Scale(nn.Module, ABC):
    """Make the scale of a likelihood.

    A subclass says by ``outputs`` how many numbers (0 or 1) it wants of the network for each entry of a
    datum, and returns from ``forward`` a tensor that broadcasts with the location.

    Example:
        >>> class Capped(Scale):
        ...     outputs = 1
        ...     def forward(self, *raw):
        ...         return positive(raw[0]).clamp(max=1.0)
        >>> Capped()(torch.tensor([-1.0, 3.0]))
        tensor([0.3134, 1.0000])
    """

    outputs: ClassVar[int] = 0

    @abstractmethod
    def forward(self, *raw: Tensor) -> Tensor:
        """Return the scale, given the ``outputs`` numbers that it asked for."""


class Fixed(Scale):
    r"""The same known scale everywhere.

    Args:
        value: the scale, in the units of the data

    Raises:
        ValueError: the scale is not a finite number above the floor 1e-4.

    Example:
        >>> Fixed(0.1)()
        tensor(0.1000)
    """

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        check_scale("value", value)
        self.register_buffer("value", torch.tensor(float(value)))

    def forward(self, *raw: Tensor) -> Tensor:
        """Return the scale, of shape ``()``."""
        return self.value


class Shared(Scale):
    r"""A learned scale that all data share.

    Args:
        initial: where learning starts, in the units of the data
        shape: ``()`` for one number, the shape of one datum for one number an entry

    References:
        Simple and effective VAE training with calibrated decoders (Rybkin et al., 2021),
        https://arxiv.org/abs/2006.13202

    Raises:
        ValueError: the scale is not a finite number above the floor 1e-4.

    Example:
        >>> Shared(shape=(4,))().shape
        torch.Size([4])
    """

    def __init__(self, initial: float = 1.0, *, shape: Sequence[int] = ()) -> None:
        super().__init__()
        check_scale("initial", initial)
        self.raw = nn.Parameter(inverse_positive(torch.full(tuple(shape), float(initial))))

    def forward(self, *raw: Tensor) -> Tensor:
        """Return the scale, of shape ``shape``."""
        return positive(self.raw)


class PerExample(Scale):
    r"""A scale for each entry of each datum, made by the network beside the location.

    Example:
        >>> PerExample()(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    outputs = 1

    def forward(self, *raw: Tensor) -> Tensor:
        """Return the scale, of the shape of ``raw``."""
        return positive(*raw)


class OptimalSigma(nn.Module):
    r"""The scale of a normal that fits best, in closed form: :math:`\sigma^2 = \operatorname{mean} (x - \mu)^2`.

    In training mode it is that of each batch, so that no step is spent on learning it. In evaluation mode it is a
    running mean over the batches seen, and the density one of each datum alone. It belongs to the normal, whose
    best scale this is; no other likelihood takes it.

    Args:
        initial: where the running mean starts, in the units of the data
        momentum: weight of the newest batch in the running mean of the variance

    References:
        Simple and effective VAE training with calibrated decoders (Rybkin et al., 2021),
        https://arxiv.org/abs/2006.13202

    Raises:
        ValueError: the scale is not a finite number above the floor 1e-4, or the momentum not above 0 and up to 1.

    Example:
        >>> scale = OptimalSigma()
        >>> scale.refit(torch.tensor(4.0)), scale()
        (tensor(2.), tensor(1.1402))
    """

    outputs = 0

    def __init__(self, initial: float = 1.0, *, momentum: float = 0.1) -> None:
        super().__init__()
        check_scale("initial", initial)
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum: expected a number above 0 and up to 1, got {momentum}")
        self.momentum = momentum
        self.register_buffer("variance", torch.tensor(float(initial) ** 2))

    def forward(self, *raw: Tensor) -> Tensor:
        """Return the running scale, of shape ``()``."""
        return self.variance.sqrt()

    def refit(self, mean_square: Tensor) -> Tensor:
        """Take in the mean squared error of a batch and return the best scale for it."""
        variance = mean_square.clamp(min=FLOOR**2)
        self.variance.lerp_(variance, self.momentum)
        return variance.sqrt()


def as_scale(scale: Scale | float) -> Scale:
    """Return ``scale``, a number as a :class:`Fixed` one."""
    if isinstance(scale, nn.Module) and not isinstance(scale, Scale):
        raise TypeError(
            f"expected a number or a Scale (Fixed, Shared, PerExample), got {type(scale).__name__}; OptimalSigma "
            "belongs to the Normal likelihood alone"
        )
    return scale if isinstance(scale, Scale) else Fixed(scale)


def check_scale(name: str, value: float) -> None:
    """Refuse what is no scale."""
    if not value > FLOOR or value == float("inf"):
        raise ValueError(f"{name}: expected a finite scale above {FLOOR}, got {value}")
