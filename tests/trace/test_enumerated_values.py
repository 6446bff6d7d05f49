"""Enumerated sites in any plate: summed exactly where the bound is a sum over sites, refused by name elsewhere."""

import itertools

import pyro
import pytest
import torch
from helpers import shelf
from pyro import distributions as dist
from pyro.infer import TraceEnum_ELBO

import pyro_vae as pv

E = pv.estimators
X = torch.tensor([[0.3, -1.0], [2.0, 0.4], [-0.7, 1.1]]).double()
ENUM = {"enumerate": "parallel"}
#: Estimators that are sums over sites; all others weight draws.
SUMS = {E.ELBO, E.Enumeration}


def parameter(*shape, seed=0):
    draw = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return draw.requires_grad_()


def gradients(value, parameters):
    return torch.autograd.grad(value, parameters, retain_graph=True)


def normal(x, mean):
    return dist.Normal(mean, 0.7).log_prob(x)


class Inner:
    """A bit for each of two parts of an example."""

    def __init__(self):
        self.q, self.p, self.mean = parameter(3, 2), parameter(2, seed=1), parameter(2, seed=2)
        self.parameters = [self.q, self.p, self.mean]

    def model(self, x):
        with pyro.plate("data", 3, dim=-2), pyro.plate("part", 2, dim=-1):
            z = pyro.sample("z", dist.Bernoulli(logits=self.p))
            pyro.sample("x", dist.Normal(self.mean[0] + z * self.mean[1], 0.7), obs=x)

    def guide(self, x):
        with pyro.plate("data", 3, dim=-2), pyro.plate("part", 2, dim=-1):
            pyro.sample("z", dist.Bernoulli(logits=self.q), infer=ENUM)

    def exact(self, x):
        total = 0.0
        for z in (torch.tensor(0.0), torch.tensor(1.0)):
            q, p = (dist.Bernoulli(logits=logits).log_prob(z) for logits in (self.q, self.p))
            total = total + (q.exp() * (normal(x, self.mean[0] + z * self.mean[1]) + p - q)).sum()
        return total

    site = "z"


class Switch(Inner):
    """A bit that all examples share, a bit of each example that depends on it, and bits of its parts."""

    def __init__(self):
        self.y, self.q, self.p = parameter(2), parameter(2, 3, seed=1), parameter(2, 2, seed=2)
        self.mean = parameter(2, seed=3)
        self.parameters, self.size = [self.y, self.q, self.p, self.mean], 3

    def rows(self):
        return pyro.plate("data", self.size, subsample=torch.arange(3), dim=-2)

    def model(self, x):
        y = pyro.sample("y", dist.Bernoulli(logits=self.y[0]))
        with self.rows():
            z = pyro.sample("z", dist.Bernoulli(logits=self.p[0, 0] + y * self.p[0, 1]))
            with pyro.plate("part", 2, dim=-1):
                w = pyro.sample("w", dist.Bernoulli(logits=self.p[1, 0] + z * self.p[1, 1]))
                pyro.sample("x", dist.Normal(self.mean[0] * w + self.mean[1] * z + y, 0.7), obs=x)

    def guide(self, x):
        y = pyro.sample("y", dist.Bernoulli(logits=self.y[1]), infer=ENUM)
        with self.rows():
            z = pyro.sample("z", dist.Bernoulli(logits=self.q[0].unsqueeze(-1) + y), infer=ENUM)
            with pyro.plate("part", 2, dim=-1):
                pyro.sample("w", dist.Bernoulli(logits=self.q[1].unsqueeze(-1) - z + y), infer=ENUM)

    def exact(self, x):
        bits = [torch.tensor(0.0).double(), torch.tensor(1.0).double()]
        total = 0.0

        def terms(q_logits, p_logits, b):
            return (dist.Bernoulli(logits=logits).log_prob(b) for logits in (q_logits, p_logits))

        for y in bits:
            qy, py = terms(self.y[1], self.y[0], y)
            of_y = py - qy
            for z in bits:
                qz, pz = terms(self.q[0] + y, self.p[0, 0] + y * self.p[0, 1], z)
                of_z = pz - qz
                for w in bits:
                    qw, pw = terms(self.q[1] - z + y, self.p[1, 0] + z * self.p[1, 1], w)
                    mean = self.mean[0] * w + self.mean[1] * z + y
                    of_z = of_z + (qw.exp().unsqueeze(-1) * (normal(x, mean) + (pw - qw).unsqueeze(-1))).sum(-1)
                of_y = of_y + (qz.exp() * of_z).sum()
            total = total + qy.exp() * of_y
        return total

    site = "y"


