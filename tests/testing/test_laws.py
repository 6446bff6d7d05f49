"""The laws, over whole shelves: an exported part, scale, network or estimator is tested without an entry here."""

import copy
import functools
import inspect

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import pyro_vae as pv
from pyro_vae.testing import check_estimator, check_mass, check_part, parts
from pyro_vae.trace import Resampled

#: Each shelf of parts with the event shape of its context.
SHELVES = {pv.priors: (), pv.likelihoods: ((3,),), pv.posteriors: ((2, 2),)}
PARTS = [pytest.param(cls, shapes, id=cls.__name__) for shelf, shapes in SHELVES.items() for cls in parts(shelf)]
#: What each shelf's constructors take first.
FIRST = {pv.priors: (3,), pv.likelihoods: (3, (2, 2)), pv.posteriors: ((2, 2), 3)}


def accepting(option):
    """Return the parts whose constructor takes an option."""
    return [
        pytest.param(cls, FIRST[shelf], shapes, id=cls.__name__)
        for shelf, shapes in SHELVES.items()
        for cls in parts(shelf)
        if option in inspect.signature(cls).parameters
    ]


def label_shapes(part):
    """The shape of the labels or covariates that a part takes, if any."""
    return [(part.context,)] if part.context else []


def example(part, **options):
    """The example of a part; skip if its optional package is not installed."""
    try:
        return part.example(**options)
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("part", "shapes"), PARTS)
def test_every_part(part, shapes):
    """`check_part` raises an AssertionError that names the broken law."""
    built = example(part)
    check_part(built, *shapes, *label_shapes(built))


@pytest.mark.parametrize(("part", "shapes"), PARTS)
def test_every_density_of_one_number_has_mass_one(part, shapes):
    small = example(part, latent=1, shape=(1,))
    for _ in range(3 if shapes or label_shapes(small) else 1):  # without a context there is a single density
        context = [torch.randn(1) for _ in shapes] + [torch.randn(*shape) for shape in label_shapes(small)]
        assert check_mass(small(*context), small)


@pytest.mark.parametrize(("part", "first", "shapes"), accepting("context"))
def test_every_part_with_a_context(part, first, shapes):
    """`check_part` raises an AssertionError that names the broken law."""
    try:
        built = part(*first, context=4)
    except (TypeError, ValueError, ImportError):
        built = example(part)  # it needs more than the uniform arguments
    check_part(built, *shapes, *label_shapes(built))


@pytest.mark.parametrize("scale", [0.3, *parts(pv.scales, nn.Module)])
def test_every_scale_with_every_likelihood_that_takes_one(scale):
    """A likelihood checks the scale by type; `check_part` raises an AssertionError that names the broken law."""
    accepted = 0
    for likelihood in parts(pv.likelihoods):
        if "scale" not in inspect.signature(likelihood).parameters:
            continue
        try:
            part = likelihood(3, (2, 2), scale=scale if isinstance(scale, float) else scale())
        except TypeError:
            continue
        check_part(part.eval(), (3,))
        accepted += 1
    assert accepted, "no likelihood takes this scale"


@pytest.mark.parametrize("net", [net for net in parts(pv.nets, nn.Module) if net is not pv.nets.Net])
def test_every_network_in_a_likelihood_or_posterior(net):
    """Each network maps the shapes of at least one of these parts."""
    roles = {
        lambda: pv.likelihoods.Bernoulli(3, (2, 6, 5), net=net): (3,),
        lambda: pv.posteriors.MeanFieldNormal((2, 6, 5), 3, net=net): (2, 6, 5),
        lambda: pv.likelihoods.Multinomial(3, (5,), net=functools.partial(net, counts=torch.ones(5))): (3,),
        lambda: pv.posteriors.MeanFieldNormal((5,), 3, net=net): (5,),
        lambda: pv.posteriors.MeanFieldNormal((5, 2), 3, net=net): (5, 2),
    }
    checked = 0
    for build, shape in roles.items():
        try:
            part = build().eval()
            part(torch.rand(2, *shape))
        except (TypeError, ValueError, RuntimeError):
            continue
        check_part(part, shape)
        checked += 1
    assert checked, "no likelihood or posterior takes this network"


ESTIMATORS = list(parts(pv.estimators, pv.estimators.Estimator))
#: Every likelihood with two estimators, every other estimator with two likelihoods.
WITH_EVERY = (pv.estimators.ELBO, pv.estimators.IWAE)
FIRST, SECOND = ([(e, p) for p in parts(pv.likelihoods)] for e in WITH_EVERY)
PAIRS = [*FIRST, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SECOND)]
PAIRS += [(e, p) for e in ESTIMATORS if e not in WITH_EVERY for p in (pv.likelihoods.Normal, pv.likelihoods.Bernoulli)]


def make_estimator(kind, at_least):
    """Return an estimator with the smallest number of particles from `at_least` on that it accepts."""
    for num_particles in range(at_least, at_least + 4):
        try:
            return kind.example(num_particles=num_particles)
        except ValueError:
            continue
        except TypeError:  # its particles have other names
            return kind.example()
    raise AssertionError(f"{kind.__name__} accepts no number of particles from {at_least} to {at_least + 3}")


