"""Imputation against the exact conditional distributions of a linear VAE."""

import functools
import math

import numpy as np
import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.data import tables as C
from pyro_vae.tasks import fill, impute, pseudo_gibbs
from pyro_vae.testing import LinearGaussian

NAN = float("nan")


def incomplete_toy(features=5, latent=2, **options):
    """A linear VAE that allows missing entries, with a wide guide that does not depend on the data."""
    toy = LinearGaussian(features, latent, **options)
    toy.program.missing = True
    with torch.no_grad():
        toy.encoder.weight.zero_()
        toy.encoder.bias.copy_(torch.tensor([0.0] * latent + [0.9] * latent))
    return toy


def conditional(toy, row):
    """Return the exact mean and covariance of the missing entries of an example given the observed ones."""
    w, mu = toy.decoder.weight.detach(), toy.decoder.bias.detach()
    c = w @ w.T + (toy.program.likelihood.scale() ** 2).detach() * torch.eye(len(w)).double()
    m = torch.isnan(row)
    gain = c[m][:, ~m] @ torch.linalg.inv(c[~m][:, ~m])
    return mu[m] + gain @ (row[~m] - mu[~m]), c[m][:, m] - gain @ c[~m][:, m]


def close(samples, mean, covariance, n):
    """Whether mean and covariance of samples are within 4 standard errors, for n effective samples."""
    variance = covariance.diagonal()
    mean_error = (variance / n).sqrt()
    covariance_error = ((covariance**2 + variance[:, None] * variance[None]) / n).sqrt()
    mean_ok = ((samples.mean(0) - mean).abs() < 4 * mean_error).all()
    return bool(mean_ok and ((torch.cov(samples.T) - covariance).abs() < 4 * covariance_error).all())


def test_conditional_means_and_covariances_are_exact():
    """Means and samples of 8 examples with different missing entries, within 4 standard errors."""
    toy = incomplete_toy()
    x = toy.draw(8)
    for i, holes in enumerate([(0,), (1, 2), (0, 4), (2, 3, 4), (0, 1), (3,), (0, 1, 2, 3), (2, 4)]):
        x[i, list(holes)] = NAN
    found = impute(toy.program, x, num_particles=4000, num_samples=2000)
    noise = 0.36
    assert torch.equal(found.missing, torch.isnan(x))
    assert torch.equal(found.x[~found.missing], x[~found.missing])
    assert torch.equal(found.samples[:, ~found.missing], x[~found.missing].expand(2000, -1))
    for i, row in enumerate(x):
        mean, covariance = conditional(toy, row)
        m, ess = torch.isnan(row), float(found.ess[i])
        assert ess > 100
        # the mean is an average of means of p(x given z), without the noise of a sample
        error = ((covariance.diagonal() - noise) / ess).sqrt()
        assert ((found.x[i, m] - mean).abs() < 4 * error).all()
        # effective samples of both the particles and the choice among them
        assert close(found.samples[:, i, m], mean, covariance, 1 / (1 / 2000 + 1 / ess))


def test_two_dimensional_example_of_the_paper():
    """C = I + 11': E[x1 given x2] is x2 / 2 and its variance 3/2."""
    toy = incomplete_toy(2, 1, sigma=1.0)
    with torch.no_grad():
        toy.decoder.weight.fill_(1.0)
        toy.decoder.bias.zero_()
    x = torch.tensor([[NAN, 1.0], [NAN, -2.0]]).double()
    found = impute(toy.program, x, num_particles=4000, num_samples=2000)
    for i, mean in enumerate((0.5, -1.0)):
        assert abs(float(found.x[i, 0]) - mean) < 4 * math.sqrt(0.5 / float(found.ess[i]))
        exact = torch.tensor([mean]), torch.tensor([[1.5]])
        assert close(found.samples[:, i, :1], *exact, 1 / (1 / 2000 + 1 / float(found.ess[i])))


def test_intervals_have_their_coverage():
    """One missing entry in each of 400 examples of the model: within 4 binomial standard errors of the level."""
    toy = incomplete_toy()
    truth = toy.draw(400)
    x = truth.clone()
    x[torch.arange(400), torch.arange(400) % 5] = NAN
    found = impute(toy.program, x, num_particles=500, num_samples=100)
    for level in (0.5, 0.9):
        assert abs(found.coverage(truth, level) - level) < 4 * math.sqrt(level * (1 - level) / 400)
    exact = torch.stack([conditional(toy, row)[1].trace() for row in x])
    # squared errors are chi-squared: the standard error of their mean is sqrt(2 / 400) of it
    assert found.squared_error(truth) == pytest.approx(float(exact.mean()), rel=4 * math.sqrt(2 / 400))
    with pytest.raises(ValueError, match="level: .*num_samples=2000"):
        found.interval(0.999)
    with pytest.raises(ValueError, match="level"):
        found.interval(1.5)
    with pytest.raises(ValueError, match="truth"):
        found.coverage(x, 0.5)


