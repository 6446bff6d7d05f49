"""Scales of location-scale distributions: fixed, one learned number, or an output of the network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_vae._util.abstract import Abstract
from pyro_vae._util.describe import Described

__all__ = ["Fixed", "OptimalSigma", "PerExample", "Scale", "Shared", "positive"]

#: Smallest learned scale: it keeps densities and their gradients finite in float32.
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
    # a slice of a network's output has short rows, at whose ends a CPU leaves its vector instructions
    return softplus(raw.contiguous()) + FLOOR


def inverse_positive(scale: Tensor) -> Tensor:
    """Return the ``raw`` that :func:`positive` maps to ``scale``."""
    above = scale - FLOOR
    return above + torch.log(-torch.expm1(-above))


class Scale(Described, Abstract, nn.Module):
    """The scale of a likelihood.

    A subclass sets ``outputs``, the number of network outputs (0 or 1) that it needs per entry of an example, and
    returns from ``forward`` a tensor that broadcasts with the location.

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
        """Return the scale, given ``outputs`` tensors from the network."""


class Fixed(Scale):
    r"""A known scale, the same for all entries and examples.

    Args:
        value: the scale, in the units of the data

    Raises:
        ValueError: the scale is not a finite number above 1e-4.

    Example:
        >>> Fixed(0.1)()
        tensor(0.1000)
    """

    value: Tensor

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        check_positive("value", value, FLOOR)
        self.register_buffer("value", torch.tensor(float(value)))

    def forward(self, *raw: Tensor) -> Tensor:
        """Return the scale, of shape ``()``."""
        return self.value


class Shared(Scale):
    r"""A learned scale that all examples share.

    Args:
        initial: initial value, in the units of the data
        shape: ``()`` for one number, the shape of one example for one number per entry

    References:
        Simple and effective VAE training with calibrated decoders (Rybkin et al., 2021),
        https://arxiv.org/abs/2006.13202

    Raises:
        ValueError: the scale is not a finite number above 1e-4.

    Example:
        >>> Shared(shape=(4,))().shape
        torch.Size([4])
    """

    def __init__(self, initial: float = 1.0, *, shape: Sequence[int] = ()) -> None:
        super().__init__()
        check_positive("initial", initial, FLOOR)
        self.raw = nn.Parameter(inverse_positive(torch.full(tuple(shape), float(initial))))

    def forward(self, *raw: Tensor) -> Tensor:
        """Return the scale, of shape ``shape``."""
        return positive(self.raw)


class PerExample(Scale):
    r"""A scale for each entry of each example: an output of the network.

    Example:
        >>> PerExample()(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    outputs = 1

    def forward(self, *raw: Tensor) -> Tensor:
        """Return the scale, of the shape of ``raw``."""
        return positive(*raw)


class OptimalSigma(Described, nn.Module):
    r"""The maximum-likelihood scale of a normal, in closed form: :math:`\sigma^2 = \operatorname{mean} (x - \mu)^2`.

    In training mode it is that of each minibatch, so that no step is spent on learning it. In evaluation mode it is a
    running mean over minibatches, so that the density of an example does not depend on other examples. It is a scale
    of the ``Normal`` likelihood only.

    Args:
        initial: initial value of the running scale, in the units of the data
        momentum: weight of the newest minibatch in the running mean of the variance

    References:
        Simple and effective VAE training with calibrated decoders (Rybkin et al., 2021),
        https://arxiv.org/abs/2006.13202

    Raises:
        ValueError: the scale is not a finite number above 1e-4, or the momentum not above 0 and up to 1.

    Example:
        >>> scale = OptimalSigma()
        >>> scale.refit(torch.tensor(4.0)), scale()
        (tensor(2.), tensor(1.1402))
    """

    outputs = 0
    variance: Tensor

    def __init__(self, initial: float = 1.0, *, momentum: float = 0.1) -> None:
        super().__init__()
        check_positive("initial", initial, FLOOR)
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum: expected a number above 0 and up to 1, got {momentum}")
        self.momentum = momentum
        self.register_buffer("variance", torch.tensor(float(initial) ** 2))

    def forward(self, *raw: Tensor) -> Tensor:
        """Return the running scale, of shape ``()``."""
        return self.variance.sqrt()

    def refit(self, mean_square: Tensor) -> Tensor:
        """Return the best scale for a minibatch with this mean squared error, and update the running mean."""
        variance = mean_square.clamp(min=FLOOR**2)
        self.variance.lerp_(variance, self.momentum)
        return variance.sqrt()


def as_scale(scale: Scale | float, name: str = "scale") -> Scale:
    """Return ``scale``, or a :class:`Fixed` scale if it is a number."""
    if isinstance(scale, Scale):
        return scale
    if isinstance(scale, nn.Module):
        raise TypeError(
            f"{name}: expected a number or a Scale (Fixed, Shared, PerExample), got {type(scale).__name__}. "
            "OptimalSigma belongs to the Normal likelihood only."
        )
    check_positive(name, scale, FLOOR)
    return Fixed(scale)


def check_positive(name: str, value: float, minimum: float = 0.0) -> None:
    """Raise unless ``value`` is finite and above ``minimum``."""
    if not minimum < value < float("inf"):
        raise ValueError(f"{name}: expected a finite number above {minimum:g}, got {value}")
