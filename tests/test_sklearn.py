"""The scikit-learn estimators pass the checks of scikit-learn, and their numbers are those of closed forms."""

import functools
import importlib
import random
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyro_vae as pv
from pyro_vae.sklearn import VAEDensity, VAEImputer, VAETransformer

LINEAR = functools.partial(pv.nets.MLP, hidden=())


def linear(cls, **options):
    return cls(
        likelihood=functools.partial(pv.likelihoods.Normal, net=LINEAR, scale=pv.scales.Shared()),
        posterior=functools.partial(pv.posteriors.MeanFieldNormal, net=LINEAR),
        random_state=0,
        **options,
    )


@pytest.fixture(scope="module")
def X():
    return StandardScaler().fit_transform(load_iris().data)


@parametrize_with_checks(
    [
        VAETransformer(epochs=1),
        VAETransformer(epochs=1, missing=True),
        VAEDensity(epochs=1, num_particles=2),
        VAEDensity(epochs=1, num_particles=2, missing=True),
        VAEImputer(epochs=1, num_particles=2),
    ]
)
def test_checks_of_scikit_learn(estimator, check):
    """Every check passes; none is expected to fail."""
    check(estimator)


def test_density_has_the_exact_evidence():
    """With the exact posterior every importance weight is the evidence, for any number of particles."""
    toy = pv.testing.LinearGaussian()
    x = toy.draw(50)
    density = VAEDensity(epochs=1, num_particles=3, random_state=0).fit(x.numpy())
    density.program_ = toy.program
    exact = toy.log_evidence(x).detach().numpy()
    assert np.allclose(density.score_samples(x.numpy()), exact, atol=1e-9)
    assert density.score(x.numpy()) == pytest.approx(exact.mean(), abs=1e-9)


@pytest.mark.slow
def test_linear_vae_is_probabilistic_pca(X):
    """The trained evidence is that of PCA to 0.002 nats, and the score equals it within 4 standard errors."""
    density = linear(
        VAEDensity, epochs=400, batch_size=50, learning_rate=5e-3, num_particles=2000, estimator=pv.estimators.ELBO()
    ).fit(X)
    program = density.program_
    w, b = program.likelihood.net.body[0].weight, program.likelihood.net.body[0].bias
    covariance = w @ w.T + program.likelihood.scale() ** 2 * torch.eye(4, dtype=w.dtype)
    exact = torch.distributions.MultivariateNormal(b, covariance).log_prob(torch.as_tensor(X)).mean().item()
    assert abs(exact - PCA(2).fit(X).score(X)) < 0.002
    noise = pv.evaluation.log_likelihood(program, X, num_particles=2000).monte_carlo_error
    assert abs(density.score(X) - exact) < 4 * noise


def test_scores_do_not_depend_on_other_rows(X):
    density = VAEDensity(epochs=2, num_particles=7, random_state=0).fit(X)
    whole = density.score_samples(X[:10])
    assert np.allclose(density.score_samples(X[9:4:-1]), whole[9:4:-1], atol=1e-12)


def test_many_rows_are_transformed_in_chunks(X):
    """2,100 rows in three chunks have the result of the rows alone."""
    vae = VAETransformer(epochs=1, random_state=0).fit(X)
    many = np.tile(X, (14, 1))
    z = vae.transform(many)
    assert np.allclose(z, np.tile(vae.transform(X), (14, 1)), atol=1e-12)
    assert np.allclose(vae.inverse_transform(z)[-150:], vae.inverse_transform(z[-150:]), atol=1e-12)


def test_pipeline_and_inverse(X):
    """A linear VAE with as many latents as columns reconstructs the rows; names of features are those of sklearn."""
    pipe = make_pipeline(StandardScaler(), linear(VAETransformer, latent=4, epochs=120, learning_rate=3e-2))
    raw = load_iris().data
    z = pipe.fit_transform(raw)
    assert z.shape == (150, 4)
    assert z.dtype == np.float64
    back = pipe.inverse_transform(z)
    assert ((back - raw).std(0) < 0.5 * raw.std(0)).all()
    assert list(pipe.get_feature_names_out()) == [f"vaetransformer{i}" for i in range(4)]
    assert pipe[:-1].n_features_in_ == 4
    with pytest.raises(ValueError, match="X: .* 4 .* 3"):
        pipe[-1].inverse_transform(z[:, :3])


def test_grid_search_over_a_classifier_and_a_density(X):
    """Options of the VAE are chosen by the accuracy of a classifier and by its own score."""
    y = load_iris().target
    pipe = make_pipeline(linear(VAETransformer, epochs=20, learning_rate=1e-2), LogisticRegression())
    grid = GridSearchCV(pipe, {"vaetransformer__latent": [1, 3]}, cv=3).fit(X, y)
    assert grid.best_score_ > 0.8
    search = GridSearchCV(
        linear(VAEDensity, num_particles=10, learning_rate=1e-2),
        {"epochs": [1, 60]},
        cv=KFold(2, shuffle=True, random_state=0),
    ).fit(X)
    assert search.best_params_ == {"epochs": 60}