class Alone(Inner):
    """A bit outside any plate that nothing depends on."""

    def __init__(self):
        self.q, self.p = parameter(), parameter(seed=1)
        self.parameters = [self.q, self.p]

    def model(self, x):
        pyro.sample("y", dist.Bernoulli(logits=self.p))
        with pyro.plate("data", 3, dim=-2), pyro.plate("part", 2, dim=-1):
            pyro.sample("x", dist.Normal(torch.zeros(()).double(), 0.7), obs=x)

    def guide(self, x):
        pyro.sample("y", dist.Bernoulli(logits=self.q), infer=ENUM)

    def exact(self, x):
        q, p = dist.Bernoulli(logits=self.q), dist.Bernoulli(logits=self.p)
        return normal(x, torch.tensor(0.0)).sum() - torch.distributions.kl_divergence(q, p)

    site = "y"


class Chain(Inner):
    """States of a Markov chain for each example, enumerated in the guide."""

    def __init__(self, length=4):
        self.length = length
        self.start, self.step = parameter(2, 3), parameter(2, 3, 3, seed=1)
        self.mean = parameter(3, seed=2)
        self.parameters = [self.start, self.step, self.mean]

    def chain(self, i, infer=None):
        state = None
        for t in pyro.markov(range(self.length)):
            logits = self.start[i] if state is None else self.step[i][state]
            state = pyro.sample(f"z{t}", dist.Categorical(logits=logits), infer=infer)
            yield t, state

    def model(self, x):
        with pyro.plate("data", 3, dim=-1):
            for t, state in self.chain(0):
                pyro.sample(f"x{t}", dist.Normal(self.mean[state], 0.7), obs=x[:, t % 2])

    def guide(self, x):
        with pyro.plate("data", 3, dim=-1):
            list(self.chain(1, ENUM))

    def exact(self, x):
        total = 0.0
        start, step = self.start.log_softmax(-1), self.step.log_softmax(-1)
        for states in itertools.product(range(3), repeat=self.length):
            p, q = (start[i, states[0]] + sum(step[i, a, b] for a, b in itertools.pairwise(states)) for i in (0, 1))
            log_px = sum(normal(x[:, t % 2], self.mean[s]) for t, s in enumerate(states)).sum()
            total = total + q.exp() * (log_px + 3 * (p - q))
        return total

    site = "z0"


@pytest.mark.parametrize("kind", [Inner, Switch, Alone, Chain])
@pytest.mark.parametrize("options", [{}, {"num_particles": 3}, {"num_particles": 3, "particles_per_pass": 2}])
@pytest.mark.parametrize("cls", [E.ELBO, E.Enumeration])
def test_values_are_summed_exactly(cls, options, kind):
    toy = kind()
    exact = toy.exact(X)
    for analytic_kl in (True, False):
        bound = -cls(analytic_kl=analytic_kl, **options).differentiable_loss(toy.model, toy.guide, X)
        torch.testing.assert_close(bound, exact)
        torch.testing.assert_close(gradients(bound, toy.parameters), gradients(exact, toy.parameters))


@pytest.mark.parametrize("kind", [Inner, Switch, Alone, Chain])
def test_the_sum_is_that_of_pyro(kind):
    toy = kind()
    theirs = TraceEnum_ELBO(max_plate_nesting=2, strict_enumeration_warning=False)
    torch.testing.assert_close(theirs.differentiable_loss(toy.model, toy.guide, X), -toy.exact(X))


@pytest.mark.parametrize("kind", [Inner, Switch, Alone])
@pytest.mark.parametrize("cls", shelf.classes())
def test_estimators_that_weight_draws_refuse_by_name(cls, kind):
    toy = kind()
    if cls in SUMS:
        assert shelf.build(cls).loss(toy.model, toy.guide, X) == pytest.approx(-float(toy.exact(X).detach()))
        return
    with pytest.raises(
        ValueError, match=f"'{toy.site}'|'z' is enumerated|at site 'z', got Bernoulli|no example has a latent"
    ):
        shelf.build(cls).loss(toy.model, toy.guide, X)


