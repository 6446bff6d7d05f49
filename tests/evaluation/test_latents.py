"""What latents carry: active units of O1, rate and distortion, mutual information, collapse."""

import math

import pytest
import torch
from helpers.linear_hierarchy import linear
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.evaluation import latents, rate_distortion
from pyro_vae.testing import LinearGaussian

#: Eigenvalues of the covariance of the data; those above beta times the variance of the noise, 1, are active.
EIGENVALUES = torch.tensor([8.0, 5.0, 3.0, 1.6, 0.7, 0.4], dtype=torch.float64)


def data(n=400):
    """Data whose sample covariance has these eigenvalues exactly."""
    g = torch.Generator().manual_seed(0)
    raw = torch.randn(n, 6, generator=g, dtype=torch.float64)
    u, _, v = torch.linalg.svd(raw - raw.mean(0), full_matrices=False)
    return u @ torch.diag((n * EIGENVALUES).sqrt()) @ v


def trained(beta):
    """A linear VAE with five latents at the maximum of the exact bound with this beta."""
    toy, x = LinearGaussian(6, 5, sigma=1.0, off=0.1), data()
    numbers = [*toy.encoder.parameters(), *toy.decoder.parameters()]
    climb = torch.optim.LBFGS(numbers, max_iter=400, line_search_fn="strong_wolfe")

    def closure():
        climb.zero_grad()
        loss = -toy.elbo(x, beta).mean()
        loss.backward()
        return loss

    for _ in range(3):
        climb.step(closure)
    return toy


@pytest.fixture(scope="module")
def curve():
    return {beta: trained(beta) for beta in (1.0, 2.0, 4.0)}


@pytest.mark.parametrize(("beta", "active"), [(1.0, 4), (2.0, 3), (4.0, 2)])
def test_active_units_are_those_with_an_eigenvalue_above_the_noise(curve, beta, active):
    """O1: exactly 4, 3 and 2 units of a fitted linear VAE for beta 1, 2 and 4; the others are reported collapsed."""
    found = latents(curve[beta].program, data())
    assert int((EIGENVALUES > beta).sum()) == active
    assert found.active == {"z": active}
    assert f"{5 - active} of 5 units of 'z' have collapsed" in str(found)
    assert "free_bits" in found.report()
    # a unit that has collapsed costs nothing
    idle = found.variance["z"] <= found.threshold
    assert float(found.dimension_kl["z"][idle].max()) < 0.02
    assert float(found.dimension_kl["z"][~idle].min()) > 0.05


def test_rate_and_distortion_are_the_exact_ones(curve):
    """Both from the closed forms of the linear VAE; more beta, less rate and more distortion."""
    x = data()
    found = rate_distortion({beta: toy.program for beta, toy in curve.items()}, x)
    for row in found.rows():
        toy = curve[row["beta"]]
        with torch.no_grad():
            bound, reconstruction = float(toy.elbo(x).mean()), float(toy.elbo(x, 0.0).mean())
        assert abs(row["rate"] - (reconstruction - bound)) < 1e-6  # a closed form
        assert abs(row["distortion"] + reconstruction) < 0.1  # 400 data, 16 draws each
    rates, distortions = ([row[key] for row in found.rows()] for key in ("rate", "distortion"))
    assert rates == sorted(rates, reverse=True)
    assert distortions == sorted(distortions)
    assert [row["active"] for row in found.rows()] == [4, 3, 2]
    with pytest.raises(ValueError, match="programs: expected"):
        rate_distortion({}, x)


class Two(pv.Conditional):
    """Two far clusters, both units the same: +-10, each with variance s^2."""

    def __init__(self, s=0.1, full=False):
        super().__init__()
        self.s, self.full, self.one = s, full, torch.nn.Parameter(torch.ones(()))

    def forward(self, x, *context):
        loc = self.one * 10 * x.sign()
        if self.full:
            return dist.MultivariateNormal(loc, scale_tril=self.s * torch.eye(2))
        return dist.Normal(loc, self.s).to_event(1)


@pytest.mark.parametrize("full", [False, True])
def test_information_of_two_clusters(full):
    """Mutual information and total correlation are log 2, the marginal divergence what the rate leaves."""
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2), likelihood=pv.likelihoods.Normal(2, (2,)), posterior=Two(full=full)
    )
    x = torch.ones(600, 2)
    x[::2] = -1.0
    found = latents(vae, x).information["z"]
    assert found.mutual_information == pytest.approx(math.log(2), abs=1e-4)
    assert found.total_correlation == pytest.approx(math.log(2), abs=1e-4)
    rate = 2 * 0.5 * (100 + 0.01 - 1 - math.log(0.01))
    # noise of log q - log p at 600 draws
    assert found.marginal_kl == pytest.approx(rate - math.log(2), abs=4 * 2 / math.sqrt(600))
    assert found.dimension_wise == pytest.approx(found.marginal_kl - math.log(2), abs=1e-4)


def test_mutual_information_of_a_linear_model():
    """With data of the model and the exact posterior the aggregate is the prior: the rate is all information."""
    toy = LinearGaussian(sigma=1.0)
    found = latents(toy.program, toy.draw(4000), aggregate=4000)
    exact = -0.5 * float(toy.posterior(toy.draw(2))[1].detach().logdet())
    info = found.information["z"]
    assert info.data == 4000
    # 4 standard errors of a mean of 4000 log-ratios with a deviation of about 1
    assert info.mutual_information == pytest.approx(exact, abs=4 / math.sqrt(4000))
    assert info.marginal_kl == pytest.approx(0.0, abs=0.03)


def test_noise_of_draws_makes_no_unit_active():
    """In a hierarchy the mean of the upper layer moves with the draw of the lower, and the datum moves neither."""
    program = linear(pv.programs.BottomUp)
    with torch.no_grad():
        program.inference.posteriors[0].weight.zero_()  # x is ignored
        program.inference.posteriors[1].weight.mul_(3.0)  # and z2 depends on the draw of z1
    found = latents(program, program.sample(400), draws=16)
    assert found.active == {"z1": 0, "z2": 0}
    assert "on which it may depend" in found.information["z2"].missing
    assert math.isnan(found.information["z2"].mutual_information)
    assert set(found.rate) == {"z1", "z2"}


def test_aggregate_rows_are_evenly_spaced():
    """A sorted data set is not cut off: the aggregate of a part has the clusters of the whole."""
    vae = pv.VAE(prior=pv.priors.StandardNormal(2), likelihood=pv.likelihoods.Normal(2, (2,)), posterior=Two())
    x = torch.ones(1000, 2)
    x[:500] = -1.0
    found = latents(vae, x, aggregate=100).information["z"]
    assert found.data == 100
    assert found.mutual_information == pytest.approx(math.log(2), abs=1e-4)