def test_random_state_sets_everything_and_nothing_global_changes(X):
    """Equal seeds give equal results, others do not; the global states of torch, numpy and Python are unchanged."""

    def streams():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    before, X = streams(), X[:30]
    a, b, c, d, e = (VAEDensity(epochs=2, num_particles=3, random_state=s).fit(X) for s in (1, 1, 2, None, None))
    scores = [v.score_samples(X) for v in (a, b, c, d, e)]
    assert streams() == before
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])
    assert not np.array_equal(scores[3], scores[4])
    assert np.array_equal(clone(a).fit(X).score_samples(X), scores[0])


def test_defaults_of_the_density_follow_the_table(X):
    """150 rows of 4 columns: 2 latents, one hidden layer of 32, 200 epochs, the first quarter on all rows."""
    density = VAEDensity(num_particles=3, random_state=0).fit(X)
    program = density.program_
    assert (program.prior().event_shape, type(program.likelihood)) == ((2,), pv.likelihoods.StudentT)
    for net in (program.likelihood.net, program.posterior.net):
        assert [layer.out_features for layer in net.body if hasattr(layer, "out_features")][:-1] == [32]
    # 200 epochs on 150 rows in 2 steps each
    assert density.history_["step"] == [*range(2, 402, 2)]


def test_options_win_over_the_defaults_of_the_density(X):
    normal = functools.partial(pv.likelihoods.Normal, scale=pv.scales.Shared())
    options = {"latent": 3, "likelihood": normal, "posterior": pv.posteriors.MeanFieldNormal, "epochs": 3}
    density = VAEDensity(**options, num_particles=3, random_state=0).fit(X)
    program = density.program_
    assert (program.prior().event_shape, type(program.likelihood)) == ((3,), pv.likelihoods.Normal)
    assert program.posterior.net.body[0].out_features == 500
    assert density.history_["step"] == [2, 4, 6]


def test_scattered_and_clustered_anomalies_have_high_scores():
    """20 scattered rows and a dense cluster of 20 among 440: the area under the ROC curve exceeds 0.99."""
    rng = np.random.default_rng(0)
    usual = rng.normal(size=(440, 2)) @ rng.normal(size=(2, 6)) + 0.2 * rng.normal(size=(440, 6))
    scattered, cluster = rng.normal(0, 4, (20, 6)), rng.normal(0, 4, 6) + 0.2 * rng.normal(size=(20, 6))
    x = StandardScaler().fit_transform(np.concatenate([usual, scattered, cluster]))
    scores = -VAEDensity(num_particles=50, random_state=0).fit(x).score_samples(x)
    assert (scores[:440, None] < scores[440:]).mean() > 0.99


def test_types_and_parts_are_passed_on(X):
    """Rows of float32 stay float32; the given parts and estimator are used and not changed."""
    estimator = pv.estimators.IWAE(num_particles=3)
    vae = VAETransformer(
        prior=pv.priors.Laplace, posterior=pv.posteriors.Laplace, estimator=estimator, epochs=2, random_state=0
    ).fit(X.astype(np.float32))
    assert vae.transform(X.astype(np.float32)).dtype == np.float32
    assert vae.program_.dtype == torch.float32
    assert type(vae.program_.prior) is pv.priors.Laplace
    assert estimator.step == pv.estimators.IWAE(num_particles=3).step
    flow = VAETransformer(posterior=pv.posteriors.PlanarFlow, epochs=1, random_state=0).fit(X)
    with pytest.raises(TypeError, match="posterior: .*PlanarFlow"):
        flow.transform(X)


def test_missing_entries(X):
    """NaN raises; with missing=True rows are fitted, embedded and scored."""
    missing = np.where(np.random.RandomState(0).rand(*X.shape) < 0.2, np.nan, X)
    with pytest.raises(ValueError, match="X: .*contains NaN.*missing=True"):
        VAEDensity(epochs=1).fit(missing)
    density = VAEDensity(epochs=2, num_particles=3, missing=True, random_state=0).fit(missing)
    assert np.isfinite(density.score_samples(missing)).all()
    assert np.isfinite(VAETransformer(epochs=2, missing=True).fit_transform(missing)).all()


