"""Training on simulations: exact gradients and optima, simulators without a density, and what cannot be simulated."""

import copy
import functools
import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import infer, poutine
from torch import nn

import pyro_vae as pv
from pyro_vae.programs import Forward, Inverse, MeanField

E = pv.estimators
LINEAR = functools.partial(pv.nets.MLP, hidden=())
SMALL = functools.partial(pv.nets.MLP, hidden=(8,))
ROWS, BLOCKS = 500, 40


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def plate(x):
    return pyro.plate("data", len(x), dim=-1)


def inverse_scale(std):
    return torch.log(torch.expm1(std - 1e-4))


class Fixed(nn.Module):
    """A network that is a function of x and of its parameters."""

    takes_missing = True

    def __init__(self, function, size):
        super().__init__()
        self.function, self.p = function, nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, x, *context):
        return self.function(x, self.p)


def fixed(function, size):
    return lambda *shapes, context=0: Fixed(function, size)


def close(program, x, exact):
    """Whether loss and gradient are those of an exact loss of the parameters, in 4 standard errors."""
    (parameter,) = program.parameters()
    slopes, values = [], []
    torch.manual_seed(0)
    for _ in range(BLOCKS):
        loss = E.ForwardKL().differentiable_loss(program.model, program.guide, x) / len(x)
        values.append(loss.detach())
        slopes.append(torch.autograd.grad(loss, parameter)[0])
    expected = exact(parameter)
    (slope,) = torch.autograd.grad(expected, parameter)
    values, slopes = torch.stack(values), torch.stack(slopes)
    for found, wanted in ((values, expected.detach()), (slopes, slope)):
        error = found.std(0) / math.sqrt(BLOCKS)
        assert ((found.mean(0) - wanted).abs() < 4 * error).all()
        assert (error > 0).all()


# exact gradients


def linear(x):
    with plate(x):
        z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize("start", [(0.5, 0.0, -math.log(2) / 2), (0.2, 0.3, 0.1)], ids=["optimum", "elsewhere"])
def test_loss_and_gradient_of_a_linear_model(start):
    """E[-log N(z; ax + b, s)] for E z^2 = E zx = 1 and E x^2 = 2."""

    def net(x, p):
        a, b, log_s = p
        return torch.stack([a * x + b, inverse_scale(log_s.exp()).expand_as(x)], -1).unsqueeze(-1)

    def exact(p):
        a, b, log_s = p
        return 0.5 * math.log(2 * math.pi) + log_s + (1 - 2 * a + 2 * a**2 + b**2) / (2 * (2 * log_s).exp())

    x = torch.full((ROWS,), 7.0).double()  # values are not read
    program = pv.amortize(linear, x, net=fixed(net, 3))
    with torch.no_grad():
        next(program.parameters()).copy_(number(start))
    close(program, x, exact)
    if start[0] == 0.5:  # the exact posterior
        (slope,) = torch.autograd.grad(exact(p := number(start).requires_grad_()), p)
        assert slope.abs().max() < 1e-12


def gamma_poisson(x):
    with plate(x):
        rate = pyro.sample("rate", dist.Gamma(number(2.5), number(0.7)))
        pyro.sample("x", dist.Poisson(rate), obs=x)


def test_loss_and_gradient_of_a_gamma_poisson_model():
    """The posterior is Gamma(2.5 + x, 1.7), whose logarithm has mean and variance in closed form."""

    def net(x, p):
        return torch.stack([(x + 1 + p[0]).log(), inverse_scale((p[1] - 0.3).exp()).expand_as(x)], -1).unsqueeze(-1)

    def exact(p):
        x = torch.arange(200).double()
        weights = dist.GammaPoisson(number(2.5), number(0.7)).log_prob(x).exp()
        a = 2.5 + x
        log_mean, log_var = torch.digamma(a) - math.log(1.7), torch.polygamma(1, a)
        loc, log_s = (x + 1 + p[0]).log(), p[1] - 0.3
        squares = log_var + (log_mean - loc) ** 2
        each = log_mean + 0.5 * math.log(2 * math.pi) + log_s + squares / (2 * (2 * log_s).exp())
        assert float(weights.sum()) == pytest.approx(1)
        return (weights * each).sum()

    x = torch.zeros(ROWS).double()
    close(pv.amortize(gamma_poisson, x, net=fixed(net, 2)), x, exact)


LOC, PROBS = number([-1.0, 0.5, 2.0]), number([0.2, 0.5, 0.3])


def classes(x):
    with plate(x):
        k = pyro.sample("k", dist.Categorical(PROBS))
        pyro.sample("x", dist.Normal(LOC[k], 1.0), obs=x)


