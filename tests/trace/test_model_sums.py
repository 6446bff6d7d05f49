"""Sites that only the model has are summed inside the logarithm of its density, or refused by name."""

import math

import pyro
import pytest
import torch
from helpers import shelf
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import TraceEnum_ELBO

import pyro_vae as pv
from pyro_vae.estimators.over_batch import OverBatch

E = pv.estimators
X = torch.tensor([[0.3, -1.0], [2.0, 0.4], [-0.7, 1.1]]).double()
ENUM = {"enumerate": "parallel"}
ZERO = torch.zeros(()).double()


def parameter(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def gradients(value, parameters):
    return torch.autograd.grad(value, parameters, retain_graph=True)


def normal(x, mean):
    return dist.Normal(mean, 0.7).log_prob(x)


def nothing(x):
    """A guide without latents."""


class Mixture:
    """A class for each example, which decides the mean of two observations."""

    def __init__(self):
        self.p, self.mean = parameter(3), parameter(3, seed=1)
        self.parameters = [self.p, self.mean]

    def model(self, x):
        with pyro.plate("data", 3, dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.p), infer=ENUM)
            for i in range(2):
                pyro.sample(f"x{i}", dist.Normal(self.mean[y] * (i + 1), 0.7), obs=x[:, i])

    def evidence(self, x):
        log_p = self.p.log_softmax(-1).unsqueeze(-1)
        return (log_p + sum(normal(x[:, i], self.mean.unsqueeze(-1) * (i + 1)) for i in range(2))).logsumexp(0)


class Parts(Mixture):
    """A class for each example, and one for each of its parts that depends on it."""

    def __init__(self):
        self.p, self.part, self.mean = parameter(3), parameter(3, 2, seed=1), parameter(2, seed=2)
        self.parameters = [self.p, self.part, self.mean]

    def model(self, x):
        with pyro.plate("data", 3, dim=-2):
            y = pyro.sample("y", dist.Categorical(logits=self.p), infer=ENUM)
            with pyro.plate("part", 2, dim=-1):
                part = pyro.sample("part_class", dist.Categorical(logits=self.part[y]), infer=ENUM)
                pyro.sample("x", dist.Normal(self.mean[part], 0.7), obs=x)

    def evidence(self, x):
        each = (self.part.log_softmax(-1)[:, :, None, None] + normal(x, self.mean[:, None, None])).logsumexp(1)
        return (self.p.log_softmax(-1)[:, None] + each.sum(-1)).logsumexp(0)


class Chain(Mixture):
    """A hidden Markov model of each example."""

    def __init__(self, length=5):
        self.length = length
        self.p, self.step, self.mean = parameter(3), parameter(3, 3, seed=1), parameter(3, seed=2)
        self.parameters = [self.p, self.step, self.mean]

    def model(self, x):
        with pyro.plate("data", 3, dim=-1):
            y = None
            for t in pyro.markov(range(self.length)):
                y = pyro.sample(f"y{t}", dist.Categorical(logits=self.p if y is None else self.step[y]), infer=ENUM)
                pyro.sample(f"x{t}", dist.Normal(self.mean[y], 0.7), obs=x[:, t % 2])

    def evidence(self, x):
        log_p = self.p.log_softmax(-1) + normal(x[:, :1], self.mean)
        for t in range(1, self.length):
            log_p = (log_p.unsqueeze(-1) + self.step.log_softmax(-1)).logsumexp(1) + normal(
                x[:, t % 2, None], self.mean
            )
        return log_p.logsumexp(-1)


class Switch(Mixture):
    """A switch that all examples share: they are one example together."""

    def model(self, x):
        y = pyro.sample("y", dist.Categorical(logits=self.p), infer=ENUM)
        with pyro.plate("data", 3, dim=-1):
            pyro.sample("x", dist.Normal(self.mean[y], 0.7), obs=x[:, 0])

    def evidence(self, x):
        log_p = self.p.log_softmax(-1) + normal(x[:, 0], self.mean.unsqueeze(-1)).sum(-1)
        return log_p.logsumexp(0, keepdim=True)


