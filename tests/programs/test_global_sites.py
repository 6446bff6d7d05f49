"""Global latents (such as the weights of a BayesianDecoder) count once, outside the scaled plate of the data."""

import functools
import math

import pyro
import pytest
import torch
from helpers import shelf
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.estimators.mean_over_particles import MeanOverParticles
from pyro_vae.trace import call as trace_call

N = 6


def programs(x, size):
    """w global, z_i and x_i local, all normal; the guide is the exact posterior for a plate of size len(x)."""
    rows = torch.arange(len(x))
    precision = 1 + len(x) / 2
    mean = x.sum() / 2 / precision

    def plate():
        return pyro.plate("data", size, subsample=rows, dim=-1)

    def model(x):
        w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
        with plate():
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(w + z, 1.0), obs=x)

    def guide(x):
        w = pyro.sample("w", dist.Normal(mean, precision**-0.5))
        with plate():
            pyro.sample("z", dist.Normal((x - w) / 2, math.sqrt(0.5)))

    return model, guide


@pytest.mark.parametrize("num_particles", [1, 4])
def test_exact_posterior_gives_the_evidence_at_every_sample(num_particles):
    x = torch.randn(N, dtype=torch.float64)
    covariance = 2 * torch.eye(N).double() + torch.ones(N, N).double()
    exact = dist.MultivariateNormal(torch.zeros(N).double(), covariance).log_prob(x)
    elbo = pv.estimators.ELBO(num_particles=num_particles, analytic_kl=False)
    assert torch.allclose(elbo.differentiable_loss(*programs(x, N), x), -exact)


@pytest.mark.parametrize("analytic_kl", [False, True])
def test_subsampling_scales_local_and_not_global_sites(analytic_kl):
    x = torch.randn(N, dtype=torch.float64)
    elbo = pv.estimators.ELBO(analytic_kl=analytic_kl)

    def loss(size):
        torch.manual_seed(0)
        return elbo.differentiable_loss(*programs(x, size), x)

    model, guide = programs(x, N)
    torch.manual_seed(0)
    w = pyro.poutine.trace(guide).get_trace(x).nodes["w"]
    shared = w["fn"].log_prob(w["value"]) - dist.Normal(0.0, 1.0).log_prob(w["value"])
    if analytic_kl:
        shared = torch.distributions.kl_divergence(w["fn"], dist.Normal(torch.zeros(()).double(), 1.0))
    assert torch.allclose(loss(5 * N) - shared, 5 * (loss(N) - shared))


def test_loss_is_that_of_pyro():
    x = torch.randn(N, dtype=torch.float64)
    model, guide = programs(x, 5 * N)
    torch.manual_seed(0)
    ours = pv.estimators.ELBO(analytic_kl=False).loss(model, guide, x)
    torch.manual_seed(0)
    assert ours == pytest.approx(pyro.infer.Trace_ELBO().loss(model, guide, x), rel=1e-9)


def two_layers(size=3):
    """x = w z + noise with one weight, so that everything can be integrated on a grid."""
    linear = functools.partial(pv.nets.MLP, hidden=())
    torch.manual_seed(0)
    program = pv.programs.BayesianDecoder(
        prior=pv.priors.StandardNormal(1),
        likelihood=NoBias(0.7),
        posterior=pv.posteriors.MeanFieldNormal((1,), 1, net=linear),
        num_examples=size,
        initial_std=0.8,
    ).double()
    with torch.no_grad():
        program.weights.loc.fill_(0.6)
        encoder = program.posterior.net.body[0]  # wide enough for importance weights with a finite variance
        encoder.weight.zero_()
        encoder.bias.copy_(torch.tensor([0.0, math.log(math.expm1(1.2))]))
    return program


class NoBias(pv.Conditional):
    def __init__(self, sigma):
        super().__init__()
        self.net, self.sigma = torch.nn.Linear(1, 1, bias=False), sigma

    def forward(self, z, *context):
        return dist.Normal(self.net(z), self.sigma).to_event(1)


def exact(program, x):
    """Evidence of all data, and the tightest bound that q(W) allows: E_q[log p(x | W)] - KL, on a grid of weights."""
    w = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    log_px = dist.Normal(0.0, (w[:, None] ** 2 + 0.7**2).sqrt()).log_prob(x[:, 0]).sum(-1)
    prior, q = dist.Normal(0.0, 1.0), program.weights().base_dist
    log_p, log_q = prior.log_prob(w), q.log_prob(w)
    width = math.log(float(w[1] - w[0]))
    evidence, bound = (log_px + log_p + width).logsumexp(0), ((log_q + width).exp() * (log_px + log_p - log_q)).sum()
    return float(evidence), float(bound.detach())


X3 = torch.tensor([[1.3], [-0.4], [2.1]], dtype=torch.float64)


