"""Generation, interpolation and traversal against the closed forms of a linear VAE."""

import math

import pytest
import torch
from helpers.programs import PROGRAMS, REQUIRED, context, required, sample
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.tasks import (
    AggregatePosterior,
    generate,
    geometric,
    interpolate,
    linear,
    reconstruct,
    spherical,
    tempered,
    traverse,
)
from pyro_vae.testing import LinearGaussian


def moments_agree(x, mean, covariance):
    """Whether mean and covariance of samples are within 4 standard errors of those of a normal."""
    n, variance = len(x), covariance.diagonal()
    mean_error = (variance / n).sqrt()
    covariance_error = ((covariance**2 + variance[:, None] * variance[None]) / n).sqrt()
    mean_ok = ((x.mean(0) - mean).abs() < 4 * mean_error).all()
    return bool(mean_ok and ((torch.cov(x.T) - covariance).abs() < 4 * covariance_error).all())


@pytest.mark.parametrize("temperature", [1.0, 0.25, 2.0])
def test_samples_at_a_temperature_have_the_moments_of_the_tempered_model(temperature):
    """x = W z + mu + noise with z of covariance T: mean and covariance of 20,000 samples."""
    toy = LinearGaussian()
    w, noise = toy.decoder.weight.detach(), 0.36 * torch.eye(5).double()
    x = generate(toy.program, 20000, temperature=temperature)
    assert moments_agree(x, toy.decoder.bias.detach(), temperature * w @ w.T + noise)
    assert torch.equal(generate(toy.program, 9, seed=3), generate(toy.program, 9, seed=3))


def test_tempering_by_resampling_agrees_with_the_closed_form():
    """A normal written as a mixture: mean 0 and variance T within 4 standard errors, 1,000 samples."""
    normal = dist.Normal(torch.zeros(500, 2), 1.5).to_event(1)
    mixture = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(500, 2)), dist.Normal(torch.zeros(500, 2, 2), 1.5).to_event(1)
    )
    full = dist.MultivariateNormal(torch.zeros(500, 2), 2.25 * torch.eye(2))
    for fn in (normal, mixture, full):
        z = tempered(fn, 0.5).sample((2,))
        assert z.shape == (2, 500, 2)
        assert abs(float(z.mean())) < 4 * math.sqrt(1.125 / 2000)
        assert abs(float(z.var()) - 1.125) < 4 * 1.125 * math.sqrt(2 / 2000)
    with pytest.raises(ValueError, match="temperature"):
        tempered(mixture, 1.5)