KINDS = [Mixture, Parts, Chain, Switch]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cls", shelf.classes())
def test_without_latents_in_the_guide_each_bound_is_the_evidence(cls, kind):
    toy = kind()
    if issubclass(cls, OverBatch):
        with pytest.raises(ValueError, match="program: "):
            shelf.build(cls).loss(toy.model, nothing, X)
        return
    exact = toy.evidence(X)
    bound = shelf.build(cls).per_datum(toy.model, nothing, X)
    torch.testing.assert_close(bound, exact)
    options = {"particles_per_pass": 2} if shelf.takes_passes(cls) else {}
    loss = shelf.build(cls, 4, **options).differentiable_loss(toy.model, nothing, X)
    torch.testing.assert_close(-loss, exact.sum())
    torch.testing.assert_close(gradients(-loss, toy.parameters), gradients(exact.sum(), toy.parameters))


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_is_that_of_pyro(kind):
    toy = kind()
    theirs = TraceEnum_ELBO(max_plate_nesting=2, strict_enumeration_warning=False)
    torch.testing.assert_close(theirs.differentiable_loss(toy.model, nothing, X), -toy.evidence(X).sum())


def test_a_long_chain():
    toy = Chain(45)
    loss = E.IWAE().differentiable_loss(toy.model, nothing, X)
    torch.testing.assert_close(-loss, toy.evidence(X).sum())
    toy = Chain(49)
    with pytest.raises(ValueError, match="infer: .*'y48'"):
        E.IWAE().loss(toy.model, nothing, X)


class Prior:
    """A mixture as the prior of a number z, which the guide draws; with ``joint`` the class also moves the data."""

    def __init__(self, joint):
        self.joint = joint
        torch.manual_seed(0)
        self.net = torch.nn.ParameterDict(
            {k: torch.nn.Parameter(torch.randn(3).double()) for k in ("p", "m", "q", "x")}
        )
        self.program = pv.programs.FunctionProgram(self.model, self.guide, net=self.net)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.net["p"]), infer=ENUM)
            z = pyro.sample("z", dist.Normal(self.net["m"][y], 0.5))
            pyro.sample("x", dist.Normal(z + (self.net["x"][y] if self.joint else 0.0), 0.7), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(self.net["q"][0] + self.net["q"][1] * x, 0.6))

    def written_out(self):
        """The same program with the sum written as one distribution of z, or of z and the data together."""
        net = self.net

        def model(x):
            with pyro.plate("data", len(x), dim=-1):
                if not self.joint:
                    classes = dist.Categorical(logits=net["p"])
                    z = pyro.sample("z", dist.MixtureSameFamily(classes, dist.Normal(net["m"], 0.5)))
                    pyro.sample("x", dist.Normal(z, 0.7), obs=x)
                    return
                z = pyro.sample("z", dist.Normal(ZERO, 1.0))
                each = net["p"].log_softmax(-1) + dist.Normal(net["m"], 0.5).log_prob(z.unsqueeze(-1))
                each = each + dist.Normal(z.unsqueeze(-1) + net["x"], 0.7).log_prob(x.unsqueeze(-1))
                pyro.factor("x", each.logsumexp(-1) - dist.Normal(ZERO, 1.0).log_prob(z))

        return pv.programs.FunctionProgram(model, self.guide, net=net)


#: Estimators that take a number.
NUMBERS = [cls for cls in shelf.classes() if not shelf.for_bits(cls)]