def mean_loss(estimator, program, x, num_samples=50):
    torch.manual_seed(0)
    with torch.no_grad():
        losses = [-estimator.differentiable_loss(program.model, program.guide, x) for _ in range(num_samples)]
    losses = torch.stack(losses)
    return float(losses.mean()), float(losses.std() / math.sqrt(num_samples))


@pytest.mark.parametrize("options", [{}, {"particles_per_pass": 50}])
@pytest.mark.parametrize("estimator", [pv.estimators.IWAE, pv.estimators.DReG])
def test_many_particles_reach_the_tightest_bound_of_the_weights(estimator, options):
    """With 100 particles the remaining gap is that of q(W): 4 standard errors."""
    program = two_layers()
    evidence, bound = exact(program, X3)
    assert bound < evidence - 0.05
    value, error = mean_loss(estimator(num_particles=100, **options), program, X3)
    assert abs(value - bound) < 4 * error + 0.01


def test_weights_sampled_per_particle_would_exceed_the_bound(monkeypatch):
    """The fault that the test above would find."""
    monkeypatch.setattr(trace_call.Particles, "_process_message", pyro.plate._process_message)
    # a network that broadcasts over particles, unlike functional calls
    broadcasting = lambda self, w, z: dist.Normal(w * z, 0.7).to_event(1)  # noqa: E731
    monkeypatch.setattr(pv.programs.BayesianDecoder, "decode_with", broadcasting)
    program = two_layers()
    value, error = mean_loss(pv.estimators.IWAE(num_particles=100), program, X3)
    assert value - exact(program, X3)[1] > 10 * error


@pytest.mark.parametrize("kind", shelf.separate())
def test_weights_have_the_right_scale_in_every_estimator(kind):
    """The loss of a batch of one is N times that of its example, plus that of the weights once."""
    # a closed-form KL divergence would not be that of the sample
    options = {"analytic_kl": False} if hasattr(kind(), "analytic_kl") else {}
    estimator, program = kind(**options), two_layers()
    x = X3[:1]

    def loss(size):
        program.num_examples = size
        torch.manual_seed(0)
        return estimator.differentiable_loss(program.model, program.guide, x)

    if kind is pv.estimators.CUBO:  # the divergence of the weights is part of a lower bound
        with pytest.raises(ValueError, match="guide: .*'weights'.*CUBO"):
            loss(1)
        return
    assert torch.allclose(loss(13) - loss(7), loss(7) - loss(1))
    # a mean over particles draws the weights once per particle
    many = isinstance(estimator, MeanOverParticles) and estimator.num_particles > 1
    drawn = pyro.poutine.trace(program.guide)
    torch.manual_seed(0)
    with pyro.plate("particles", estimator.num_particles, dim=-2) if many else pyro.poutine.scale(scale=1.0):
        w = drawn.get_trace(x).nodes["weights"]
    shared = (w["fn"].log_prob(w["value"]) - dist.Normal(0.0, 1.0).log_prob(w["value"]).sum(-1)).mean()
    assert torch.allclose(loss(7) - shared, 7 * (loss(1) - shared))


def test_weights_train_by_fit_and_evaluate():
    program = two_layers(size=60)
    x = torch.randn(60, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    history = pv.fit(program, x, estimator=pv.estimators.IWAE(num_particles=3), epochs=15, progress=False)
    assert history["loss"][-1] < history["loss"][0]
    assert not torch.equal(program.weights.loc, two_layers().weights.loc)
    found = pv.evaluation.log_likelihood(program, x, num_particles=100)
    assert torch.isfinite(found.per_example).all()


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_an_autoguide_of_a_global_latent_has_its_density(scale):
    """The loss of each sample is that of Pyro's ELBO, with the Jacobian and the unconstrained value of the guide."""
    x = 3 + torch.randn(6, generator=torch.Generator().manual_seed(0)).double()

    def model(x):
        s = pyro.sample("s", dist.Gamma(torch.tensor(2.0).double(), 1.0))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.tensor(0.0).double(), 1.0))
            pyro.sample("x", dist.Normal(z, s), obs=x)

    auto = pyro.infer.autoguide.AutoNormal(pyro.poutine.block(model, expose=["s"]), init_scale=0.5)

    def guide(x):
        auto(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(0.5 * x, 0.7))

    model, guide = (pyro.poutine.scale(f, scale) for f in (model, guide))
    ours = [pv.estimators.ELBO(analytic_kl=False), pv.estimators.IWAE(num_particles=1)]
    guide(x)
    for estimator in ours:
        estimator.differentiable_loss(model, guide, x)  # the first call does a dry run
        for seed in range(3):
            torch.manual_seed(seed)
            exact = pyro.infer.Trace_ELBO().differentiable_loss(model, guide, x)
            torch.manual_seed(seed)
            torch.testing.assert_close(estimator.differentiable_loss(model, guide, x), exact)
    pyro.clear_param_store()