def test_smallest_numbers_of_samples_and_particles():
    toy = incomplete_toy()
    x = toy.draw(3)
    x[:, 1] = NAN
    for k, m in ((1, 1), (1, 3), (50, 1), (50, 0)):
        found = impute(toy.program, x, num_particles=k, num_samples=m)
        assert found.samples.shape == (m, 3, 5)
        assert torch.isfinite(found.x).all()
        assert torch.isfinite(found.samples).all()


def test_pseudo_gibbs_with_the_exact_posterior_is_a_gibbs_sampler():
    """1,000 chains of one example: mean and covariance of their last states within 4 standard errors."""
    toy = LinearGaussian()
    toy.program.missing = True
    row = toy.draw(1)[0]
    row[[0, 3]] = NAN
    found = pseudo_gibbs(toy.program, row.expand(1000, 5).clone(), num_samples=1, burn_in=50)
    assert close(found.samples[0][:, [0, 3]], *conditional(toy, row), 1000)
    found = pseudo_gibbs(toy.program, row.expand(2, 5).clone(), num_samples=5, burn_in=2, thin=2)
    assert torch.allclose(found.x[:, [0, 3]], found.samples.mean(0)[:, [0, 3]])
    assert torch.equal(found.x[:, 1], row[1].expand(2))
    every = pseudo_gibbs(toy.program, row.expand(2, 5).clone(), num_samples=12, burn_in=0)
    assert torch.equal(found.samples, every.samples[3::2])  # the states after the burn-in, thinned


class Probit(pv.Conditional):
    """p(observed given x) = Phi(w x + c)."""

    def __init__(self, w, c):
        super().__init__()
        self.w, self.c = torch.tensor(w).double(), torch.tensor(c).double()

    def forward(self, x):
        return dist.Bernoulli(probs=torch.special.ndtr(self.w * x + self.c).clamp(1e-9, 1 - 1e-9)).to_event(1)


def test_missing_not_at_random_has_the_exact_conditional_mean():
    """Large values are missing: the mean of a normal weighted by a probit, m - w v phi(a) / (s (1 - Phi(a)))."""
    toy = incomplete_toy(2, 1)
    parts = {"prior": toy.program.prior, "likelihood": toy.program.likelihood, "posterior": toy.program.posterior}
    w, c = 1.3, 0.4
    program = pv.programs.MissingNotAtRandom(**parts, mask=Probit([0.0, w], [0.7, c]))
    x = toy.draw(3)
    x[:, 1] = NAN
    found = impute(program, x, num_particles=4000, num_samples=1000)
    for i, row in enumerate(x):
        mean, variance = (float(v) for v in conditional(toy, row))
        s = math.sqrt(1 + w**2 * variance)
        a = torch.tensor((w * mean + c) / s).double()
        exact = mean - w * variance / s * float((-0.5 * a**2).exp() / math.sqrt(2 * math.pi) / torch.special.ndtr(-a))
        assert abs(exact - mean) > 0.1
        assert abs(float(found.x[i, 1]) - exact) < 4 * math.sqrt(variance / float(found.ess[i]))
        spread = math.sqrt(variance * (1 / 1000 + 1 / float(found.ess[i])))
        assert abs(float(found.samples[:, i, 1].mean()) - exact) < 4 * spread


def test_labels_are_imputed_by_the_most_probable_one():
    """Labels with probabilities 0.5, 0.05 and 0.45 have mean 0.95, and label 0 is imputed."""
    columns = [C.Categorical("colour", ("red", "green", "blue")), C.Real("size")]
    net = functools.partial(pv.nets.MLP, hidden=())
    likelihood = pv.likelihoods.Heterogeneous(2, (2,), columns=columns, net=net)
    with torch.no_grad():
        likelihood.net.body[0].weight.zero_()
        likelihood.net.body[0].bias[:3] = torch.tensor([0.5, 0.05, 0.45]).log()
    posterior = pv.posteriors.MeanFieldNormal((2,), 2)
    vae = pv.VAE(prior=pv.priors.StandardNormal(2), likelihood=likelihood, posterior=posterior, missing=True)
    x = torch.tensor([[NAN, 1.0], [2.0, NAN]])
    found = impute(vae, x, num_particles=1000, num_samples=2000)
    assert found.x[:, 0].tolist() == [0.0, 2.0]
    shares = torch.nn.functional.one_hot(found.samples[:, 0, 0].long(), 3).double().mean(0)
    error = 0.5 * math.sqrt(1 / 2000 + 1 / 1000)
    assert torch.allclose(shares, torch.tensor([0.5, 0.05, 0.45]).double(), atol=4 * error)
    assert set(pseudo_gibbs(vae, x, num_samples=200, burn_in=0).x[:, 0].tolist()) == {0.0, 2.0}
    with torch.no_grad():  # red or blue, depending on the latent, red more often; green is between their numbers
        likelihood.net.body[0].weight[:3, 0] = torch.tensor([3.0, 0.0, -3.0])
        likelihood.net.body[0].bias[:3] = torch.tensor([1.0, -5.0, 0.0])
    assert impute(vae, x, num_particles=1000).x[0, 0] == 0.0