def test_importance_weights_of_a_chain_are_its_evidence():
    """The guide covers all values, so that the weighted sum is the evidence of each example."""
    toy = Chain()
    start, step = toy.start.log_softmax(-1)[0], toy.step.log_softmax(-1)[0]
    log_p = []
    for states in itertools.product(range(3), repeat=toy.length):
        log_px = sum(normal(X[:, t % 2], toy.mean[s]) for t, s in enumerate(states))
        log_p.append(log_px + start[states[0]] + sum(step[a, b] for a, b in itertools.pairwise(states)))
    evidence = torch.stack(log_p).logsumexp(0)
    for estimator in (E.IWAE(), E.MIWAE(2, 2), E.JackknifeIWAE()):
        torch.testing.assert_close(estimator.per_datum(toy.model, toy.guide, X), evidence)


def test_a_long_chain():
    """Thirty states: a sum over all paths is out of reach, and the weights of all paths are refused by name."""
    toy = Chain(30)
    ours = E.ELBO().differentiable_loss(toy.model, toy.guide, X)
    theirs = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(toy.model, toy.guide, X)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradients(ours, toy.parameters), gradients(theirs, toy.parameters))
    with pytest.raises(ValueError, match="guide: .*combinations"):
        E.IWAE().loss(toy.model, toy.guide, X)
    toy = Chain(60)
    with pytest.raises(ValueError, match="infer: .*'z48'"):
        E.ELBO().loss(toy.model, toy.guide, X)


def test_scales_stay_outside():
    """A subsampled plate scales the terms of its examples, and not those of sites that examples share."""
    toy = Switch()
    exact = -toy.exact(X)
    shared = torch.distributions.kl_divergence(*(dist.Bernoulli(logits=toy.y[i]) for i in (1, 0)))

    toy.size = 12
    loss = E.ELBO().differentiable_loss(toy.model, toy.guide, X)
    torch.testing.assert_close(loss - shared, 4 * (exact - shared))


@pytest.mark.parametrize("cls", [E.ELBO, E.Enumeration])
def test_a_site_outside_the_plate_of_the_values_is_refused(cls):
    """x would depend on both values of an example at once."""

    def model(x):
        with pyro.plate("data", 3, dim=-1):
            with pyro.plate("part", 2, dim=-2):
                z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def guide(x):
        with pyro.plate("data", 3, dim=-1), pyro.plate("part", 2, dim=-2):
            pyro.sample("z", dist.Bernoulli(0.4), infer=ENUM)

    with pytest.raises(ValueError, match="'x' depends on .* 'z'.*'part'"):
        cls().loss(model, guide, X)


def test_values_in_independent_plates_do_not_meet():
    """As many weights as examples: each example depends on all of the weights, not on the one of its row."""

    def model(x):
        with pyro.plate("weights", 3, dim=-1):
            w = pyro.sample("w", dist.Bernoulli(0.5))
        with pyro.plate("data", 3, dim=-1):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x[:, 0])

    def guide(x):
        with pyro.plate("weights", 3, dim=-1):
            pyro.sample("w", dist.Bernoulli(0.4), infer=ENUM)

    with pytest.raises(ValueError, match="'x' depends on .* 'w'.*'weights'"):
        E.ELBO().loss(model, guide, X)


