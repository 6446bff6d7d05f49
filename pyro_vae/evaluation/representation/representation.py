"""What the posterior means are good for: classes found from them, and clusters in them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.laboratory.table import number
from pyro_vae.evaluation.representation.codes import codes
from pyro_vae.evaluation.result import Result
from pyro_vae.programs.program import Program

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Representation", "clustering_accuracy", "clustering_scores", "representation"]


@dataclass(frozen=True)
class Representation(Result):
    """Scores of posterior means.

    Attributes:
        accuracy: by method, the share of test data whose class is found from their code
        clusters: by method, ``accuracy`` (best match of clusters to classes), ``nmi`` and ``ari``, each one number a
            seed
        majority: share of the largest class, which a method beats that has learned anything
    """

    accuracy: dict[str, float]
    clusters: dict[str, dict[str, list[float]]]
    majority: float

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a method and score."""
        rows = [
            {"method": name, "score": "accuracy", "mean": value, "deviation": float("nan")}
            for name, value in {**self.accuracy, "largest class": self.majority}.items()
        ]
        return rows + [
            {"method": name, "score": score, "mean": float(np.mean(values)), "deviation": float(np.std(values))}
            for name, scores in self.clusters.items()
            for score, values in scores.items()
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return the rows with the deviation over seeds."""
        return [
            {"method": row["method"], "score": row["score"], "value": number(row["mean"], row["deviation"])}
            for row in self.rows()
        ]

    def plot(self) -> Figure:
        """Draw all scores as points."""
        from pyro_vae.plots import scores

        return scores(self, "Representation: posterior means")


def representation(
    program: Program,
    x: Any,
    y: Any,
    *,
    neighbours: int = 5,
    held_out: float = 0.3,
    seeds: int = 5,
    seed: int = 0,
) -> Representation:
    """Score posterior means by a linear probe, nearest neighbours and clusters, against known classes.

    The codes are the posterior means of all latents, standardized. Clusters, as many as classes, are looked for
    without labels by k-means and by a mixture of normals, from several starts, all of which are reported.

    References:
        Understanding intermediate layers using linear classifier probes (Alain and Bengio, 2016),
        https://arxiv.org/abs/1610.01644; Unsupervised deep embedding for clustering analysis (Xie et al., 2016),
        https://arxiv.org/abs/1511.06335

    Args:
        program: a Program
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        y: class numbers, of shape ``(n,)``
        neighbours: of the nearest-neighbour classifier
        held_out: share of the data on which the classifiers are tested, with the classes in equal shares
        seeds: starts of each clustering
        seed: of draws, split and starts

    Returns:
        The scores: they print, export and plot.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: the data do not fit the program, or there is not one class number a datum, or too few data of a
            class.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> x = toy.draw(200)
        >>> found = representation(toy.program, x, (toy.posterior(x)[0][:, 0] > 0).long())
        >>> found.accuracy["linear probe"] > 0.9
        True
    """
    sklearn()
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression
    from sklearn.mixture import GaussianMixture
    from sklearn.model_selection import train_test_split
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    check_int("seeds", seeds)
    z = codes(program, x, seed=seed).numpy()
    y = np.asarray(torch.as_tensor(y).cpu())
    if y.shape != (len(z),):
        raise ValueError(f"y: expected one class number a datum, of shape ({len(z)},), got {y.shape}")
    classes, sizes = np.unique(y, return_counts=True)
    least = min(int(held_out * len(y)), int((1 - held_out) * len(y)))
    if len(classes) < 2 or sizes.min() < 2 or least < len(classes):
        raise ValueError(
            f"y: expected at least two classes, two data of each, and as many data as classes in either part of the "
            f"split (held_out={held_out}), got {len(y)} data in {len(classes)} classes, the smallest of {sizes.min()}"
        )
    train, test, labels, wanted = train_test_split(z, y, test_size=held_out, random_state=seed, stratify=y)
    scale = StandardScaler().fit(train)
    methods = {
        "linear probe": LogisticRegression(max_iter=1000),
        f"{neighbours} nearest neighbours": KNeighborsClassifier(neighbours),
    }
    clusterings = {
        "k-means": lambda start: KMeans(k, n_init=1, random_state=start),
        "mixture of normals": lambda start: GaussianMixture(k, random_state=start, reg_covar=1e-4),
    }
    y = np.unique(y, return_inverse=True)[1]
    k = len(classes)
    clusters: dict[str, dict[str, list[float]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of optimizers that stop early: a score is what they reached
        accuracy = {
            name: float(method.fit(scale.transform(train), labels).score(scale.transform(test), wanted))
            for name, method in methods.items()
        }
        for name, make in clusterings.items():
            each = [clustering_scores(y, make(seed + start).fit_predict(scale.transform(z))) for start in range(seeds)]
            clusters[name] = {score: [found[score] for found in each] for score in each[0]}
    return Representation(accuracy, clusters, float(np.bincount(y).max() / len(y)))


def clustering_accuracy(y: Any, clusters: Any) -> float:
    """Return the share of data in the right cluster, under the best one-to-one match of clusters and classes.

    Args:
        y: classes of shape ``(n,)``
        clusters: of shape ``(n,)``

    Returns:
        A number between 0 and 1.

    Raises:
        ImportError: scikit-learn is missing.

    Example:
        >>> clustering_accuracy([0, 0, 1, 1], [1, 1, 0, 1])
        0.75
    """
    sklearn()
    from scipy.optimize import linear_sum_assignment

    (classes, y), (found, clusters) = (np.unique(np.asarray(v), return_inverse=True) for v in (y, clusters))
    table = np.zeros((len(classes), len(found)), dtype=int)
    np.add.at(table, (y, clusters), 1)
    rows, columns = linear_sum_assignment(-table)
    return float(table[rows, columns].sum() / table.sum())


def clustering_scores(y: Any, clusters: Any) -> dict[str, float]:
    """Return how well clusters agree with known classes, whatever the numbers of either.

    References:
        Comparing partitions (Hubert and Arabie, 1985), https://doi.org/10.1007/BF01908075

    Args:
        y: class numbers, of shape ``(n,)``
        clusters: cluster numbers, of shape ``(n,)``

    Returns:
        ``accuracy`` under the best one-to-one match, ``nmi`` (normalised mutual information) and ``ari`` (adjusted
        Rand index, 0 for clusters by chance); 1 is the best of each.

    Raises:
        ImportError: scikit-learn is missing.

    Example:
        >>> clustering_scores([0, 0, 1, 1], [1, 1, 0, 0])["ari"]
        1.0
    """
    sklearn()
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        "accuracy": clustering_accuracy(y, clusters),
        "nmi": float(normalized_mutual_info_score(y, clusters)),
        "ari": float(adjusted_rand_score(y, clusters)),
    }


def sklearn() -> None:
    """Say what to install where scikit-learn is missing."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError("scores of a representation need scikit-learn: pip install 'pyro-vae[sklearn]'") from error
