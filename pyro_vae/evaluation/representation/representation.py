"""Classification and clustering of posterior means."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyro_vae._util.arrays import as_labels
from pyro_vae._util.lock import in_turn
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.posterior.posterior_means import posterior_means
from pyro_vae.evaluation.result import Result, number
from pyro_vae.programs.program import Program

__all__ = ["Representation", "clustering_accuracy", "clustering_scores", "representation"]


@dataclass(frozen=True)
class Representation(Result, plot="scores"):
    """Scores of posterior means.

    Attributes:
        accuracy: by method, the accuracy of classification on the holdout
        clusters: by method, ``accuracy`` (best match of clusters to classes), ``nmi`` and ``ari``, one number per seed
        majority: share of the largest class, the accuracy of a constant prediction
    """

    accuracy: dict[str, float]
    clusters: dict[str, dict[str, list[float]]]
    majority: float

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per method and score."""
        rows = [
            {"method": name, "score": "accuracy", "mean": value, "std": float("nan")}
            for name, value in {**self.accuracy, "largest class": self.majority}.items()
        ]
        return rows + [
            {"method": name, "score": score, "mean": float(np.mean(values)), "std": float(np.std(values))}
            for name, scores in self.clusters.items()
            for score, values in scores.items()
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Return the rows with the standard deviation over seeds."""
        return [
            {"method": row["method"], "score": row["score"], "value": number(row["mean"], row["std"])}
            for row in self.rows()
        ]


@in_turn
def representation(
    program: Program,
    x: Any,
    y: Any,
    *,
    num_neighbours: int = 5,
    holdout: float = 0.3,
    num_seeds: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> Representation:
    """Score posterior means by a linear probe, nearest neighbours and clusters, against known classes.

    The posterior means of all latents are standardized. K-means and a mixture of normals look for as many clusters as
    there are classes, without labels, from several random starts.

    References:
        Understanding intermediate layers using linear classifier probes (Alain and Bengio, 2016),
        https://arxiv.org/abs/1610.01644; Unsupervised deep embedding for clustering analysis (Xie et al., 2016),
        https://arxiv.org/abs/1511.06335

    Args:
        program: a Program
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        y: class numbers, of shape ``(n,)``
        num_neighbours: neighbours of the nearest-neighbour classifier
        holdout: share of the data on which the classifiers are tested, stratified by class
        num_seeds: random starts of each clustering
        seed: random seed
        progress: show a progress bar

    Returns:
        The scores.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: the data do not fit the program, ``y`` has another length, or a class has too few examples.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> x = toy.draw(200)
        >>> found = representation(toy.program, x, (toy.posterior(x)[0][:, 0] > 0).long())
        >>> found.accuracy["linear probe"] > 0.9
        True
    """
    require_sklearn()
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression
    from sklearn.mixture import GaussianMixture
    from sklearn.model_selection import train_test_split
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    num_neighbours = check_int("num_neighbours", num_neighbours)
    num_seeds = check_int("num_seeds", num_seeds)
    z = posterior_means(program, x, seed=seed, progress=progress).numpy()
    y = as_labels("y", y)
    if y.shape != (len(z),):
        raise ValueError(f"y: expected one class number per example, of shape ({len(z)},), got {y.shape}")
    classes, y, sizes = np.unique(y, return_inverse=True, return_counts=True)
    least = min(int(holdout * len(y)), int((1 - holdout) * len(y)))
    if len(classes) < 2 or sizes.min() < 2 or least < len(classes):
        raise ValueError(
            f"y: expected at least two classes with two examples each, and in both parts of the split "
            f"(holdout={holdout}) as many examples as classes, got {len(y)} examples in {len(classes)} classes, the "
            f"smallest of {sizes.min()}"
        )
    train, test, y_train, y_test = train_test_split(z, y, test_size=holdout, random_state=seed, stratify=y)
    scale = StandardScaler().fit(train)
    k = len(classes)
    methods = {
        "linear probe": LogisticRegression(max_iter=1000),
        f"{num_neighbours} nearest neighbours": KNeighborsClassifier(num_neighbours),
    }
    clusterings = {
        "k-means": lambda start: KMeans(k, n_init=1, random_state=start),
        "mixture of normals": lambda start: GaussianMixture(k, random_state=start, reg_covar=1e-4),
    }
    clusters: dict[str, dict[str, list[float]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optimizers that stop early: the score is what they reached
        accuracy = {
            name: float(method.fit(scale.transform(train), y_train).score(scale.transform(test), y_test))
            for name, method in methods.items()
        }
        for name, make in clusterings.items():
            starts = range(seed, seed + num_seeds)
            each = [clustering_scores(y, make(start).fit_predict(scale.transform(z))) for start in starts]
            clusters[name] = {score: [found[score] for found in each] for score in each[0]}
    return Representation(accuracy, clusters, float(sizes.max() / len(y)))


def clustering_accuracy(y: Any, clusters: Any) -> float:
    """Return the accuracy of clusters under the best one-to-one match of clusters and classes.

    Args:
        y: class numbers, of shape ``(n,)``
        clusters: cluster numbers, of shape ``(n,)``

    Returns:
        A number between 0 and 1.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: a number is missing.

    Example:
        >>> clustering_accuracy([0, 0, 1, 1], [1, 1, 0, 1])
        0.75
    """
    require_sklearn()
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(as_labels("y", y), as_labels("clusters", clusters))
    rows, columns = linear_sum_assignment(-table)
    return float(table[rows, columns].sum() / table.sum())


def clustering_scores(y: Any, clusters: Any) -> dict[str, float]:
    """Return how well clusters agree with known classes; the numbering of either does not matter.

    References:
        Comparing partitions (Hubert and Arabie, 1985), https://doi.org/10.1007/BF01908075

    Args:
        y: class numbers, of shape ``(n,)``
        clusters: cluster numbers, of shape ``(n,)``

    Returns:
        ``accuracy`` under the best one-to-one match, ``nmi`` (normalized mutual information) and ``ari`` (adjusted
        Rand index, 0 for random clusters); 1 is the best value of each.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: a number is missing.

    Example:
        >>> clustering_scores([0, 0, 1, 1], [1, 1, 0, 0])["ari"]
        1.0
    """
    require_sklearn()
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    y, clusters = as_labels("y", y), as_labels("clusters", clusters)
    return {
        "accuracy": clustering_accuracy(y, clusters),
        "nmi": float(normalized_mutual_info_score(y, clusters)),
        "ari": float(adjusted_rand_score(y, clusters)),
    }


def require_sklearn() -> None:
    """Raise if scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError("scores of a representation need scikit-learn: pip install 'pyro-vae[sklearn]'") from error
