"""DAIS: against a plain implementation, exact evidences and differences, and what it refuses."""

import math

import pyro
import pytest
import torch
from helpers.resumed_fits import check_resumed_and_compiled_fits
from pyro import distributions as dist
from pyro import poutine
from test_discrete_estimators import LINEAR, Toy, gradient, within

import pyro_vae as pv
from pyro_vae.estimators import DAIS, IWAE
from pyro_vae.testing import LinearGaussian, check_estimator

GAMMA = torch.tensor([2.0, 5.0, 9.0]).double()


def in_double(estimator):
    estimator.module.double()
    return estimator


def plain(toy, x, z, noise, step, damping, beta):
    """The bound of the linear-Gaussian model, with slopes written as formulas."""
    w, c, sigma = toy.decoder.weight, toy.decoder.bias, toy.scale()
    q = toy.program.encode(x).base_dist

    def log_q(z):
        return q.log_prob(z).sum(-1)

    def log_w(z):
        prior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
        return dist.Normal(z @ w.T + c, sigma).log_prob(x).sum(-1) + beta * (prior - log_q(z))

    log_weight, v, num_steps = -log_q(z), noise[0], len(noise)
    for k in range(1, num_steps + 1):
        t = k / num_steps
        half = z + step * v / 2
        towards_q = -(half - q.mean) / q.variance
        force = (1 - t * beta) * towards_q - t * beta * half + t * (x - c - half @ w.T) @ w / sigma**2
        end = v + step * force
        z = half + step * end / 2
        normal = dist.Normal(0.0, 1.0)
        log_weight = log_weight + normal.log_prob(end).sum(-1) - normal.log_prob(v).sum(-1)
        v = damping * end + math.sqrt(1 - damping**2) * noise[k] if k < num_steps else None
    return (log_weight + log_w(z) + log_q(z)).logsumexp(0) - math.log(len(z))


