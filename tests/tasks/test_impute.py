"""Missing entries against exact conditional distributions (O10)."""

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


def open_toy(features=5, latent=2, **options):
    """A linear VAE that takes holes, with a guide that knows nothing and covers every posterior."""
    toy = LinearGaussian(features, latent, **options)
    toy.program.missing = True
    with torch.no_grad():
        toy.encoder.weight.zero_()
        toy.encoder.bias.copy_(torch.tensor([0.0] * latent + [0.9] * latent))
    return toy


def conditional(toy, row):
    """Exact mean and covariance of the missing entries of one datum given the observed ones."""
    w, mu = toy.decoder.weight.detach(), toy.decoder.bias.detach()
    c = w @ w.T + (toy.program.likelihood.scale() ** 2).detach() * torch.eye(len(w)).double()
    m = torch.isnan(row)
    gain = c[m][:, ~m] @ torch.linalg.inv(c[~m][:, ~m])
    return mu[m] + gain @ (row[~m] - mu[~m]), c[m][:, m] - gain @ c[~m][:, m]


def close(draws, mean, covariance, effective):
    """Whether mean and covariance of draws are within 4 standard errors, for so many effective draws."""
    var = covariance.diagonal()
    off = (draws.mean(0) - mean).abs() / (var / effective).sqrt()
    spread = ((covariance**2 + var[:, None] * var[None]) / effective).sqrt()
    return bool((off < 4).all() and ((torch.cov(draws.T) - covariance).abs() / spread < 4).all())


def test_conditional_means_and_covariances_are_exact():
    """Self-normalized means and resampled draws of 8 data with different holes, within 4 standard errors."""
    toy = open_toy()
    x = toy.draw(8)
    for i, holes in enumerate([(0,), (1, 2), (0, 4), (2, 3, 4), (0, 1), (3,), (0, 1, 2, 3), (2, 4)]):
        x[i, list(holes)] = NAN
    found = impute(toy.program, x, num_particles=20000, draws=3000)
    noise = 0.36
    assert torch.equal(found.missing, torch.isnan(x))
    assert torch.equal(found.x[~found.missing], x[~found.missing])
    assert torch.equal(found.draws[:, ~found.missing], x[~found.missing].expand(3000, -1))
    for i, row in enumerate(x):
        mean, covariance = conditional(toy, row)
        m, ess = torch.isnan(row), float(found.ess[i])
        assert ess > 300
        # means of p(x given z) are averaged, without the noise of a draw
        error = ((covariance.diagonal() - noise) / ess).sqrt()
        assert ((found.x[i, m] - mean).abs() < 4 * error).all()
        # as many independent draws as stand behind both the particles and the choice among them
        assert close(found.draws[:, i, m], mean, covariance, 1 / (1 / 3000 + 1 / ess))


def test_two_dimensional_example_of_the_paper():
    """C = I + 11': E[x1 given x2] is x2 / 2 and its variance 3/2."""
    toy = open_toy(2, 1, sigma=1.0)
    with torch.no_grad():
        toy.decoder.weight.fill_(1.0)
        toy.decoder.bias.zero_()
    x = torch.tensor([[NAN, 1.0], [NAN, -2.0]]).double()
    found = impute(toy.program, x, num_particles=20000, draws=4000)
    for i, half in enumerate((0.5, -1.0)):
        assert abs(float(found.x[i, 0]) - half) < 4 * math.sqrt(0.5 / float(found.ess[i]))
        exact = torch.tensor([half]), torch.tensor([[1.5]])
        assert close(found.draws[:, i, :1], *exact, 1 / (1 / 4000 + 1 / float(found.ess[i])))


def test_intervals_cover_as_often_as_they_say():
    """One hole in each of 400 data of the model: the share covered is within 4 binomial standard errors."""
    toy = open_toy()
    truth = toy.draw(400)
    x = truth.clone()
    x[torch.arange(400), torch.arange(400) % 5] = NAN
    found = impute(toy.program, x, num_particles=1000, draws=300)
    for level in (0.5, 0.9):
        assert abs(found.coverage(truth, level) - level) < 4 * math.sqrt(level * (1 - level) / 400)
    best = torch.stack([conditional(toy, row)[1].trace() for row in x])
    # squared errors are chi-squared: their mean varies by sqrt(2 / 400) of itself, and a tenth is Monte Carlo
    assert found.squared_error(truth) == pytest.approx(float(best.mean()), rel=4 * math.sqrt(2 / 400))
    with pytest.raises(ValueError, match="not found from 300 draws; impute with draws=2000"):
        found.interval(0.999)
    with pytest.raises(ValueError, match="truth: expected shape"):
        found.coverage(x, 0.5)


def test_single_draws_and_single_particles():
    """The least numbers of draws and particles give the same shapes."""
    toy = open_toy()
    x = toy.draw(3)
    x[:, 1] = NAN
    for k, m in ((1, 1), (1, 3), (50, 1), (50, 0)):
        found = impute(toy.program, x, num_particles=k, draws=m)
        assert found.draws.shape == (m, 3, 5)
        assert torch.isfinite(found.x).all()
        assert torch.isfinite(found.draws).all()


