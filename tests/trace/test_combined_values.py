"""Values that are summed over may not be combined, over rows or with each other: refused by name, in the first run.

All values of an enumerated site are given at once, so that their mean is that of the list of values and not of the
rows: without a check the loss is a number that belongs to no program.
"""

import pyro
import pytest
import torch
from helpers import shelf
from pyro import distributions as dist
from pyro import poutine
from pyro.distributions.transforms import planar
from torch import nn

import pyro_vae as pv

E = pv.estimators
ENUM = {"enumerate": "parallel"}
X = torch.tensor([0.3, -1.0, 2.0, 0.4]).double()
HALF = torch.tensor(0.5).double()


def rows():
    return pyro.plate("data", 4, dim=-1)


def bits(infer=None, logits=0.3):
    return pyro.sample("z", dist.Bernoulli(logits=torch.as_tensor(logits).double()), infer=infer)


def observe(mean):
    pyro.sample("x", dist.Normal(mean, 1.0), obs=X)


def guide():
    with rows():
        bits(ENUM, -0.4)


def latent_after_the_plate():
    with rows():
        z = bits()
        observe(z)
    pyro.sample("y", dist.Bernoulli(0.2 + 0.6 * z.mean()))


def guide_of_two():
    guide()
    pyro.sample("y", dist.Bernoulli(HALF), infer=ENUM)


def observed_after_the_plate(reduce):
    def model():
        with rows():
            z = bits()
            observe(z)
        pyro.sample("total", dist.Normal(reduce(z), 1.0), obs=X[0])

    return model


def factor_after_the_plate():
    with rows():
        z = bits()
        observe(z)
    pyro.factor("balance", -((z.mean() - 0.7) ** 2))


def observed_in_the_plate(combine):
    def model():
        with rows():
            observe(combine(bits()))

    return model


def switch(reduce):
    """A bit that all rows share."""

    def model():
        y = pyro.sample("y", dist.Bernoulli(HALF))
        with rows():
            observe(reduce(y))

    return model


def guide_of_the_switch():
    pyro.sample("y", dist.Bernoulli(HALF), infer=ENUM)


def scale_of_values():
    with rows():
        z = bits()
        with poutine.scale(scale=0.5 + z.mean()):
            observe(X.new_zeros(4))


def sum_of_the_model():
    with rows():
        z = bits(ENUM)
        observe(z)
    pyro.sample("total", dist.Normal(z.sum(), 1.0), obs=HALF)


def empty_guide():
    """A guide of no latent."""


def parts(combine):
    """Two bits in each row."""

    def run(infer=None):
        with rows(), pyro.plate("part", 2, dim=-2):
            z = bits(infer)
            if infer is None:
                pyro.sample("x", dist.Normal(combine(z), 1.0), obs=X.expand(2, 4))

    return run, lambda: run(ENUM)


def one_hot():
    with rows():
        z = pyro.sample("z", dist.OneHotCategorical(logits=torch.tensor([0.0, 1.0, 0.5]).double()))
        observe((z.mean(tuple(range(z.dim() - 1))) * torch.tensor([0.0, 1.0, 3.0])).sum())


def guide_of_one_hot():
    with rows():
        pyro.sample("z", dist.OneHotCategorical(logits=torch.zeros(3).double()), infer=ENUM)


def scale_after_the_class(reduce):
    def run(data):
        with rows():
            y = pyro.sample("y", dist.Bernoulli(HALF), infer=None if data else ENUM)
            z = pyro.sample("z", dist.Normal(0.5 if data else reduce(y), 1.0))
            if data:
                observe(y + z)

    return lambda: run(True), lambda: run(False)


WRONG = {
    "latent after the plate": (latent_after_the_plate, guide_of_two),
    "mean after the plate": (observed_after_the_plate(torch.mean), guide),
    "sum after the plate": (observed_after_the_plate(torch.sum), guide),
    "least after the plate": (observed_after_the_plate(torch.min), guide),
    "greatest after the plate": (observed_after_the_plate(torch.max), guide),
    "product after the plate": (observed_after_the_plate(torch.prod), guide),
    "any after the plate": (observed_after_the_plate(lambda z: (z > 0.5).any().double()), guide),
    "factor after the plate": (factor_after_the_plate, guide),
    "mean of the rows": (observed_in_the_plate(lambda z: z.mean(-1, keepdim=True)), guide),
    "mean of everything": (observed_in_the_plate(lambda z: z.mean()), guide),
    "running sum over the rows": (observed_in_the_plate(lambda z: z.cumsum(-1)), guide),
    "next row": (observed_in_the_plate(lambda z: z.roll(1, -1)), guide),
    "first row": (observed_in_the_plate(lambda z: z[..., :1]), guide),
    "distance from the mean": (observed_in_the_plate(lambda z: z - z.mean()), guide),
    "mean of a shared bit": (switch(torch.mean), guide_of_the_switch),
    "scale": (scale_of_values, guide),
    "sum of the model": (sum_of_the_model, empty_guide),
    "mean of the parts": parts(lambda z: z.mean(-2, keepdim=True)),
    "mean of the parts of all rows": parts(lambda z: z.mean((-2, -1), keepdim=True)),
    "one-hot classes": (one_hot, guide_of_one_hot),
    "guide": scale_after_the_class(lambda y: y.mean()),
    "guide, rows": scale_after_the_class(lambda y: y.mean(-1, keepdim=True)),
}


