"""Quality of samples: how close they are to test data, and whether they copy training data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.arrays import as_labels, as_tensor
from pyro_vae._util.lock import in_turn
from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.result import Result, number
from pyro_vae.evaluation.samples.features import STEPS, train_classifier
from pyro_vae.evaluation.samples.set_metrics import frechet_distance, kernel_distance, precision_recall
from pyro_vae.programs.program import Program, evaluating

__all__ = ["Samples", "samples"]

Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Samples(Result, plot="nearest_neighbours"):
    """Distances of samples from test data, with those of training data as the best possible values.

    Attributes:
        scores: by name of a set (``"samples"``, ``"training data"``), its ``frechet`` and ``kernel`` distance from the
            test data, ``precision`` and ``recall``
        sampled: the samples, of shape ``(n, *shape)``
        nearest: the nearest training example to each sample, of shape ``(n, *shape)``
        distance: its Euclidean distance, of shape ``(n,)``
        test_distance: distances of test data from their nearest training examples
        features: the features in which the distances are computed
    """

    scores: dict[str, dict[str, float]]
    sampled: Tensor
    nearest: Tensor
    distance: Tensor
    test_distance: Tensor
    features: str

    @property
    def copied(self) -> float:
        """Share of samples closer to a training example than 99% of the test data: 1% without memorization."""
        return float((self.distance < self.test_distance.quantile(0.01)).double().mean())

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per set."""
        distances = {"samples": float(self.distance.median()), "training data": float("nan")}
        return [
            {"set": name, **scores, "nearest_training_example": distances[name]}
            for name, scores in self.scores.items()
        ]

    def heading(self) -> str:
        """Return what is compared."""
        return f"{len(self.sampled):,} samples and as many test examples, in {self.features}"

    def notes(self) -> str:
        """Return distances from the training data."""
        return (
            f"nearest training example: median distance {number(float(self.distance.median()))}, of test data "
            f"{number(float(self.test_distance.median()))}; {self.copied:.1%} of the samples are closer to one than "
            "99% of the test data (expected: 1%)"
        )


@in_turn
def samples(
    program: Program | Callable[[int], Tensor],
    train: Any,
    test: Any,
    *,
    num_samples: int = 2000,
    features: Features | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Samples:
    r"""Compare samples with test data (FID, KID, precision and recall), and look for copies of training data.

    By default the distances are computed in the last hidden layer of a small classifier, trained on the training data
    and their labels, so nothing is downloaded. They are comparable for the same data, seed and number of samples only.

    References:
        see :func:`frechet_distance`, :func:`kernel_distance` and :func:`precision_recall`; copies of training data:
        A non-parametric test to detect data-copying in generative models (Meehan et al., 2020),
        https://arxiv.org/abs/2004.05675

    Args:
        program: a Program with ``sample(n)``, or a function ``n -> samples`` (for a program that takes context)
        train: training data, a tuple ``(x, y)`` of tensors with class numbers y, or an object with ``x`` and ``y``
            such as a split of ``pyro_vae.data.load``; labels are not needed with ``features``
        test: test data, in the same form
        num_samples: number of samples, and of test and training examples if there are as many
        features: ``(n, *shape) -> (n, d)`` in place of the classifier, such as :class:`Inception`
        seed: random seed
        progress: show a progress bar

    Returns:
        Scores and nearest neighbours.

    Raises:
        TypeError: the data are not tensors or arrays.
        ValueError: there are neither labels nor features, an entry is missing, or samples and data differ in shape.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> found = samples(toy.program, toy.draw(300, 1), toy.draw(300, 2), features=lambda x: x)
        >>> found.scores["samples"]["frechet"] < 0.5
        True
    """
    num_samples = check_int("num_samples", num_samples, 10)
    with fork_rng(seed=seed):  # a transform of the data may draw random numbers
        (x, y), (x_test, _) = columns("train", train), columns("test", test)
    name = "the given features"
    if features is None:
        if y is None:
            raise ValueError("train: expected labels for a classifier. Pass (x, y), or features=callable")
        with progress_bar(total=STEPS, desc="training a classifier", unit="step", progress=progress) as bar:
            net = train_classifier(x, y.long(), seed=seed, tick=bar.update)
        features, name = (
            net.features,
            f"features of a classifier ({net.accuracy(x, y):.1%} of its training data right)",
        )
    module = program if isinstance(program, torch.nn.Module) else torch.nn.Module()
    device = next(module.parameters(), torch.zeros(())).device
    n = min(num_samples, len(x_test), len(x))
    with evaluating(module), fork_rng(device, seed):
        draw: Any = partial(program.sample, seed=seed) if isinstance(program, Program) else program
        sampled = draw(n).to(x)
        some = x[torch.randperm(len(x))[:n]]
        x_test = x_test[torch.randperm(len(x_test))[:n]]
        if sampled.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"program: expected samples of shape {tuple(x.shape[1:])} as in train, got {tuple(sampled.shape[1:])}"
            )
        real = features(x_test)
        scores = {title: compare(real, features(v)) for title, v in (("samples", sampled), ("training data", some))}
    distance, where = nearest(sampled, x)
    return Samples(scores, sampled.cpu(), x[where].cpu(), distance.cpu(), nearest(x_test, x)[0].cpu(), name)


def columns(name: str, data: Any) -> tuple[Tensor, Tensor | None]:
    """Return x and labels, or None in place of missing labels."""
    if hasattr(data, "x"):
        x, y = data.x, getattr(data, "y", None)
        x = x if getattr(data, "transform", None) is None else data.transform(x)
    else:
        x, y = data if isinstance(data, tuple) else (data, None)
    if not isinstance(x, (Tensor, np.ndarray)):
        raise TypeError(f"{name}: expected a tensor or array of rows, or a tuple (x, y), got {type(x).__name__}")
    x = as_tensor(x)
    if not x.is_floating_point() or x.dim() < 2 or len(x) < 2 or not torch.isfinite(x).all():
        raise ValueError(
            f"{name}: expected at least two rows of finite floating-point numbers, got {x.dtype} of shape "
            f"{tuple(x.shape)}{' with NaN or infinity' if not torch.isfinite(x).all() else ''}"
        )
    if y is not None:
        as_labels(name, y)
        y = as_tensor(y)
    if y is not None and y.shape != x.shape[:1]:
        raise ValueError(f"{name}: expected one class number per example, of shape ({len(x)},), got {tuple(y.shape)}")
    return x, y


def compare(real: Tensor, sampled: Tensor) -> dict[str, float]:
    """Return all scores of a set."""
    precision, recall = precision_recall(real, sampled)
    distances = {"frechet": frechet_distance(real, sampled), "kernel": kernel_distance(real, sampled)}
    return {**distances, "precision": precision, "recall": recall}


def nearest(points: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Return distance and index of the nearest example to each point."""
    found = [torch.cdist(p, data.flatten(1)).min(1) for p in points.flatten(1).split(500)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
