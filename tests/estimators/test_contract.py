"""What a subclass of Estimator relies on: quantities that are read, a pure formula, a state that evaluation keeps."""

import copy
import functools

import pytest
import torch
from helpers import shelf
from pyro import poutine
from test_bounds import gradient_of, hierarchy, small

import pyro_vae as pv
from pyro_vae.estimators.gradients import with_gradient_of
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.testing import LinearGaussian
from pyro_vae.trace import Scored

E = pv.estimators
EVERY = shelf.classes()
X = torch.tensor([[0.8, -1.1], [0.1, 0.4], [-2.0, 0.3]], dtype=torch.float64)


class Path(E.Estimator):
    """A user's estimator that reads a quantity which no class attribute mentions."""

    def bound(self, terms, beta):
        return log_mean_exp(terms.log_w(beta, detached_params=True))


@pytest.mark.parametrize("options", [{}, {"particles_per_pass": 2}])
@pytest.mark.parametrize("program", ["one layer", "two layers"])
def test_a_quantity_is_computed_because_it_is_read(options, program):
    """The path derivative vanishes at the exact posterior; on two layers it agrees with sticking the landing."""
    if program == "one layer":
        toy = LinearGaussian()  # its guide is the exact posterior
        loss = Path(num_particles=6, **options).differentiable_loss(toy.program.model, toy.program.guide, toy.draw(7))
        for gradient in torch.autograd.grad(loss, list(toy.program.posterior.parameters())):
            assert gradient.abs().max() < 1e-12
    else:
        program = hierarchy(pv.programs.BottomUp)
        found = gradient_of(Path(num_particles=6, **options), program, X)
        exact = gradient_of(E.StickingTheLanding(num_particles=6, **options), program, X)
        torch.testing.assert_close(found, exact)


def program_for(cls):
    """Return a program and data that an estimator takes."""
    if cls in shelf.discrete():
        vae = pv.VAE(
            prior=pv.priors.Bernoulli(3),
            likelihood=pv.likelihoods.Normal(3, (2,)),
            posterior=pv.posteriors.Bernoulli((2,), 3),
        )
        return vae.double(), X
    if cls in shelf.over_batch():
        vae = pv.VAE(
            prior=pv.priors.Normal(3),
            likelihood=pv.likelihoods.Normal(3, (2,)),
            posterior=pv.posteriors.MeanFieldNormal((2,), 3),
        )
        return vae.double(), X
    return hierarchy(pv.programs.TopDown), X


def estimator_for(cls, **options):
    estimator = shelf.build(cls, **options)
    if estimator.module is not None:
        estimator.module.double()
    return estimator


@pytest.mark.parametrize("cls", EVERY)
def test_a_formula_is_pure(cls):
    """Half of a bound plus half of it again has the value and the gradient of the bound."""

    class Halves(cls):
        def bound(self, terms, beta):
            return 0.5 * super().bound(terms, beta) + 0.5 * super().bound(terms, beta)

    program, x = program_for(cls)
    found = []
    for kind in (cls, Halves):
        torch.manual_seed(0)
        found.append(gradient_of(estimator_for(kind), program, x, seed=1))
    torch.testing.assert_close(*found)


def state_of(estimator):
    own = {} if estimator.module is None else estimator.module.state_dict()
    plain = {k: v for k, v in vars(estimator).items() if isinstance(v, (int, float, str, dict, type(None)))}
    return {name: value.clone() for name, value in own.items()}, copy.deepcopy(plain)


@pytest.mark.parametrize("cls", EVERY)
def test_evaluation_changes_no_state(cls):
    """`per_datum` and `loss` leave estimator, program and step counter as they were; a training step may not."""
    program, x = program_for(cls)
    estimator = estimator_for(cls)
    before = state_of(estimator)
    for _ in range(2):
        estimator.per_datum(program.model, program.guide, x)
        estimator.loss(program.model, program.guide, x)
    after = state_of(estimator)
    assert after[1] == before[1]
    assert all(torch.equal(before[0][name], value) for name, value in after[0].items())
    estimator.loss_and_grads(program.model, program.guide, x)
    assert estimator.step == 1


