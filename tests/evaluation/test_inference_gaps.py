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
    """x given z."""

    def forward(self, z, *context):
        return dist.Normal(z, 1.0).to_event(1)


def close(gap, exact):
    """Within 4 Monte Carlo standard errors and what the optimisation leaves."""
    return abs(gap.mean - exact) < 4 * gap.monte_carlo_error + 0.003


def test_wrong_variance_and_wrong_mean():
    """O2 in 20 dimensions: the variance 2/3 costs 0.45651 nats, the mean (m_q - m)^2 / (2 s^2) a dimension."""
    vae = pv.VAE(prior=Around(0.5), likelihood=Copy(), posterior=Shifted(0.4, 0.3))
    torch.manual_seed(1)
    x = vae.sample(12)
    exact = dist.Normal(torch.tensor(0.5).double(), math.sqrt(2)).log_prob(x).sum(-1)
    found = inference_gaps(vae, x, evidence=lambda x: exact, num_particles=4000, steps=300)
    off = (0.4 * x + 0.3 - (x + 0.5) / 2).square().sum(-1)
    print(found)
    assert close(found.approximation, 0.45651)
    assert close(found.amortization, float(off.mean()))
    assert ((found.amortization.per_datum - off).abs() < 5 * found.amortization.noise + 0.01).all()
    assert close(found.inference, 0.45651 + float(off.mean()))
    sum_of_both = found.approximation.per_datum + found.amortization.per_datum
    assert torch.allclose(sum_of_both, found.inference.per_datum)
    assert found.estimator.mean < 0.1 * found.inference.mean


def test_estimator_gap_is_chi_square_over_twice_the_particles():
    """O2 at the best mean: 1 + chi^2 = 1.90672, a gap of about chi^2 / 2K; 0.0411 measured at K = 10."""
    vae = pv.VAE(prior=Around(0.5), likelihood=Copy(), posterior=Shifted(0.5, 0.25))
    torch.manual_seed(1)
    x = vae.sample(2000)
    exact = dist.Normal(torch.tensor(0.5).double(), math.sqrt(2)).log_prob(x).sum(-1)
    found = inference_gaps(vae, x, evidence=lambda x: exact, num_particles=10, steps=1)
    assert abs(found.estimator.mean - 0.0411) < 4 * found.estimator.std_error + 0.0015


@pytest.mark.slow
@pytest.mark.parametrize("posterior", [pv.posteriors.MeanFieldNormal, pv.posteriors.FullRankNormal])
def test_family_of_the_posterior(posterior):
    """O3: a mean field misses half the logarithm of det diag / det of the precision, a full covariance nothing."""
    toy = LinearGaussian(5, 3)
    with torch.no_grad():
        toy.decoder.weight.copy_(torch.randn(5, 3))  # its columns are not orthogonal
    torch.manual_seed(0)
    toy.program.posterior = posterior((5,), 3).double()
    x = toy.draw(12)
    precision = toy.posterior(x)[1].detach().inverse()
    missed = 0.5 * float(precision.diagonal().log().sum() - precision.logdet())
    assert missed > 0.2
    exact = missed if posterior is pv.posteriors.MeanFieldNormal else 0.0
    found = inference_gaps(toy.program, x, evidence=toy.log_evidence, num_particles=4000, steps=800)
    print(f"{found.approximation.mean:.4f} +- {found.approximation.monte_carlo_error:.4f}, exact {exact:.4f}")
    assert close(found.approximation, exact)
    assert found.amortization.mean > 1.0


def test_without_a_reference_the_refined_posterior_gives_one():
    """Importance sampling from the optimised posterior stands for log p(x), and so does what annealing found."""
    toy = LinearGaussian(off=0.2)
    x = toy.draw(8)
    found = inference_gaps(toy.program, x, num_particles=2000, steps=300)
    exact = (toy.log_evidence(x) - toy.elbo(x)).detach()
    assert ((found.inference.per_datum - exact).abs() < 5 * found.inference.noise + 0.02).all()
    assert "optimised posterior" in found.evidence
    bounds = pv.evaluation.marginal_bounds(toy.program, x, chains=4, steps=20, simulated=0)
    with_bounds = inference_gaps(toy.program, x, evidence=bounds, num_particles=50, steps=2)
    assert with_bounds.evidence == "annealing, 4 chains, 20 temperatures"


def test_two_encoders_with_a_class_that_is_summed_over():
    """The classes of M2: what the encoders lose by their bias is won back for each datum."""
    toy = Toy(off=0.5)

    x = toy.program.sample(6)
    # parts without an attribute `net`: refused by name
    with pytest.raises(ValueError, match="no posterior with an encoder"):
        inference_gaps(toy.program, x, steps=1)
    mixture = pv.programs.MixtureVAE(
        classes=pv.priors.OneHotCategorical(3),
        prior=pv.priors.ConditionalNormal(2, context=3),
        likelihood=pv.likelihoods.Normal(2, (4,)),
        classifier=pv.posteriors.OneHotCategorical((4,), 3),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2, context=3),
    )
    with torch.no_grad():
        list(mixture.posterior.net.parameters())[-1].add_(1.0)
    found = inference_gaps(mixture, x.float(), num_particles=500, steps=100)
    assert (found.amortization.per_datum > -4 * found.amortization.noise).all()
    assert found.amortization.mean > 0.1


def test_an_encoder_that_sees_other_latents_is_refused():
    """In a hierarchy the numbers of the lower layer depend on a draw of the upper one."""
    two = pv.programs.Hierarchical(
        prior=pv.priors.StandardNormal(2),
        layers=[pv.posteriors.MeanFieldNormal((2,), 3)],
        likelihood=pv.likelihoods.Normal(3, (4,)),
        inference=pv.programs.BottomUp(
            [pv.posteriors.MeanFieldNormal((4,), 3), pv.posteriors.MeanFieldNormal((3,), 2)]
        ),
    )
    with pytest.raises(ValueError, match="sees draws of other latents"):
        inference_gaps(two, torch.zeros(3, 4), steps=1)
    with pytest.raises(ValueError, match="evidence: expected log p"):
        inference_gaps(LinearGaussian().program, LinearGaussian().draw(4), evidence=lambda x: x, steps=1)