def mixed(n=40):
    rng = np.random.default_rng(0)
    return {
        "income": np.where(rng.random(n) < 0.2, np.nan, 1e4 * rng.normal(size=n) + 0.1),
        "visits": rng.poisson(20, n),
        "grade": np.r_[[1, 2, 3, 4], rng.integers(1, 5, n - 4)],
        "colour": np.array(["red", None, "blue", "green", *rng.choice(["red", "green"], n - 4)], dtype=object),
        "side": np.array(["a", "b", None, *rng.choice(["a", "b"], n - 3)], dtype=object),
    }


def table_vae(columns):
    shape = (len(columns),)
    posterior = pv.posteriors.MeanFieldNormal(shape, 2, net=functools.partial(C.Features, columns))
    posterior.takes_missing = True
    likelihood = pv.likelihoods.Heterogeneous(2, shape, columns=columns)
    return pv.VAE(prior=pv.priors.StandardNormal(2), likelihood=likelihood, posterior=posterior, missing=True)


def test_labels_of_sequences_are_imputed_by_the_most_probable_one():
    """A decoder that ignores its latents: every missing label becomes the most probable one, padding none."""
    columns = [C.Real("level"), C.Categorical("colour", ("red", "green", "blue"))]
    program = pv.programs.SequenceVAE(
        prior=pv.priors.StandardNormal(2),
        transition=pv.priors.ConditionalNormal(2, context=2),
        likelihood=pv.likelihoods.Heterogeneous(2, (2,), columns=columns),
        posterior=pv.posteriors.MeanFieldNormal((6,), 2, context=2),
        summary=pv.programs.BackwardGRU((2,), 6),
        missing=True,
    )
    with torch.no_grad():
        for parameter in program.likelihood.parameters():
            parameter.zero_()
        parameter[-3:] = torch.tensor([0.5, 2.0, 1.0])  # the bias of the last layer
    x = torch.zeros(2, 3, 2)
    x[0, 1, 1] = x[0, 2, 0] = x[1, 0, 1] = x[1, 1:] = math.nan
    found = impute(program, (x, torch.tensor([3, 1])), num_particles=200, num_samples=3, progress=False)
    assert found.x[0, 1, 1] == found.x[1, 0, 1] == 1
    assert found.x[0, 2, 0].isfinite()
    assert found.samples.shape == (3, *x.shape)
    assert int(found.missing.sum()) == 3


def test_filled_tables_keep_their_columns_and_types():
    """Dicts, data frames (nullable integers, ordered categories) and arrays keep all observed entries."""
    pandas = pytest.importorskip("pandas")
    data = mixed()
    frame = pandas.DataFrame(data)
    frame["rank"] = pandas.Categorical([None, "low", "mid", "high"] * 10, ["low", "mid", "high"], ordered=True)
    frame["nullable"] = pandas.array([1, None, *range(38)], dtype="Int64")
    frame.index = frame.index + 100
    array = np.random.default_rng(0).normal(size=(12, 3))
    array[2, 1] = np.nan
    structured = np.array([(1.5, 2.0), (np.nan, 3.0), (0.5, -1.0)], [("a", float), ("b", float)])
    for table_data in (data, frame, array, structured):
        table = pv.data.Table(table_data)
        found = impute(table_vae(table.columns), table.x, num_particles=50, num_samples=2)
        back = fill(table_data, table, found.x)
        assert type(back) is type(table_data)
        again = pv.data.Table(back, table.columns)
        assert not again.x.isnan().any()
        assert torch.equal(again.x[~found.missing], table.x[~found.missing])
    back = fill(frame, table := pv.data.Table(frame), impute(table_vae(table.columns), table.x, num_particles=50).x)
    assert (back.dtypes == frame.dtypes).all()
    assert (back.index == frame.index).all()
    seen = frame.notna()
    pandas.testing.assert_frame_equal(back.where(seen), frame.where(seen), check_exact=True)
    assert frame["colour"].isna().sum() == 1
    assert back["nullable"].notna().all()
    with pytest.raises(ValueError, match="x: expected the shape"):
        fill(frame, table, torch.zeros(3, 2))


def test_bad_input():
    toy = incomplete_toy()
    x = toy.draw(6)
    x[4] = NAN
    for function in (impute, pseudo_gibbs):
        with pytest.raises(ValueError, match=r"x\[4\] has no observed entry"):
            function(toy.program, x)
    with pytest.raises(ValueError, match="num_particles"):
        impute(toy.program, x[:3], num_particles=0)
    toy.program.missing = False
    with pytest.raises(ValueError, match="missing=True"):
        impute(toy.program, x)
