"""Sample quality against closed forms, and copies of training data."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers.programs import make_vae

import pyro_vae as pv
from pyro_vae.evaluation import frechet_distance, kernel_distance, precision_recall, samples
from pyro_vae.testing import LinearGaussian


def with_moments(n, mean, covariance):
    """Vectors with exactly this sample mean and covariance."""
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


def test_kernel_distance_is_unbiased():
    """The mean of 300 estimates for equal distributions is within 4 standard errors of 0; constants are exact."""
    torch.manual_seed(0)
    found = torch.tensor([kernel_distance(torch.randn(20, 3), torch.randn(30, 3)) for _ in range(300)])
    assert abs(float(found.mean())) < 4 * float(found.std()) / math.sqrt(300)
    # k(u, v) of constants: (1 + 1)^3 and (9 + 1)^3 within the sets, (3 + 1)^3 between them
    ones = torch.ones(5, 4)
    assert kernel_distance(ones, 3 * ones) == pytest.approx(8 + 1000 - 2 * 64)


def test_precision_and_recall_of_equal_disjoint_and_covered_sets():
    """Equal sets 1 and 1, disjoint sets 0 and 0; with half of the modes a high precision and a recall of a half."""
    a = torch.randn(200, 2)
    assert precision_recall(a, a) == (1.0, 1.0)
    assert precision_recall(a, a + 100) == (0.0, 0.0)
    precision, recall = precision_recall(torch.cat([a, a + 100]), torch.randn(400, 2))
    assert precision > 0.8
    assert recall == pytest.approx(0.5, abs=0.1)
    for k in (0, 3):
        with pytest.raises(ValueError, match="num_neighbours"):
            precision_recall(a[:3], a, num_neighbours=k)
    for b in (torch.randn(5, 3), torch.randn(1, 2), torch.randn(5)):
        with pytest.raises(ValueError, match="vectors"):
            frechet_distance(a, b)


def test_samples_of_the_true_model_are_as_good_as_training_data():
    """Noise is much worse, and the nearest neighbours reveal a program that memorizes."""
    toy = LinearGaussian()
    train, test = toy.draw(1000, 1), toy.draw(1000, 2)
    options = {"features": lambda x: x, "num_samples": 1000}
    good = samples(toy.program, train, test, **options)
    assert good.scores["samples"]["frechet"] < 2 * good.scores["training data"]["frechet"] + 0.05
    assert abs(good.copied - 0.01) < 4 * math.sqrt(0.01 / 1000)
    noise = samples(lambda n: 3 * torch.randn(n, 5), train, test, **options)
    assert noise.scores["samples"]["frechet"] > 10 * good.scores["samples"]["frechet"]
    assert noise.scores["samples"]["precision"] < 0.6
    memory = samples(lambda n: train[:n] + 1e-3, train, test, **options)
    assert memory.copied == 1.0
    assert torch.equal(memory.nearest, train)
    # no distance between sets detects it
    assert memory.scores["samples"]["frechet"] < 0.05


def test_bad_data_are_refused(digits):
    x, y = digits.train.x[:50], digits.train.y
    with pytest.raises(ValueError, match="train.*labels"):
        samples(make_vae(), x, digits.test.x)
    with pytest.raises(ValueError, match="train.*class number"):
        samples(make_vae(), (x, y[:5]), digits.test)
    with pytest.raises(ValueError, match="program.*shape"):
        samples(LinearGaussian().program, x, digits.test, features=lambda x: x)


@pytest.mark.slow
def test_features_of_a_classifier(digits):
    """Digits: samples of a VAE after two epochs are worse than training data."""
    vae = make_vae()
    pv.fit(vae, digits.train, epochs=2, progress=False)
    found = samples(vae, digits.train, digits.test)
    assert found.scores["samples"]["frechet"] > 2 * found.scores["training data"]["frechet"]
    assert found.scores["samples"]["kernel"] > found.scores["training data"]["kernel"]
    assert "classifier (9" in found.features  # above 90% of its training data right


def test_input_of_inception(monkeypatch):
    """The network gets standardized images of 299 x 299 with three channels, in batches."""
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
    with pytest.raises(ValueError, match="x: expected images"):
        inception(torch.zeros(3, 2, 8, 8))
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ImportError, match="torchvision"):
        pv.evaluation.Inception()


def test_inception_of_torchvision_without_its_last_layer(monkeypatch):
    """The weights are those of ImageNet. Torchvision itself is mocked, as its weights would be downloaded."""
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
