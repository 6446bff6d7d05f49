"""Whether samples look like data, and whether they are copies of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.laboratory.table import aligned, number
from pyro_vae.evaluation.result import Result
from pyro_vae.evaluation.samples.features import STEPS, train_classifier
from pyro_vae.evaluation.samples.set_metrics import frechet_distance, kernel_distance, precision_recall
from pyro_vae.programs.program import Program, evaluating

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Samples", "samples"]

Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Samples(Result):
    """Distances of samples from test data, beside those of training data, which nothing that generalizes can beat.

    Attributes:
        scores: by name of a set (``"samples"``, ``"training data"``), its ``frechet`` distance from the test data,
            its ``kernel`` distance, ``precision`` and ``recall``
        drawn: the samples, of shape ``(n, *shape)``
        nearest: the training datum nearest to each of them
        distance: how far it is (Euclidean), of shape ``(n,)``
        test_distance: the same for test data
        features: what the distances are taken in
    """

    scores: dict[str, dict[str, float]]
    drawn: Tensor
    nearest: Tensor
    distance: Tensor
    test_distance: Tensor
    features: str

    @property
    def copied(self) -> float:
        """Share of samples closer to a training datum than 99% of the test data are: 1% without memorisation."""
        return float((self.distance < self.test_distance.quantile(0.01)).double().mean())

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a set."""
        distances = {"samples": self.distance, "training data": torch.full((1,), torch.nan)}
        return [
            {"set": name, **scores, "nearest_training_datum": float(distances[name].median())}
            for name, scores in self.scores.items()
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return the rows as they are printed."""
        return [{k: v if isinstance(v, str) else number(v) for k, v in row.items()} for row in self.rows()]

    def __str__(self) -> str:
        head = f"{len(self.drawn):,} samples against as many test data, in {self.features}"
        tail = (
            f"nearest training datum: median distance {number(float(self.distance.median()))}, of test data "
            f"{number(float(self.test_distance.median()))}; {self.copied:.1%} of the samples are closer to one than "
            "99% of the test data are (1% is chance)"
        )
        return f"{head}\n\n{aligned(self.summary())}\n\n{tail}"

    def plot(self) -> Figure:
        """Draw the distances from the nearest training data, or for images the closest pairs."""
        from pyro_vae.plots import nearest_neighbours

        return nearest_neighbours(self)


def samples(
    program: Program | Callable[[int], Tensor],
    train: Any,
    test: Any,
    *,
    size: int = 2000,
    features: Features | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Samples:
    r"""Compare samples with test data (FID, KID, precision and recall) and look for copies of training data.

    The distances are taken in the last hidden layer of a small classifier trained on the training data and their
    labels, so that nothing is downloaded; they are comparable for the same data, seed and size only. The same
    scores of training data in place of samples stand beside them.

    References:
        see :func:`frechet_distance`, :func:`kernel_distance` and :func:`precision_recall`;
        On the evaluation of generative models and copies of training data: A non-parametric test to detect
        data-copying in generative models (Meehan et al., 2020), https://arxiv.org/abs/2004.05675

    Args:
        program: a Program with ``sample(n)``, or such a function (for a program that needs context, say)
        train: training data as a tuple ``(x, y)`` of tensors, y class numbers, or an object with ``x`` and ``y``
            such as a split of ``pyro_vae.data.load``; without labels where ``features`` are given
        test: test data, in the same form
        size: number of samples, test and training data that are compared, as far as there are so many
        features: ``(n, *shape) -> (n, d)``, in place of the classifier, such as :class:`Inception`
        seed: of samples, training data and classifier
        progress: show a progress bar

    Returns:
        Scores and neighbours: they print, export and plot.

    Raises:
        TypeError: the data are no tensors or arrays.
        ValueError: there are no labels and no features, an entry is missing, or samples and data differ in shape.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> found = samples(toy.program, toy.draw(300, 1), toy.draw(300, 2), features=lambda x: x)
        >>> found.scores["samples"]["frechet"] < 0.5
        True
    """
    check_int("size", size, 10)
    with fork_rng(seed=seed):  # a transform of a split may draw
        (x, y), (held, _) = columns("train", train), columns("test", test)
    if features is None and y is None:
        raise ValueError(
            "train: the features come from a classifier, which needs labels: pass (x, y), or features=callable"
        )
    module = program if isinstance(program, torch.nn.Module) else torch.nn.Module()
    device = next(module.parameters(), torch.zeros(())).device
    n = min(size, len(held), len(x))
    with progress_bar(total=STEPS * (features is None), desc="features", unit="step", progress=progress) as bar:
        name = "the given features"
        if features is None:
            net = train_classifier(x, y.long(), seed=seed, tick=bar.update)
            features, name = (
                net.features,
                f"features of a classifier ({net.accuracy(x, y):.1%} of its training data right)",
            )
    with evaluating(module), fork_rng(device, seed):
        draw = program.sample if isinstance(program, Program) else program
        made = draw(n).to(x)
        some = x[torch.randperm(len(x))[:n]]
        held = held[torch.randperm(len(held))[:n]]
        if made.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"program: it samples data of shape {tuple(made.shape[1:])}, train has {tuple(x.shape[1:])}"
            )
        with torch.no_grad():
            real = features(held)
            scores = {
                title: compare(real, features(data)) for title, data in (("samples", made), ("training data", some))
            }
    distance, where = nearest(made, x)
    return Samples(scores, made.cpu(), x[where].cpu(), distance.cpu(), nearest(held, x)[0].cpu(), name)


def columns(name: str, data: Any) -> tuple[Tensor, Tensor | None]:
    """Return x and labels, which may be missing."""
    if hasattr(data, "x"):
        x, y = data.x, getattr(data, "y", None)
        x = x if getattr(data, "transform", None) is None else data.transform(x)
    else:
        x, y = data if isinstance(data, tuple) else (data, None)
    if not isinstance(x, (Tensor, np.ndarray)):
        raise TypeError(f"{name}: expected a tensor or array of rows, or a tuple (x, y), got {type(x).__name__}")
    x = torch.as_tensor(x)
    if not x.is_floating_point() or x.dim() < 2 or len(x) < 2 or not torch.isfinite(x).all():
        raise ValueError(
            f"{name}: expected at least two rows of finite floating-point numbers, got {x.dtype} of shape "
            f"{tuple(x.shape)}{' with NaN or infinity' if not torch.isfinite(x).all() else ''}"
        )
    y = None if y is None else torch.as_tensor(y)
    if y is not None and y.shape != x.shape[:1]:
        raise ValueError(f"{name}: expected one class number a datum, of shape ({len(x)},), got {tuple(y.shape)}")
    return x, y


def compare(real: Tensor, made: Tensor) -> dict[str, float]:
    """Return all scores of a set."""
    precision, recall = precision_recall(real, made)
    return {
        "frechet": frechet_distance(real, made),
        "kernel": kernel_distance(real, made),
        "precision": precision,
        "recall": recall,
    }


def nearest(points: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far the nearest datum is from each point, and which it is."""
    found = [torch.cdist(p, data.flatten(1)).min(1) for p in points.flatten(1).split(500)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
