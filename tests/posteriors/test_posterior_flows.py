"""Flow posteriors: Jacobians, inverses, gradients of samples and the gap that they close."""

import functools
import gc
import math

import pyro
import pytest
import torch
from helpers.small_parts import LINEAR, SMALL

import pyro_vae as pv
from pyro_vae import posteriors
from pyro_vae.posteriors.sylvester_flow import Householder, Orthogonal

FLOWS = {
    "planar": functools.partial(posteriors.PlanarFlow, layers=3),
    "householder": functools.partial(posteriors.HouseholderFlow, layers=3),
    "sylvester": functools.partial(posteriors.SylvesterFlow, layers=2),
    "sylvester-columns": functools.partial(posteriors.SylvesterFlow, layers=2, basis=Orthogonal(2)),
    "sylvester-householder": functools.partial(posteriors.SylvesterFlow, layers=2, basis=Householder(2)),
    "iaf": functools.partial(posteriors.InverseAutoregressiveFlow, hidden=(8,), features=4),
    "spline": functools.partial(posteriors.NeuralSplineFlow, hidden=(8,), features=4),
}


def flow(name, latent=3, factor=2.0):
    """A flow posterior in float64 with parameters far from those of the identity."""
    part = FLOWS[name]((2,), latent, net=SMALL).double()
    with torch.no_grad():
        for p in part.parameters():
            p.mul_(factor)
    return part


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("latent", [2, 5])
def test_log_determinant_and_inverse(name, latent):
    """O17: the log-determinant is that of the autograd Jacobian; the inverse undoes the map."""
    q = flow(name, latent)(torch.randn(2, dtype=torch.float64))
    start = 2 * torch.randn(latent, dtype=torch.float64)
    z, log_det = q.push(start)
    jacobian = torch.autograd.functional.jacobian(lambda s: q.push(s)[0], start)
    assert torch.allclose(log_det, torch.linalg.slogdet(jacobian)[1], atol=1e-9)
    assert not torch.allclose(z, start)
    assert torch.allclose(q.pull(z), start, atol=1e-7)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_own_samples_and_other_values_have_the_same_density(name, batch):
    q = flow(name)(torch.randn(*batch, 2, dtype=torch.float64)).expand((6, *batch))
    first, second = q.rsample(), q.rsample((2,))
    assert first.shape == (6, *batch, 3)
    for z in (second, first):
        own, other = q.log_prob(z), q.log_prob(z.clone())
        assert own.shape == z.shape[:-1]
        assert torch.allclose(own, other, atol=1e-7)


@pytest.mark.parametrize("name", FLOWS)
def test_gradient_is_the_sum_of_path_and_score(name):
    """The gradient of log q at a sample is that through the sample plus that by the parameters."""
    part = flow(name)
    weights = list(part.parameters())
    q = part(torch.randn(2, 2, dtype=torch.float64))
    z = q.rsample()

    def gradients(value):
        found = torch.autograd.grad(value.sum(), weights, retain_graph=True, materialize_grads=True, allow_unused=True)
        return torch.cat([g.flatten() for g in found])

    total = gradients(q.log_prob(z))
    path = gradients(q.detached().log_prob(z))
    score = gradients(q.log_prob(z.detach()))
    assert path.norm() > 1e-3
    assert torch.allclose(total, path + score, atol=1e-6, rtol=1e-6)
    # by z itself, against finite differences
    fixed = q.detached()
    point = z.detach().requires_grad_()
    assert torch.autograd.gradcheck(fixed.log_prob, point, atol=1e-4)
    assert gradients(fixed.log_prob(point)).norm() == 0


def test_deleted_samples_are_not_remembered():
    q = flow("planar")(torch.randn(4, 2, dtype=torch.float64))
    kept = [q.rsample() for _ in range(3)]
    gc.disable()  # samples are in no reference cycle that only the garbage collector would break
    try:
        for _ in range(50):
            q.rsample()
        assert len(q._draws) == 3
    finally:
        gc.enable()
    del kept


def test_samples_without_a_graph_still_have_a_score():
    q = flow("iaf")(torch.randn(4, 2, dtype=torch.float64))
    z = q.sample()
    assert q.log_prob(z).requires_grad
    with torch.no_grad():
        assert torch.allclose(q.log_prob(z), q.log_prob(z.clone()))


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("num_particles", [1, 3])
def test_flows_under_the_elbo_of_pyro(name, num_particles):
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(3),
        likelihood=pv.likelihoods.Normal(3, (2,), net=SMALL),
        posterior=FLOWS[name]((2,), 3, net=SMALL),
    )
    elbo = pyro.infer.Trace_ELBO(
        num_particles=num_particles, vectorize_particles=num_particles > 1, max_plate_nesting=1
    )
    x = torch.randn(5, 2)
    loss = elbo.differentiable_loss(vae.model, vae.guide, x)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.posterior.parameters())
    # our estimator has the same loss for the same noise
    losses = []
    for estimator in (elbo, pv.estimators.ELBO(num_particles=num_particles)):
        estimator.loss(vae.model, vae.guide, x)
        torch.manual_seed(1)
        losses.append(estimator.loss(vae.model, vae.guide, x))
    assert math.isclose(*losses, rel_tol=1e-5)