def test_conditional_samples_follow_their_context():
    """The decoder returns ten times the context."""
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (3,), context=1, net=Shift),
        posterior=pv.posteriors.MeanFieldNormal((3,), 2, context=1),
    )
    c = torch.arange(9.0).reshape(9, 1)
    aggregate = AggregatePosterior(vae, (torch.randn(20, 3), torch.zeros(20, 1)), 2, progress=False)
    for options in ({}, {"temperature": 0.5}, {"prior": aggregate}):
        x = generate(vae, 9, context=[c], mean=True, **options)
        assert torch.allclose(x, 10 * c.expand(9, 3))
    with pytest.raises(ValueError, match=r"context\[0\]"):
        generate(vae, 4, context=[c])
    for options in ({"temperature": 0.0}, {"num_samples": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            generate(vae, **{"num_samples": 9, "context": [c], **options})


def test_reconstruction_is_the_mean_at_a_sample_of_the_latents():
    """x_hat = W z + mu with z from the posterior: mean and covariance of 20,000 reconstructions of one example."""
    toy = LinearGaussian()
    x = toy.draw(1)
    w, (mean, covariance) = toy.decoder.weight.detach(), (v.detach() for v in toy.posterior(x))
    found = reconstruct(toy.program, x.expand(20000, -1))
    z = (found - toy.decoder.bias.detach()) @ torch.linalg.pinv(w).T
    assert moments_agree(z, mean[0], covariance)


def test_reconstruction_of_labels_is_the_most_probable_one():
    """The mean of the numbers of the first and the last of three labels would be the middle one."""
    columns = [pv.data.tables.Categorical("colour", ("red", "green", "blue")), pv.data.tables.Real("size")]
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(1),
        likelihood=pv.likelihoods.Heterogeneous(1, (2,), columns=columns),
        posterior=pv.posteriors.MeanFieldNormal((2,), 1),
    )
    last = vae.likelihood.net.body[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([1.0, -9.0, 1.1, 0.5, 0.0]))
    found = reconstruct(vae, torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    assert torch.equal(found, torch.tensor([[2.0, 0.5], [2.0, 0.5]]))


class Shift(torch.nn.Module):
    """A network that returns ten times its context."""

    def __init__(self, in_shape, out_shape, context=0):
        super().__init__()
        self.out_shape, self.zero = out_shape, torch.nn.Parameter(torch.zeros(()))

    def forward(self, z, c):
        return (10 * c).expand(*z.shape[:-1], *self.out_shape) + self.zero


def test_paths_start_and_end_at_the_posterior_means():
    """All paths agree with the decoder at both ends; with equal covariances the geometric path is straight."""
    toy = LinearGaussian()
    a, b = toy.draw(4, 1), toy.draw(4, 2)
    w, bias = toy.decoder.weight.detach(), toy.decoder.bias.detach()
    ends = [toy.posterior(x)[0].detach() @ w.T + bias for x in (a, b)]
    for path in (linear, spherical, geometric):
        found = interpolate(toy.program, a, b, num_steps=5, path=path)
        assert torch.allclose(found[0], ends[0])
        assert torch.allclose(found[-1], ends[1])
    straight = interpolate(toy.program, a, b, num_steps=5, path=linear)
    assert torch.allclose(straight[1], 0.75 * ends[0] + 0.25 * ends[1])
    assert torch.allclose(interpolate(toy.program, a, b, num_steps=5, path=geometric), straight)
    with pytest.raises(ValueError, match="end"):
        interpolate(toy.program, a, b[:2])


def test_arc_has_constant_length_and_speed():
    """Between means of equal length, all points have this length and equal distances."""
    start, end = torch.randn(6, 3).double(), torch.randn(6, 3).double()
    end = end * start.norm(dim=-1, keepdim=True) / end.norm(dim=-1, keepdim=True)
    normals = [dist.Normal(m, 1.0).to_event(1) for m in (start, end)]
    points = torch.stack([spherical(*normals, i / 4) for i in range(5)])
    assert torch.allclose(points.norm(dim=-1), start.norm(dim=-1).expand(5, 6))
    steps = (points[1:] - points[:-1]).norm(dim=-1)
    assert torch.allclose(steps, steps[:1].expand(4, 6))
    assert torch.allclose(spherical(normals[0], normals[0], 0.3), start)


def test_geometric_path_is_the_product_of_densities():
    """Full covariances: the gradient of q0^(1-t) q1^t at its mean is zero."""
    a, b = torch.randn(2, 3, 3).double(), torch.randn(2, 3, 3).double()
    full = [dist.MultivariateNormal(torch.randn(2, 3).double(), m @ m.mT + torch.eye(3).double()) for m in (a, b)]
    z = geometric(*full, 0.3).requires_grad_()
    (slope,) = torch.autograd.grad((0.7 * full[0].log_prob(z) + 0.3 * full[1].log_prob(z)).sum(), z)
    assert slope.abs().max() < 1e-10
    with pytest.raises(ValueError, match="path"):
        geometric(dist.Laplace(torch.zeros(1, 2), 1.0).to_event(1), full[1], 0.5)


def test_traversal_changes_one_latent():
    """In a linear decoder, setting unit j to v shifts x by (v - mean_j) times column j of W."""
    toy = LinearGaussian()
    x, values = toy.draw(3), [-1.0, 2.0]
    w, mean = toy.decoder.weight.detach(), toy.posterior(x)[0].detach()
    base = mean @ w.T + toy.decoder.bias.detach()
    found = traverse(toy.program, x, values)
    for j in range(2):
        for i, v in enumerate(values):
            assert torch.allclose(found[j, i], base + (v - mean[:, j : j + 1]) * w[:, j])
    assert torch.equal(traverse(toy.program, x, values, units=[1])[0], found[1])
    with pytest.raises(ValueError, match="units"):
        traverse(toy.program, x, values, units=[2])
    with pytest.raises(ValueError, match="values"):
        traverse(toy.program, x, [])


@pytest.mark.parametrize("cls", PROGRAMS)
def test_every_program_generates_or_is_refused_by_name(cls):
    """The examples are those of its method `sample`; an argument that it requires is named."""
    program = cls.example()
    if program.decode_prior.__func__ is pv.Program.decode_prior:
        with pytest.raises(TypeError, match=f"program: .*{cls.__name__}"):
            generate(program, 3)
        return
    options, more = {name: REQUIRED[name] for name in required(program)}, context(program, 3)
    given = {**options, "context": [*more]} if more else options
    assert torch.equal(generate(program, 3, seed=4, **given), sample(program, 3, seed=4))
    assert torch.equal(generate(program, 3, mean=True, **given), sample(program, 3, mean=True))
    for name in options:
        with pytest.raises(ValueError, match=f"{name}: .*{cls.__name__}"):
            generate(program, 3)
    with pytest.raises(ValueError, match="^nothing: "):
        generate(program, 3, nothing=1, **given)
    with pytest.raises(ValueError, match=r"^(context|group)"):
        generate(program, 3, context=[torch.ones(3, 7), torch.ones(3, 7)], **options)
    if not isinstance(program, pv.VAE):
        with pytest.raises(TypeError, match=f"program: .*{cls.__name__}"):
            generate(program, 3, temperature=0.5, **given)


def test_the_context_of_a_program_with_classes_is_the_class():
    program = pv.programs.SemiSupervised.example()
    y = torch.eye(3)
    assert torch.equal(generate(program, 3, context=[y]), program.sample(3, y=y))
    assert torch.equal(generate(program, 3, y=y), program.sample(3, y=y))
