"""Layers of networks in fewer bits: their products are cheaper, everything behind them stays as it is."""

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

    Within, a layer's input and weights are rounded to ``dtype`` and its output is brought back to the input's type.
    Weights, their gradients, the optimizer's state, densities and the bound keep the program's type: a network's
    output in bfloat16 would make the density behind it one of bfloat16, and its sum over pixels wrong by nats.
    Recurrent layers are left as they are. It pays on devices with units for ``dtype``; a CPU without them gets slower.

    References:
        Mixed precision training (Micikevicius et al., 2018), https://arxiv.org/abs/1710.03740

    Args:
        dtype: such as ``torch.bfloat16``, whose range is that of float32, so that no loss has to be scaled

    Raises:
        ValueError: ``dtype`` is no floating-point type.

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
        """Call a function of torch, a layer in fewer bits."""
        kwargs = kwargs or {}
        if func not in LAYERS:
            return func(*args, **kwargs)
        found = func(*map(self.rounded, args), **{name: self.rounded(value) for name, value in kwargs.items()})
        return found.to(args[0].dtype)

    def rounded(self, value: Any) -> Any:
        """Return a tensor of floating-point numbers in this type, anything else as it is."""
        return value.to(self.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


class TF32:
    """Let matrix products round their factors to 10 bits and sum in float32, on devices that have such products.

    On leaving, torch's setting is what it was.

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
        self.before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        return self

    def __exit__(self, *_: object) -> None:
        torch.set_float32_matmul_precision(self.before)

    def __repr__(self) -> str:
        return "TF32()"
