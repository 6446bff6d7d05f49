"""The bound against exact answers (linear-Gaussian VAE): value, gradient, scale, mask, tightness."""

import pyro
import pytest
import torch
from helpers.checks import within
from pyro import poutine

import pyro_vae as pv
from pyro_vae.testing import LinearGaussian

FORMS = [{"analytic_kl": True}, {"analytic_kl": False}]


def per_datum_draws(estimator, toy, x, draws):
    program = toy.program
    with torch.no_grad():
        return torch.stack([estimator.per_datum(program.model, program.guide, x) for _ in range(draws)])


@pytest.mark.parametrize("options", FORMS)
def test_bound_is_the_evidence_at_the_exact_posterior(options):
    toy = LinearGaussian()
    x = toy.draw(50)
    assert torch.allclose(toy.elbo(x), toy.log_evidence(x), atol=1e-10)
    found = per_datum_draws(pv.estimators.ELBO(num_particles=100, **options), toy, x, 50)
    # 50 data at once: 4 standard errors, widened for the largest of 50
    assert within(found, toy.log_evidence(x), 4.8)


def test_guide_of_the_oracle_is_the_exact_posterior():
    toy = LinearGaussian()
    x = toy.draw(20)
    mean, covariance = toy.posterior(x)
    q = toy.program.encode(x).base_dist
    assert torch.allclose(q.mean, mean)
    assert torch.allclose(q.variance[0], covariance.diagonal())
    assert torch.allclose(covariance, covariance.diagonal().diag(), atol=1e-12)


@pytest.mark.parametrize("options", FORMS)
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_value_and_gradient_off_the_exact_posterior(options, beta):
    toy = LinearGaussian(off=0.2)
    x = toy.draw(10)
    parameters = dict(toy.program.named_parameters())
    exact = toy.elbo(x, beta).sum()
    exact_gradient = torch.cat([g.flatten() for g in torch.autograd.grad(exact, parameters.values())])
    estimator = pv.estimators.ELBO(num_particles=20, beta=beta, **options)
    losses, gradients = [], []
    copies = x.repeat(6, 1)  # each with noise of its own
    for _ in range(50):
        loss = estimator.differentiable_loss(toy.program.model, toy.program.guide, copies) / 6
        gradient = torch.autograd.grad(loss, parameters.values())
        losses.append(-loss.detach())
        gradients.append(-torch.cat([g.flatten() for g in gradient]))
    assert within(torch.stack(losses), exact.detach())
    # about forty entries: 4 standard errors, widened for the largest of them
    assert within(torch.stack(gradients), exact_gradient, 4.5)
    assert (toy.elbo(x) < toy.log_evidence(x)).all()


def test_a_wrong_sign_of_the_divergence_is_seen():
    class Wrong(pv.estimators.ELBO):
        def divergence(self, site):
            return -super().divergence(site)

    toy = LinearGaussian(off=0.2)
    x = toy.draw(10)
    assert not within(per_datum_draws(Wrong(num_particles=20), toy, x, 50), toy.elbo(x).detach())


@pytest.mark.parametrize("scale", [10.0, 0.1])
def test_scale_multiplies_the_loss(scale):
    toy = LinearGaussian(off=0.2)
    x = toy.draw(10)
    estimator = pv.estimators.ELBO()
    torch.manual_seed(0)
    plain = estimator.differentiable_loss(toy.program.model, toy.program.guide, x)
    torch.manual_seed(0)
    scaled = estimator.differentiable_loss(
        poutine.scale(toy.program.model, scale), poutine.scale(toy.program.guide, scale), x
    )
    assert torch.allclose(scaled, scale * plain)


def test_mask_leaves_data_out():
    toy = LinearGaussian(off=0.2)
    x = toy.draw(10)
    mask = torch.arange(10) < 4
    estimator = pv.estimators.ELBO()
    torch.manual_seed(0)
    rows = estimator.per_datum(toy.program.model, toy.program.guide, x)
    torch.manual_seed(0)
    masked = estimator.differentiable_loss(
        poutine.mask(toy.program.model, mask=mask), poutine.mask(toy.program.guide, mask=mask), x
    )
    assert torch.allclose(masked, -rows[:4].sum())


