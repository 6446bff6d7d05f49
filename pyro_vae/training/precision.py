"""Mixed precision: layers of networks in a smaller type, densities in full precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["TF32", "Autocast"]

LAYERS = {
    getattr(functional, name)
    for name in ("linear", "bilinear", "scaled_dot_product_attention")
    + tuple(f"conv{transpose}{n}d" for transpose in ("", "_transpose") for n in (1, 2, 3))
}


class Autocast(TorchFunctionMode):
    r"""Compute the layers of networks (linear, convolutions, attention) in another type, and nothing else.

    A layer rounds its input and weights to ``dtype``, and converts its output back to the type of its input. Weights,
    their gradients, the state of the optimizer, densities and the bound keep the type of the program: a density in
    bfloat16, summed over pixels, would be wrong by several nats. Recurrent layers are not changed. This is faster on
    devices with hardware for ``dtype``, and slower on CPUs without it.

    References:
        Mixed precision training (Micikevicius et al., 2018), https://arxiv.org/abs/1710.03740

    Args:
        dtype: a type such as ``torch.bfloat16``, which has the range of float32, so the loss needs no scaling

    Raises:
        ValueError: ``dtype`` is not a floating-point type.

    Example:
        >>> import torch
        >>> layer, x = torch.nn.Linear(100, 1), torch.rand(5, 100)
        >>> with Autocast(torch.bfloat16):
        ...     y = layer(x)
        >>> y.dtype, bool(((y - layer(x)).abs() < 0.02).all()), bool((y == layer(x)).all())
        (torch.float32, True, False)
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(f"dtype: expected a floating-point type such as torch.bfloat16, got {dtype!r}")
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"Autocast({self.dtype})"

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, a layer in the smaller type."""
        kwargs = kwargs or {}
        if func not in LAYERS:
            return func(*args, **kwargs)
        found = func(*map(self.rounded, args), **{name: self.rounded(value) for name, value in kwargs.items()})
        return found.to(args[0].dtype)

    def rounded(self, value: Any) -> Any:
        """Return a floating-point tensor in this type, and anything else as it is."""
        return value.to(self.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


class TF32:
    """Round the factors of matrix products to 10 bits of mantissa and sum in float32, on devices that support it.

    Torch's setting is restored on leaving.

    References:
        NVIDIA A100 tensor core GPU architecture (NVIDIA, 2020),
        https://images.nvidia.com/aem-dam/en-zz/Solutions/data-center/nvidia-ampere-architecture-whitepaper.pdf

    Example:
        >>> with TF32():
        ...     torch.get_float32_matmul_precision()
        'high'
        >>> torch.get_float32_matmul_precision()
        'highest'
    """

    def __enter__(self) -> TF32:
        self._before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        return self

    def __exit__(self, *_: object) -> None:
        torch.set_float32_matmul_precision(self._before)

    def __repr__(self) -> str:
        return "TF32()"
