"""Approximation, amortization and estimator gaps against closed forms (O2, O3)."""

import math

import pytest
import torch
from helpers.classes import Toy
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.evaluation import inference_gaps
from pyro_vae.testing import LinearGaussian

D, T2 = 20, 2 / 3


class Shifted(pv.Conditional):
    """q(z given x) = N(Ax + b, t^2 I): only the mean comes from the encoder."""

    def __init__(self, slope, shift):
        super().__init__()
        self.net = torch.nn.Linear(D, D).double()
        with torch.no_grad():
            self.net.weight.copy_(slope * torch.eye(D))
            self.net.bias.fill_(shift)

    def forward(self, x, *context):
        return dist.Normal(self.net(x), math.sqrt(T2)).to_event(1)


class Around(pv.Conditional):
    """N(mean, I)."""

    def __init__(self, mean=0.0):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.full((D,), mean, dtype=torch.float64))

    def forward(self, *given):
        return dist.Normal(self.mean + (given[0] if given else 0.0), 1.0).to_event(1)


class Copy(Around):
    """N(z, I)."""

    def forward(self, z, *context):
        return dist.Normal(z, 1.0).to_event(1)


def close(gap, exact):
    """Whether a mean gap is exact within 4 Monte Carlo errors and the error of the optimization."""
    return abs(gap.mean - exact) < 4 * gap.monte_carlo_error + 0.003


def test_wrong_variance_and_wrong_mean():
    """O2 in 20 dimensions: the variance 2/3 costs 0.45651 nats, the mean (m_q - m)^2 / (2 s^2) per dimension."""
    vae = pv.VAE(prior=Around(0.5), likelihood=Copy(), posterior=Shifted(0.4, 0.3))
    torch.manual_seed(1)
    x = vae.sample(12)
    exact = dist.Normal(torch.tensor(0.5).double(), math.sqrt(2)).log_prob(x).sum(-1)
    found = inference_gaps(vae, x, evidence=lambda x: exact, num_particles=4000, num_steps=200)
    off = (0.4 * x + 0.3 - (x + 0.5) / 2).square().sum(-1)
    assert close(found.approximation, 0.45651)
    assert close(found.amortization, float(off.mean()))
    error = found.amortization.per_example_error
    assert ((found.amortization.per_example - off).abs() < 5 * error + 0.01).all()
    assert close(found.inference, 0.45651 + float(off.mean()))
    sum_of_both = found.approximation.per_example + found.amortization.per_example
    assert torch.allclose(sum_of_both, found.inference.per_example)
    assert found.estimator.mean < 0.1 * found.inference.mean


def test_estimator_gap_is_chi_square_over_twice_the_particles():
    """O2 at the best mean: 1 + chi^2 = 1.90672, a gap of about chi^2 / 2K; 0.0411 measured for K = 10."""
    vae = pv.VAE(prior=Around(0.5), likelihood=Copy(), posterior=Shifted(0.5, 0.25))
    torch.manual_seed(1)
    x = vae.sample(2000)
    exact = dist.Normal(torch.tensor(0.5).double(), math.sqrt(2)).log_prob(x).sum(-1)
    found = inference_gaps(vae, x, evidence=lambda x: exact, num_particles=10, num_steps=1)
    assert abs(found.estimator.mean - 0.0411) < 4 * found.estimator.std_error + 0.0015


@pytest.mark.slow
@pytest.mark.parametrize("posterior", [pv.posteriors.MeanFieldNormal, pv.posteriors.FullRankNormal])
def test_family_of_the_posterior(posterior):
    """O3: a mean field loses half the logarithm of det diag / det of the precision, a full covariance nothing."""
    toy = LinearGaussian(5, 3)
    with torch.no_grad():
        toy.decoder.weight.copy_(torch.randn(5, 3))  # its columns are not orthogonal
    torch.manual_seed(0)
    toy.program.posterior = posterior((5,), 3).double()
    x = toy.draw(12)
    precision = toy.posterior(x)[1].detach().inverse()
    lost = 0.5 * float(precision.diagonal().log().sum() - precision.logdet())
    assert lost > 0.2
    exact = lost if posterior is pv.posteriors.MeanFieldNormal else 0.0
    found = inference_gaps(toy.program, x, evidence=toy.log_evidence, num_particles=4000, num_steps=800)
    assert close(found.approximation, exact)
    assert found.amortization.mean > 1.0


def test_evidence_from_the_optimized_posterior_or_from_annealing():
    toy = LinearGaussian(off=0.2)
    x = toy.draw(8)
    found = inference_gaps(toy.program, x, num_particles=2000, num_steps=150)
    exact = (toy.log_evidence(x) - toy.elbo(x)).detach()
    assert ((found.inference.per_example - exact).abs() < 5 * found.inference.per_example_error + 0.02).all()
    assert "optimized posterior" in found.evidence
    bounds = pv.evaluation.marginal_bounds(toy.program, x, num_chains=4, num_steps=8, num_simulated=0)
    found = inference_gaps(toy.program, x, evidence=bounds, num_particles=50, num_steps=2)
    assert found.evidence == "annealing, 4 chains, 8 temperatures"
    bound = bounds.per_example - found.inference.per_example
    assert torch.allclose(bound, toy.elbo(x).detach(), atol=6 * float(found.inference.per_example_error.max()))


def test_both_bounds_use_the_same_random_numbers():
    """Without any optimization the amortization gap of each example is exactly zero."""
    toy = LinearGaussian(off=0.2)
    found = inference_gaps(toy.program, toy.draw(4), num_particles=10, num_steps=1, learning_rate=1e-12)
    assert torch.allclose(found.amortization.per_example, torch.zeros(4).double(), atol=1e-9)
    assert found.inference.per_example_error.min() > 0.01


def test_two_encoders_with_a_class_that_is_summed_over():
    """Optimization recovers for each example what a bias of the encoders loses."""
    toy = Toy(off=0.5)
    x = toy.program.sample(6)
    mixture = pv.programs.MixtureVAE(
        classes=pv.priors.OneHotCategorical(3),
        prior=pv.priors.ConditionalNormal(2, context=3),
        likelihood=pv.likelihoods.Normal(2, (4,)),
        classifier=pv.posteriors.OneHotCategorical((4,), 3),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2, context=3),
    )
    with torch.no_grad():
        list(mixture.posterior.net.parameters())[-1].add_(1.0)
    found = inference_gaps(mixture, x.float(), num_particles=500, num_steps=60)
    assert (found.amortization.per_example > -4 * found.amortization.per_example_error).all()
    assert found.amortization.mean > 0.1
    # its parts have no attribute `net`
    with pytest.raises(ValueError, match="program.*`net`"):
        inference_gaps(toy.program, x, num_steps=1)


def test_unsupported_encoders_and_evidence_are_refused():
    """In a hierarchy the encoder of one layer takes samples of another."""
    two = pv.programs.Hierarchical(
        prior=pv.priors.StandardNormal(2),
        layers=[pv.posteriors.MeanFieldNormal((2,), 3)],
        likelihood=pv.likelihoods.Normal(3, (4,)),
        inference=pv.programs.BottomUp(
            [pv.posteriors.MeanFieldNormal((4,), 3), pv.posteriors.MeanFieldNormal((3,), 2)]
        ),
    )
    with pytest.raises(ValueError, match="program.*other latents"):
        inference_gaps(two, torch.zeros(3, 4), num_steps=1)
    toy = LinearGaussian()
    with pytest.raises(ValueError, match="evidence"):
        inference_gaps(toy.program, toy.draw(4), evidence=lambda x: x)