def test_pseudo_gibbs_with_the_exact_posterior_is_a_gibbs_sampler():
    """2,000 chains of one datum: mean and covariance of their last states within 4 standard errors."""
    toy = LinearGaussian()
    toy.program.missing = True
    row = toy.draw(1)[0]
    row[[0, 3]] = NAN
    found = pseudo_gibbs(toy.program, row.expand(2000, 5).clone(), draws=1, burn_in=80)
    assert close(found.draws[0][:, [0, 3]], *conditional(toy, row), 2000)
    again = pseudo_gibbs(toy.program, row.expand(50, 5).clone(), draws=40, burn_in=20, every=2)
    assert torch.allclose(again.x[:, [0, 3]], again.draws.mean(0)[:, [0, 3]])
    assert torch.equal(again.x[:, 1], row[1].expand(50))


class Probit(pv.Conditional):
    """p(seen given x) = Phi(w x + c)."""

    def __init__(self, w, c):
        super().__init__()
        self.w, self.c = torch.tensor(w).double(), torch.tensor(c).double()

    def forward(self, x):
        return dist.Bernoulli(probs=torch.special.ndtr(self.w * x + self.c).clamp(1e-9, 1 - 1e-9)).to_event(1)


def test_missing_not_at_random_has_the_exact_conditional_mean():
    """Large values hide: the mean of a normal cut off by a probit, m - w v phi(a) / (s (1 - Phi(a)))."""
    toy = open_toy(2, 1)
    parts = {"prior": toy.program.prior, "likelihood": toy.program.likelihood, "posterior": toy.program.posterior}
    w, c = 1.3, 0.4
    program = pv.programs.MissingNotAtRandom(**parts, mask=Probit([0.0, w], [0.7, c]))
    x = toy.draw(5)
    x[:, 1] = NAN
    found = impute(program, x, num_particles=40000, draws=2000)
    for i, row in enumerate(x):
        mean, variance = (float(v) for v in conditional(toy, row))
        s = math.sqrt(1 + w**2 * variance)
        a = torch.tensor((w * mean + c) / s).double()
        exact = mean - w * variance / s * float((-0.5 * a**2).exp() / math.sqrt(2 * math.pi) / torch.special.ndtr(-a))
        assert abs(exact - mean) > 0.1
        assert abs(float(found.x[i, 1]) - exact) < 4 * math.sqrt(variance / float(found.ess[i]))
        spread = math.sqrt(variance * (1 / 2000 + 1 / float(found.ess[i])))
        assert abs(float(found.draws[:, i, 1].mean()) - exact) < 4 * spread


def test_labels_are_filled_by_the_most_probable_one():
    """Codes with probabilities 0.5, 0.05 and 0.45 have mean 0.95, and code 0 is put in."""
    columns = [C.Categorical("colour", ("red", "green", "blue")), C.Real("size")]
    net = functools.partial(pv.nets.MLP, hidden=())
    likelihood = pv.likelihoods.Heterogeneous(2, (2,), columns=columns, net=net)
    with torch.no_grad():
        likelihood.net.body[0].weight.zero_()
        likelihood.net.body[0].bias[:3] = torch.tensor([0.5, 0.05, 0.45]).log()
    posterior = pv.posteriors.MeanFieldNormal((2,), 2)
    vae = pv.VAE(prior=pv.priors.StandardNormal(2), likelihood=likelihood, posterior=posterior, missing=True)
    x = torch.tensor([[NAN, 1.0], [2.0, NAN]])
    found = impute(vae, x, num_particles=4000, draws=4000)
    assert found.x[:, 0].tolist() == [0.0, 2.0]
    shares = torch.nn.functional.one_hot(found.draws[:, 0, 0].long(), 3).double().mean(0)
    assert torch.allclose(shares, torch.tensor([0.5, 0.05, 0.45]).double(), atol=4 * 0.5 / math.sqrt(4000))
    assert set(pseudo_gibbs(vae, x, draws=200).x[:, 0].tolist()) == {0.0, 2.0}
    with torch.no_grad():  # red or blue by the latent, red more often: between their codes stands green
        likelihood.net.body[0].weight[:3, 0] = torch.tensor([3.0, 0.0, -3.0])
        likelihood.net.body[0].bias[:3] = torch.tensor([1.0, -5.0, 0.0])
    assert impute(vae, x, num_particles=4000).x[0, 0] == 0.0


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


def test_a_table_comes_back_with_its_columns_and_types():
    """A dict, a data frame (nullable integers, an ordered category) and an array: all but the holes is as it was."""
    pandas = pytest.importorskip("pandas")
    data = mixed()
    frame = pandas.DataFrame(data)
    frame["rank"] = pandas.Categorical([None, "low", "mid", "high"] * 10, ["low", "mid", "high"], ordered=True)
    frame["nullable"] = pandas.array([1, None, *range(38)], dtype="Int64")
    frame.index = frame.index + 100
    array = np.random.default_rng(0).normal(size=(12, 3))
    array[2, 1] = np.nan
    for table_data in (data, frame, array):
        table = pv.data.Table(table_data)
        found = impute(table_vae(table.columns), table.x, num_particles=50, draws=2)
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
    with pytest.raises(ValueError, match="x: expected shape"):
        fill(frame, table, torch.zeros(3, 2))


def test_what_cannot_be_imputed_is_refused_before_the_work():
    """No hole allowed, a datum without an observed entry, no particle."""
    toy = open_toy()
    x = toy.draw(6)
    x[4] = NAN
    for function in (impute, pseudo_gibbs):
        with pytest.raises(ValueError, match=r"x\[4\] has no observed entry"):
            function(toy.program, x)
    with pytest.raises(ValueError, match="num_particles: expected an int of at least 1"):
        impute(toy.program, x[:3], num_particles=0)
    toy.program.missing = False
    with pytest.raises(ValueError, match="missing=True"):
        impute(toy.program, x)
