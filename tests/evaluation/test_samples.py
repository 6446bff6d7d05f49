"""Sample quality against closed forms, copies of training data, and representations."""

import itertools
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers.programs import make_vae

import pyro_vae as pv
from pyro_vae.evaluation import disentanglement_of_codes, frechet_distance, kernel_distance, precision_recall
from pyro_vae.testing import LinearGaussian


def with_moments(n, mean, covariance):
    """Vectors whose sample mean and covariance are exactly these."""
    raw = torch.randn(n, len(mean), dtype=torch.float64)
    raw = raw - raw.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(raw.T)), raw.T, upper=False).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_known_moments():
    """|mean difference|^2 + tr(A + B - 2 (AB)^1/2), to 1e-9: diagonal, correlated, equal and singular."""
    zero, eye = torch.zeros(3).double(), torch.eye(3).double()
    a = with_moments(50, zero, eye)
    b = with_moments(70, zero + 2.0, torch.diag(torch.tensor([4.0, 1.0, 0.25]).double()))
    assert frechet_distance(a, b) == pytest.approx(12.0 + 1.0 + 0.0 + 0.25, abs=1e-9)
    m = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.7]]).double()
    n = torch.tensor([[1.0, -0.4, 0.1], [-0.4, 2.0, 0.0], [0.1, 0.0, 0.5]]).double()
    product = torch.linalg.eigvals(m @ n).sqrt().real.sum()
    exact = float(m.trace() + n.trace() - 2 * product)
    assert frechet_distance(with_moments(50, zero, m), with_moments(60, zero, n)) == pytest.approx(exact, abs=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)
    flat = torch.cat([a, a], 1)  # a singular covariance
    assert frechet_distance(flat, flat + 1.0) == pytest.approx(6.0, abs=1e-6)


def test_kernel_distance_has_mean_zero_for_equal_distributions():
    """Without bias: the mean of 300 estimates within 4 standard errors of 0; constants by hand."""
    torch.manual_seed(0)
    found = torch.tensor([kernel_distance(torch.randn(20, 3), torch.randn(30, 3)) for _ in range(300)])
    assert abs(float(found.mean())) < 4 * float(found.std()) / math.sqrt(300)
    # k(u, v) of constants: (1 + 1)^3 and (9 + 1)^3 within, (3 + 1)^3 between
    ones = torch.ones(5, 4)
    assert kernel_distance(ones, 3 * ones) == pytest.approx(8 + 1000 - 2 * 64)


def test_precision_and_recall_of_equal_disjoint_and_covered_sets():
    """Equal sets 1 and 1, disjoint ones 0 and 0; half of the modes: precision high, recall a half."""
    a = torch.randn(200, 2)
    assert precision_recall(a, a) == (1.0, 1.0)
    assert precision_recall(a, a + 100) == (0.0, 0.0)
    modes = torch.cat([a, a + 100])
    precision, recall = precision_recall(modes, torch.randn(400, 2))
    assert precision > 0.8
    assert recall == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ValueError, match="neighbours: expected fewer"):
        precision_recall(a[:3], a)
    with pytest.raises(ValueError, match="vectors of the same length"):
        frechet_distance(a, torch.randn(5, 3))


def test_samples_of_the_true_model_are_as_good_as_training_data():
    """Given features; noise is far worse, and a memoriser is found out by its neighbours."""
    toy = LinearGaussian()
    train, test = toy.draw(1000, 1), toy.draw(1000, 2)
    options = {"features": lambda x: x, "size": 1000}
    good = pv.evaluation.samples(toy.program, train, test, **options)
    assert good.scores["samples"]["frechet"] < 2 * good.scores["training data"]["frechet"] + 0.05
    assert abs(good.copied - 0.01) < 4 * math.sqrt(0.01 / 1000)
    noise = pv.evaluation.samples(lambda n: 3 * torch.randn(n, 5), train, test, **options)
    assert noise.scores["samples"]["frechet"] > 10 * good.scores["samples"]["frechet"]
    assert noise.scores["samples"]["precision"] < 0.6
    memory = pv.evaluation.samples(lambda n: train[:n] + 1e-3, train, test, **options)
    assert memory.copied == 1.0
    assert torch.equal(memory.nearest, train)
    # which no distance between sets tells
    assert memory.scores["samples"]["frechet"] < 0.05


@pytest.mark.slow
def test_features_of_a_classifier(digits):
    """Digits: samples of a VAE after two epochs are worse than training data; labels or features are needed."""
    vae = make_vae()
    pv.fit(vae, digits.train, epochs=2, progress=False)
    found = pv.evaluation.samples(vae, digits.train, digits.test)
    assert found.scores["samples"]["frechet"] > 2 * found.scores["training data"]["frechet"]
    assert found.scores["samples"]["kernel"] > found.scores["training data"]["kernel"]
    assert "classifier (9" in found.features  # above 90% of its training data right
    with pytest.raises(ValueError, match="which needs labels"):
        pv.evaluation.samples(vae, digits.train.x, digits.test.x)
    with pytest.raises(ValueError, match="one class number a datum"):
        pv.evaluation.samples(vae, (digits.train.x, digits.train.y[:5]), digits.test)
    with pytest.raises(ValueError, match="it samples data of shape"):
        pv.evaluation.samples(LinearGaussian().program, digits.train, digits.test, features=lambda x: x)


