"""Classification with few labels: hide labels, put labelled examples into every batch, and measure the error."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from pyro_vae._util.arrays import as_tensor
from pyro_vae._util.lock import in_turn
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.over import over
from pyro_vae.programs.program import Program

__all__ = ["Classification", "classify", "hide_labels", "labelled_batches"]


def hide_labels(y: Any, num_labelled: int, *, seed: int = 0) -> Tensor:
    """Keep the labels of a random subset with the same number of examples per class (up to one), hide all others.

    Args:
        y: class numbers 0, 1, ..., of shape ``(n,)``
        num_labelled: number of examples that keep their label, at least one per class
        seed: random seed of the choice

    Returns:
        Floats of shape ``(n, classes)``, as ``programs.SemiSupervised`` takes them: rows are one-hot, or NaN where the
        label is hidden.

    Raises:
        ValueError: ``y`` contains no class numbers, or too few examples of a class.

    Example:
        >>> y = hide_labels([0, 1, 0, 1, 1, 0], 2)
        >>> y.shape, int((~y.isnan()).any(1).sum())
        (torch.Size([6, 2]), 2)
    """
    y = class_numbers(y)
    if y.dim() != 1 or not len(y) or y.is_floating_point() or y.min() < 0:
        raise ValueError(f"y: expected class numbers 0, 1, ... of shape (n,), got {y.dtype} of shape {tuple(y.shape)}")
    classes = int(y.max()) + 1
    num_labelled = check_int("num_labelled", num_labelled, classes)
    hidden = torch.full((len(y), classes), math.nan)
    with fork_rng(seed=seed):
        # in random order, so that the classes with one label more are random
        for i, k in enumerate(torch.randperm(classes).tolist()):
            (rows,) = torch.nonzero(y == k, as_tuple=True)
            share = num_labelled // classes + (i < num_labelled % classes)
            if len(rows) < share:
                raise ValueError(
                    f"y: expected at least {share} examples of class {k} for {num_labelled} labels, got {len(rows)}"
                )
            hidden[rows[torch.randperm(len(rows))[:share]]] = torch.eye(classes)[k]
    return hidden


def labelled_batches(x: Any, y: Tensor, *, batch_size: int = 200, num_labelled: int | None = None) -> DataLoader:
    r"""Return a loader for ``fit`` whose batches have a fixed number of labelled examples.

    Where labels are few, most shuffled batches would contain none, and the classifier would learn from rare, large
    gradients. An epoch visits every unlabelled example once and repeats labelled examples as needed, which then weigh
    more in the bound. The classification loss of Kingma et al. (2014), with the weight of 0.1 of all data, is that of
    :math:`\alpha` = ``0.1 * batch_size / num_labelled``. ``program.check(x, y)`` checks all data before ``fit``.

    References:
        Semi-supervised learning with deep generative models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298

    Args:
        x: data of shape ``(n, *shape)``, or a tuple ``(x, context)``
        y: labels of shape ``(n, classes)``, as :func:`hide_labels` returns them
        batch_size: examples per batch, at least 2
        num_labelled: labelled examples per batch; by default their share of the data, rounded up

    Returns:
        A loader of batches ``(x, y)`` or ``(x, context, y)``, in an order that depends on the ``seed`` of ``fit``.

    Raises:
        ValueError: x and y differ in length, all or no examples have a label, or ``num_labelled`` leaves no room for
            unlabelled examples.

    Example:
        >>> y = hide_labels(torch.arange(100) % 2, 4)
        >>> loader = labelled_batches(torch.randn(100, 3), y, batch_size=10, num_labelled=2)
        >>> [int((~y.isnan()).any(1).sum()) for x, y in loader] == [2] * 12
        True
    """
    columns = [as_tensor(column) for column in (x if isinstance(x, tuple) else (x,))]
    y = as_tensor(y)
    for column in columns:
        if y.dim() != 2 or len(column) != len(y):
            raise ValueError(f"y: expected shape ({len(column)}, classes), one row per example, got {tuple(y.shape)}")
    batch_size = check_int("batch_size", batch_size, 2)
    labelled = ~torch.isnan(y).any(1)
    total = int(labelled.sum())
    if not 0 < total < len(y):
        raise ValueError(f"y: expected rows with and without a label, got {total} labels in {len(y)} rows")
    share = -(-batch_size * total // len(y)) if num_labelled is None else num_labelled
    num_labelled = check_int("num_labelled", share, 1, batch_size - 1)
    rows = LabelledRows(labelled, batch_size - num_labelled, num_labelled)
    return DataLoader(TensorDataset(*columns, y), sampler=rows, batch_size=None)


class LabelledRows(Sampler[Tensor]):
    """Rows of batches with fixed numbers of labelled and unlabelled examples, given the mask of labels."""

    def __init__(self, labelled: Tensor, num_unlabelled: int, num_labelled: int) -> None:
        (self.labelled,), (self.unlabelled,) = (torch.nonzero(m, as_tuple=True) for m in (labelled, ~labelled))
        self.num_unlabelled, self.num_labelled = num_unlabelled, num_labelled

    def __len__(self) -> int:
        return -(-len(self.unlabelled) // self.num_unlabelled)

    def __iter__(self) -> Iterator[Tensor]:
        repeats = -(-len(self) * self.num_labelled // len(self.labelled))
        labelled = torch.cat([self.labelled[torch.randperm(len(self.labelled))] for _ in range(repeats)])
        unlabelled = self.unlabelled[torch.randperm(len(self.unlabelled))]
        parts = zip(labelled.split(self.num_labelled), unlabelled.split(self.num_unlabelled), strict=False)
        return map(torch.cat, parts)


@dataclass(frozen=True)
class Classification:
    """Class probabilities of examples, together with the true classes where they are known.

    Attributes:
        probabilities: q(y given x), of shape ``(n, classes)``
        truth: class numbers of shape ``(n,)``, or None
    """

    probabilities: Tensor
    truth: Tensor | None = None

    @property
    def predicted(self) -> Tensor:
        """The most probable class of each example, of shape ``(n,)``."""
        return self.probabilities.argmax(-1)

    @property
    def error(self) -> float:
        """Share of misclassified examples; NaN where the truth is unknown."""
        return math.nan if self.truth is None else float((self.predicted != self.truth).double().mean())

    @property
    def std_error(self) -> float:
        """Standard error of ``error``, as an estimate for the population of the examples."""
        return math.sqrt(self.error * (1 - self.error) / len(self.probabilities))

    def __str__(self) -> str:
        n, classes = self.probabilities.shape
        error = "" if self.truth is None else f", error {self.error:.2%} ± {self.std_error:.2%}"
        return f"{n:,} examples in {classes} classes{error}"


@in_turn
def classify(program: Program, x: Any, y: Any = None, *, seed: int = 0, progress: bool = True) -> Classification:
    """Return the class probabilities of each example, and the error if the true classes are given.

    Args:
        program: a Program with ``classify(x, *context)``, such as ``programs.SemiSupervised``
        x: rows of data, or a tuple ``(x, context)`` for a program with covariates
        y: true class numbers of shape ``(n,)``, if known
        seed: random seed, passed to a ``classify`` that averages over samples of latents
        progress: show a progress bar

    Returns:
        The probabilities, on the CPU, and the true classes.

    Raises:
        TypeError: the program has no ``classify``.
        ValueError: the data do not fit the program, or ``y`` does not contain one class number per example.

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
        raise TypeError(f"program: expected one with classes, such as SemiSupervised, got {type(program).__name__}")
    truth = None if y is None else class_numbers(y)
    function: Any = program.classify
    if "seed" in inspect.signature(function).parameters:
        function = partial(function, seed=seed)
    check = partial(check_unlabelled, program)
    options: dict[str, Any] = {"batch_size": 250, "seed": seed, "by_row": True, "progress": progress}
    probabilities = over(program, x, function, check=check, desc="classify", **options)
    n, classes = probabilities.shape
    if truth is not None and truth.shape != (n,):
        raise ValueError(f"y: expected class numbers of shape ({n},), got {tuple(truth.shape)}")
    if truth is not None and not ((truth >= 0) & (truth < classes)).all():
        raise ValueError(
            f"y: expected class numbers from 0 to {classes - 1}, the classes of the program, got "
            f"{truth.min().item()} to {truth.max().item()}"
        )
    return Classification(probabilities, truth)


def check_unlabelled(program: Program, x: Tensor, *columns: Tensor) -> None:
    """Raise if there are labels in addition to x and the context of the program."""
    if sum(column.shape[-1] for column in columns) > program.context:
        raise ValueError(f"x: expected rows of data without labels, got {1 + len(columns)} columns")


def class_numbers(y: Any) -> Tensor:
    """Return class numbers on the CPU, or raise if ``y`` contains something else."""
    try:
        return as_tensor(y).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"y: expected class numbers 0, 1, ..., got {type(y).__name__} of something else. Number the classes, for "
            "example with numpy.unique(y, return_inverse=True)."
        ) from error
