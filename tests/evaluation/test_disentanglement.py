"""Quality of representations: classification, clustering and disentanglement of posterior means."""

import itertools

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.evaluation import disentanglement_of_means, representation
from pyro_vae.testing import LinearGaussian


def test_representation_of_clusters_and_of_noise():
    """Posterior means in separate clusters score 1, random labels score at chance."""
    toy = LinearGaussian(sigma=0.1)
    y = torch.arange(300) % 3
    with torch.no_grad():
        weight = toy.decoder.weight
        centres = toy.decoder.bias + 4 * torch.stack([weight[:, 0], weight[:, 1], -weight.sum(1)])
        x = centres[y] + 0.1 * torch.randn(300, 5)
    found = representation(toy.program, x, y)
    assert min(found.accuracy.values()) == 1.0
    assert found.majority == pytest.approx(1 / 3)
    assert max(found.clusters["k-means"]["ari"]) == pytest.approx(1.0)
    assert len(found.clusters["mixture of normals"]["nmi"]) == 5
    chance = representation(toy.program, x, y[torch.randperm(300)], num_seeds=1)
    assert max(chance.accuracy.values()) < 0.55
    assert max(chance.clusters["k-means"]["nmi"]) < 0.1
    with pytest.raises(ValueError, match="y"):
        representation(toy.program, x, y[:4])


def test_clustering_accuracy_is_the_best_of_all_matches():
    """Against every permutation of four clusters."""
    y, found = torch.randint(4, (50,)).tolist(), torch.randint(4, (50,)).tolist()
    best = max(sum(p[c] == k for c, k in zip(found, y, strict=True)) for p in itertools.permutations(range(4)))
    assert pv.evaluation.clustering_accuracy(y, found) == best / 50


FACTORS = torch.cartesian_prod(*[torch.arange(4)] * 4).repeat(4, 1)
SCORES = {
    "MIG",
    "modularity",
    "SAP",
    "DCI disentanglement",
    "DCI completeness",
    "DCI informativeness",
    "FactorVAE",
}


def test_a_perfect_representation_scores_one():
    """Each unit is one factor, in another order and scale, and a fifth unit has collapsed: every score is 1."""
    z = torch.cat([FACTORS[:, [2, 0, 3, 1]] * torch.tensor([1.0, -2.0, 0.5, 10.0]), torch.zeros(len(FACTORS), 1)], 1)
    z = z + 1e-3 * torch.randn(z.shape)
    found = disentanglement_of_means(z, FACTORS)
    assert set(found.scores) == SCORES
    # in a finite sample the idle unit has a mutual information of 0.02 nats
    assert all(value > 0.97 for value in found.scores.values()), found.scores
    assert found.mutual_information.shape == (5, 4)


def test_a_rotated_representation_scores_low():
    """The same information, with every factor spread over all units: only informativeness stays high."""
    hadamard = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    z = (FACTORS - 1.5) @ hadamard + 1e-3 * torch.randn(len(FACTORS), 4)
    found = disentanglement_of_means(z, FACTORS).scores
    low = {"MIG", "SAP", "DCI disentanglement", "DCI completeness"}
    assert all(found[name] < 0.2 for name in low), found
    assert found["modularity"] < 0.5
    assert found["FactorVAE"] < 0.6  # a quarter by chance


def test_invalid_factors_are_refused():
    """A factor with one value, a single factor, another number of rows."""
    z = torch.randn(20, 3)
    constant = torch.stack([torch.arange(20) % 2, torch.zeros(20)], 1)
    for factors in (constant, torch.zeros(20, 1), torch.zeros(19, 2), torch.zeros(20)):
        with pytest.raises(ValueError, match="factors"):
            disentanglement_of_means(z, factors)


def test_units_without_information():
    """A unit that varies without information counts for nothing, and units that do not vary are refused."""
    factors = torch.cartesian_prod(torch.arange(4), torch.arange(4)).repeat(16, 1)
    noise = torch.arange(16).repeat_interleave(16).double()  # independent of both factors
    with np.errstate(all="raise"):
        alone = disentanglement_of_means(torch.stack([noise, torch.zeros(256)], 1), factors).scores
        shared = disentanglement_of_means(torch.stack([noise, factors[:, 0].double()], 1), factors).scores
    assert alone["modularity"] == pytest.approx(0, abs=1e-9)
    assert shared["modularity"] == pytest.approx(1)
    with pytest.raises(ValueError, match="z: .*varies"):
        disentanglement_of_means(torch.zeros(256, 2), factors)
