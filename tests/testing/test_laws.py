"""The laws, over whole shelves: a new part or estimator is picked up by its export."""

import copy
import inspect

import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.testing import check_estimator, check_part, parts
from pyro_vae.testing.laws import check_mass

SHELVES = {pv.priors: (), pv.likelihoods: ((3,),), pv.posteriors: ((2, 2),)}
PARTS = [pytest.param(cls, shapes, id=cls.__name__) for shelf, shapes in SHELVES.items() for cls in parts(shelf)]
ESTIMATORS = [
    cls
    for cls in vars(pv.estimators).values()
    if inspect.isclass(cls) and issubclass(cls, pv.estimators.Estimator) and not inspect.isabstract(cls)
]


def labels(part):
    """The shape of the labels or covariates that a part takes beside z or x, if any."""
    return [(part.context,)] if part.context else []


def built(part, **options):
    """The example of a part, unless it needs a package that is not installed."""
    try:
        return part.example(**options)
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("part", "shapes"), PARTS)
def test_part_obeys_the_laws(part, shapes):
    """An AssertionError of `check_part` names the law: shapes, finite densities, gradients, saving, mass one."""
    example = built(part)
    check_part(example, *shapes, *labels(example))


@pytest.mark.parametrize(("part", "shapes"), PARTS)
def test_small_densities_have_mass_one(part, shapes):
    small = built(part, latent=1, shape=(1,))
    for _ in range(3 if shapes or labels(small) else 1):  # without a context it is one density
        assert check_mass(small(*(torch.randn(1) for _ in shapes), *(torch.randn(*c) for c in labels(small))), small)


@pytest.mark.parametrize("scale", [0.3, pv.scales.Fixed(0.3), pv.scales.Shared(0.3), pv.scales.PerExample()])
def test_normal_with_every_scale(scale):
    """An AssertionError of `check_part` names the law that a scale breaks."""
    check_part(pv.likelihoods.Normal(3, (2, 2), scale=scale), (3,))


@pytest.mark.parametrize("net", [pv.nets.MLP, pv.nets.ConvDecoder])
def test_likelihoods_with_every_decoder(net):
    """An AssertionError of `check_part` names the law that a decoder breaks."""
    check_part(pv.likelihoods.Bernoulli(3, (6, 5), net=net), (3,))


def test_posterior_with_convolutions():
    """An AssertionError of `check_part` names the law that convolutions break."""
    check_part(pv.posteriors.MeanFieldNormal((2, 6, 5), 3, net=pv.nets.ConvEncoder), (2, 6, 5))


def test_parts_with_a_context():
    """An AssertionError of `check_part` names the law that a second context breaks."""
    check_part(pv.likelihoods.Bernoulli(3, (2, 2), context=4), (3,), (4,))
    check_part(pv.posteriors.MeanFieldNormal((2, 2), 3, context=4), (2, 2), (4,))


FIRST = (pv.estimators.ELBO, pv.estimators.IWAE)
LIKELIHOODS = (pv.likelihoods.Normal, pv.likelihoods.Bernoulli)
#: every likelihood under two estimators, every estimator with two likelihoods
PAIRS = [(e, p) for e in FIRST for p in parts(pv.likelihoods)]
PAIRS += [(e, p) for e in ESTIMATORS if e not in FIRST for p in LIKELIHOODS]


@pytest.mark.parametrize(("estimator", "likelihood"), PAIRS)
@pytest.mark.parametrize("num_particles", [1, 3])
def test_program_and_estimator_obey_the_laws(estimator, num_particles, likelihood):
    """An AssertionError of `check_estimator` names the pair and the law that it breaks."""
    likelihood = likelihood.example()
    bits = estimator is pv.estimators.DisARM
    x = likelihood(torch.randn(6, 3)).sample()  # data that this likelihood can have made
    # the first row is used alone: from zeros the first layer of the encoder would get no gradient
    x = x[x.flatten(1).abs().sum(1).argsort(descending=True)]
    vae = pv.VAE(
        prior=pv.priors.Bernoulli(3) if bits else pv.priors.Normal(3),
        likelihood=likelihood,
        posterior=(pv.posteriors.Bernoulli if bits else pv.posteriors.MeanFieldNormal)(x.shape[1:], 3),
    )
    options = inspect.signature(estimator).parameters
    pairs = 2 if estimator in (pv.estimators.DisARM, pv.estimators.ReweightedWakeSleep) else 1
    few = max(-(-num_particles // pairs) * pairs, estimator.fewest)
    example = estimator.example() if "M" in options else estimator.example(num_particles=few)
    check_estimator(vae, example, x)


class Broken(pv.Conditional):
    """A likelihood with one fault at a time."""

    def __init__(self, fault):
        super().__init__()
        self.net = torch.nn.Linear(3, 4)
        self.fault = fault
        self.unused = torch.nn.Parameter(torch.zeros(1)) if fault == "unused parameter" else None

    def forward(self, z):
        loc = self.net(z).reshape(*z.shape[:-1], 2, 2)
        if self.fault == "no to_event":
            return dist.Normal(loc, 1.0)
        if self.fault == "mixes rows":
            loc = loc - loc.mean(0)
        if self.fault == "not finite":
            return dist.Normal(loc, 1e-30).to_event(2)
        if self.fault == "not a density":
            return pv.distributions.GreyBernoulli(logits=loc).to_event(2)
        return dist.Normal(loc, 1.0).to_event(2)


@pytest.mark.parametrize("fault", ["no to_event", "mixes rows", "unused parameter"])
def test_laws_catch_a_broken_part(fault):
    with pytest.raises(AssertionError):
        check_part(Broken(fault), (3,))


def test_laws_pass_the_same_part_without_fault():
    """No AssertionError without a fault: what the faults below raise is due to them."""
    check_part(Broken(None), (3,))


def test_mass_law_catches_what_is_no_density():
    grey = pv.likelihoods.Bernoulli(1, (1,), grey=True)
    with pytest.raises(AssertionError, match="mass"):
        check_mass(grey(torch.zeros(1)), grey)


def test_estimator_law_catches_a_wrong_scale():
    class Doubled(pv.estimators.ELBO):
        def loss_and_grads(self, *args):
            return 2 * super().loss_and_grads(*args)

    toy = pv.testing.LinearGaussian(off=0.1)
    with pytest.raises(AssertionError, match=r"SVI\.step"):
        check_estimator(toy.program, Doubled(), toy.draw(8))


def test_deep_copy_of_a_part_is_independent():
    part = pv.likelihoods.Normal(3, (2, 2))
    other = copy.deepcopy(part)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert not torch.equal(next(other.parameters()), next(part.parameters()))
