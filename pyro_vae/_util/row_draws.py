"""Random numbers by a counter-based generator, with a key for each row of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["ATEN", "DRAWS", "Draws", "OneByOneError", "mix_int", "row_keys"]

ATEN = torch.ops.aten

#: The constants of SplitMix64 as signed integers.
GOLDEN, FIRST, SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685


class OneByOneError(Exception):
    """The rows of a batch cannot be told from another dimension, or from each other: each must be a batch."""


class Draws:
    """Random numbers of one operation.

    Args:
        out: result of the operation, which gives shape and device
        keys: a key for each row, ``(n,)``; empty if all rows share the numbers
        number: identifies the operation: other numbers give other random numbers
        lead: returns the shape in front of the last dimension that a table of probabilities had before it was
            flattened to two dimensions
    """

    def __init__(self, out: Tensor, keys: Tensor, number: int, lead: Callable[[Tensor], Sequence[int]]) -> None:
        self.out, self.keys, self.number, self.lead, self.count = out, keys, number, lead, 0

    def bits(self, shape: Sequence[int] | None = None, lead: Sequence[int] | None = None) -> Tensor:
        """Return random integers of 64 bits of a shape.

        Args:
            shape: by default that of the result
            lead: dimensions that were flattened to the first one, as given by the ``lead`` of the constructor
        """
        shape = torch.Size(self.out.shape if shape is None else shape)
        full = shape if lead is None else torch.Size((*lead, *shape[1:]))
        dims = [dim for dim in range(len(full)) if full[dim] == len(self.keys)] if len(self.keys) else []
        if len(dims) > 1 and len(self.keys) > 1:
            raise OneByOneError
        key = mix_int(self.number + self.count)
        self.count += 1
        if not dims:
            number = torch.arange(full.numel(), device=self.out.device).reshape(full)
            return mix((number + 1) * GOLDEN + key).reshape(shape)
        dim = dims[-1]
        each = [1 if i == dim else size for i, size in enumerate(full)]
        number = torch.arange(math.prod(each), device=self.out.device).reshape(each)
        rows = mix(self.keys.to(self.out.device) + key).reshape([-1 if i == dim else 1 for i in range(len(full))])
        return mix((number + 1) * GOLDEN + rows).reshape(shape)

    def unit(self, shape: Sequence[int] | None = None, lead: Sequence[int] | None = None) -> Tensor:
        """Return uniform numbers between 0 and 1, both excluded, in double precision."""
        return (shifted(self.bits(shape, lead), 11).double() + 0.5) * 2.0**-53

    def uniform(self) -> Tensor:
        """Return uniform numbers in [0, 1), in steps that the type of the result represents."""
        digits = {torch.float64: 53, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}[self.out.dtype]
        return shifted(self.bits(), 64 - digits).double() * 2.0**-digits

    def normal(self) -> Tensor:
        """Return standard normal numbers in double precision."""
        return torch.special.ndtri(self.unit())

    def bernoulli(self, x: Tensor, p: Any = None) -> Tensor:
        """Return True with probability p: the argument of ``bernoulli(x)``, or p of ``bernoulli_(x, p)``."""
        return self.unit() < (x if p is None else p)

    def multinomial(self, p: Tensor, num_samples: int = 1, replacement: bool = False) -> Tensor:
        """Return indices by inversion of the distribution function; without replacement by the Gumbel top-k trick."""
        p, lead = p.double(), self.lead(p) if p.dim() == 2 else None
        if num_samples > 1 and not replacement:
            return (p.log() - (-self.unit(p.shape, lead).log()).log()).topk(num_samples).indices
        total = p.cumsum(-1)
        found = torch.searchsorted(total, self.unit(self.out.shape, lead) * total[..., -1:], right=True)
        return found.clamp(max=p.shape[-1] - 1)

    def unfinished(self, done: Tensor, number: int) -> bool:
        """Return whether another round of proposals follows the first ``number`` rounds."""
        return not done.all()

    def gamma(self, shape: Tensor) -> Tensor:
        """Return gamma variables (Marsaglia and Tsang, 2000), by rounds of proposals until all are accepted."""
        a = shape.double()
        d = torch.where(a < 1, a + 1, a) - 1 / 3
        # NaN, negative and infinite parameters would never be accepted
        found, done = torch.ones_like(d), ~((a > 0) & a.isfinite())
        boost = torch.where(a < 1, self.unit().log() / a, 0.0)
        number = 0
        while self.unfinished(done, number):
            number += 1
            x = self.normal()
            v = (1 + x / (9 * d).sqrt()).clamp(min=1e-300) ** 3
            good = self.unit().log() < 0.5 * x.square() + d - d * v + d * v.log()
            found, done = torch.where(done, found, d * v), done | good
        found = (found.log() + boost).exp().clamp(min=torch.finfo(shape.dtype).tiny)
        return torch.where(done & (a > 0) & a.isfinite(), found, torch.where(a > 0, a, torch.nan))

    def dirichlet(self, concentration: Tensor) -> Tensor:
        """Return gamma variables divided by their sum."""
        found = self.gamma(concentration.double())
        tiny = torch.finfo(concentration.dtype).tiny
        return (found / found.sum(-1, keepdim=True)).clamp(min=tiny)

    def poisson(self, rate: Tensor) -> Tensor:
        """Return the smallest count with a distribution function above a uniform number, by bisection."""
        valid, u = (rate >= 0) & rate.isfinite(), self.unit()
        rate = torch.where(valid, rate, 0.0).double()
        below = torch.full_like(rate, -1.0)
        above = (rate + 40 * rate.sqrt() + 60).ceil()
        for _ in range(math.ceil(math.log2(float(above.max()) + 2)) if above.numel() else 0):
            middle = ((below + above) / 2).floor()
            enough = torch.special.gammaincc(middle + 1, rate) >= u
            below, above = torch.where(enough, below, middle), torch.where(enough, middle, above)
        return torch.where(rate > 0, above, torch.where(valid, 0.0, torch.nan))


def row_keys(batch: Sequence[Tensor]) -> Tensor:
    """Return a hash of each row, ``(n,)``: NaN are equal, and so are both zeros."""
    keys, start = torch.zeros(len(batch[0]), dtype=torch.long, device=batch[0].device), 0
    for column in batch:
        rows = column.detach().reshape(len(column), -1)
        if rows.is_floating_point():
            rows = torch.where(rows.isnan(), torch.nan, rows + 0.0)
            rows = rows.view(torch.long) if rows.dtype == torch.float64 else rows.float().view(torch.int32)
        number = torch.arange(start + 1, start + 1 + rows.shape[1], device=rows.device)
        keys = keys + mix(rows.long() + number * GOLDEN).sum(1)
        start += rows.shape[1]
    return mix(keys)


def mix(z: Tensor) -> Tensor:
    """Return the finalizer of SplitMix64, a bijection of 64 bits whose results look random."""
    z = (z ^ shifted(z, 30)) * FIRST
    z = (z ^ shifted(z, 27)) * SECOND
    return z ^ shifted(z, 31)


def mix_int(z: int) -> int:
    """Return :func:`mix` of an integer."""
    return int(mix(torch.tensor((z + 2**63) % 2**64 - 2**63)))


def shifted(z: Tensor, by: int) -> Tensor:
    """Shift the bits of signed integers to the right and fill with zeros."""
    return (z >> by) & ((1 << (64 - by)) - 1)


#: The values of a random operation from its arguments.
DRAWS: dict[Any, Callable[..., Tensor]] = {
    ATEN.randn: lambda d, *size: d.normal(),
    ATEN.randn_like: lambda d, like: d.normal(),
    ATEN.rand: lambda d, *size: d.uniform(),
    ATEN.rand_like: lambda d, like: d.uniform(),
    ATEN.normal: lambda d, mean=0.0, std=1.0, *size: mean + std * d.normal(),
    ATEN.normal_: lambda d, x, mean=0.0, std=1.0: mean + std * d.normal(),
    ATEN.uniform_: lambda d, x, start=0.0, end=1.0: start + (end - start) * d.uniform(),
    ATEN.exponential_: lambda d, x, lambd=1.0: -d.unit().log() / lambd,
    ATEN.bernoulli: Draws.bernoulli,
    ATEN.bernoulli_: lambda d, x, p=0.5: d.bernoulli(x, p),
    ATEN.multinomial: Draws.multinomial,
    ATEN._standard_gamma: Draws.gamma,
    ATEN._sample_dirichlet: Draws.dirichlet,
    ATEN.poisson: Draws.poisson,
}