def test_inception_sees_large_standardised_images_of_three_channels(monkeypatch):
    """Mean colour and size of what the network is given; grey and coloured images, batch by batch."""
    seen = []

    class Colours(torch.nn.Module):
        def forward(self, images):
            seen.append(tuple(images.shape))
            return images.mean((2, 3))

    inception = pv.evaluation.Inception(Colours(), batch_size=2)
    grey = torch.tensor([0.0, 0.485, 1.0]).view(3, 1, 1).expand(3, 8, 8)
    found = inception(grey)
    exact = (grey[:, 0, :1] - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(found, exact)
    torch.testing.assert_close(inception(grey.unsqueeze(1).expand(3, 3, 8, 8)), exact)
    assert seen == [(2, 3, 299, 299), (1, 3, 299, 299)] * 2
    with pytest.raises(ValueError, match=r"x: expected images .* got shape \(3, 2, 8, 8\)"):
        inception(torch.zeros(3, 2, 8, 8))
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ImportError, match="pip install 'pyro-vae\\[inception\\]', or give a network"):
        pv.evaluation.Inception()


def test_inception_of_torchvision_without_its_last_layer(monkeypatch):
    """The weights are the named ones; torchvision itself is a stand-in, as its weights have to be downloaded."""
    body = torch.nn.Module()
    body.fc = torch.nn.Linear(2, 3)
    body.forward = lambda images: body.fc(images.mean((1, 2, 3)).unsqueeze(1).expand(-1, 2))
    models = SimpleNamespace(
        Inception_V3_Weights=SimpleNamespace(IMAGENET1K_V1="named"),
        inception_v3=lambda weights: {"named": body}[weights],
    )
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    assert pv.evaluation.Inception()(torch.rand(4, 8, 8)).shape == (4, 2)
    assert not body.training


def test_representation_of_clusters_and_of_noise():
    """Codes that are the classes score 1, labels at random score at chance."""
    toy = LinearGaussian(sigma=0.1)
    y = torch.arange(300) % 3
    with torch.no_grad():
        centres = toy.decoder.bias + 4 * torch.stack(
            [toy.decoder.weight[:, 0], toy.decoder.weight[:, 1], -toy.decoder.weight.sum(1)]
        )
        x = centres[y] + 0.1 * torch.randn(300, 5)
    found = pv.evaluation.representation(toy.program, x, y)
    assert min(found.accuracy.values()) == 1.0
    assert found.majority == pytest.approx(1 / 3)
    assert max(found.clusters["k-means"]["ari"]) == pytest.approx(1.0)
    assert len(found.clusters["mixture of normals"]["nmi"]) == 5
    chance = pv.evaluation.representation(toy.program, x, y[torch.randperm(300)])
    assert max(chance.accuracy.values()) < 0.55
    assert max(chance.clusters["k-means"]["nmi"]) < 0.1
    with pytest.raises(ValueError, match="y: expected one class number"):
        pv.evaluation.representation(toy.program, x, y[:4])


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


def test_a_perfect_code_scores_one():
    """Each unit one factor, in another order and scale, with a fifth unit that has collapsed: every score is 1."""
    z = torch.cat([FACTORS[:, [2, 0, 3, 1]] * torch.tensor([1.0, -2.0, 0.5, 10.0]), torch.zeros(len(FACTORS), 1)], 1)
    z = z + 1e-3 * torch.randn(z.shape)
    found = disentanglement_of_codes(z, FACTORS)
    assert set(found.scores) == SCORES
    # a finite sample gives the idle unit a mutual information of 0.02 nats
    assert all(value > 0.97 for value in found.scores.values()), found.scores
    assert found.mutual_information.shape == (5, 4)


def test_a_rotated_code_scores_low():
    """The same information, every factor spread over all units alike: only informativeness stays."""
    hadamard = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    z = (FACTORS - 1.5) @ hadamard + 1e-3 * torch.randn(len(FACTORS), 4)
    found = disentanglement_of_codes(z, FACTORS).scores
    print(found)
    low = {"MIG", "SAP", "DCI disentanglement", "DCI completeness"}
    assert all(found[name] < 0.2 for name in low), found
    assert found["modularity"] < 0.5
    assert found["FactorVAE"] < 0.6  # a quarter by chance


def test_factors_that_cannot_be_scored_are_refused():
    """A factor of one value, one factor alone, another number of rows."""
    z = torch.randn(20, 3)
    with pytest.raises(ValueError, match="factor 1 has a single value"):
        disentanglement_of_codes(z, torch.stack([torch.arange(20) % 2, torch.zeros(20)], 1))
    for factors in (torch.zeros(20, 1), torch.zeros(19, 2), torch.zeros(20)):
        with pytest.raises(ValueError, match="factors: expected codes of shape"):
            disentanglement_of_codes(z, factors)
