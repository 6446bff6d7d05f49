"""Disentanglement: whether each latent represents one factor of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyro_vae._util.arrays import as_labels, as_tensor
from pyro_vae._util.lock import in_turn
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.posterior.posterior_means import posterior_means
from pyro_vae.evaluation.representation.representation import require_sklearn
from pyro_vae.evaluation.result import Result
from pyro_vae.programs.program import Program

__all__ = ["Disentanglement", "disentanglement", "disentanglement_of_means"]

Array = np.ndarray

#: Votes of FactorVAE, and the number of examples with a common factor in each.
VOTES, SHARED = 500, 64

#: A unit with less variance than this share of the largest is ignored.
DEAD = 1e-3


@dataclass(frozen=True)
class Disentanglement(Result, plot="factor_map"):
    """Scores in [0, 1]; they are 1 if each unit represents one factor.

    Attributes:
        scores: by name
        mutual_information: mutual information of each unit (row) and factor (column), in nats
    """

    scores: dict[str, float]
    mutual_information: Array

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per score."""
        return [{"score": name, "value": value} for name, value in self.scores.items()]


@in_turn
def disentanglement(
    program: Program, x: Any, factors: Any, *, num_bins: int = 20, seed: int = 0, progress: bool = True
) -> Disentanglement:
    """Score the posterior means of a program; see :func:`disentanglement_of_means`.

    Args:
        program: a Program
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``
        factors: class numbers of each factor, of shape ``(n, factors)``
        num_bins: bins of each unit for its mutual information
        seed: random seed
        progress: show a progress bar

    Returns:
        The scores.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: the data do not fit the program, or the factors are invalid.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> x = toy.draw(300)
        >>> found = disentanglement(toy.program, x, (toy.posterior(x)[0] > 0).long())
        >>> sorted(found.scores)[:3]
        ['DCI completeness', 'DCI disentanglement', 'DCI informativeness']
    """
    z = posterior_means(program, x, seed=seed, progress=progress)
    return disentanglement_of_means(z, factors, num_bins=num_bins, seed=seed)


def disentanglement_of_means(z: Any, factors: Any, *, num_bins: int = 20, seed: int = 0) -> Disentanglement:
    r"""Score posterior means, or any other representation, against known factors.

    With the mutual information :math:`I_{jk}` of unit j (in bins) and factor k, and the entropy :math:`H_k`:

    * **MIG**: :math:`\frac1K \sum_k (I_{(1)k} - I_{(2)k}) / H_k`, the lead of the best unit over the second best.
    * **Modularity**: how far each unit that varies is informative about a single factor.
    * **SAP**: the lead of the best unit in the accuracy of thresholds on a single unit, balanced over the values
      of the factor and corrected for chance.
    * **DCI**: from the feature importances of random forests, how far each unit represents one factor
      (disentanglement) and each factor is represented by one unit (completeness), and their accuracy
      (informativeness).
    * **FactorVAE**: accuracy of a majority vote for the factor that a set of examples shares, from the unit with the
      least variance.

    References:
        MIG: Isolating sources of disentanglement (Chen et al., 2018), https://arxiv.org/abs/1802.04942;
        Modularity: Learning deep disentangled embeddings (Ridgeway and Mozer, 2018), https://arxiv.org/abs/1802.05312;
        SAP: Variational inference of disentangled latent concepts (Kumar et al., 2018),
        https://arxiv.org/abs/1711.00848; DCI: A framework for the quantitative evaluation of disentangled
        representations (Eastwood and Williams, 2018); FactorVAE: Disentangling by factorising (Kim and Mnih, 2018),
        https://arxiv.org/abs/1802.05983

    Args:
        z: representation, of shape ``(n, units)``, at least 2 units
        factors: class numbers of each factor, of shape ``(n, factors)``, at least 2 factors
        num_bins: bins of each unit for its mutual information
        seed: random seed

    Returns:
        The scores.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: the shapes are wrong, no unit varies, or a factor has a single value.

    Example:
        >>> import torch
        >>> factors = torch.cartesian_prod(torch.arange(5), torch.arange(5)).repeat(40, 1)
        >>> found = disentanglement_of_means(factors.double(), factors)
        >>> round(found.scores["MIG"], 2)
        1.0
    """
    require_sklearn()
    num_bins = check_int("num_bins", num_bins, 2)
    z, y = np.asarray(as_tensor(z).double().cpu()), as_labels("factors", factors).astype(np.int64)
    if z.ndim != 2 or y.ndim != 2 or len(z) != len(y) or min(z.shape[1], y.shape[1]) < 2:
        raise ValueError(
            f"factors: expected z of shape (n, units) and factors of shape (n, factors), at least two of each, got "
            f"{z.shape} and {y.shape}"
        )
    if not z.var(0).max() > 0:
        raise ValueError("z: expected at least one unit that varies, got the same values for all examples")
    constant = [k for k in range(y.shape[1]) if len(np.unique(y[:, k])) < 2]
    if constant:
        raise ValueError(f"factors: expected at least two values of each factor, got one of factor {constant[0]}")
    table = mutual_information(z, y, num_bins)
    entropy = np.array([mutual_information(c[:, None], c[:, None], len(np.unique(c)))[0, 0] for c in y.T])
    scores = {"MIG": top_two_gap(table / entropy), "modularity": modularity(table[varying(z)]), "SAP": sap(z, y, seed)}
    scores |= dci(z, y, seed) | {"FactorVAE": factor_vae(z, y, np.random.default_rng(seed))}
    return Disentanglement(scores, table)