# --- linear-Gaussian models ------------------------------------------------------------------------------------------


class Factors:
    """Factor analysis (O6) with two correlated factors: x ~ N(mu, W W^T + Psi)."""

    def __init__(self):
        self.w = torch.tensor([[1.2, 1.0], [0.9, 1.1], [0.2, -0.3]], dtype=torch.float64)
        self.mu = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
        self.psi = torch.tensor([0.2, 0.3, 0.4], dtype=torch.float64)
        self.precision = torch.eye(2, dtype=torch.float64) + self.w.T @ (self.w / self.psi[:, None])
        self.cov = self.precision.inverse()
        self.encoder = self.cov @ (self.w / self.psi[:, None]).T
        self.evidence = torch.distributions.MultivariateNormal(self.mu, self.w @ self.w.T + self.psi.diag())

    def log_joint(self, x, z):
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
        return prior + torch.distributions.Normal(z @ self.w.T + self.mu, self.psi.sqrt()).log_prob(x).sum(-1)


def test_full_rank_normal_contains_the_posterior_of_factor_analysis():
    """At the exact parameters log p(x, z) - log q(z given x) is the log-evidence at every z."""
    toy = Factors()
    part = posteriors.FullRankNormal((3,), 2, net=LINEAR).double()
    layer = part.net.body[0]
    factor = torch.linalg.cholesky(toy.cov)
    std = factor.norm(dim=-1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:2] = toy.encoder
        v = (factor / factor.diagonal()[:, None])[1, :1]
        layer.bias.copy_(torch.cat([-toy.encoder @ toy.mu, pv.scales.inverse_positive(std), v]))
        x = toy.evidence.sample((6,))
        q = part(x)
        z = q.sample((4,))
        assert torch.allclose(toy.log_joint(x, z) - q.log_prob(z), toy.evidence.log_prob(x).expand(4, 6), atol=1e-8)
        assert torch.allclose(q.covariance_matrix[0], toy.cov)


def gap(toy, part, x, num_steps):
    """Fit a guide to one example by its ELBO; return its gap to the log-evidence in nats, and its standard error."""
    optimizer = torch.optim.Adam(part.parameters(), lr=0.03, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.03, total_steps=num_steps, pct_start=0.1)
    for _ in range(num_steps):
        q = part(x).expand((64,))
        z = q.rsample()
        optimizer.zero_grad()
        (q.log_prob(z) - toy.log_joint(x, z)).mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        q = part(x)
        z = q.sample((20000,))
        missed = toy.evidence.log_prob(x) - toy.log_joint(x, z) + q.log_prob(z)
    return missed.mean().item(), missed.std().item() / math.sqrt(len(missed))


def test_mean_field_stops_at_the_exact_gap():
    """O3: half of the sum of log-precisions minus the log-determinant of the precision."""
    toy = Factors()
    exact = 0.5 * (toy.precision.diagonal().log().sum() - torch.logdet(toy.precision)).item()
    assert exact > 0.4
    part = posteriors.MeanFieldNormal((3,), 2, net=LINEAR).double()
    found, error = gap(toy, part, toy.evidence.sample(), 150)
    assert abs(found - exact) < 4 * error + 0.01


LAYERS = {"planar": 6, "householder": 2, "sylvester": 3, "sylvester-householder": 3}
#: Half a minute of training in all: the quick tests have an orthogonal and an autoregressive flow.
SLOW = ("planar", "sylvester", "sylvester-householder", "spline")


@pytest.mark.parametrize(
    "name", ["householder", "iaf", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_flows_close_the_gap(name):
    toy = Factors()
    x = toy.evidence.sample()
    options = {"layers": LAYERS[name]} if name in LAYERS else {}
    found = []
    for num_steps in (200, 400, 400):  # a flow may get stuck: the best of a few starts
        found.append(gap(toy, FLOWS[name]((3,), 2, net=LINEAR, **options).double(), x, num_steps)[0])
        if found[-1] < 0.02:
            break
    assert min(found) < 0.02, found
