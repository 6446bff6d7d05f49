"""Random numbers that are the same for each row of a batch, as constants of an exported graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyro_vae._util.row_draws import ATEN, DRAWS, Draws

__all__ = ["FixedNoise"]

#: Rounds of proposals for a gamma variable. One proposal is rejected with a probability below 0.05.
ROUNDS = 12

#: Arguments of random functions that a distribution may pass by name.
NAMES = {"mean", "std", "p", "num_samples", "replacement", "lambd"}


class FixedNoise(TorchFunctionMode):
    """Replace random numbers by constants, which all rows of a batch share.

    The first run, on a batch of one row, draws the numbers. Later runs, on batches of any size, use them again, so
    that they can be recorded as a graph without random operations. Inside the context the checks of distributions
    pass without being computed, as a graph has no branches that depend on values. Other threads and torch's random
    state are not affected.

    Args:
        values: the numbers of an earlier run, in the order in which they are used; None to draw them
        seed: random seed of the numbers

    Attributes:
        values: the numbers, as tensors

    Example:
        >>> with FixedNoise() as noise:
        ...     z = torch.randn(3, 1, 2)
        >>> with FixedNoise(noise.values):
        ...     torch.equal(torch.randn(3, 5, 2), z.expand(3, 5, 2))
        True
    """

    def __init__(self, values: Sequence[Tensor] | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.values = [] if values is None else list(values)
        self.generator = torch.Generator().manual_seed(seed) if values is None else None
        self.used = 0
        self.flattened: tuple[Tensor, torch.Size] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if func is torch._is_all_true:  # what torch.distributions calls for its checks, and nothing else
            return True
        if func is torch._C._set_grad_enabled:  # recorded, it would split the graph; probabilities from logits do this
            with torch._C.DisableTorchFunction():
                return func(*args)
        packet = getattr(ATEN, name, None) if name else None
        if packet in DRAWS and kwargs.get("generator") is None:
            out = result_of(name, args, kwargs)
            options = {key: value for key, value in kwargs.items() if key in NAMES}
            found = DRAWS[packet](FixedDraws(out, self), *args, **options).to(out.dtype)
            return out.copy_(found) if name.endswith("_") else found
        found = func(*args, **kwargs)
        if name == "reshape":  # Categorical flattens its batch
            self.flattened = found, args[0].shape
        return found

    def take(self, draw: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype, device: Any) -> Tensor:
        """Return the next numbers, of the given shape."""
        if self.generator is not None:
            self.values.append(draw(tuple(shape), generator=self.generator, dtype=dtype).to(device))
        elif self.used == len(self.values):
            raise ValueError("noise: expected as many random numbers as in the first run, got more")
        self.used += 1
        return self.values[self.used - 1].expand(shape)

    def lead(self, p: Tensor) -> torch.Size:
        """Return the shape in front of the last dimension of probabilities before they were flattened to a table."""
        if self.flattened is not None and self.flattened[0] is p:
            return self.flattened[1][:-1]
        return p.shape[:1]


class FixedDraws(Draws):
    """The random numbers of one operation as constants.

    Args:
        out: a tensor with shape, type and device of the result of the operation
        noise: gives the constants
    """

    def __init__(self, out: Tensor, noise: FixedNoise) -> None:
        super().__init__(out, out, 0, noise.lead)
        self.noise = noise

    def unit(self, shape: Sequence[int] | None = None, lead: Sequence[int] | None = None) -> Tensor:
        """Return uniform numbers between 0 and 1, both excluded, in double precision."""
        shape = self.out.shape if shape is None else shape
        full = shape if lead is None else (*lead, *shape[1:])
        return self.noise.take(open_unit, full, torch.float64, self.out.device).reshape(shape)

    def uniform(self) -> Tensor:
        """Return uniform numbers in [0, 1)."""
        return self.noise.take(torch.rand, self.out.shape, self.out.dtype, self.out.device)

    def normal(self) -> Tensor:
        """Return standard normal numbers."""
        return self.noise.take(torch.randn, self.out.shape, self.out.dtype, self.out.device)

    def unfinished(self, done: Tensor, number: int) -> bool:
        """Return whether another round follows; after the last one nothing is accepted with a probability of 1e-15."""
        return number < ROUNDS


def open_unit(shape: Sequence[int], **options: Any) -> Tensor:
    """Return uniform numbers between 0 and 1, both excluded."""
    return torch.rand(shape, **options).clamp_min(2.0**-53)


def result_of(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    """Return a tensor with shape, type and device of the result of a random function."""
    if name.endswith("_"):
        return args[0]
    if name in ("rand", "randn"):
        return torch.empty(*args, **kwargs)
    if name == "multinomial":
        num_samples = args[1] if len(args) > 1 else kwargs.get("num_samples", 1)
        return args[0].new_empty((*args[0].shape[:-1], num_samples), dtype=torch.long)
    return torch.empty_like(torch.broadcast_tensors(*(a for a in args if isinstance(a, Tensor)))[0])