def test_loss_and_gradient_of_a_class():
    def exact(p):
        x = torch.linspace(-12, 14, 4001).double()
        joint = PROBS.log() + dist.Normal(LOC, 1.0).log_prob(x.unsqueeze(-1))
        log_q = (p[0] * x.unsqueeze(-1) * LOC + p[1:]).log_softmax(-1)
        return -(joint.exp() * log_q).sum() * (x[1] - x[0])

    x = torch.zeros(ROWS).double()
    program = pv.amortize(classes, x, net=fixed(lambda x, p: p[0] * x.unsqueeze(-1) * LOC + p[1:], 4))
    with torch.no_grad():
        next(program.parameters()).copy_(number([0.4, 0.1, 0.3, -0.2]))
    close(program, x, exact)


# optima


def trained(model, x, **options):
    """Train on simulations, with a learning rate that falls to zero."""
    torch.manual_seed(0)
    program = pv.amortize(model, x, net=LINEAR, **options)
    options = {"estimator": E.ForwardKL(), "batch_size": len(x), "progress": False}
    for lr in (0.05, 0.01, 0.002):
        pv.fit(program, x, optimizer=functools.partial(torch.optim.Adam, lr=lr), epochs=150, **options)
    return program


def two_causes(x):
    """The posterior of the two causes has covariance [[2, -1], [-1, 2]] / 3 and means x / 3."""
    with plate(x):
        a = pyro.sample("a", dist.Normal(number(0.0), 1.0))
        b = pyro.sample("b", dist.Normal(torch.zeros(1).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(a + b.squeeze(-1), 1.0), obs=x)


@pytest.mark.slow
@pytest.mark.parametrize("structure", [MeanField(), Forward(), Inverse()])
def test_the_optimum_has_the_moments_of_the_posterior(structure):
    """Also that of a mean field, whose variances under the ELBO would be 1/2; and the loss is the entropy.

    The error is that of maximum likelihood on the simulations of two steps, a bound on that of the last steps.
    """
    x = torch.zeros(2000).double()
    program = trained(two_causes, x, structure=structure)
    new = number([-2.0, 0.0, 1.0, 3.0])
    torch.manual_seed(1)
    draws = pv.trace.run(program.model, program.guide, (new,), num_particles=100_000).latent
    a, b = (site.guide["value"].reshape(-1, 4) for site in draws)
    fit = math.sqrt(2 / 3) / math.sqrt(2 * len(x))  # of a mean at x = 0, and of a standard deviation times sqrt(2)
    for z in (a, b):
        error = math.hypot(math.sqrt(2 / 3 / len(z)), fit)
        far = (1 + new**2 / 3).sqrt()  # of a line at x
        assert ((z.mean(0) - new / 3).abs() < 4 * error * far).all()
        assert ((z.std(0) - math.sqrt(2 / 3)).abs() < 4 * error * far).all()
    coupled = not isinstance(structure, MeanField)
    covariance = ((a - a.mean(0)) * (b - b.mean(0))).mean(0)
    assert ((covariance + coupled / 3).abs() < 8 * error * far).all()
    variances = 1 / 3 if coupled else 4 / 9  # the product of the conditional variances
    entropy = math.log(2 * math.pi * math.e) + 0.5 * math.log(variances)
    values = -E.ForwardKL().per_datum(program.model, program.guide, torch.zeros(100_000).double())
    assert abs(values.mean() - entropy) < 4 * values.std() / math.sqrt(100_000) + 3 * fit**2


@pytest.mark.slow
def test_a_trained_gamma_poisson_posterior_has_the_exact_moments_of_the_logarithm():
    torch.manual_seed(0)
    x = torch.zeros(2000).double()
    program = pv.amortize(gamma_poisson, x, net=functools.partial(pv.nets.MLP, hidden=(32,)))
    for lr in (1e-2, 1e-3):
        optimizer = functools.partial(torch.optim.Adam, lr=lr)
        pv.fit(program, x, estimator=E.ForwardKL(), optimizer=optimizer, epochs=600, batch_size=2000, progress=False)
    new = number([0.0, 1.0, 2.0, 5.0, 9.0])
    q = program.posteriors["rate"](new)
    exact = torch.digamma(2.5 + new) - math.log(1.7), torch.polygamma(1, 2.5 + new).sqrt()
    # rows of these counts in the simulations of one step
    count = 2000 * dist.GammaPoisson(number(2.5), number(0.7)).log_prob(new).exp()
    for found, wanted in zip((q.mean.squeeze(-1), q.stddev.squeeze(-1)), exact, strict=True):
        assert ((found - wanted).abs() < 4 * exact[1] / count.sqrt()).all()


@pytest.mark.slow
def test_a_trained_class_has_the_exact_probabilities():
    program = trained(classes, torch.zeros(2000).double())
    new = number([-2.0, 0.0, 1.0, 3.0])
    found = program.posteriors["k"](new).probs
    exact = (PROBS.log() + dist.Normal(LOC, 1.0).log_prob(new.unsqueeze(-1))).softmax(-1)
    # each of the three lines in the logits is known to about 4 / sqrt(2000) at these rows
    assert ((found - exact).abs() < 4 * 4 / math.sqrt(2000) * exact * (1 - exact) + 1e-3).all()


# simulators


class OnlySample(dist.TorchDistribution):
    """N(loc, 1) without a density."""

    arg_constraints, support, has_rsample = {}, dist.constraints.real, False

    def __init__(self, loc):
        self.loc = loc
        super().__init__(loc.shape, validate_args=False)

    def sample(self, sample_shape=()):
        return self.loc + torch.randn([*sample_shape, *self.loc.shape], dtype=self.loc.dtype)

    def expand(self, batch_shape, _instance=None):
        return OnlySample(self.loc.expand(batch_shape))


def simulator(x):
    with plate(x):
        z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
        pyro.sample("x", OnlySample(z), obs=x)


def test_a_likelihood_without_a_density():
    x = torch.zeros(1000).double()
    program = trained(simulator, x)
    new = number([-2.0, 0.0, 2.0])
    q = program.posteriors["z"](new)
    error = math.sqrt(0.5 / len(x)) * (1 + new**2 / 2).sqrt()
    assert ((q.mean.squeeze(-1) - new / 2).abs() < 4 * error).all()
    assert ((q.stddev.squeeze(-1) - math.sqrt(0.5)).abs() < 4 * error).all()
    found = pv.evaluation.calibration(program, x, num_simulations=400, progress=False)
    assert found.passed
    assert set(found.ranks) == {"z"}
    for estimator in (E.ELBO(), E.IWAE()):
        with pytest.raises(NotImplementedError, match="^model: .*'x'.*OnlySample.*ForwardKL"):
            pv.fit(program, x, estimator=estimator, epochs=1, progress=False)


def test_parameters_of_the_model_stay():
    vae = pv.VAE(
        prior=pv.priors.Normal(2),
        likelihood=pv.likelihoods.Bernoulli(2, (4,), net=SMALL),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2, net=SMALL),
    )
    before, x = copy.deepcopy(vae), torch.zeros(20, 4)
    pv.fit(vae, x, valid=x, estimator=E.ForwardKL(), epochs=2, progress=False)
    for (name, a), b in zip(vae.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(a, b) == (not name.startswith("posterior")), name


# what is simulated


def seen_by_the_guide(model, *batch):
    """Return the arguments of the guide in a step, and the run of the model that made them."""
    from pyro_vae.trace.simulate import simulate

    torch.manual_seed(0)
    made = simulate(model, batch)
    return made.batch, {name: site["value"] for name, site in made.run.sites.items()}


def test_each_observed_argument_is_replaced():
    def model(x, y, w):
        with plate(x):
            z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
            pyro.sample("left", dist.Normal(z + w, 1.0), obs=x[:, 0])
            right = dist.Normal(z.unsqueeze(-1), 1.0).expand([len(x), 2]).to_event(1)
            pyro.sample("right", right, obs=x[:, 1:])
            pyro.sample("y", dist.Bernoulli(logits=z), obs=y)

    x, y, w = torch.zeros(6, 3).double(), torch.zeros(6).double(), torch.arange(6).double()
    y[2] = math.nan
    (new, label, context), sites = seen_by_the_guide(model, x, y, w)
    assert torch.equal(new, torch.cat([sites["left"].unsqueeze(-1), sites["right"]], -1))
    assert torch.equal(context, w)
    assert label[2].isnan()
    keep = torch.arange(6) != 2
    assert torch.equal(label[keep], sites["y"][keep])
    assert not x.any()


@pytest.mark.parametrize("dims", [(-2, -1), (-1, -2)])
def test_missing_and_masked_entries_stay(dims):
    data, inner = dims

    def model(x):
        seen, values = ~torch.isnan(x), x.nan_to_num()
        if inner == -2:
            seen, values = seen.T, values.T
        with pyro.plate("groups", len(x), dim=data):
            u = pyro.sample("u", dist.Normal(number(0.0), 1.0))
            with pyro.plate("repeats", x.shape[1], dim=inner), poutine.mask(mask=seen):
                pyro.sample("x", dist.Normal(u, 1.0), obs=values)

    x = torch.zeros(5, 3).double()
    x[0, 1:] = math.nan
    (new,), sites = seen_by_the_guide(model, x)
    value = sites["x"] if inner == -1 else sites["x"].T
    assert torch.equal(new.isnan(), x.isnan())
    assert torch.equal(new[~x.isnan()], value[~x.isnan()])
    program = pv.amortize(model, x, net=functools.partial(pv.nets.ZeroImputed, net=SMALL))
    assert math.isfinite(pv.fit(program, x, estimator=E.ForwardKL(), epochs=1, progress=False)["loss"][0])


def test_a_class_that_the_model_sums_over_is_sampled():
    def model(x):
        with plate(x):
            k = pyro.sample("k", dist.Categorical(PROBS), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(LOC[k], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.zeros(50).double()
    program = pv.amortize(model, x, net=SMALL)
    assert math.isfinite(pv.fit(program, x, estimator=E.ForwardKL(), epochs=1, progress=False)["loss"][0])


# laws of estimators


def test_a_step():
    """Evaluation changes nothing, statistics of a BatchNorm move once per step, and a compiled step is the same."""
    x = torch.zeros(30).double()
    net = functools.partial(pv.nets.MLP, hidden=(8,))
    program = pv.amortize(gamma_poisson, x, net=net)
    compiled, options = copy.deepcopy(program), {"epochs": 2, "batch_size": 10, "progress": False}
    a = pv.fit(program, x, estimator=E.ForwardKL(), compile=False, **options)["loss"]
    b = pv.fit(compiled, x, estimator=E.ForwardKL(), compile=pv.training.eager_graph, **options)["loss"]
    assert a == pytest.approx(b, rel=1e-6)
    estimator = E.ForwardKL()
    estimator.loss(program.model, program.guide, x)
    assert estimator.step == 0
    estimator.loss_and_grads(program.model, program.guide, x)
    assert estimator.step == 1
    assert len(pyro.get_param_store()) == 0


def test_weights_and_scales():
    x = torch.zeros(4).double()
    program = pv.amortize(linear, x, net=SMALL)
    scaled = pv.amortize(poutine.scale(linear, 3.0), x, net=SMALL)
    scaled.posteriors["z"].load_state_dict(program.posteriors["z"].state_dict())
    losses = []
    for one in (program, scaled):
        torch.manual_seed(0)
        losses.append(E.ForwardKL().loss(one.model, one.guide, x))
    assert losses[1] == pytest.approx(3 * losses[0])
    weights = torch.tensor([0.0, 1.0, 2.0, 0.0]).double()
    assert math.isfinite(
        pv.fit(program, x, estimator=E.ForwardKL(), weights=weights, epochs=1, progress=False)["loss"][0]
    )


# refusals


def test_latents_that_examples_share_are_refused():
    def model(x):
        w = pyro.sample("w", dist.Normal(number(0.0), 1.0))
        with plate(x):
            z = pyro.sample("z", dist.Normal(w, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(number(0.0), 1.0))
        with plate(x):
            pyro.sample("z", dist.Normal(number(0.0), 1.0))

    x = torch.zeros(4).double()
    for program in (pv.amortize(model, x), pv.programs.FunctionProgram(model, guide)):
        with pytest.raises(ValueError, match="^model: .*'w'.*share"):
            E.ForwardKL().loss(program.model, program.guide, x)


def test_guides_without_a_density_at_a_simulation_are_refused():
    auto = infer.autoguide.AutoMultivariateNormal(linear)
    with pytest.raises(ValueError, match="^(model|guide): .*'z'.*Delta"):
        E.ForwardKL().loss(linear, auto, torch.zeros(4).double())
    pyro.clear_param_store()


@pytest.mark.parametrize(
    "part",
    [lambda x: x.sum(-1), lambda x: 2 * x[:, 0], lambda x: x[:, :1].expand(-1, 2), lambda x: x[:, 0].long().double()],
)
def test_observations_computed_in_the_model_are_refused(part):
    def model(x):
        with plate(x):
            z = pyro.sample("z", dist.Normal(number(0.0), 1.0))
            value = part(x)
            loc = z if value.dim() == 1 else z.unsqueeze(-1).expand(value.shape)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(value.dim() - 1), obs=value)
            pyro.sample("y", dist.Normal(z, 1.0), obs=x[:, 1])

    x = torch.zeros(4, 2).double()
    with pytest.raises(ValueError, match="^program: .*'x'"):
        pv.fit(pv.amortize(model, x), x, estimator=E.ForwardKL(), epochs=1, progress=False)