@pytest.mark.parametrize("options", [{}, {"num_particles": 3}, {"num_particles": 3, "particles_per_pass": 2}])
@pytest.mark.parametrize("name", WRONG)
def test_combined_values_are_refused(name, options):
    model, guide = WRONG[name]
    for cls in (E.ELBO, E.Enumeration):
        with pytest.raises(ValueError, match=r"(model|guide): .*sites? \['[yz]'"):
            cls(**options).loss(model, guide)


@pytest.mark.parametrize("cls", shelf.classes())
def test_every_estimator_refuses(cls):
    """Those that draw the marked sites, or cannot use this program at all, say so by their own errors."""
    with pytest.raises(ValueError, match="'z'|no example has a latent"):
        shelf.build(cls).loss(observed_in_the_plate(lambda z: z.mean(-1, keepdim=True)), guide)


class Classes(pv.Program):
    """A class of each row, whose decoder has the layers of a user."""

    def __init__(self, *layers, infer=ENUM):
        super().__init__()
        self.net, self.infer = nn.Sequential(nn.Linear(3, 4), *layers, nn.Linear(4, 1)).double(), infer

    def model(self, x):
        pv.programs.announce(classes=self)
        with pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", dist.OneHotCategorical(logits=x.new_zeros(3)))
            mean = self.net(y.reshape(-1, 3)).reshape(y.shape[:-1])
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.OneHotCategorical(logits=x.unsqueeze(-1) * torch.arange(3.0)), infer=self.infer)


@pytest.mark.parametrize("infer", [ENUM, {"expand": True, **ENUM}])
@pytest.mark.parametrize("layers", [(), (nn.Dropout(),), (nn.BatchNorm1d(4),), (nn.LayerNorm(4),)])
@pytest.mark.parametrize("cls", [E.ELBO, E.Enumeration, E.IWAE])
def test_networks_are_accepted(cls, layers, infer):
    """A BatchNorm averages over rows while it trains: its statistics are no part of the program."""
    program = Classes(*layers, infer=infer)
    before = {name: value.clone() for name, value in program.state_dict().items()}
    estimator = cls(num_particles=2)
    first = estimator.differentiable_loss(program.model, program.guide, X)
    assert first.requires_grad
    assert program.net.training
    for name, value in program.state_dict().items():
        if "num_batches" in name:
            assert value == before[name] + 1


class Flow(pv.Program):
    """A latent whose posterior is a flow without an inverse, and a bit that the model sums over."""

    def __init__(self):
        super().__init__()
        self.flow = planar(2).double()

    def model(self, x):
        with rows():
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).expand([4, 2]).to_event(1))
            y = pyro.sample("y", dist.Bernoulli(HALF), infer=ENUM)
            observe(z.sum(-1) * y)

    def guide(self, x):
        pv.programs.announce(flow=self)
        with rows():
            base = dist.Normal(x.new_zeros(2), 1.0).expand([4, 2]).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, [self.flow]))


def plain(model, guide):
    class Plain:
        def __init__(self):
            self.model, self.guide = (lambda x: model()), (lambda x: guide())

    return Plain()


def mask_by_class():
    with rows():
        z = bits()
        with poutine.mask(mask=z > 0.5):
            observe(z)


def history():
    with rows():
        state = 0
        for t in pyro.markov(range(4)):
            state = pyro.sample(f"s{t}", dist.Categorical(logits=torch.eye(3)[state].double()), infer=ENUM)
            pyro.sample(f"x{t}", dist.Normal(state.double(), 1.0), obs=X + t)


def sequence():
    state = 0
    for t in pyro.markov(range(4)):
        state = pyro.sample(f"s{t}", dist.Categorical(logits=torch.eye(3)[state].double()), infer=ENUM)
        with rows():
            pyro.sample(f"x{t}", dist.Normal(state.double(), 1.0), obs=X + t)