@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize(("num_particles", "step_size"), [(1, 0.2), (3, [0.2, 0.05])], ids=str)
def test_value_and_gradient_are_those_of_a_plain_implementation(num_particles, step_size, beta):
    toy = LinearGaussian(off=0.3)
    x = toy.draw(5)
    estimator = in_double(DAIS(num_steps=4, step_size=step_size, damping=0.7, num_particles=num_particles))
    terms = estimator.terms(toy.program.model, toy.program.guide, x)
    z = terms.latent[0].guide["value"].reshape(num_particles, 5, 2)
    sizes = estimator.module.log_step_size.exp()
    expected = plain(toy, x, z, terms.read(estimator.noise), sizes, 0.7, beta)
    found = estimator.bound(terms, beta)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    parameters = list(toy.program.parameters())
    gradients = [torch.autograd.grad(b.sum(), parameters, retain_graph=True) for b in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize("num_particles", [1, 4])
def test_a_step_of_size_0_gives_the_importance_weighted_bound(num_particles, beta):
    toy = LinearGaussian(off=0.3)
    x, found = toy.draw(5), []
    estimator = DAIS(num_steps=2, num_particles=num_particles, beta=beta)
    with torch.no_grad():
        estimator.module.log_step_size.fill_(-math.inf)
    for each in (estimator, IWAE(num_particles=num_particles, beta=beta)):
        torch.manual_seed(0)
        loss = each.differentiable_loss(toy.program.model, toy.program.guide, x)
        found.append(torch.cat([loss.detach().reshape(1), gradient(loss, list(toy.program.parameters()))]))
    torch.testing.assert_close(*found)


def test_gradient_is_that_of_differences_for_the_program_and_for_what_is_learned():
    toy = LinearGaussian(off=0.3)
    x = toy.draw(3)
    estimator = in_double(DAIS(num_steps=3, step_size=[0.3, 0.1], num_particles=2, beta=0.8))

    def loss():
        torch.manual_seed(0)
        return estimator.differentiable_loss(toy.program.model, toy.program.guide, x)

    parameters = [*toy.program.parameters(), *estimator.module.parameters()]
    found = torch.autograd.grad(loss(), parameters)
    for p, slope in zip(parameters, found, strict=True):
        for i in range(p.numel()):
            values = []
            for step in (1e-5, -2e-5, 1e-5):
                p.data.view(-1)[i] += step
                values.append(float(loss().detach()))
            assert float(slope.view(-1)[i]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-6)


def test_a_lower_bound_that_reaches_the_evidence_as_steps_grow():
    toy = LinearGaussian(off=0.3)
    x = toy.draw(100)
    evidence, gaps = toy.log_evidence(x).detach(), []
    for num_steps in (2, 20, 200, 800):
        with torch.no_grad():
            each = DAIS(num_steps=num_steps, step_size=0.2).per_datum(toy.program.model, toy.program.guide, x)
        gap = evidence - each
        gaps.append(float(gap.mean()))
        assert gaps[-1] > -4 * float(gap.std()) / 10
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.1 < 2 < gaps[0]


def linear(copies=1):
    """A mean-field guide off the posterior."""
    toy = LinearGaussian(off=0.1)
    x = toy.draw(3).repeat(copies, 1)
    return toy.program.model, toy.program.guide, x, toy.log_evidence(x).detach()


def positive(copies=1):
    """A gamma latent with a log-normal guide."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Poisson(pyro.sample("z", dist.Gamma(2.0, 0.5))), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal((x + 2).log() - 0.3, 0.5))

    x = GAMMA.repeat(copies)
    return model, guide, x, dist.GammaPoisson(2.0, 0.5).log_prob(x)


def simplex(copies=1):
    """A Dirichlet latent, with one unconstrained dimension fewer."""
    x = torch.tensor([[3.0, 0.0, 2.0], [1.0, 1.0, 1.0]]).double().repeat(copies, 1)
    prior = torch.tensor([1.0, 2.0, 1.5]).double()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Dirichlet(prior))
            pyro.sample("x", dist.Multinomial(total_count=5, probs=z, validate_args=False), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Dirichlet(0.8 * (x + prior)))

    return model, guide, x, dist.DirichletMultinomial(prior, x.sum(-1), validate_args=False).log_prob(x)


def layers(copies=1):
    """Two latents, the second of the guide given the first, and one scalar and one vector."""
    x = torch.tensor([0.3, -1.0, 2.0]).double().repeat(copies)

    def model(x):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            z = pyro.sample("z", dist.Normal(top.sum(-1), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.6 * x, 1.0))
            pyro.sample("top", dist.Normal(0.2 * z.unsqueeze(-1).expand(*z.shape, 2), 0.9).to_event(1))

    return model, guide, x, dist.Normal(0.0, 2.0).log_prob(x)


def inside(copies=1):
    """Two latents of each example in a plate inside, with a positive one."""
    x = torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.5, 0.1]]).double().repeat(1, copies)

    def model(x):
        with pyro.plate("data", x.shape[-1], dim=-1), pyro.plate("inner", 2, dim=-2):
            scale = pyro.sample("precision", dist.Gamma(3.0, 3.0)).rsqrt()
            pyro.sample("x", dist.Normal(0.0, scale), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[-1], dim=-1), pyro.plate("inner", 2, dim=-2):
            pyro.sample("precision", dist.LogNormal(-0.1 * x.square(), 0.6))

    return model, guide, x, dist.StudentT(6.0).log_prob(x).sum(0)


@pytest.mark.parametrize("num_particles", [1, 2])
@pytest.mark.parametrize("make", [linear, positive, simplex, layers, inside], ids=lambda f: f.__name__)
def test_weights_have_the_evidence_as_their_mean(make, num_particles):
    """Exact for any number of steps and any step size; 20,000 copies of each row, within 5 standard errors."""
    copies = 20_000
    model, guide, x, evidence = make(copies)
    estimator = DAIS(num_steps=3, step_size=0.3, damping=0.6, num_particles=num_particles)
    torch.manual_seed(0)
    with torch.no_grad():
        found = estimator.per_datum(model, guide, x)
        moved = found - IWAE(num_particles=num_particles).per_datum(model, guide, x)
    ratio = (found - evidence).exp().reshape(copies, -1)
    assert (moved.abs() > 1e-3).double().mean() > 0.9
    assert ((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / math.sqrt(copies)).all()
    assert (ratio.std(0) < 2).all()


def test_tighter_than_importance_weights_at_equal_cost_under_a_bad_guide():
    """Step sizes learned for 100 steps; a gradient costs two runs of the decoder more, so K steps cost 3K + 2."""
    toy = LinearGaussian(20, 10)
    x = toy.draw(200)
    with torch.no_grad():
        toy.encoder.bias[:10] += 0.8  # two standard deviations, in each of ten dimensions
    estimator = DAIS(num_steps=10)
    adam = torch.optim.Adam(estimator.module.parameters(), lr=0.05)
    for _ in range(100):
        adam.zero_grad()
        estimator.loss_and_grads(toy.program.model, toy.program.guide, x[:50])
        adam.step()
    with torch.no_grad():
        found, others = (
            e.per_datum(toy.program.model, toy.program.guide, x) for e in (estimator, IWAE(num_particles=32))
        )
    gain = found - others
    gap = toy.log_evidence(x).detach() - found
    print(f"gain {float(gain.mean()):.2f}, gap {float(gap.mean()):.2f}", dict(estimator.module.state_dict()))
    assert gain.mean() > 4 * gain.std() / math.sqrt(len(gain))
    assert gain.mean() > 2 * gap.mean()


@pytest.mark.parametrize("scale", [10.0, 0.1])
def test_scale_multiplies_the_loss(scale):
    toy, found = LinearGaussian(off=0.3), []
    estimator, x = in_double(DAIS(num_particles=2)), toy.draw(4)
    for factor in (scale, 1.0):
        model, guide = (poutine.scale(f, factor) for f in (toy.program.model, toy.program.guide))
        torch.manual_seed(0)
        loss = estimator.differentiable_loss(model, guide, x) * (scale / factor)
        parameters = [*toy.program.parameters(), *estimator.module.parameters()]
        found.append(torch.cat([loss.detach().reshape(1), gradient(loss, parameters)]))
    torch.testing.assert_close(*found)


def test_mask_leaves_rows_out():
    """Also in the volume of the map from unconstrained latents."""
    model, guide, x, _ = positive()
    mask = torch.tensor([True, False, True])
    found = []
    for other in (0.0, 3.0):
        rows = x + other * (~mask).double()
        torch.manual_seed(0)
        each = DAIS().per_datum(*(poutine.mask(f, mask=mask) for f in (model, guide)), rows)
        assert each[1] == 0
        found.append(each)
    torch.testing.assert_close(*found)


def test_subsampled_rows_are_the_same_in_all_runs():
    """A plate that draws its own rows: the bound of each is that of its row of the data."""
    toy = LinearGaussian(off=0.1)
    data = toy.draw(6)

    def rows(run):
        def program(x):
            with pyro.plate("data", 6, subsample_size=2, dim=-1) as index:
                run(x[index])

        return program

    model = rows(lambda x: pyro.sample("x", toy.program.likelihood(pyro.sample("z", toy.program.prior())), obs=x))
    guide = rows(lambda x: pyro.sample("z", toy.program.posterior(x)))
    estimator = DAIS(num_steps=300, step_size=0.15)
    for seed in range(3):
        torch.manual_seed(seed)
        with torch.no_grad():
            terms = estimator.terms(model, guide, data)
            evidence = toy.log_evidence(terms.observed[0].model["value"])
            assert (estimator.bound(terms, 1.0) - evidence).abs().max() < 1.0


def test_estimator_obeys_the_laws():
    check_estimator(LinearGaussian(off=0.1).program, DAIS(num_particles=4), LinearGaussian().draw(10))


def test_a_fit_resumes_and_compiles_to_the_same_weights(tmp_path):
    def make():
        return LinearGaussian(off=0.1).program, in_double(DAIS(num_steps=2))

    check_resumed_and_compiled_fits(make, LinearGaussian().draw(32), 16, tmp_path)


def test_learning_can_be_stopped():
    toy, estimator = LinearGaussian(off=0.1), DAIS()
    estimator.module.requires_grad_(False)
    toy.program.requires_grad_(False)
    toy.decoder.requires_grad_(True)
    loss = estimator.differentiable_loss(toy.program.model, toy.program.guide, toy.draw(3))
    loss.backward()
    assert toy.decoder.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in estimator.module.parameters())


@pytest.mark.slow
def test_a_model_that_sums_over_a_class_is_annealed():
    """The density of a mixture is a sum over a site that only the model has."""

    @pyro.infer.config_enumerate
    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Bernoulli(torch.tensor(0.3).double()))
            z = pyro.sample("z", dist.Normal(2 * y, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x + 0.3, 0.9))

    x = torch.tensor([0.5, 2.0]).double()
    each = torch.stack([dist.Normal(2.0 * y, math.sqrt(2)).log_prob(x) for y in (0, 1)]).exp()
    evidence = torch.tensor([0.7, 0.3]).double() @ each
    with torch.no_grad():
        found = torch.stack([DAIS(num_steps=3, step_size=0.3).per_datum(model, guide, x) for _ in range(400)])
    assert within(found.exp(), evidence)


def test_latents_that_cannot_move_are_refused_by_name():
    x = torch.zeros(2, 4)
    bits = Toy("bits").program
    with pytest.raises(ValueError, match="guide: DAIS .*'z'.*Bernoulli"):
        DAIS().loss(bits.model, bits.guide, x.double())
    build = {"prior": pv.priors.HypersphericalUniform(3), "likelihood": pv.likelihoods.Normal(3, (4,), net=LINEAR)}
    sphere = pv.VAE(**build, posterior=pv.posteriors.PowerSpherical((4,), 3, net=LINEAR))
    with pytest.raises(ValueError, match="program: .*'z'"):
        DAIS().loss(sphere.model, sphere.guide, x)
    codes = pv.VAE(
        prior=pv.priors.OneHotCategorical(3),
        likelihood=pv.likelihoods.Normal(3, (4,), net=LINEAR),
        posterior=pv.posteriors.StraightThroughOneHotCategorical((4,), 3, net=LINEAR),
    )
    with pytest.raises(ValueError, match="'z'"):
        DAIS().loss(codes.model, codes.guide, x)

    def point(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x.new_zeros(len(x), 3), event_dim=1))

    with pytest.raises(ValueError, match="guide: DAIS .*'z'.*Delta"):
        DAIS().loss(sphere.model, point, x)


def test_a_wrong_number_of_step_sizes_is_refused():
    toy = LinearGaussian()
    with pytest.raises(ValueError, match="step_size: .*2 unconstrained dimensions"):
        DAIS(step_size=[0.1, 0.1, 0.1]).loss(toy.program.model, toy.program.guide, toy.draw(3))


@pytest.mark.parametrize(
    "options",
    [{"num_steps": 0}, {"step_size": 0.0}, {"step_size": [0.1, -1.0]}, {"step_size": "a"}, {"damping": 1.0}],
    ids=str,
)
def test_bad_options(options):
    [name] = options
    with pytest.raises(ValueError, match=f"{name}:"):
        DAIS(**options)
    with pytest.raises(ValueError, match="particles_per_pass"):
        DAIS(num_particles=4, particles_per_pass=2)


def test_the_decoder_runs_once_per_step_and_twice_more():
    toy, runs = LinearGaussian(), []
    estimator, x = DAIS(num_steps=4, num_particles=3), toy.draw(2)
    estimator.per_datum(toy.program.model, toy.program.guide, x)  # finds the structure of the program
    toy.program.likelihood.register_forward_hook(lambda *args: runs.append("decoder"))
    toy.program.posterior.register_forward_hook(lambda *args: runs.append("encoder"))
    estimator.per_datum(toy.program.model, toy.program.guide, x)
    assert runs.count("decoder") == 6
    assert runs.count("encoder") == 1