def mutual_information(z: Array, y: Array, num_bins: int) -> Array:
    """Return the mutual information of each unit, in bins of equal width, and each factor."""
    from sklearn.metrics import mutual_info_score

    binned = [np.digitize(c, np.histogram_bin_edges(c, num_bins)[1:-1]) for c in z.T]
    return np.array([[mutual_info_score(c, k) for k in y.T] for c in binned])


def top_two_gap(table: Array) -> float:
    """Return the lead of the largest entry of each column over the second largest, averaged over columns."""
    ordered = np.sort(table, 0)
    return float((ordered[-1] - ordered[-2]).mean())


def modularity(table: Array) -> float:
    """Return how far each row has one large entry, averaged over rows with information; 0 if no row has any."""
    square = table[table.max(1) > 0] ** 2
    if not len(square):
        return 0.0
    best = square.max(1)
    rest = (square.sum(1) - best) / (best * (table.shape[1] - 1))
    return float((1 - rest).mean())


def varying(z: Array) -> Array:
    """Return the units whose variance is not negligible compared with the largest."""
    spread = z.var(0)
    return np.flatnonzero(spread > DEAD * spread.max())


def sap(z: Array, y: Array, seed: int) -> float:
    """Return the lead of the best unit in the accuracy of thresholds on the holdout, averaged over factors."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.tree import DecisionTreeClassifier

    train, test = halves(len(z), seed)

    def accuracy(j: int, k: int) -> float:
        leaves = len(np.unique(y[:, k]))
        tree = DecisionTreeClassifier(max_leaf_nodes=leaves, class_weight="balanced", random_state=seed)
        found = tree.fit(z[train][:, [j]], y[train, k]).predict(z[test][:, [j]])
        return max(0.0, float(balanced_accuracy_score(y[test, k], found, adjusted=True)))

    return top_two_gap(np.array([[accuracy(j, k) for k in range(y.shape[1])] for j in range(z.shape[1])]))


def halves(n: int, seed: int) -> tuple[Array, Array]:
    """Split n rows at random into training and holdout rows."""
    order = np.random.default_rng(seed).permutation(n)
    return order[: n // 2], order[n // 2 :]


def dci(z: Array, y: Array, seed: int) -> dict[str, float]:
    """Return disentanglement, completeness and informativeness from the importances of random forests."""
    from sklearn.ensemble import RandomForestClassifier

    train, test = halves(len(z), seed)
    importances, accuracy = [], []
    for k in range(y.shape[1]):
        forest = RandomForestClassifier(50, max_features=None, min_samples_leaf=5, random_state=seed)
        forest.fit(z[train], y[train, k])
        importances.append(forest.feature_importances_)
        accuracy.append(forest.score(z[test], y[test, k]))
    table = np.array(importances).T
    return {
        "DCI disentanglement": concentration(table),
        "DCI completeness": concentration(table.T),
        "DCI informativeness": float(np.mean(accuracy)),
    }


def concentration(table: Array) -> float:
    """Return one minus the relative entropy of each row, weighted by the sums of the rows; 0 if all are 0."""
    total = table.sum(1, keepdims=True)
    if not total.sum() > 0:
        return 0.0
    share = np.divide(table, total, out=np.full_like(table, 1 / table.shape[1]), where=total > 0)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return float(((1 + (share * logs).sum(1) / np.log(table.shape[1])) * total[:, 0]).sum() / total.sum())


def factor_vae(z: Array, y: Array, generator: np.random.Generator) -> float:
    """Return the accuracy of the majority vote on holdout sets of examples that share one factor."""
    spread, alive = z.var(0), varying(z)
    pools: list[list[Array]] = [[np.flatnonzero(c == v) for v in np.unique(c)] for c in y.T]

    def votes() -> Array:
        table = np.zeros((len(alive), y.shape[1]))
        for _ in range(VOTES):
            k = generator.integers(y.shape[1])
            pool = pools[k][generator.integers(len(pools[k]))]
            chosen = z[generator.choice(pool, SHARED)][:, alive]
            table[(chosen.var(0) / spread[alive]).argmin(), k] += 1
        return table

    answer = votes().argmax(1)
    test = votes()
    return float(test[np.arange(len(alive)), answer].sum() / VOTES)
