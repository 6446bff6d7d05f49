"""Embeddings with the exact moments of the posterior, clusters up to their numbers, and the map of both."""

import functools
import math

import pytest
import torch
from helpers.classes import Toy
from matplotlib.collections import EllipseCollection
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
    assert torch.allclose(found.deviation, covariance.diagonal().sqrt().expand(30, -1), atol=1e-9)


def test_embedding_averages_over_the_class():
    """4,000 draws of the class: mean and variance of the mixture over classes within 4 standard errors."""
    toy, draws = Toy(), 4000
    x = toy.program.sample(6)
    found = embed(toy.program, x, draws=draws)
    p = toy.program.classify(x)
    assert found.names == ("y[0]", "y[1]", "y[2]", "z[0]", "z[1]")
    assert torch.allclose(found.mean[:, :3], p)
    assert torch.allclose(found.deviation[:, :3].square(), p * (1 - p))
    with torch.no_grad():
        each = [toy.program.posterior(x, y.expand(6, -1)).base_dist for y in torch.eye(3).double()]
    weight = p.T.unsqueeze(-1)
    mean = sum(w * q.mean for w, q in zip(weight, each, strict=True))
    away = [(q.mean - mean) for q in each]
    between = sum(w * a**2 for w, a in zip(weight, away, strict=True))
    fourth = sum(w * a**4 for w, a in zip(weight, away, strict=True))
    assert ((found.mean[:, 3:] - mean).abs() < 4 * (between / draws).sqrt() + 1e-9).all()
    error = (fourth - between**2).clamp(min=0).sqrt() / math.sqrt(draws)
    assert ((found.deviation[:, 3:].square() - each[0].variance - between).abs() < 4 * error + 1e-3 * between).all()


def test_embedding_without_moments_in_closed_form_is_that_of_draws():
    """A flow, 20,000 draws twice: both moments within 4 standard errors of the two together."""
    program = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (3,)),
        posterior=pv.posteriors.PlanarFlow((3,), 2),
    )
    x = torch.randn(3, 3)
    found = embed(program, x, draws=20_000)
    with torch.no_grad():
        z = program.encode(x).sample((20_000,)).double()
    n = len(z)
    assert ((found.mean - z.mean(0)).abs() < 4 * (2 / n) ** 0.5 * z.std(0)).all()
    error = ((z - z.mean(0)) ** 4).mean(0).sub(z.var(0) ** 2).mul(2 / n).sqrt()
    assert ((found.deviation.square() - z.var(0)).abs() < 4 * error).all()


def blobs(n=600):
    """Three clusters in four dimensions, 35 noise deviations apart."""
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
    pv.fit(program, x, epochs=2, progress=False)
    found = cluster(program, x)
    assert found.scores(y) == pytest.approx({"accuracy": 1.0, "nmi": 1.0, "ari": 1.0})
    assert found.sizes.sort().values.tolist() == y.bincount().sort().values.tolist()
    assert torch.equal(found.assigned, program.cluster(x))
    assert str(found).startswith("600 data in clusters of ")


def test_placed_clusters_have_the_moments_and_shares_of_the_latents():
    (x, y), program = blobs(), mixture()
    state = torch.get_rng_state()
    init_clusters(program, x)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        q, fn = program.posterior(x), program.prior(torch.eye(3)).base_dist
    codes = q.mean
    order = torch.cdist(torch.stack([codes[y == k].mean(0) for k in range(3)]), fn.mean).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    for k, found in enumerate(order):
        assert torch.allclose(fn.mean[found], codes[y == k].mean(0), atol=1e-2)
        exact = codes[y == k].var(0, correction=0) + q.variance[y == k].mean(0)
        assert torch.allclose(fn.variance[found], exact, rtol=2e-2)
    assert torch.allclose(program.classes().probs[order], y.bincount() / len(y), atol=1e-3)
    assert all(p.grad is None for p in program.parameters())


def test_responsibilities_are_the_best_cluster_probabilities():
    """Against the sum by hand; and a step of gradient in their logits cannot raise the bound."""
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
    """An AssertionError of `check_estimator` names the law that the pair breaks."""
    check_estimator(mixture(), pv.estimators.ELBO(), torch.randn(5, 4))


