"""Multilayer perceptrons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_vae.nets.contract import Net
from pyro_vae.nets.shapes import Shape, as_shape

__all__ = ["MLP", "FlatLayers", "TrunkAndHead", "hidden_layers"]


class MLP(Net):
    r"""A multilayer perceptron over the flattened input.

    Args:
        in_shape: shape of one input
        out_shape: shape of one output
        context: width of the context, which is concatenated to the input
        hidden: width of each hidden layer
        activation: builds the nonlinearity after each hidden layer
        linear: whether to add a linear map of the input, so that the layers only learn what is not linear

    Shape:
        ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``.

    Raises:
        ValueError: a shape or ``hidden`` is not a tuple of positive ints.

    Example:
        >>> MLP((28, 28), (2, 20), hidden=(400,))(torch.zeros(6, 5, 28, 28)).shape
        torch.Size([6, 5, 2, 20])
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        *,
        context: int = 0,
        hidden: Sequence[int] = (500, 500),
        activation: Callable[[], nn.Module] = nn.SiLU,
        linear: bool = False,
    ) -> None:
        in_shape, out_shape = as_shape(in_shape), as_shape(out_shape)
        widths = [math.prod(in_shape) + context, *as_shape(hidden, "hidden")]
        layers: nn.Module = FlatLayers(*hidden_layers(widths, activation), nn.Linear(widths[-1], math.prod(out_shape)))
        body = PlusLinear(layers, nn.Linear(widths[0], math.prod(out_shape))) if linear else layers
        super().__init__(body, in_shape, out_shape, context=context)


class FlatLayers(nn.Sequential):
    """Layers over the flattened input concatenated with the context."""

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the output of the layers."""
        x = x if x.dim() == 2 else x.reshape(x.shape[0], -1)
        return super().forward(torch.cat([x, *context], -1) if context else x)


class PlusLinear(nn.Module):
    """Layers plus a linear map of the same input."""

    def __init__(self, layers: nn.Module, linear: nn.Linear) -> None:
        super().__init__()
        self.layers, self.linear = layers, FlatLayers(linear)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the sum of both outputs."""
        return self.layers(x, *context) + self.linear(x, *context)


class TrunkAndHead(nn.Module):
    """A trunk over the input, and a head over its features and the context."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the output of the head."""
        return self.head(self.trunk(x), *context)


def hidden_layers(widths: Sequence[int], activation: Callable[[], nn.Module]) -> list[nn.Module]:
    """Return a linear layer and a nonlinearity from each width to the next."""
    layers: list[nn.Module] = []
    for i, o in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(i, o), activation()]
    return layers
