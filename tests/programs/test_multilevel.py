"""Multilevel against the exact joint normal of Gaussian random effects, minibatches, new groups and tasks."""

import copy
import functools
import pickle

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import infer, poutine
from torch import nn

import pyro_vae as pv
from pyro_vae import estimators as E

STD_U, STD_Z, STD_X = 1.5, 0.7, 0.5
GROUP = torch.tensor([0, 0, 0, 1, 2, 2, 0, 1])  # of unequal sizes
N, G = len(GROUP), 3


class Prior(pv.Conditional):
    """u ~ N(0, STD_U^2), and z given u ~ N(0.5 u, STD_Z^2)."""

    def __init__(self, std, context=0):
        super().__init__(context=context)
        self.std = std

    def forward(self, *context):
        loc = 0.5 * context[0] if context else torch.zeros(1, dtype=torch.float64)
        return dist.Normal(loc, self.std).to_event(1)


class Likelihood(pv.Conditional):
    """x given z and u ~ N(z + u, STD_X^2)."""

    def forward(self, z, u):
        return dist.Normal(z + u, STD_X).to_event(1)


class Posterior(pv.Conditional):
    """Exact q(z given x, u)."""

    def forward(self, x, u):
        precision = STD_Z**-2 + STD_X**-2
        loc = (0.5 * u * STD_Z**-2 + (x - u) * STD_X**-2) / precision
        return dist.Normal(loc, precision**-0.5).to_event(1)


class Table(pv.Conditional):
    """Mean and logarithm of the scale of each group are its embedding."""

    def forward(self, e):
        return dist.Normal(e[..., :1], e[..., 1:].exp()).to_event(1)