@pytest.mark.parametrize("cls", list(filter(shelf.takes_passes, EVERY)))
def test_the_bound_of_each_example_in_passes(cls):
    """The loss and `per_datum` may read different quantities; fixed draws give one value to both."""
    program, x = program_for(cls)
    estimator = estimator_for(cls, num_particles=4, particles_per_pass=2)
    found = []
    for loss in (lambda *args: estimator.per_datum(*args).sum().detach(), lambda *args: -estimator.loss(*args)):
        torch.manual_seed(0)
        found.append(float(loss(program.model, program.guide, x)))
    assert found[0] == pytest.approx(found[1])


def test_a_changing_formula_is_seen():
    """The fault: a formula with a memory breaks both laws."""

    class Remembers(E.IWAE):
        seen = 0.0

        def bound(self, terms, beta):
            self.seen += 1.0
            return self.seen * super().bound(terms, beta)

    with pytest.raises(AssertionError):
        test_a_formula_is_pure(Remembers)
    with pytest.raises(AssertionError):
        test_evaluation_changes_no_state(Remembers)


@pytest.mark.parametrize("inference", [pv.programs.BottomUp, pv.programs.TopDown])
def test_piwae_gives_the_guide_the_gradient_of_miwae(inference):
    """Draw by draw, for guides whose sites depend on each other."""
    program = hierarchy(inference)
    guide = torch.cat([torch.full((p.numel(),), "inference" in n) for n, p in program.named_parameters()])
    assert guide.any()
    for beta in (1.0, 0.4):
        found, exact = (gradient_of(kind(2, 3, beta=beta), program, X)[1:] for kind in (E.PIWAE, E.MIWAE))
        torch.testing.assert_close(found[guide], exact[guide])
        assert not torch.allclose(found[~guide], exact[~guide])


def test_a_wrong_shape_of_the_bound_is_refused():
    class NotAveraged(E.Estimator):
        def bound(self, terms, beta):
            return terms.log_w(beta)

    toy = LinearGaussian()
    with pytest.raises(ValueError, match="bound: "):
        NotAveraged(num_particles=2).loss(toy.program.model, toy.program.guide, toy.draw(5))


class Switch:
    """A binary switch y that the guide marks for enumeration, and a number z that depends on it."""

    def __init__(self):
        import pyro
        from pyro import distributions as dist

        torch.manual_seed(0)
        self.net = torch.nn.ParameterDict({k: torch.nn.Parameter(torch.randn(2).double()) for k in "yzsp"})

        def model(x):
            with pyro.plate("data", len(x), dim=-1):
                y = pyro.sample("y", dist.Bernoulli(logits=self.net["p"][0]))
                pyro.sample("x", dist.Normal(y * self.net["p"][1], 0.7), obs=x)

        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                logits = self.net["y"][0] + self.net["y"][1] * x
                pyro.sample("y", dist.Bernoulli(logits=logits), infer={"enumerate": "parallel"})

        self.program = pv.programs.FunctionProgram(model, guide, net=self.net)

    def exact(self, x):
        """Return log w of both values and their probabilities, each (2, batch)."""
        from torch.distributions import Bernoulli, Normal

        y = torch.tensor([[0.0], [1.0]]).double()
        q = Bernoulli(logits=self.net["y"][0] + self.net["y"][1] * x).log_prob(y)
        p = Bernoulli(logits=self.net["p"][0]).log_prob(y) + Normal(y * self.net["p"][1], 0.7).log_prob(x)
        return p - q, q