def test_loss_agrees_with_the_estimator_of_pyro():
    toy = LinearGaussian(off=0.2)
    x = toy.draw(10)
    torch.manual_seed(0)
    ours = pv.estimators.ELBO(analytic_kl=False).loss(toy.program.model, toy.program.guide, x)
    torch.manual_seed(0)
    theirs = pyro.infer.Trace_ELBO().loss(toy.program.model, toy.program.guide, x)
    assert ours == pytest.approx(theirs, rel=1e-9)
    torch.manual_seed(0)
    ours = pv.estimators.ELBO().loss(toy.program.model, toy.program.guide, x)
    torch.manual_seed(0)
    theirs = pyro.infer.TraceMeanField_ELBO().loss(toy.program.model, toy.program.guide, x)
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_subsampled_plate_scales_to_the_whole():
    toy = LinearGaussian(off=0.2)
    data = toy.draw(40)

    # N/B through a subsampled plate of the user's own functions
    def model(x):
        with pyro.plate("data", 40, subsample=torch.arange(8), dim=-1):
            z = pyro.sample("z", toy.program.prior())
            pyro.sample("x", toy.program.likelihood(z), obs=x)

    def guide(x):
        with pyro.plate("data", 40, subsample=torch.arange(8), dim=-1):
            pyro.sample("z", toy.program.posterior(x))

    torch.manual_seed(0)
    rows = pv.estimators.ELBO().per_datum(model, guide, data[:8])
    torch.manual_seed(0)
    loss = pv.estimators.ELBO().differentiable_loss(model, guide, data[:8])
    assert torch.allclose(loss, -rows.sum() * 40 / 8)


def test_importance_sampling_finds_the_evidence():
    toy = LinearGaussian(off=0.1)
    x = toy.draw(30)
    found = pv.evaluation.log_likelihood(toy.program, x, num_particles=4000)
    exact = toy.log_evidence(x).detach()
    # 30 data: 4 Monte Carlo standard errors, widened for the largest of 30
    assert ((found.per_example - exact).abs() < 4.6 * found.per_example_error + 1e-9).all()
    assert abs(found.mean - float(exact.mean())) < 4 * found.monte_carlo_error
    coarse = pv.evaluation.log_likelihood(toy.program, x, num_particles=4)
    assert coarse.mean < found.mean


def test_importance_sampling_is_exact_at_the_exact_posterior():
    toy = LinearGaussian()
    x = toy.draw(30)
    found = pv.evaluation.log_likelihood(toy.program, x, num_particles=7, batch_size=4)
    assert torch.allclose(found.per_example, toy.log_evidence(x), atol=1e-9)
    assert torch.allclose(found.ess, torch.full((30,), 7.0).double())


@pytest.mark.slow
def test_training_finds_the_maximum_likelihood():
    """End to end: the fitted linear VAE is probabilistic PCA (log-likelihood within 1e-3 of scikit-learn's)."""
    import functools

    from sklearn.decomposition import PCA

    toy = LinearGaussian(6, 2, sigma=0.5, seed=3)
    x = toy.draw(600)
    best = PCA(2).fit(x.numpy()).score(x.numpy())
    start = LinearGaussian(6, 2, sigma=1.0, off=0.3, seed=9)
    for rate, epochs in ((2e-2, 200), (2e-3, 200), (2e-4, 100)):
        adam = functools.partial(torch.optim.Adam, lr=rate)
        elbo = pv.estimators.ELBO(num_particles=16)
        pv.fit(start.program, x, estimator=elbo, optimizer=adam, epochs=epochs, batch_size=600, progress=False)
    found = float(start.log_evidence(x).detach().mean())
    assert found <= best + 1e-9
    assert best - found < 1e-3