def data():
    return torch.randn(N, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + GROUP.unsqueeze(-1)


def exact(x, group=GROUP, groups=G):
    """Return the log-evidence, and means and standard deviations of u, by conditioning the joint normal of (u, x)."""
    design = 1.5 * nn.functional.one_hot(group, groups).double()  # x = z + u, and the mean of z is u / 2
    cross = STD_U**2 * design
    covariance = cross @ design.T + (STD_Z**2 + STD_X**2) * torch.eye(len(x)).double()
    gain = cross.T @ covariance.inverse()
    mean, variance = gain @ x.squeeze(-1), STD_U**2 - (gain * cross.T).sum(-1)
    evidence = dist.MultivariateNormal(torch.zeros(len(x)).double(), covariance).log_prob(x.squeeze(-1))
    return evidence, mean, variance.sqrt()


def random_effects(x=None, num_examples=N):
    """Return the random effects model, with the exact posterior of u given ``x``, or with q(u) to be trained."""
    program = pv.programs.Multilevel(
        prior=Prior(STD_Z, context=1),
        likelihood=Likelihood(context=1),
        posterior=Posterior(context=1),
        group_prior=Prior(STD_U),
        group_posterior=Table(),
        num_groups=G,
        num_examples=num_examples,
        embedding=2,
    ).double()
    if x is not None:
        _, mean, std = exact(x)
        program.embeddings.weight.data = torch.stack([mean, std.log()], -1)
    return program


ESTIMATORS = {
    "ELBO": E.ELBO(analytic_kl=False),
    "ELBO, particles": E.ELBO(num_particles=5, analytic_kl=False),
    "IWAE": E.IWAE(num_particles=5),
    "IWAE, passes": E.IWAE(num_particles=6, particles_per_pass=2),
    "DReG": E.DReG(num_particles=5),
    "StickingTheLanding": E.StickingTheLanding(),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_exact_posterior_gives_the_evidence_at_every_sample(name):
    x = data()
    program, (evidence, *_) = random_effects(x), exact(x)
    loss = ESTIMATORS[name].differentiable_loss(program.model, program.guide, x, GROUP)
    torch.testing.assert_close(loss, -evidence)
    stock = infer.Trace_ELBO(num_particles=5, vectorize_particles=True, max_plate_nesting=1)
    assert stock.loss(program.model, program.guide, x, GROUP) == pytest.approx(-float(evidence), rel=1e-9)


PARTITIONS = {
    "rows": [[0, 3, 4, 7], [1, 2, 5, 6]],
    "rows, unequal": [[0, 3, 4], [7, 1], [2, 5, 6]],
    "whole groups": [[0, 1, 2, 6], [3, 7], [4, 5]],
}


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("estimator", [E.ELBO, functools.partial(E.IWAE, num_particles=4)])
def test_losses_of_the_minibatches_of_an_epoch_have_the_mean_of_the_full_loss(partition, estimator):
    """At fixed draws of u and z; gradients have the same mean."""
    x, program = data(), random_effects()
    noise = torch.randn(4, N, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u = torch.randn(G, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    class Fixed(poutine.messenger.Messenger):
        def _pyro_sample(self, msg):
            if msg["name"] in ("u", "z"):
                base = msg["fn"].base_dist
                while not isinstance(base, dist.Normal):
                    base = base.base_dist
                eps = (
                    u
                    if msg["name"] == "u"
                    else self.noise[: base.loc.shape[0]]
                    if base.loc.dim() > 2
                    else self.noise[0]
                )
                msg["value"], msg["done"] = base.loc + base.scale * eps, True

    def loss(rows):
        fixed = Fixed()
        fixed.noise = noise[:, rows]
        guide = lambda *args: fixed(program.guide)(*args)  # noqa: E731
        value = estimator().differentiable_loss(program.model, guide, x[rows], GROUP[rows])
        return value, torch.autograd.grad(value, program.embeddings.weight)[0]

    full = loss(list(range(N)))
    parts = [(len(rows) / N, *loss(rows)) for rows in PARTITIONS[partition]]
    torch.testing.assert_close(sum(w * value for w, value, _ in parts), full[0])
    torch.testing.assert_close(sum(w * grad for w, _, grad in parts), full[1])


def test_training_on_minibatches_finds_the_exact_posterior_of_each_group_also_a_new_one():
    x, program = data(), random_effects()
    _, mean, std = exact(x)
    adam = functools.partial(torch.optim.Adam, lr=0.05)
    pv.fit(program, (x, GROUP), epochs=300, batch_size=4, optimizer=adam, seed=0, progress=False)
    q = program.infer_groups()
    torch.testing.assert_close(q.mean.squeeze(-1), mean, atol=0.2, rtol=0)
    torch.testing.assert_close(q.stddev.squeeze(-1), std, atol=0.15, rtol=0)

    rows = torch.tensor([[2.0], [2.5], [1.5]]).double()
    new = program.for_new_groups(1, 3)
    zeros = torch.zeros(3)
    pv.fit(new, (rows, zeros), epochs=300, optimizer=adam, seed=0, progress=False)
    _, mean, std = exact(rows, zeros.long(), 1)
    torch.testing.assert_close(new.infer_groups().mean.squeeze(-1), mean, atol=0.2, rtol=0)
    assert torch.equal(q.mean, program.infer_groups().mean)  # the program itself does not change


def small(**options):
    program = pv.programs.Multilevel.example(num_examples=12, **options)
    return program, (torch.randn(12, 4), torch.arange(12) % 3)


def test_stock_svi_copies_and_pickles():
    program, batch = small()
    for each in (program, copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        before = each.embeddings.weight.clone()
        svi = infer.SVI(each.model, each.guide, pyro.optim.Adam({"lr": 1e-2}), infer.Trace_ELBO())
        svi.step(*batch)
        assert (each.embeddings.weight != before).all()
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive(parallel):
    program, batch = small()
    found = infer.Predictive(program.model, guide=program.guide, num_samples=7, parallel=parallel)(*batch)
    assert found["z"].shape == (7, 12, 2)
    prior = infer.Predictive(poutine.uncondition(program.model), num_samples=7, parallel=parallel)(*batch)
    assert prior["x"].shape == (7, 12, 4)


def test_particles_have_their_own_groups_under_stock_elbo():
    program, (x, group) = small()
    with pyro.plate("particles", 3, dim=-2):
        guide = poutine.trace(program.guide).get_trace(x, group)
        model = poutine.trace(poutine.replay(program.model, guide)).get_trace(x, group)
    model.compute_log_prob()
    for k in range(3):
        values = {"u": guide.nodes["u"]["value"][k, 0], "z": guide.nodes["z"]["value"][k]}
        alone = poutine.trace(poutine.condition(program.model, values)).get_trace(x, group)
        alone.compute_log_prob()
        for site in ("u", "z", "x"):
            torch.testing.assert_close(model.nodes[site]["log_prob"][k].squeeze(), alone.nodes[site]["log_prob"])


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_fit_saves_and_loads(tmp_path, compile):
    program, batch = small()
    pv.fit(program, batch, epochs=2, batch_size=5, compile=compile, run_dir=tmp_path / "run", progress=False)
    loaded = pv.load(tmp_path / "run")
    torch.testing.assert_close(loaded.embeddings.weight, program.embeddings.weight)


def test_covariates_reach_the_parts():
    width = functools.partial(pv.nets.MLP, hidden=(8,))
    program, (x, group) = small(
        likelihood=pv.likelihoods.Normal(2, (4,), context=3, net=width),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2, context=3, net=width),
    )
    assert program.context == 3
    covariates = torch.randn(12, 2)
    pv.fit(program, (x, group, covariates), epochs=1, batch_size=6, progress=False)
    assert program.sample(12, group, covariates).shape == (12, 4)
    assert program.sample(12, group, covariates, new_groups=True).shape == (12, 4)


def test_samples_of_known_and_new_groups():
    """Spread of the samples; 20,000 of them have standard errors of 0.5% of it."""
    program, rows = random_effects(data()), torch.arange(20_000)
    within = (STD_Z**2 + STD_X**2) ** 0.5
    assert float(program.sample(len(rows), torch.full_like(rows, 2)).std()) == pytest.approx(within, rel=0.03)
    new = program.sample(len(rows), rows, new_groups=True)
    assert float(new.std()) == pytest.approx((1.5**2 * STD_U**2 + within**2) ** 0.5, rel=0.03)
    shared = program.sample(len(rows), rows % 2 - 7, new_groups=True)
    for half in (shared[::2], shared[1::2]):
        assert float(half.std()) == pytest.approx(within, rel=0.03)
    means = [float(shared[i::2].mean()) for i in (0, 1)]
    assert abs(means[0] - means[1]) > 0.1  # each has a u of its own


def test_tasks():
    program, (x, group) = small(missing=True)
    assert pv.tasks.generate(program, 12, context=[group]).shape == (12, 4)
    assert pv.tasks.generate(program, 12, context=[group], new_groups=True).shape == (12, 4)
    assert pv.tasks.reconstruct(program, (x, group), progress=False).shape == (12, 4)
    assert pv.tasks.embed(program, (x, group), progress=False).mean.shape[0] == 12
    holes = x.clone()
    holes[::2, 1] = torch.nan
    assert not torch.isnan(pv.tasks.impute(program, (holes, group), progress=False).x).any()


@pytest.mark.parametrize(
    ("group", "name"),
    [(None, "group"), (torch.full((12,), 3), "group"), (torch.full((12,), 0.5), "group"), (torch.zeros(11), "group")],
)
def test_bad_groups_are_refused(group, name):
    program, (x, _) = small()
    with pytest.raises(ValueError, match=name):
        program.check(x, *([] if group is None else [group]))


@pytest.mark.parametrize("option", ["num_groups", "num_examples", "embedding"])
def test_bad_options_are_refused(option):
    with pytest.raises(ValueError, match=option):
        pv.programs.Multilevel.example(**{option: 0})
    with pytest.raises(TypeError, match="group_prior"):
        pv.programs.Multilevel.example(group_prior=None)
