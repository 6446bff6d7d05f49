"""Ways to turn grey levels in [0, 1] into bits; each is a function from data set to data set.

Fixed draws come from a generator of their own, so that they are the same in every run and leave
the global random state alone. Draws at presentation come from torch's global generator, so that
they follow the seed of the training run.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pyro_vae.data.dataset import Dataset, Split

Binarization = Callable[[Dataset], Dataset]


@dataclass(frozen=True)
class DrawBits:
    """A transform that reads a batch as probabilities and draws a new bit for each.

    The batch is of floats in [0, 1], of any shape; the bits are zeros and ones of the same shape,
    dtype and device, drawn with torch's global generator of that device.

    Example:
        >>> bits = DrawBits()(torch.full((5, 8, 8), 0.5))
        >>> tuple(bits.shape), bits.unique().tolist()
        ((5, 8, 8), [0.0, 1.0])
    """

    draws_bits: ClassVar[bool] = True

    def __call__(self, batch: Tensor) -> Tensor:
        """Draw a bit for each probability in `batch`."""
        return torch.bernoulli(batch)


@dataclass(frozen=True)
class Dynamic:
    """New bits at each presentation of a training batch; valid and test drawn once, for good.

    The training split keeps its grey levels and gets the transform `DrawBits` (in the place of
    any it had). Burda, Grosse and Salakhutdinov (2016) trained this way on MNIST.

    Attributes:
        seed: Seed of the fixed draws of valid and test.

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
        """Return `dataset` in bits; the one given is left as it is."""
        test, valid = _draw_once(self.seed, dataset.test, dataset.valid)
        train = replace(dataset.train, transform=DrawBits())
        return replace(dataset, train=train, valid=valid, test=test)


@dataclass(frozen=True)
class Static:
    """One draw of bits for every split, the same in every run.

    Its valid and test splits equal those of `Dynamic` with the same seed.

    Attributes:
        seed: Seed of the draws.

    Example:
        >>> grey = Split(torch.full((3, 8, 8), 0.5))
        >>> Static()(Dataset("flat", grey, grey, grey))
        Dataset('flat': train 3, valid 3, test 3; shape (8, 8); binary)
    """

    seed: int = 0

    def __call__(self, dataset: Dataset) -> Dataset:
        """Return `dataset` in bits; the one given is left as it is."""
        # Train comes last so that test and valid get the numbers that `Dynamic` gives them.
        test, valid, train = _draw_once(self.seed, dataset.test, dataset.valid, dataset.train)
        return replace(dataset, train=train, valid=valid, test=test)


@dataclass(frozen=True)
class Threshold:
    """A one where the grey level is above `level`, else a zero; nothing is drawn.

    Attributes:
        level: The grey level to be exceeded, in [0, 1].

    Example:
        >>> grey = Split(torch.tensor([[0.2, 0.5, 0.9]]))
        >>> Threshold()(Dataset("row", grey, grey, grey)).train.x
        tensor([[0., 0., 1.]])
    """

    level: float = 0.5

    def __call__(self, dataset: Dataset) -> Dataset:
        """Return `dataset` in bits; the one given is left as it is."""
        train, valid, test = (replace(split, x=(split.x > self.level).to(split.x.dtype)) for split in dataset.splits)
        return replace(dataset, train=train, valid=valid, test=test)


CHOICES: dict[str, Binarization] = {
    "dynamic": Dynamic(),
    "static": Static(),
    "threshold": Threshold(),
}


def resolve(choice: str | Binarization | None) -> Binarization | None:
    """Turn the name of a binarization into the function that does it.

    Args:
        choice: "dynamic", "static", "threshold", a function from data set to data set (returned
            as it is), or None for none.

    Returns:
        A function from `Dataset` to `Dataset`, or None.

    Raises:
        ValueError: If `choice` is none of these.

    Example:
        >>> resolve("threshold"), resolve(None)
        (Threshold(level=0.5), None)
    """
    if choice is None or callable(choice):
        return choice
    if choice not in CHOICES:
        known = ", ".join(repr(known) for known in CHOICES)
        raise ValueError(f"binarize must be None or one of {known}; got {choice!r}")
    return CHOICES[choice]


def _draw_once(seed: int, *splits: Split) -> list[Split]:
    """Draw the splits one after another from one generator with this seed."""
    generator = torch.Generator().manual_seed(seed)
    # On the CPU wherever the data are: generators of other devices give other numbers.
    return [
        replace(split, x=torch.bernoulli(split.x.cpu(), generator=generator).to(split.x.device)) for split in splits
    ]