@pytest.mark.parametrize(
    ("cls", "options"),
    [(cls, {}) for cls in NUMBERS] + [(cls, {"particles_per_pass": 2}) for cls in NUMBERS if shelf.takes_passes(cls)],
)
@pytest.mark.parametrize("joint", [False, True])
def test_a_sum_is_the_density_written_out(cls, joint, options):
    """The same draws give the same value and gradients, in every estimator that does not need the prior itself."""
    toy, x = Prior(joint), X[:, 0]
    if issubclass(cls, OverBatch) or cls is E.GDReG:
        with pytest.raises(ValueError, match="'z'"):
            shelf.build(cls).loss(toy.program.model, toy.program.guide, x)
        return
    found = []
    # a closed form from the prior that is written out would not be that of the draws
    options = options | ({"analytic_kl": False} if issubclass(cls, E.ELBO) else {})
    for program in (toy.program, toy.written_out()):
        for _ in range(2):  # the first step runs the program once more
            torch.manual_seed(0)
            loss = shelf.build(cls, **options).differentiable_loss(program.model, program.guide, x)
        found.append([loss.detach(), *torch.autograd.grad(loss, list(toy.net.parameters()), allow_unused=True)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_penalties_of_a_sum():
    """The divergence from a mixture is its own; where the sum joins prior and data, there is none to weight."""
    toy, x = Prior(False), X[:, 0]
    for options in ({"beta": 0.3}, {"free_bits": E.PerSite(3.0)}, {"capacity": E.Capacity(1.0, 10)}):
        losses = []
        for program in (toy.program, toy.written_out()):
            for _ in range(2):
                torch.manual_seed(0)
                loss = E.ELBO(**options).loss(program.model, program.guide, x)
            losses.append(loss)
        assert losses[0] == pytest.approx(losses[1])
        joint = Prior(True).program
        with pytest.raises(ValueError, match=f"{next(iter(options))}: .*'z'"):
            E.ELBO(**options).loss(joint.model, joint.guide, x)


def test_sums_of_model_and_guide_together():
    """One class is drawn in the guide and enumerated there, the other is summed by the model."""
    p, m, q = parameter(2, 2, 2), parameter(2, 2, seed=1), parameter(3, 2, seed=2)

    def model(x):
        with pyro.plate("data", 3, dim=-1):
            a = pyro.sample("a", dist.Categorical(logits=p[0, 0]))
            b = pyro.sample("b", dist.Categorical(logits=p[1][a]), infer=ENUM)
            pyro.sample("x", dist.Normal(m[a, b], 0.7), obs=x[:, 0])

    def guide(x):
        with pyro.plate("data", 3, dim=-1):
            pyro.sample("a", dist.Categorical(logits=q), infer=ENUM)

    log_q = q.log_softmax(-1)
    log_b = p[1].log_softmax(-1)[:, :, None] + normal(X[:, 0], m[:, :, None])
    log_w = (p[0, 0].log_softmax(-1)[:, None] + log_b.logsumexp(1)).T - log_q
    for estimator, exact in (
        (E.ELBO(), (log_q.exp() * log_w).sum()),
        (E.IWAE(), (log_q + log_w).logsumexp(-1).sum()),
    ):
        loss = estimator.differentiable_loss(model, guide, X)
        torch.testing.assert_close(-loss, exact)
        torch.testing.assert_close(gradients(-loss, [p, m, q]), gradients(exact, [p, m, q]))


def test_a_mask_leaves_the_probabilities_of_a_class_alone():
    toy, mask = Mixture(), torch.tensor([True, False, True])
    for estimator in (E.ELBO(), E.IWAE()):
        loss = estimator.loss(poutine.mask(toy.model, mask=mask), poutine.mask(nothing, mask=mask), X)
        assert loss == pytest.approx(-float(toy.evidence(X)[mask].sum().detach()))


@pytest.mark.parametrize("scale", [3.0, torch.tensor([1.0, 2.0, 3.0]).double()])
def test_one_scale_stays_outside_the_sum(scale):
    toy = Mixture()
    loss = E.IWAE().loss(poutine.scale(toy.model, scale=scale), nothing, X)
    assert loss == pytest.approx(-float((scale * toy.evidence(X)).sum().detach()))


def test_several_scales_in_one_sum_are_refused():
    """A switch of all data, of which a batch is a part: the sum over the switch needs all data."""

    def model(x):
        y = pyro.sample("y", dist.Bernoulli(0.5), infer=ENUM)
        with pyro.plate("data", 12, subsample=torch.arange(3), dim=-1):
            pyro.sample("x", dist.Normal(y, 1.0), obs=x[:, 0])

    with pytest.raises(ValueError, match=r"model: .*'y'.*'x'"):
        E.ELBO().loss(model, nothing, X)


def test_values_outside_their_plate_and_crossed_plates_are_refused():
    def outside(x):
        with pyro.plate("data", 3, dim=-1):
            with pyro.plate("part", 2, dim=-2):
                y = pyro.sample("y", dist.Bernoulli(0.5), infer=ENUM)
            pyro.sample("x", dist.Normal(y, 1.0), obs=x[:, 0])

    def crossed(x):
        rows, columns = pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1)
        with rows:
            a = pyro.sample("a", dist.Bernoulli(0.5), infer=ENUM)
        with columns:
            b = pyro.sample("b", dist.Bernoulli(0.5), infer=ENUM)
        with rows, columns:
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    for model, site in ((outside, "'x' depends on .*'y'"), (crossed, "'a', 'b'.*exponential")):
        for estimator in (E.ELBO(), E.IWAE()):
            with pytest.raises(ValueError, match=site):
                estimator.loss(model, nothing, X)


def test_a_site_that_nothing_marks_is_refused():
    def model(x):
        with pyro.plate("data", 3, dim=-1):
            y = pyro.sample("y", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(y, 1.0), obs=x[:, 0])

    with pytest.raises(ValueError, match=r"\['y'\] occur only in the model.*enumerate"):
        E.ELBO().loss(model, nothing, X)


def test_evaluation_of_a_program_with_a_sum():
    toy = Prior(True)
    x = torch.linspace(-1, 1, 4).double()
    z = torch.linspace(-12, 12, 4001).double().unsqueeze(-1)
    with torch.no_grad():
        log_p = [
            toy.net["p"].log_softmax(-1)[y]
            + dist.Normal(toy.net["m"][y], 0.5).log_prob(z)
            + dist.Normal(z + toy.net["x"][y], 0.7).log_prob(x)
            for y in range(3)
        ]
        exact = torch.cat(log_p).logsumexp(0) + math.log(float(z[1] - z[0]))
    found = pv.evaluation.log_likelihood(toy.program, x, num_particles=20_000, progress=False)
    assert ((found.per_example - exact).abs() < 4 * found.per_example_error + 1e-3).all()
    assert pv.tasks.embed(toy.program, x, progress=False).mean.shape == (4, 1)


@pytest.mark.parametrize("guided", [False, True])
def test_a_mask_may_depend_on_an_enumerated_class(guided):
    """The class chooses which of three means the data have."""
    p, mean, q = parameter(3), parameter(3, seed=1), parameter(3, 3, seed=2)

    def classes(logits, infer=None):
        return pyro.sample("y", dist.Categorical(logits=logits), infer=infer)

    def model(x):
        with pyro.plate("data", 3, dim=-2):
            y = classes(p, None if guided else ENUM)
            with pyro.plate("classes", 3, dim=-1) as index, poutine.mask(mask=y == index):
                pyro.sample("x", dist.Normal(mean, 0.7), obs=x[:, :1].expand(3, 3))

    def guide(x):
        with pyro.plate("data", 3, dim=-2):
            classes(q.unsqueeze(1), ENUM)

    log_p = p.log_softmax(-1) + normal(X[:, :1], mean)
    log_q = q.log_softmax(-1)
    exact = (log_q.exp() * (log_p - log_q)).sum() if guided else log_p.logsumexp(-1).sum()
    loss = E.ELBO().differentiable_loss(model, guide if guided else nothing, X)
    torch.testing.assert_close(-loss, exact)
