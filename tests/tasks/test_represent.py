"""Embeddings with the exact moments of the posterior, and clusters up to their numbers."""

import functools
import math
from contextlib import nullcontext

import pyro
import pytest
import torch
from helpers.classes import Toy
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.tasks import cluster, embed, init_clusters
from pyro_vae.testing import LinearGaussian, check_estimator

LINEAR = functools.partial(pv.nets.MLP, hidden=())


def test_embedding_of_a_linear_vae_is_its_exact_posterior():
    toy = LinearGaussian()
    x = toy.draw(30)
    mean, covariance = (v.detach() for v in toy.posterior(x))
    found = embed(toy.program, x)
    assert found.names == ("z[0]", "z[1]")
    assert torch.allclose(found.mean, mean, atol=1e-9)
    assert torch.allclose(found.std, covariance.diagonal().sqrt().expand(30, -1), atol=1e-9)


def test_embedding_averages_over_the_class():
    """Mean and variance of the mixture over classes, 2,000 samples of the class: within 4 standard errors."""
    toy, n = Toy(), 2000
    x = toy.program.sample(6)
    found = embed(toy.program, x, num_samples=n)
    p = toy.program.classify(x)
    assert found.names == ("y[0]", "y[1]", "y[2]", "z[0]", "z[1]")
    assert torch.allclose(found.mean[:, :3], p)
    assert torch.allclose(found.std[:, :3].square(), p * (1 - p))
    with torch.no_grad():
        each = [toy.program.posterior(x, y.expand(6, -1)).base_dist for y in torch.eye(3).double()]
    weight = p.T.unsqueeze(-1)
    mean = sum(w * q.mean for w, q in zip(weight, each, strict=True))
    between, fourth = (sum(w * (q.mean - mean) ** k for w, q in zip(weight, each, strict=True)) for k in (2, 4))
    assert ((found.mean[:, 3:] - mean).abs() < 4 * (between / n).sqrt() + 1e-9).all()
    error = (fourth - between**2).clamp(min=0).sqrt() / math.sqrt(n)
    assert ((found.std[:, 3:].square() - each[0].variance - between).abs() < 4 * error + 1e-3 * between).all()


def test_embedding_without_moments_in_closed_form_is_that_of_samples():
    """A flow, 2,000 samples twice: both moments within 4 standard errors of both together."""
    n = 2000
    program = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (3,)),
        posterior=pv.posteriors.PlanarFlow((3,), 2),
    )
    x = torch.randn(3, 3)
    found = embed(program, x, num_samples=n)
    with torch.no_grad():
        z = program.encode(x).sample((n,)).double()
    assert ((found.mean - z.mean(0)).abs() < 4 * (2 / n) ** 0.5 * z.std(0)).all()
    error = ((z - z.mean(0)) ** 4).mean(0).sub(z.var(0) ** 2).mul(2 / n).sqrt()
    assert ((found.std.square() - z.var(0)).abs() < 4 * error).all()


