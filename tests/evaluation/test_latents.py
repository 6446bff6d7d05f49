"""What latents encode: active units (O1), rate and distortion, mutual information, collapse."""

import math

import pytest
import torch
from helpers.linear_hierarchy import linear
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.evaluation import latents, rate_distortion
from pyro_vae.evaluation.posterior.latents import EvenlySpaced
from pyro_vae.testing import LinearGaussian

#: Eigenvalues of the covariance of the data; those above beta times the variance of the noise, 1, are active.
EIGENVALUES = torch.tensor([8.0, 5.0, 3.0, 1.6, 0.7, 0.4], dtype=torch.float64)


def data(n=400):
    """Data with exactly these eigenvalues of the sample covariance."""
    g = torch.Generator().manual_seed(0)
    raw = torch.randn(n, 6, generator=g, dtype=torch.float64)
    u, _, v = torch.linalg.svd(raw - raw.mean(0), full_matrices=False)
    return u @ torch.diag((n * EIGENVALUES).sqrt()) @ v


def trained(beta):
    """A linear VAE with five latents at the maximum of the exact bound with this beta."""
    toy, x = LinearGaussian(6, 5, sigma=1.0, off=0.1), data()
    parameters = [*toy.encoder.parameters(), *toy.decoder.parameters()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -toy.elbo(x, beta).mean()
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)
    return toy


@pytest.fixture(scope="module")
def curve():
    return {beta: trained(beta) for beta in (1.0, 2.0, 4.0)}


@pytest.mark.parametrize(("beta", "active"), [(1.0, 4), (2.0, 3), (4.0, 2)])
def test_active_units_have_an_eigenvalue_above_the_noise(curve, beta, active):
    """O1: exactly 4, 3 and 2 units of a fitted linear VAE for beta 1, 2 and 4; the others have collapsed."""
    found = latents(curve[beta].program, data())
    assert int((EIGENVALUES > beta).sum()) == active
    assert found.active == {"z": active}
    assert f"{5 - active} of 5 units of 'z' have collapsed" in str(found)
    assert "free_bits" in found.report()
    # a collapsed unit has no divergence
    idle = found.variance["z"] <= found.threshold
    assert float(found.kl_per_dimension["z"][idle].max()) < 0.02
    assert float(found.kl_per_dimension["z"][~idle].min()) > 0.05


def test_rate_and_distortion_are_exact(curve):
    """Both from the closed forms of the linear VAE; a larger beta has a lower rate and a higher distortion."""
    x = data()
    found = rate_distortion({beta: toy.program for beta, toy in curve.items()}, x)
    for row in found.rows():
        toy = curve[row["beta"]]
        with torch.no_grad():
            bound, reconstruction = float(toy.elbo(x).mean()), float(toy.elbo(x, 0.0).mean())
        assert abs(row["rate"] - (reconstruction - bound)) < 1e-6  # a closed form
        assert abs(row["distortion"] + reconstruction) < 0.1  # 400 examples, 16 samples each
        assert abs(row["bound"] - bound) < 0.1
    rates, distortions = ([row[key] for row in found.rows()] for key in ("rate", "distortion"))
    assert rates == sorted(rates, reverse=True)
    assert distortions == sorted(distortions)
    assert [row["active"] for row in found.rows()] == [4, 3, 2]
    with pytest.raises(ValueError, match="programs"):
        rate_distortion({}, x)


class Two(pv.Conditional):
    """Two distant clusters at +-10 in both units, each with variance s^2."""

    def __init__(self, s=0.1, full=False):
        super().__init__()
        self.s, self.full, self.one = s, full, torch.nn.Parameter(torch.ones(()))

    def forward(self, x, *context):
        loc = self.one * 10 * x.sign()
        if self.full:
            return dist.MultivariateNormal(loc, scale_tril=self.s * torch.eye(2))
        return dist.Normal(loc, self.s).to_event(1)


def two_clusters(**options):
    prior, likelihood = pv.priors.StandardNormal(2), pv.likelihoods.Normal(2, (2,))
    return pv.VAE(prior=prior, likelihood=likelihood, posterior=Two(**options))


@pytest.mark.parametrize("full", [False, True])
def test_information_of_two_clusters(full):
    """Mutual information and total correlation are log 2, the marginal divergence is the rest of the rate."""
    x = torch.ones(600, 2)
    x[::2] = -1.0
    found = latents(two_clusters(full=full), x).information["z"]
    assert found.mutual_information == pytest.approx(math.log(2), abs=1e-4)
    assert found.total_correlation == pytest.approx(math.log(2), abs=1e-4)
    rate = 2 * 0.5 * (100 + 0.01 - 1 - math.log(0.01))
    # noise of log q - log p at 600 samples
    assert found.marginal_kl == pytest.approx(rate - math.log(2), abs=4 * 2 / math.sqrt(600))
    assert found.dimension_wise_kl == pytest.approx(found.marginal_kl - math.log(2), abs=1e-4)


def test_mutual_information_of_a_linear_model():
    """For data of the model and the exact posterior the aggregate is the prior: the rate is all information."""
    toy, n = LinearGaussian(sigma=1.0), 2000
    found = latents(toy.program, toy.draw(n), num_aggregated=n)
    exact = -0.5 * float(toy.posterior(toy.draw(2))[1].detach().logdet())
    info = found.information["z"]
    assert info.num_examples == n
    # 4 standard errors of a mean of log-ratios with a standard deviation of about 1
    assert info.mutual_information == pytest.approx(exact, abs=4 / math.sqrt(n))
    assert info.marginal_kl == pytest.approx(0.0, abs=0.04)


def test_noise_of_samples_does_not_make_a_unit_active():
    """In a hierarchy the mean of the upper layer varies with the sample of the lower, but not with the example."""
    program = linear(pv.programs.BottomUp)
    with torch.no_grad():
        program.inference.posteriors[0].weight.zero_()  # x is ignored
        program.inference.posteriors[1].weight.mul_(3.0)  # and z2 depends on the sample of z1
    found = latents(program, program.sample(400), num_samples=16)
    assert found.active == {"z1": 0, "z2": 0}
    assert "'z1'" in found.information["z2"].missing
    assert math.isnan(found.information["z2"].mutual_information)
    assert set(found.rate) == {"z1", "z2"}


def test_rows_of_the_aggregate_are_evenly_spaced():
    """The aggregate of a part of sorted data has the clusters of all data."""
    x = torch.ones(1000, 2)
    x[:500] = -1.0
    found = latents(two_clusters(), x, num_aggregated=100).information["z"]
    assert found.num_examples == 100
    assert found.mutual_information == pytest.approx(math.log(2), abs=1e-4)
    for n, size, batch in ((1000, 100, 64), (1000, 7, 1), (130, 128, 50), (5, 8, 2)):
        some = EvenlySpaced(size)
        for rows in torch.arange(n).split(batch):
            some.add((rows, -rows))
        rows, negative = some.rows()
        assert torch.equal(rows, -negative)
        assert some.seen == n
        assert len(rows) == min(n, size)
        assert rows.diff().max() <= 2 * max(1, n / size)
        assert rows[0] == 0
        assert rows[-1] >= n - 2 * max(1, n / size)