def test_map_draws_means_and_ellipses_of_one_deviation():
    """In two dimensions the axes of the ellipses are the deviations; in more, those of the projected covariance."""
    mean = torch.randn(400, 2)
    deviation = torch.tensor([[0.1, 0.5]]).expand(400, -1)
    figure = pv.tasks.Embedding(("z[0]", "z[1]"), mean, deviation).plot(torch.arange(400) % 3)
    axes = figure.axes[0]
    (ellipses,) = [c for c in axes.collections if isinstance(c, EllipseCollection)]
    assert len(ellipses.get_offsets()) == 40
    assert torch.allclose(torch.as_tensor(ellipses.get_widths()).float(), torch.tensor(1.0))
    assert torch.allclose(torch.as_tensor(ellipses.get_heights()).float(), torch.tensor(0.2))
    assert torch.allclose(torch.as_tensor(ellipses.get_angles()).float() % 180, torch.tensor(90.0), atol=1e-3)
    assert "one standard deviation, for 40 of 400 data" in axes.get_title()
    # 45 degrees: data along the diagonal of the first two of three dimensions
    g = torch.Generator().manual_seed(0)
    line = torch.randn(300, 1, generator=g) * torch.tensor([[1.0, 1.0, 0.0]]) + 0.2 * torch.randn(300, 3, generator=g)
    deviation = torch.tensor([0.5, 0.1, 0.2])
    figure = pv.plots.latent_map(line, deviation=deviation.expand(300, -1))
    (ellipses,) = [c for c in figure.axes[0].collections if isinstance(c, EllipseCollection)]
    sizes = torch.stack([torch.as_tensor(v) for v in (ellipses.get_widths(), ellipses.get_heights())], -1)[0].float()
    angle = torch.as_tensor(ellipses.get_angles())[0].float().deg2rad()
    axes = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    right = torch.linalg.svd(line - line.mean(0)).Vh[:2]
    right = right * right.gather(1, right.abs().argmax(1, keepdim=True)).sign()
    exact = right @ deviation.square().diag() @ right.T
    assert exact[0, 1].abs() > 0.02
    assert torch.allclose(axes @ (sizes / 2).square().diag() @ axes.T, exact, atol=1e-5)
    with pytest.raises(ValueError, match="deviation: expected the shape of z"):
        pv.plots.latent_map(line, deviation=torch.ones(3))


def test_bad_input():
    with pytest.raises(TypeError, match="program: expected a MixtureVAE, which has clusters, got VAE"):
        cluster(LinearGaussian().program, torch.zeros(2, 5))
    with pytest.raises(ValueError, match="draws: expected an int of at least 2"):
        embed(LinearGaussian().program, torch.zeros(2, 5), draws=1)
    with pytest.raises(ValueError, match="x: expected at least a datum for each of 3 clusters, got 2"):
        init_clusters(mixture(), torch.randn(2, 4))


def test_parts_for_which_clusters_cannot_be_placed_are_named():
    x, program = torch.randn(9, 4), mixture()
    program.posterior = program.classifier.posterior = pv.posteriors.PlanarFlow((4,), 2)
    with pytest.raises(TypeError, match="posterior: PlanarFlow has no moments in closed form"):
        init_clusters(program, x)
    with pytest.raises(TypeError, match="posterior PlanarFlow, prior ConditionalNormal: their divergence"):
        cluster(program, x)
    program.posterior = seeing = pv.posteriors.MeanFieldNormal((4,), 2, context=3)
    with pytest.raises(TypeError, match="posterior: expected one that does not see the cluster"):
        init_clusters(program, x)
    with pytest.raises(ValueError, match="posterior: expected one that does not see the cluster"):
        pv.programs.Responsibilities(classes=program.classes, prior=program.prior, posterior=seeing)
    program.prior = pv.priors.StandardNormal(2)
    with pytest.raises(TypeError, match="prior: expected one to learn, such as ConditionalNormal, got StandardNormal"):
        init_clusters(program, x)