def programs_for(estimator, likelihood, x):
    """Yield a VAE with real and one with binary latents; for estimators that resample steps, a chain of two."""
    if issubclass(estimator.draws, Resampled):
        chain = pv.programs.SequenceVAE(
            prior=pv.priors.Normal(3),
            transition=pv.priors.ConditionalNormal(3, context=3),
            likelihood=copy.deepcopy(likelihood),
            posterior=pv.posteriors.MeanFieldNormal((4,), 3, context=3),
            summary=pv.programs.BackwardGRU(x.shape[1:], 4),
        )
        yield chain, x.unsqueeze(1).repeat_interleave(2, 1)
        return
    for prior, posterior in (
        (pv.priors.Normal, pv.posteriors.MeanFieldNormal),
        (pv.priors.Bernoulli, pv.posteriors.Bernoulli),
    ):
        yield pv.VAE(prior=prior(3), likelihood=copy.deepcopy(likelihood), posterior=posterior(x.shape[1:], 3)), x


@pytest.mark.parametrize(("estimator", "likelihood"), PAIRS)
@pytest.mark.parametrize("num_particles", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_every_estimator(estimator, num_particles, likelihood):
    """`check_estimator` raises an AssertionError that names the pair and the broken law.

    An estimator refuses latents that it is not for by a ValueError, and accepts real or binary ones.
    """
    likelihood = likelihood.example()
    x = likelihood(torch.randn(6, 3)).sample()  # data that this likelihood can generate
    # one law repeats the first row: zeros would give the first layer of the encoder no gradient
    x = x[x.flatten(1).abs().sum(1).argsort(descending=True)]
    refusals = []
    for program, data in programs_for(estimator, likelihood, x):
        kind = make_estimator(estimator, num_particles)
        if isinstance(kind, pv.estimators.ForwardKL):  # it trains the guide alone
            for part in (program.prior, program.likelihood):
                part.requires_grad_(False)
        try:
            kind.per_datum(program.model, program.guide, data)
        except ValueError as error:
            refusals.append(error)
            continue
        check_estimator(program, kind, data)
    assert len(refusals) < 2, refusals


class Broken(pv.Conditional):
    """A likelihood with one fault at a time."""

    def __init__(self, fault=None):
        super().__init__()
        self.net = nn.Linear(3, 4)
        self.fault = fault
        self.unused = nn.Parameter(torch.zeros(1)) if fault == "no gradient" else None
        self.noise = torch.ones(1) if fault == "register_buffer" else 1.0

    def forward(self, z):
        loc = self.net(z).reshape(*z.shape[:-1], 2, 2)
        if self.fault == "batch shape":
            return dist.Normal(loc, 1.0)
        if self.fault == "mixes rows":
            loc = loc - loc.mean(0)
        if self.fault == "Pyro distribution":
            return torch.distributions.Normal(loc, 1.0)
        if self.fault == "Pyro statements":
            loc = loc + pyro.sample("shift", dist.Normal(0.0, 1.0))
        if self.fault == "in place":
            z += 1
        if self.fault == "without gradient":
            return Detached(loc, self.noise).to_event(2)
        if self.fault == "expand":
            return Narrow(loc, self.noise).to_event(2)
        return dist.Normal(loc, self.noise).to_event(2)


class Detached(dist.Normal):
    def rsample(self, sample_shape=()):
        return super().rsample(sample_shape).detach()


class Narrow(dist.Normal):
    """A density with a forgotten argument in `expand`."""

    def expand(self, batch_shape, _instance=None):
        return dist.Normal(self.loc.expand(batch_shape), 0.5)


@pytest.mark.parametrize(
    "fault",
    [
        "Pyro distribution",
        "Pyro statements",
        "batch shape",
        "expand",
        "in place",
        "mixes rows",
        "no gradient",
        "register_buffer",
        "without gradient",
    ],
)
def test_a_broken_part_is_found(fault):
    """The message names the law; the same part without a fault obeys all of them."""
    check_part(Broken(), (3,))
    with pytest.raises(AssertionError, match=fault):
        check_part(Broken(fault), (3,))


def test_a_density_without_mass_one_is_found():
    grey = pv.likelihoods.Bernoulli(1, (1,), grey=True)
    with pytest.raises(AssertionError, match="mass"):
        check_mass(grey(torch.zeros(1)), grey)


def test_an_estimator_with_a_wrong_scale_is_found():
    class Doubled(pv.estimators.ELBO):
        def loss_and_grads(self, *args):
            return 2 * super().loss_and_grads(*args)

    toy = pv.testing.LinearGaussian(off=0.1)
    with pytest.raises(AssertionError, match=r"SVI\.step"):
        check_estimator(toy.program, Doubled(), toy.draw(8))


def test_a_deep_copy_of_a_part_is_independent():
    part = pv.likelihoods.Normal(3, (2, 2))
    other = copy.deepcopy(part)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert not torch.equal(next(other.parameters()), next(part.parameters()))


def test_parts_are_the_concrete_classes_of_a_kind():
    assert pv.estimators.Estimator not in ESTIMATORS
    assert pv.estimators.IWAE in ESTIMATORS
    assert set(parts(pv.scales, pv.scales.Scale)) == {pv.scales.Fixed, pv.scales.Shared, pv.scales.PerExample}
