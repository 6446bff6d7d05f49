"""Binarizations: functions that return a data set with binary values in place of grey levels in [0, 1].

Fixed samples come from a generator of their own: they are the same in every run and leave the global random state
alone. Samples drawn during training come from torch's global generator and follow the seed of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pyro_vae.data.dataset import Dataset, Split

__all__ = ["CHOICES", "Binarization", "DrawBits", "Dynamic", "Static", "Threshold", "resolve"]

Binarization = Callable[[Dataset], Dataset]


@dataclass(frozen=True)
class DrawBits:
    """A transform that reads a batch as probabilities and samples a new binary value for each.

    The result has the shape, dtype and device of the batch. It is sampled with torch's global generator.

    Example:
        >>> bits = DrawBits()(torch.full((5, 8, 8), 0.5))
        >>> tuple(bits.shape), bits.unique().tolist()
        ((5, 8, 8), [0.0, 1.0])
    """

    draws_bits: ClassVar[bool] = True

    def __call__(self, batch: Tensor) -> Tensor:
        """Sample a binary value for each probability in ``batch``."""
        return torch.bernoulli(batch)


@dataclass(frozen=True)
class Dynamic:
    """New binary values each time a training batch is used; valid and test are sampled once.

    The training split keeps its grey levels and gets the transform :class:`DrawBits`, which replaces any other.
    Burda, Grosse and Salakhutdinov (2016) trained this way on MNIST.

    Args:
        seed: seed of the fixed samples of valid and test

    Example:
        >>> grey = Split(torch.full((3, 8, 8), 0.5))
        >>> dataset = Dynamic()(Dataset("flat", grey, grey, grey))
        >>> dataset
        Dataset('flat': train 3, valid 3, test 3; shape (8, 8); binary; train transform DrawBits())
        >>> dataset.train.x.unique().tolist(), dataset.test.x.unique().tolist()
        ([0.5], [0.0, 1.0])
    """

    seed: int = 0

    def __call__(self, dataset: Dataset) -> Dataset:
        """Return a binary copy of ``dataset``."""
        test, valid = sample_once(self.seed, dataset.test, dataset.valid)
        return replace(dataset, train=replace(dataset.train, transform=DrawBits()), valid=valid, test=test)


@dataclass(frozen=True)
class Static:
    """One sample of binary values for every split, the same in every run.

    Its valid and test splits equal those of :class:`Dynamic` with the same seed.

    Args:
        seed: seed of the samples

    Example:
        >>> grey = Split(torch.full((3, 8, 8), 0.5))
        >>> Static()(Dataset("flat", grey, grey, grey))
        Dataset('flat': train 3, valid 3, test 3; shape (8, 8); binary)
    """

    seed: int = 0

    def __call__(self, dataset: Dataset) -> Dataset:
        """Return a binary copy of ``dataset``."""
        # train comes last, so that test and valid are those of Dynamic
        test, valid, train = sample_once(self.seed, dataset.test, dataset.valid, dataset.train)
        return replace(dataset, train=train, valid=valid, test=test)


@dataclass(frozen=True)
class Threshold:
    """A one where the grey level is above ``level``, otherwise a zero. Nothing is random.

    Args:
        level: the grey level, in [0, 1]

    Example:
        >>> grey = Split(torch.tensor([[0.2, 0.5, 0.9]]))
        >>> Threshold()(Dataset("row", grey, grey, grey)).train.x
        tensor([[0., 0., 1.]])
    """

    level: float = 0.5

    def __call__(self, dataset: Dataset) -> Dataset:
        """Return a binary copy of ``dataset``."""
        train, valid, test = (replace(split, x=(split.x > self.level).to(split.x.dtype)) for split in dataset.splits)
        return replace(dataset, train=train, valid=valid, test=test)


CHOICES: dict[str, Binarization] = {"dynamic": Dynamic(), "static": Static(), "threshold": Threshold()}


def resolve(choice: str | Binarization | None) -> Binarization | None:
    """Return the binarization of this name; a function, or None for no binarization, is returned unchanged.

    Raises:
        ValueError: no binarization has this name.

    Example:
        >>> resolve("threshold"), resolve(None)
        (Threshold(level=0.5), None)
    """
    if choice is None or callable(choice):
        return choice
    if choice not in CHOICES:
        raise ValueError(f"binarize: expected None or one of {', '.join(map(repr, CHOICES))}, got {choice!r}")
    return CHOICES[choice]


def sample_once(seed: int, *splits: Split) -> list[Split]:
    """Sample the splits one after another from one generator with this seed."""
    generator = torch.Generator().manual_seed(seed)
    # on the CPU: generators of other devices give other numbers
    return [
        replace(split, x=torch.bernoulli(split.x.cpu(), generator=generator).to(split.x.device)) for split in splits
    ]