def blobs(n=300):
    """Three clusters in four dimensions, 35 standard deviations of the noise apart."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(3, (n,), generator=g)
    return 25 * torch.eye(3, 4)[y] - 8 + torch.randn(n, 4, generator=g), y


def mixture():
    torch.manual_seed(0)
    parts = {
        "classes": pv.priors.OneHotCategorical(3, learned=True),
        "prior": pv.priors.ConditionalNormal(2, context=3, net=LINEAR),
        "posterior": pv.posteriors.MeanFieldNormal((4,), 2, net=LINEAR),
    }
    likelihood = pv.likelihoods.Normal(2, (4,), net=LINEAR)
    return pv.programs.MixtureVAE(**parts, likelihood=likelihood, classifier=pv.programs.Responsibilities(**parts))


def test_separated_clusters_are_recovered_up_to_their_numbers():
    (x, y), program = blobs(), mixture()
    init_clusters(program, x)
    pv.fit(program, x, epochs=1, compile=False, progress=False)
    found = cluster(program, x, progress=False)
    assert found.scores(y) == pytest.approx({"accuracy": 1.0, "nmi": 1.0, "ari": 1.0})
    assert found.sizes.sort().values.tolist() == y.bincount().sort().values.tolist()
    assert torch.equal(found.assigned, program.cluster(x))
    assert str(found).startswith("300 examples in clusters of ")


def test_initial_clusters_have_the_moments_and_shares_of_the_latents():
    (x, y), program = blobs(), mixture()
    init_clusters(program, x)
    with torch.no_grad():
        q, fn = program.posterior(x), program.prior(torch.eye(3)).base_dist
    mean = q.mean
    order = torch.cdist(torch.stack([mean[y == k].mean(0) for k in range(3)]), fn.mean).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    for k, found in enumerate(order):
        assert torch.allclose(fn.mean[found], mean[y == k].mean(0), atol=1e-2)
        exact = mean[y == k].var(0, correction=0) + q.variance[y == k].mean(0)
        assert torch.allclose(fn.variance[found], exact, rtol=2e-2)
    assert torch.allclose(program.classes().probs[order], y.bincount() / len(y), atol=1e-3)
    assert all(p.grad is None for p in program.parameters())


def test_responsibilities_are_the_optimal_cluster_probabilities():
    """They equal the explicit sum, and the gradient of the bound in their logits is zero."""
    program = mixture().double()
    with torch.no_grad():
        next(program.classes.parameters()).copy_(torch.tensor([0.0, 1.0, -2.0]))
    x = torch.randn(5, 4).double()
    found = program.classify(x)
    with torch.no_grad():
        q = program.posterior(x)
        kl = [torch.distributions.kl_divergence(q, program.prior(k)) for k in torch.eye(3).double()]
        expected = (program.classes().probs.log() - torch.stack(kl, -1)).softmax(-1)
    assert torch.allclose(found, expected)

    class Free(pv.Conditional):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Parameter(found.log())

        def forward(self, x, *context):
            return dist.OneHotCategorical(logits=self.logits)

    program.classifier = free = Free()
    bound = pv.estimators.ELBO().per_datum(program.model, program.guide, x).sum()
    (slope,) = torch.autograd.grad(bound, free.logits)
    assert slope.abs().max() < 1e-9


def test_laws_of_a_mixture_with_responsibilities():
    check_estimator(mixture(), pv.estimators.ELBO(), torch.randn(5, 4))


def test_errors_name_the_part():
    x, program, toy = torch.randn(9, 4), mixture(), LinearGaussian().program
    with pytest.raises(TypeError, match="program: .*MixtureVAE"):
        cluster(toy, x)
    with pytest.raises(ValueError, match="num_samples"):
        embed(toy, torch.zeros(2, 5), num_samples=1)
    with pytest.raises(ValueError, match="x: .*3 examples"):
        init_clusters(program, x[:2])
    with pytest.raises(ValueError, match="x: .*without labels"):
        init_clusters(program, (x, torch.eye(3).repeat(3, 1)))
    program.posterior = program.classifier.posterior = pv.posteriors.PlanarFlow((4,), 2)
    with pytest.raises(TypeError, match="posterior: .*PlanarFlow"):
        init_clusters(program, x)
    with pytest.raises(TypeError, match="posterior: .*PlanarFlow"):
        cluster(program, x)
    program.posterior = dependent = pv.posteriors.MeanFieldNormal((4,), 2, context=3)
    with pytest.raises(TypeError, match="posterior"):
        init_clusters(program, x)
    with pytest.raises(ValueError, match="posterior"):
        pv.programs.Responsibilities(classes=program.classes, prior=program.prior, posterior=dependent)
    program.prior = pv.priors.StandardNormal(2)
    with pytest.raises(TypeError, match="prior: .*StandardNormal"):
        init_clusters(program, x)


class Plates(pv.Program):
    """The plate of the data at dimension -1 around vectors, or at -2 around plates of entries: the same model."""

    def __init__(self, dim):
        super().__init__()
        torch.manual_seed(0)
        self.dim, self.net = dim, torch.nn.Linear(4, 3)

    def entries(self, name, n, fn):
        return (pyro.plate(name, n, dim=-1), fn) if self.dim == -2 else (nullcontext(), fn.to_event(1))

    def model(self, x):
        pv.programs.announce(model=self)
        with pyro.plate("data", len(x), dim=self.dim):
            plate, fn = self.entries("units", 3, dist.Normal(torch.zeros(3), 1.0))
            with plate:
                z = pyro.sample("z", fn)
            plate, fn = self.entries("columns", 4, dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 4), 1.0))
            with plate:
                pyro.sample("x", fn, obs=x)

    def guide(self, x):
        pv.programs.announce(guide=self)
        plate, fn = self.entries("units", 3, dist.Normal(self.net(x), 0.5))
        with pyro.plate("data", len(x), dim=self.dim), plate:
            pyro.sample("z", fn)


def test_examples_at_another_dimension():
    """The plate of the data may be around plates of entries: one row per example, as for vectors."""
    x = torch.randn(7, 4)
    inner, plain = (embed(Plates(dim), x, progress=False) for dim in (-2, -1))
    assert inner.names == plain.names
    assert torch.allclose(inner.mean, plain.mean)
    assert torch.allclose(inner.std, plain.std)
