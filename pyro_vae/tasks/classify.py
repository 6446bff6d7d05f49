"""Classify with few labels: hide labels, train with labelled data in every batch, and count errors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.inputs import batches_of
from pyro_vae.programs.program import Program, device_of

__all__ = ["Classification", "classify", "hide_labels", "labelled_batches"]

#: Data classified at once, with all draws of their latents.
ROWS = 250


def hide_labels(y: Any, n: int, *, seed: int = 0) -> Tensor:
    """Keep the labels of ``n`` data, as many of each class up to one, and hide all others.

    Args:
        y: class numbers 0, 1, ..., of shape ``(data,)``
        n: labels to keep, at least one of each class
        seed: of the draw

    Returns:
        Floats of shape ``(data, classes)``: one-hot rows, and rows of NaN where the label is hidden, as
        ``programs.SemiSupervised`` takes them.

    Raises:
        ValueError: ``y`` holds no class numbers, or too few data of a class.

    Example:
        >>> y = hide_labels([0, 1, 0, 1, 1, 0], 2)
        >>> y.shape, int((~y.isnan()).any(1).sum())
        (torch.Size([6, 2]), 2)
    """
    numbers = class_numbers(y)
    if numbers.dim() != 1 or not len(numbers) or numbers.is_floating_point() or numbers.min() < 0:
        raise ValueError(
            f"y: expected class numbers of at least 0, of shape (data,), got {numbers.dtype} of shape "
            f"{tuple(numbers.shape)}"
        )
    classes = int(numbers.max()) + 1
    check_int("n", n, classes)
    hidden = torch.full((len(numbers), classes), math.nan)
    with fork_rng(seed=seed):
        # classes in a random order: none is always the one that gets a label more
        for i, k in enumerate(torch.randperm(classes).tolist()):
            (rows,) = torch.nonzero(numbers == k, as_tuple=True)
            share = n // classes + (i < n % classes)
            if len(rows) < share:
                raise ValueError(f"y: expected at least {share} data of class {k} for {n} labels, got {len(rows)}")
            kept = rows[torch.randperm(len(rows))[:share]]
            hidden[kept] = torch.eye(classes)[k]
    return hidden


def labelled_batches(x: Tensor, y: Tensor, *, batch_size: int = 200, labelled: int | None = None) -> DataLoader:
    r"""Return data for ``fit`` of which each batch holds the same number of labelled rows.

    An epoch shows every unlabelled row once, and labelled ones as often as it takes. In shuffled batches most would
    hold no label at all where labels are few, and the classifier would learn from rare, large gradients. Of the
    objective of Kingma et al. (2014), in which the classification of all labelled data together weighs as much as
    0.1 of all data, :math:`\alpha` becomes ``0.1 * batch_size / labelled``, the same number for whichever batch.
    More labelled rows than their share also weigh more in the bound. ``fit`` checks the first batch of a loader
    before the first step, and every other as it comes; ``program.check(x, y)`` checks all data.

    References:
        Semi-supervised learning with deep generative models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298

    Args:
        x: data of shape ``(n, *shape)``
        y: labels as of :func:`hide_labels`, of shape ``(n, classes)``
        batch_size: rows of a batch, at least 2
        labelled: labelled rows of a batch; by default their share among the data, rounded up

    Returns:
        A loader of batches ``(x, y)``, in an order that depends on the ``seed`` of ``fit``.

    Raises:
        ValueError: x and y differ in length, all rows or none have a label, or ``labelled`` leaves no place for
            others.

    Example:
        >>> y = hide_labels(torch.arange(100) % 2, 4)
        >>> loader = labelled_batches(torch.randn(100, 3), y, batch_size=10, labelled=2)
        >>> [int((~y.isnan()).any(1).sum()) for x, y in loader] == [2] * 12
        True
    """
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    if y.dim() != 2 or len(x) != len(y):
        raise ValueError(f"y: expected shape ({len(x)}, classes), one row a datum, got {tuple(y.shape)}")
    check_int("batch_size", batch_size, 2)
    known = ~torch.isnan(y).any(1)
    number = int(known.sum())
    if not 0 < number < len(y):
        raise ValueError(f"y: expected rows with and without a label, got {number} labels in {len(y)} rows")
    share = -(-batch_size * number // len(y)) if labelled is None else labelled
    if not isinstance(share, int) or not 0 < share < batch_size:
        raise ValueError(f"labelled: expected an int from 1 to batch_size - 1 = {batch_size - 1}, got {share!r}")
    rows = LabelledRows(known, batch_size, share)
    return DataLoader(TensorDataset(x, y), sampler=rows, batch_size=None)


class LabelledRows(Sampler[Tensor]):
    """Rows of batches, so many of each labelled.

    Args:
        known: which rows have a label, of shape ``(n,)``
        batch_size: rows of a batch
        labelled: labelled ones among them
    """

    def __init__(self, known: Tensor, batch_size: int, labelled: int) -> None:
        (self.known,), (self.others,) = (torch.nonzero(rows, as_tuple=True) for rows in (known, ~known))
        self.size, self.labelled = batch_size - labelled, labelled

    def __len__(self) -> int:
        return -(-len(self.others) // self.size)

    def __iter__(self) -> Iterator[Tensor]:
        rounds = -(-len(self) * self.labelled // len(self.known))
        known = torch.cat([self.known[torch.randperm(len(self.known))] for _ in range(rounds)])
        others = self.others[torch.randperm(len(self.others))]
        for i, rows in enumerate(others.split(self.size)):
            yield torch.cat([known[i * self.labelled : (i + 1) * self.labelled], rows])


@dataclass(frozen=True)
class Classification:
    """Classes found for data, beside the true ones where they are known.

    Attributes:
        probabilities: q(y given x), of shape ``(n, classes)``
        truth: class numbers of shape ``(n,)``, or None
    """

    probabilities: Tensor
    truth: Tensor | None = None

    @property
    def predicted(self) -> Tensor:
        """The most probable class of each datum, of shape ``(n,)``."""
        return self.probabilities.argmax(-1)

    @property
    def error(self) -> float:
        """Share of the data put into a wrong class; NaN where no truth is known."""
        return math.nan if self.truth is None else float((self.predicted != self.truth).double().mean())

    @property
    def standard_error(self) -> float:
        """Standard error of ``error`` as an estimate for the population the data were drawn from."""
        return math.sqrt(self.error * (1 - self.error) / len(self.probabilities))

    def __str__(self) -> str:
        n, k = self.probabilities.shape
        right = "" if self.truth is None else f", error {self.error:.2%} ± {self.standard_error:.2%}"
        return f"{n:,} data in {k} classes{right}"


def classify(program: Program, x: Any, y: Any = None, *, seed: int = 0) -> Classification:
    """Find the class of each datum, a bounded number of them at once.

    Args:
        program: a Program with ``classify``, such as ``programs.SemiSupervised``
        x: rows of data
        y: class numbers, of shape ``(n,)``, if known
        seed: of draws, where the program averages over latents

    Returns:
        Probabilities on the CPU, and the error if ``y`` is given.

    Raises:
        TypeError: the program has no ``classify``.
        ValueError: the data do not fit the program, or there is not one class number a datum.

    Example:
        >>> import pyro_vae as pv
        >>> program = pv.programs.SemiSupervised(
        ...     classes=pv.priors.OneHotCategorical(3),
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Normal(2, (4,), context=3),
        ...     classifier=pv.posteriors.OneHotCategorical((4,), 3),
        ...     posterior=pv.posteriors.MeanFieldNormal((4,), 2, context=3),
        ... )
        >>> x = torch.randn(300, 4)
        >>> y = hide_labels(torch.arange(300) % 3, 30)
        >>> history = pv.fit(program, labelled_batches(x, y), epochs=1, progress=False)
        >>> classify(program, x).probabilities.shape
        torch.Size([300, 3])
    """
    if not hasattr(program, "classify"):
        raise TypeError(f"program: expected one that classifies, such as SemiSupervised, got {type(program).__name__}")
    batches = batches_of(program, x, ROWS)
    truth = None if y is None else class_numbers(y)
    if batches.columns:  # a stream tells its length when it ends
        if len(batches.columns) > 1:
            raise ValueError(
                f"x: expected rows of data, without labels beside them, got {len(batches.columns)} columns"
            )
        check_numbers(truth, len(batches))
    with fork_rng(device_of(program), seed):
        probabilities = torch.cat([program.classify(*batch).cpu() for batch in batches.epoch(0)])
    check_numbers(truth, *probabilities.shape)
    return Classification(probabilities, truth)


def class_numbers(y: Any) -> Tensor:
    """Return class numbers on the CPU, or refuse what holds none."""
    try:
        return torch.as_tensor(y).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"y: expected class numbers 0, 1, ..., got {type(y).__name__} of something else; number the classes, by "
            "numpy.unique(y, return_inverse=True), say"
        ) from error


def check_numbers(y: Tensor | None, n: int, classes: int | None = None) -> None:
    """Refuse class numbers that are not one a datum, or of no class there is."""
    if y is not None and y.shape != (n,):
        raise ValueError(f"y: expected class numbers of shape ({n},), got {tuple(y.shape)}")
    if y is not None and classes is not None and not ((y >= 0) & (y < classes)).all():
        raise ValueError(
            f"y: expected class numbers from 0 to {classes - 1}, as the program has {classes} classes, got "
            f"{y.min().item()} to {y.max().item()}"
        )