@pytest.mark.parametrize(
    ("make", "formula"),
    [
        (E.ELBO, lambda w, q: (q.exp() * w).sum(0)),
        (E.IWAE, lambda w, q: (q + w).logsumexp(0)),
        (lambda: E.CIWAE(share=0.3), lambda w, q: 0.3 * (q.exp() * w).sum(0) + 0.7 * (q + w).logsumexp(0)),
        (lambda: E.Renyi(alpha=0.4), lambda w, q: (q + 0.6 * w).logsumexp(0) / 0.6),
        (lambda: E.Renyi(alpha=1.0), lambda w, q: (q.exp() * w).sum(0)),
        (lambda: E.MIWAE(2, 2), lambda w, q: (q + w).logsumexp(0)),
        (E.JackknifeIWAE, lambda w, q: (q + w).logsumexp(0)),
        (lambda: E.FDivergence(f=E.reverse_kl), lambda w, q: (q.exp() * w).sum(0)),
        (
            lambda: E.FDivergence(f=E.chi_square),
            lambda w, q: (q + w).logsumexp(0) + 1 - (q + 2 * w - 2 * (q + w).logsumexp(0)).exp().sum(0),
        ),
    ],
)
def test_marked_sites_are_summed_exactly(make, formula):
    toy, x = Switch(), torch.tensor([0.3, -1.0, 2.0]).double()
    exact = formula(*toy.exact(x)).sum()
    loss = make().differentiable_loss(toy.program.model, toy.program.guide, x)
    torch.testing.assert_close(-loss, exact)
    parameters = [p for name, p in toy.net.items() if name in "yp"]
    for found, expected in zip(
        torch.autograd.grad(-loss, parameters), torch.autograd.grad(exact, parameters), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("cls", EVERY)
def test_marked_sites_are_summed_or_refused_by_name(cls):
    toy, x = Switch(), torch.tensor([0.3, -1.0, 2.0]).double()
    if cls not in (E.ELBO, E.Enumeration, E.IWAE, E.MIWAE, E.CIWAE, E.Renyi, E.FDivergence, E.JackknifeIWAE):
        with pytest.raises(ValueError, match="'y'"):
            shelf.build(cls).loss(toy.program.model, toy.program.guide, x)
        return
    loss = shelf.build(cls).loss(toy.program.model, toy.program.guide, x)
    log_w, log_q = toy.exact(x)
    elbo, evidence = (log_q.exp() * log_w).sum(0).sum(), (log_q + log_w).logsumexp(0).sum()
    assert float(elbo.detach()) - 1e-9 <= -loss <= float(evidence.detach()) + 1e-9


@pytest.mark.parametrize("cls", [E.DReG, E.StickingTheLanding, E.CUBO, E.PIWAE, E.GDReG])
def test_wrapped_guides_of_several_sites_are_understood(cls):
    """A guide inside `poutine.scale` still knows the module whose parameters are held constant."""
    program = hierarchy(pv.programs.TopDown)
    found = []
    for scale in (None, 3.0):
        wrap = (lambda f: f) if scale is None else functools.partial(poutine.scale, scale=scale)
        torch.manual_seed(0)
        loss = shelf.build(cls).differentiable_loss(wrap(program.model), wrap(program.guide), X)
        grads = torch.autograd.grad(loss / (scale or 1.0), list(program.parameters()))
        found.append(torch.cat([loss.detach().reshape(1) / (scale or 1.0), *(g.flatten() for g in grads)]))
    torch.testing.assert_close(*found)


def test_a_capacity_takes_the_place_of_beta():
    toy, x = LinearGaussian(off=0.3), LinearGaussian().draw(5)
    estimator = E.ELBO(capacity=E.Capacity(3.0, 100, gamma=7.0))
    estimator.step = 50
    torch.manual_seed(0)
    terms = estimator.terms(toy.program.model, toy.program.guide, x)
    kl = terms.latent[0].closed_form_kl.mean()
    reconstruction = terms.observed[0].log_p.sum()
    torch.testing.assert_close(estimator.evaluate(terms)[0], -reconstruction + 5 * 7.0 * (kl - 1.5).abs())
    assert estimator.current_beta() == 0.0
    with pytest.raises(ValueError, match="beta: "):
        E.ELBO(beta=0.5, capacity=E.Capacity(3.0, 100))


def test_small_and_scored_are_importable():
    """A user's estimator for discrete latents says how they are drawn and nothing else."""

    class Reinforce(E.Estimator):
        draws = Scored

        def bound(self, terms, beta):
            log_w = terms.log_w(beta)
            score = terms.score_function()
            return with_gradient_of(log_w.mean(0), (log_w + log_w.detach() * score).mean(0))

    vae, x = program_for(E.VIMCO)
    assert gradient_of(Reinforce(num_particles=2), vae, x).isfinite().all()
    assert small()[0] is not None


# a step


def test_calls_of_the_loss_module_in_training_mode_are_steps():
    """A schedule moves under ``estimator(model, guide)`` and an optimizer of PyTorch."""
    toy, x = LinearGaussian(off=0.3), LinearGaussian().draw(5)
    estimator = E.ELBO(beta=lambda step: 0.1 * step)
    module = estimator(toy.program.model, toy.program.guide)
    terms = estimator.terms(toy.program.model, toy.program.guide, x)
    kl = terms.latent[0].closed_form_kl.sum()
    for step in range(4):
        torch.manual_seed(0)
        found = module(x)
        torch.manual_seed(0)
        exact = E.ELBO(beta=0.0).differentiable_loss(toy.program.model, toy.program.guide, x) + 0.1 * step * kl
        torch.testing.assert_close(found, exact)
    assert estimator.step == 4
    module.eval()
    module(x)
    module.train()
    with torch.no_grad():
        module(x)
    assert estimator.step == 4


class Normalized(torch.nn.Sequential):
    """A network with a BatchNorm, of the contract of `pyro_vae.nets`."""

    def __init__(self, in_shape, out_shape):
        width = torch.Size(out_shape).numel()
        super().__init__(
            torch.nn.Flatten(),
            torch.nn.Linear(torch.Size(in_shape).numel(), 5),
            torch.nn.BatchNorm1d(5),
            torch.nn.Linear(5, width),
        )


def normalized(cls):
    """Return a program with a BatchNorm in each network, of several layers where the estimator takes them."""
    q = functools.partial(pv.posteriors.MeanFieldNormal, net=Normalized)
    likelihood = functools.partial(pv.likelihoods.Normal, net=Normalized)
    if cls in (E.BetaTC, E.DIP):
        return pv.VAE(prior=pv.priors.Normal(3), likelihood=likelihood(3, (4,)), posterior=q((4,), 3))
    if shelf.for_bits(cls) or cls is E.Enumeration:
        posterior = pv.posteriors.Bernoulli((4,), 3, net=Normalized)
        return pv.VAE(prior=pv.priors.Bernoulli(3), likelihood=likelihood(3, (4,)), posterior=posterior)
    return pv.programs.Hierarchical(
        prior=pv.priors.StandardNormal(1),
        layers=[q((1,), 2)],
        likelihood=likelihood(2, (4,)),
        inference=pv.programs.BottomUp([q((4,), 2), q((2,), 1)]),
    )


@pytest.mark.parametrize("cls", EVERY)
def test_statistics_of_a_batch_norm_move_once_per_step(cls):
    program, x = normalized(cls), torch.randn(6, 4)
    norms = [module for module in program.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    assert len(norms) >= 2
    options = [{}, {"particles_per_pass": 2}] if shelf.takes_passes(cls) else [{}]
    if cls is E.ReweightedWakeSleep:
        options += [{"sleep": 0.5}, {"sleep": 0.5, "particles_per_pass": 2}]
    for number, option in enumerate(options, 1):
        shelf.build(cls, num_particles=4, **option).loss_and_grads(program.model, program.guide, x)
        assert [int(norm.num_batches_tracked) for norm in norms] == [number] * len(norms), option


def test_statistics_move_once_per_step_in_plain_functions_and_for_shared_latents():
    import pyro
    from pyro import distributions as dist

    encoder, decoder = Normalized((4,), (3,)), Normalized((3,), (4,))
    norms = [net[2] for net in (encoder, decoder)]

    def decode(w, z):
        return w.unsqueeze(-1) + decoder(z.reshape(-1, 3)).reshape(*z.shape[:-1], 4)

    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decode(w, z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    x, number = torch.randn(6, 4), 0
    for cls in (E.ELBO, E.IWAE):
        for option in ({}, {"particles_per_pass": 2}):
            cls(num_particles=4, **option).loss_and_grads(model, poutine.scale(guide, 1.0), x)
            number += 1
            assert [int(norm.num_batches_tracked) for norm in norms] == [number] * 2, (cls, option)