def test_imputer_fills_missing_entries_only(X):
    """Observed entries are unchanged; imputed ones lie in the observed range, in units of the table."""
    X = 1e4 * X + 7e6
    missing = np.where(np.random.RandomState(0).rand(*X.shape) < 0.3, np.nan, X)
    missing[3] = np.nan
    imputer = VAEImputer(epochs=2, num_particles=5, random_state=0).fit(missing)
    filled, samples = imputer.transform(missing), imputer.sample(missing, 7)
    seen, low, high = ~np.isnan(missing), np.nanmin(missing, 0), np.nanmax(missing, 0)
    assert samples.shape == (7, *X.shape)
    for found in (filled, *samples):
        assert np.array_equal(found[seen], missing[seen])
        assert ((low <= found) & (found <= high)).all()
    assert np.allclose(filled[3], np.nanmean(missing, 0))
    assert np.array_equal(imputer.transform(X), X)
    assert list(imputer.get_feature_names_out(list("abcd"))) == list("abcd")
    with pytest.raises(ValueError, match="X: .* column 2"):
        VAEImputer().fit(np.where(np.arange(4) == 2, np.nan, X))


@pytest.mark.parametrize("cls", [VAEDensity, VAEImputer, VAETransformer])
def test_text_is_refused_with_its_place(cls):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"size": [1.0, 2.0], "colour": ["red", "green"]})
    with pytest.raises(ValueError, match="X: expected numbers, got 'red' in row 0 of column 'colour'"):
        cls().fit(frame)
    with pytest.raises(ValueError, match="X: expected numbers, got 'x' in row 1 of column 0"):
        cls().fit(np.array([["1.5", "2"], ["x", "3"]], object))


@pytest.mark.parametrize("size", [1e-30, 1e4, 1e30])
def test_units_of_single_precision_are_those_of_double_precision(size):
    """Many rows far from 0, very large or very small, and a column of equal numbers."""
    X = (size * (1 + 1e-3 * np.random.RandomState(0).randn(20_000, 2))).astype(np.float32)
    X[:, 1] = 0.1 * size
    X[::7, 0] = X[::5, 1] = np.nan
    single, double = (VAEImputer(epochs=1, num_particles=2, random_state=0) for _ in range(2))
    single.fit(X)
    double.fit(X.astype(np.float64))
    assert np.allclose(single.mean_, double.mean_, rtol=1e-6, atol=0)
    assert np.allclose(single.scale_, double.scale_, rtol=1e-5, atol=0)
    assert single.scale_[1] == 1
    assert single.transform(X[:9]).dtype == np.float32


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
@pytest.mark.parametrize("cls", [VAEDensity, VAEImputer, VAETransformer])
def test_sizes_of_a_training_are_checked_by_name(cls, name, X):
    for value in (0, "3"):
        with pytest.raises(ValueError, match=name):
            cls(**{"epochs": 2, name: value}).fit(X)


@pytest.mark.slow
def test_imputer_is_close_to_the_exact_conditional_mean():
    """Six columns with two factors: at most 1.1 times the error of the exact mean; 90% intervals cover 87% to 93%."""
    rng = np.random.default_rng(0)
    weights, std = rng.normal(size=(2, 6)), 0.5
    x = rng.normal(size=(600, 2)) @ weights + std * rng.normal(size=(600, 6))
    hidden = rng.random(x.shape) < 0.3
    missing, covariance = np.where(hidden, np.nan, x), weights.T @ weights + std**2 * np.eye(6)
    exact = np.zeros_like(x)
    for row, gone in enumerate(hidden):
        if not gone.all():
            gain = np.linalg.solve(covariance[np.ix_(~gone, ~gone)], x[row, ~gone])
            exact[row] = covariance[:, ~gone] @ gain
    imputer = VAEImputer(epochs=120, num_particles=200, random_state=0).fit(missing)
    errors = [((filled - x)[hidden] ** 2).mean() for filled in (imputer.transform(missing), exact)]
    assert errors[0] < 1.1 * errors[1]
    low, high = np.quantile(imputer.sample(missing, 200), [0.05, 0.95], axis=0)
    covered = ((low <= x) & (x <= high))[hidden].mean()
    assert 0.87 < covered < 0.93  # the standard error is 0.009


def test_import_without_scikit_learn(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "pyro_vae.sklearn")
    with pytest.raises(ImportError, match=r"pyro_vae.sklearn needs scikit-learn: pip install pyro-vae\[sklearn\]"):
        importlib.import_module("pyro_vae.sklearn")


@pytest.mark.parametrize(
    ("options", "message", "error"),
    [
        ({"prior": pv.priors.StandardNormal(2)}, "prior: ", TypeError),
        ({"likelihood": "Normal"}, "likelihood: ", TypeError),
        ({"learning_rate": "a"}, "learning_rate: .*'a'", ValueError),
        ({"latent": 0}, "latent: ", ValueError),
    ],
)
def test_bad_options(options, message, error):
    with pytest.raises(error, match=message):
        VAETransformer(**options).fit([[0.5, 1.0], [1.0, 0.5]])