class Classes:
    """A class of each example; some classes are impossible under the guide, one under the prior too."""

    def __init__(self, one_hot=False):
        self.q, self.p, self.mean = parameter(3, 4), parameter(4, seed=1), parameter(4, seed=2)
        self.never, self.unlikely = torch.tensor([0.0, -torch.inf, 0.0, 0.0]), torch.tensor([0, 0, 0, -torch.inf])
        self.kind = dist.OneHotCategorical if one_hot else dist.Categorical
        self.parameters = [self.q, self.p, self.mean]

    def model(self, x):
        with pyro.plate("data", 3, dim=-1):
            y = pyro.sample("y", self.kind(logits=self.p + self.never))
            mean = (y * self.mean).sum(-1) if self.kind is dist.OneHotCategorical else self.mean[y]
            pyro.sample("x", dist.Normal(mean, 0.7), obs=x[:, 0])

    def guide(self, x):
        with pyro.plate("data", 3, dim=-1):
            pyro.sample("y", self.kind(logits=self.q + self.never + self.unlikely), infer=ENUM)

    def terms(self, x):
        """Return log w and log q of the possible classes."""
        possible = [0, 2]
        q = (self.q + self.never + self.unlikely).log_softmax(-1)[:, possible].T
        p = (self.p + self.never).log_softmax(-1)[possible].unsqueeze(-1)
        return normal(x[:, 0], self.mean[possible].unsqueeze(-1)) + p - q, q


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("make", [E.ELBO, E.Enumeration, lambda: E.ELBO(analytic_kl=False), E.IWAE, E.Renyi])
def test_impossible_values_do_not_count(make, one_hot):
    toy = Classes(one_hot)
    estimator = make()
    log_w, log_q = toy.terms(X)
    if isinstance(estimator, E.Renyi):
        exact = (log_q + 0.5 * log_w).logsumexp(0).sum() / 0.5
    else:
        sums = isinstance(estimator, E.ELBO)
        exact = (log_q.exp() * log_w).sum() if sums else (log_q + log_w).logsumexp(0).sum()
    bound = -estimator.differentiable_loss(toy.model, toy.guide, X)
    torch.testing.assert_close(bound, exact)
    torch.testing.assert_close(gradients(bound, toy.parameters), gradients(exact, toy.parameters))
    assert estimator.loss(toy.model, toy.guide, X) == pytest.approx(-float(exact.detach()))


def test_penalties_see_the_exact_divergence():
    toy = Inner()
    q, p = (dist.Bernoulli(logits=logits) for logits in (toy.q, toy.p.expand(3, 2)))
    kl = torch.distributions.kl_divergence(q, p)
    for estimator, penalty in (
        (E.ELBO(free_bits=E.PerSite(1.5)), 3 * torch.relu(1.5 - kl.sum(-1).mean())),
        (E.ELBO(beta=0.5), -0.5 * kl.sum()),
    ):
        loss = estimator.differentiable_loss(toy.model, toy.guide, X)
        torch.testing.assert_close(loss, penalty - toy.exact(X))


@pytest.mark.parametrize("depth", [4, 5, 6])
@pytest.mark.parametrize("num_particles", [1, 2])
def test_deeply_nested_plates_are_exact_or_refused(depth, num_particles):
    """A number for each entry of so many plates: the loss is that of all entries."""

    def run(x, loc):
        with pyro.plate("data", 2, dim=-1):
            plates = [pyro.plate(f"p{d}", 2, dim=-d) for d in range(2, depth + 1)]
            for plate in plates:
                plate.__enter__()
            try:
                z = pyro.sample("z", dist.Normal(loc, 1.0))
                if loc == 0:
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            finally:
                for plate in reversed(plates):
                    plate.__exit__(None, None, None)

    x = torch.zeros([2] * depth).double()
    model, guide = (lambda x, loc=loc: run(x, loc) for loc in (0.0, 0.5))
    estimator = E.ELBO(num_particles=num_particles, analytic_kl=True)
    if depth - (num_particles == 1) > 4:
        with pytest.raises(ValueError, match="nested plates.*'z'"):
            estimator.loss(model, guide, x)
    else:
        torch.manual_seed(0)
        terms = estimator.terms(model, guide, x)
        assert float(terms.kl(terms.latent[0]).sum()) == pytest.approx(2**depth * 0.125)


@pytest.mark.parametrize("cls", [E.ELBO, E.IWAE])
def test_options_of_infer(cls):
    toy = Classes()

    def guide(infer):
        def run(x):
            with pyro.plate("data", 3, dim=-1):
                pyro.sample("y", dist.Categorical(logits=toy.q), infer=ENUM | infer)

        return run

    # all values are summed, also where Pyro would draw some of them
    losses = [cls().loss(toy.model, guide(infer), X) for infer in ({}, {"expand": True}, {"num_samples": 3})]
    assert losses[1:] == pytest.approx(losses[:1] * 2)


def test_a_site_without_a_list_of_values():
    def run(x):
        with pyro.plate("data", 3, dim=-1):
            pyro.sample("z", dist.Poisson(2.0), infer=ENUM)
            if torch.is_tensor(x):
                pyro.sample("x", dist.Normal(0.0, 1.0), obs=x[:, 0])

    with pytest.raises(ValueError, match="infer: Poisson at site 'z'"):
        E.ELBO().loss(run, lambda x: run(None), X)