def noisy():
    """Random numbers besides those of the sites, in the shape of the values."""
    with rows():
        z = bits()
        observe(z + 0.1 * torch.randn(z.shape))


class Counting:
    """A model that is another one at each call."""

    calls = 0

    def model(self, x):
        self.calls += 1
        with rows():
            observe(bits() / self.calls)

    def guide(self, x):
        guide()


def guide_of_gradients():
    """A guide whose probabilities are a step of gradient ascent."""
    logit = torch.tensor(0.2).double().requires_grad_()
    step = torch.autograd.grad(-(logit**2), logit)[0]
    with rows():
        bits(ENUM, step)


def without_size():
    with pyro.plate("data", dim=-1):
        z = pyro.sample("z", dist.Bernoulli(HALF.expand(4)))
        observe(z)


def guide_without_size():
    with pyro.plate("data", dim=-1):
        pyro.sample("z", dist.Bernoulli(HALF.expand(4)), infer=ENUM)


def guide_of_an_auxiliary_bit():
    with rows():
        y = pyro.sample("y", dist.Bernoulli(HALF), infer={"is_auxiliary": True, **ENUM})
        bits(ENUM, y - 0.4)


RIGHT = {
    "plate without a size": lambda: plain(without_size, guide_without_size),
    "shared bit": lambda: plain(switch(lambda y: y), guide_of_the_switch),
    "mask": lambda: plain(mask_by_class, guide),
    "values of the model": lambda: plain(history, empty_guide),
    "values of a shared sequence": lambda: plain(sequence, empty_guide),
    "parts": lambda: plain(*parts(lambda z: 2 * z - z**2)),
    "guide": lambda: plain(*scale_after_the_class(lambda y: y)),
    "several": lambda: plain(lambda: (observed_in_the_plate(lambda z: z)(), switch_only()), guide_of_two),
    "noise": lambda: plain(noisy, guide),
    "state": Counting,
    "flow": Flow,
}


def switch_only():
    pyro.sample("y", dist.Bernoulli(HALF))


@pytest.mark.parametrize("name", RIGHT)
def test_other_programs_are_accepted(name):
    program = RIGHT[name]()
    for estimator in (E.ELBO(), E.ELBO(num_particles=3), E.ELBO(num_particles=3, particles_per_pass=2)):
        assert torch.isfinite(estimator.differentiable_loss(program.model, program.guide, X))


@pytest.mark.parametrize("num_particles", [1, 3])
def test_a_guide_may_compute_gradients(num_particles):
    model = observed_in_the_plate(lambda z: z)
    assert torch.isfinite(E.ELBO(num_particles=num_particles).differentiable_loss(model, guide_of_gradients))


def test_an_auxiliary_site_is_refused_as_before():
    with pytest.raises(ValueError, match="'y'"):
        E.ELBO().loss(observed_in_the_plate(lambda z: z), guide_of_an_auxiliary_bit)


def test_random_numbers_are_those_of_the_first_run():
    """The check leaves the random state as it finds it."""
    model, guide = scale_after_the_class(lambda y: y)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        losses.append([E.ELBO().loss(model, guide), E.ELBO().loss(model, guide)])
    assert losses[0] == losses[1]


def test_the_check_runs_once_for_a_program():
    calls = []

    def model(x, number):
        calls.append(number)
        with rows():
            observe(bits())

    def guide(x, number):
        with rows():
            bits(ENUM)

    for number in range(5):
        before = len(calls)
        E.ELBO().loss(model, guide, X, number)
        assert (len(calls) - before == 1) == (number > 0)


def test_a_weight_that_starts_at_zero_hides_nothing():
    """A term with the learned weight 0 combines rows in later steps; its weight is 0 again after the check."""

    class Gated(nn.Module):
        def __init__(self, combine):
            super().__init__()
            self.weight, self.combine = nn.Parameter(torch.zeros((), dtype=torch.float64)), combine

        def model(self):
            with rows():
                z = bits()
                observe(z + self.weight * (z.mean() if self.combine else z))

    wrong, right = Gated(True), Gated(False)
    with pytest.raises(ValueError, match="'x'.*'z'"):
        E.Enumeration().loss(wrong.model, guide)
    exact = sum(torch.logaddexp(*(log_p for log_p in per_value)) for per_value in joint(X)).item()
    assert E.IWAE(num_particles=1).loss(right.model, guide) == pytest.approx(-exact)
    assert not wrong.weight.any()
    assert not right.weight.any()


def joint(x):
    """The log joint density of each value of a bit, for each row."""
    for each in x:
        yield [
            dist.Bernoulli(logits=0.3).log_prob(torch.tensor(v)).double() + dist.Normal(v, 1.0).log_prob(each)
            for v in (0.0, 1.0)
        ]
