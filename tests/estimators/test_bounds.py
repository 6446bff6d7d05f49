"""Values and gradients of the bounds against exact ones: quadrature over the noise of two particles, closed forms."""

import functools
import math

import pyro
import pytest
import torch
from helpers import shelf
from pyro import poutine

import pyro_vae as pv
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.testing import LinearGaussian
from pyro_vae.trace import passes

E = pv.estimators
COPIES, BLOCKS = 640, 25


def small(seed=0):
    """A nonlinear decoder with one latent, a learned prior and a guide that is not the posterior."""
    torch.manual_seed(seed)
    linear, curved = (functools.partial(pv.nets.MLP, hidden=h) for h in ((), (3,)))
    vae = pv.VAE(
        prior=pv.priors.Normal(1),
        likelihood=pv.likelihoods.Normal(1, (2,), net=curved, scale=0.7),
        posterior=pv.posteriors.MeanFieldNormal((2,), 1, net=linear),
    ).double()
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return vae, torch.tensor([[0.8, -1.1]], dtype=torch.float64)


def on_a_grid(vae, x, formula, beta=1.0, points=161):
    """Integrate a formula of two log-weights over their noise; the trapezium rule on [-7, 7] is exact to 1e-10."""
    noise = torch.linspace(-7, 7, points, dtype=torch.float64)
    q = vae.encode(x).base_dist
    z = q.loc + q.scale * noise[:, None]
    log_q = torch.distributions.Normal(q.loc, q.scale).log_prob(z).sum(-1)
    log_w = vae.likelihood(z).log_prob(x) + beta * (vae.prior().log_prob(z) - log_q)
    mass = torch.exp(-0.5 * noise**2) / math.sqrt(2 * math.pi) * (noise[1] - noise[0])
    both = torch.stack(torch.broadcast_tensors(log_w[:, None], log_w[None, :]))
    return (mass[:, None] * mass * formula(both)).sum()


def from_middle(ratio):
    """The mean of the two divergences from the mean of both densities."""
    middle = (1 + ratio) / 2
    return (torch.special.xlogy(ratio, ratio / middle) - middle.log()) / 2


FORMULAS = {
    "ELBO": (lambda: E.ELBO(num_particles=2, analytic_kl=False), lambda w: w.mean(0)),
    "StickingTheLanding": (E.StickingTheLanding, lambda w: w.mean(0)),
    "IWAE": (lambda: E.IWAE(num_particles=2), log_mean_exp),
    "DReG": (lambda: E.DReG(num_particles=2), log_mean_exp),
    "GDReG": (lambda: E.GDReG(num_particles=2), log_mean_exp),
    "MIWAE(1, 2)": (lambda: E.MIWAE(1, 2), log_mean_exp),
    "MIWAE(2, 1)": (lambda: E.MIWAE(2, 1), lambda w: w.mean(0)),
    "CIWAE": (lambda: E.CIWAE(share=0.3, num_particles=2), lambda w: 0.3 * w.mean(0) + 0.7 * log_mean_exp(w)),
    "Renyi(0.5)": (lambda: E.Renyi(alpha=0.5, num_particles=2), lambda w: log_mean_exp(0.5 * w) / 0.5),
    "Renyi(2)": (lambda: E.Renyi(alpha=2.0, num_particles=2), lambda w: -log_mean_exp(-w)),
    "Renyi(1)": (lambda: E.Renyi(alpha=1.0, num_particles=2), lambda w: w.mean(0)),
    "reverse_kl": (lambda: E.FDivergence(f=E.reverse_kl, num_particles=2), lambda w: w.mean(0)),
    "forward_kl": (
        lambda: E.FDivergence(f=E.forward_kl, num_particles=2),
        lambda w: log_mean_exp(w) - (2 * w.softmax(0) * (w - log_mean_exp(w))).mean(0),
    ),
    "chi_square": (
        lambda: E.FDivergence(f=E.chi_square, num_particles=2),
        lambda w: log_mean_exp(w) - (2 * w.softmax(0) - 1).square().mean(0),
    ),
    "jensen_shannon": (
        lambda: E.FDivergence(num_particles=2),
        lambda w: log_mean_exp(w) - from_middle(2 * w.softmax(0)).mean(0),
    ),
    "total_variation": (
        lambda: E.FDivergence(f=E.total_variation, num_particles=2),
        lambda w: log_mean_exp(w) - (2 * w.softmax(0) - 1).abs().mean(0) / 2,
    ),
    "JackknifeIWAE": (lambda: E.JackknifeIWAE(num_particles=2), lambda w: 2 * log_mean_exp(w) - w.mean(0)),
}


def draws_of(estimator, vae, x, seed=0):
    """Return losses and gradients, one row for each block of copies of the example."""
    torch.manual_seed(seed)
    parameters = list(vae.parameters())
    rows = x.expand(COPIES, -1)
    losses, gradients = [], []
    for _ in range(BLOCKS):
        loss = -estimator.differentiable_loss(vae.model, vae.guide, rows) / COPIES
        losses.append(loss.detach())
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    return torch.stack(losses), torch.stack(gradients)


def scores(found, exact):
    """How many standard errors the mean over the rows is away from the exact value."""
    error = found.std(0) / math.sqrt(len(found))
    return ((found.mean(0) - exact) / (error + 1e-12)).abs()


def exact_gradient(value, vae):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(vae.parameters()))])


@pytest.mark.parametrize("beta", [1.0, 0.5])
@pytest.mark.parametrize("name", FORMULAS)
def test_value_and_gradient_are_those_of_quadrature(name, beta):
    """Within 4 standard errors, 4.5 for the largest of 21 entries of the gradient."""
    make, formula = FORMULAS[name]
    vae, x = small()
    estimator = make()
    estimator.beta = beta
    exact = on_a_grid(vae, x, formula, beta)
    losses, gradients = draws_of(estimator, vae, x)
    assert scores(losses, exact.detach()) < 4
    assert scores(gradients, exact_gradient(exact, vae)).max() < 4.5


def test_model_and_guide_follow_different_bounds_in_piwae():
    vae, x = small()
    elbo, tight = (exact_gradient(on_a_grid(vae, x, f), vae) for f in (lambda w: w.mean(0), log_mean_exp))
    guide = torch.cat([torch.full((p.numel(),), "posterior" in n) for n, p in vae.named_parameters()])
    losses, gradients = draws_of(E.PIWAE(2, 1), vae, x)
    assert scores(losses, on_a_grid(vae, x, log_mean_exp).detach()) < 4
    assert scores(gradients, torch.where(guide, elbo, tight)).max() < 4.5
    assert scores(gradients, tight).max() > 10


def test_cubo_sends_the_guide_down_and_the_model_up():
    vae, x = small()
    upper = on_a_grid(vae, x, lambda w: log_mean_exp(2 * w) / 2)
    guide = torch.cat([torch.full((p.numel(),), "posterior" in n) for n, p in vae.named_parameters()])
    losses, gradients = draws_of(E.CUBO(num_particles=2), vae, x)
    assert scores(losses, upper.detach()) < 4
    upward = exact_gradient(on_a_grid(vae, x, log_mean_exp), vae)
    assert scores(gradients, torch.where(guide, -exact_gradient(upper, vae), upward)).max() < 4.5


def test_sticking_the_landing_is_biased_with_two_particles():
    """The documented bias, measured: far from the exact gradient of the guide, on it for the model."""
    vae, x = small()
    _, gradients = draws_of(E.StickingTheLanding(num_particles=2), vae, x)
    z = scores(gradients, exact_gradient(on_a_grid(vae, x, log_mean_exp), vae))
    guide = torch.cat([torch.full((p.numel(),), "posterior" in n) for n, p in vae.named_parameters()])
    assert z[guide].max() > 10
    assert z[~guide].max() < 4.5


def test_thermodynamic_objective_with_many_particles():
    """Self-normalised weights: value and gradient tend to the exact Riemann sum as the particles grow."""
    vae, x = small()
    estimator = E.TVO(num_intervals=3, first=0.2, num_particles=2000)

    noise = torch.linspace(-7, 7, 801, dtype=torch.float64)
    q = vae.encode(x).base_dist
    z = (q.loc + q.scale * noise[:, None]).detach()
    log_q = torch.distributions.Normal(q.loc, q.scale).log_prob(z).sum(-1)
    log_w = vae.likelihood(z).log_prob(x) + vae.prior().log_prob(z) - log_q
    total = 0.0
    for left, right in zip(estimator.points[:-1], estimator.points[1:], strict=True):
        density = (log_q + left * log_w).softmax(0)  # on a fixed grid: its gradient is that of the path
        total = total + (right - left) * (density * log_w).sum()
    rows = x.expand(50, -1)
    torch.manual_seed(0)
    loss = -estimator.differentiable_loss(vae.model, vae.guide, rows) / 50
    assert float(loss.detach()) == pytest.approx(float(total.detach()), abs=0.01)
    found = exact_gradient(loss, vae)
    expected = exact_gradient(total, vae)
    assert torch.allclose(found, expected, atol=0.05 * float(expected.abs().max()))


def gaussian_renyi(alpha, toy, x):
    """Evidence minus the Renyi divergence of two normals in closed form (oracle O4)."""
    mean, covariance = toy.posterior(x)
    q = toy.program.encode(x).base_dist
    s0, s1 = q.variance, covariance.diagonal()  # W has orthogonal columns: the posterior is diagonal
    s = (1 - alpha) * s0 + alpha * s1
    assert (s > 0).all()
    divergence = alpha / 2 * (q.mean - mean) ** 2 / s
    divergence = divergence - (s.log() - (1 - alpha) * s0.log() - alpha * s1.log()) / (2 * (alpha - 1))
    return toy.log_evidence(x) - divergence.sum(-1)


def kl_of_normals(a, b):
    return torch.distributions.kl_divergence(a, b).sum(-1)


@pytest.mark.parametrize("name", ["reverse_kl", "forward_kl", "chi_square", "jensen_shannon", "total_variation"])
def test_f_divergences_tend_to_closed_forms_and_quadrature(name):
    toy = LinearGaussian(off=0.03)
    x = toy.draw(6)
    mean, covariance = toy.posterior(x)
    p = torch.distributions.Normal(mean, covariance.diagonal().sqrt())
    q = toy.program.encode(x).base_dist
    if name == "chi_square":  # a Renyi divergence of order 2
        divergence = (2 * (gaussian_renyi(-1.0, toy, x) - toy.log_evidence(x))).exp() - 1
    elif name == "reverse_kl":
        divergence = kl_of_normals(q, p)
    elif name == "forward_kl":
        divergence = kl_of_normals(p, q)
    else:
        divergence = on_a_plane(p, q, getattr(E, name))
    torch.manual_seed(0)
    with torch.no_grad():
        estimator = E.FDivergence(f=getattr(E, name), num_particles=20_000)
        found = estimator.per_datum(toy.program.model, toy.program.guide, x)
    divergence = divergence.detach()
    assert (divergence > 0.001).all()
    assert torch.allclose(found, toy.log_evidence(x) - divergence, atol=0.2 * float(divergence.max()))


def on_a_plane(p, q, f):
    """Integrate q f(p/q) over two dimensions."""
    line = torch.linspace(-8, 8, 401, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)[:, None]
    log_p, log_q = p.log_prob(z).sum(-1), q.log_prob(z).sum(-1)
    return (log_q.exp() * f(log_p - log_q)).sum(0) * 0.04**2


@pytest.mark.parametrize(("alpha", "tolerance"), [(0.25, 0.005), (0.5, 0.005), (2.0, 0.05), (-1.0, 0.05)])
def test_renyi_and_cubo_tend_to_their_closed_forms(alpha, tolerance):
    toy = LinearGaussian(off=0.03)
    x = toy.draw(6)
    exact = gaussian_renyi(alpha, toy, x).detach()
    torch.manual_seed(0)
    estimators = [E.Renyi(alpha=alpha, num_particles=20_000)]
    if alpha < 0:
        estimators.append(E.CUBO(n=1 - alpha, num_particles=20_000))
    for estimator in estimators:
        with torch.no_grad():
            found = estimator.per_datum(toy.program.model, toy.program.guide, x)
        assert torch.allclose(found, exact, atol=tolerance), (type(estimator).__name__, found - exact)
    below = exact < toy.log_evidence(x)
    assert below.all() if alpha > 0 else not below.any()


def test_gap_of_the_importance_weighted_bound_follows_its_law():
    """The gap falls as the variance of the weights over 2K (oracle O2), and never rises."""
    toy = LinearGaussian(off=0.03)
    x = toy.draw(4)
    evidence = toy.log_evidence(x).detach()
    law = (2 * (gaussian_renyi(-1.0, toy, x).detach() - evidence)).exp() - 1  # E[w^2] / p(x)^2 - 1
    gaps = []
    for k in (1, 4, 16, 64):
        torch.manual_seed(0)
        estimator = E.IWAE(num_particles=k)
        rows = x.repeat(10_000, 1)
        with torch.no_grad():
            found = estimator.per_datum(toy.program.model, toy.program.guide, rows).reshape(-1, 4)
        error = found.std(0) / 100
        gaps.append(evidence - found.mean(0))
        if k >= 16:
            assert ((gaps[-1] - law / (2 * k)).abs() < 4 * error + 0.35 * law / (2 * k)).all(), (k, gaps[-1], law)
    assert all((a > b).all() for a, b in zip(gaps, gaps[1:], strict=False))


def test_jackknife_takes_orders_of_the_bias_away():
    toy = LinearGaussian(off=0.06)
    x = toy.draw(3)
    bias = []
    for order in (0, 1, 2):
        torch.manual_seed(0)
        estimator = E.JackknifeIWAE(order=order, num_particles=8)
        with torch.no_grad():
            found = estimator.per_datum(toy.program.model, toy.program.guide, x.repeat(20_000, 1)).reshape(-1, 3)
        bias.append((toy.log_evidence(x) - found.mean(0)).detach().mean())
    assert bias[0] > 2 * bias[1].abs()
    assert bias[1].abs() > bias[2].abs()


@pytest.mark.parametrize(
    "estimator", [E.StickingTheLanding(num_particles=3), E.DReG(), E.GDReG()], ids=lambda e: type(e).__name__
)
def test_gradient_of_the_guide_is_zero_at_the_exact_posterior(estimator):
    toy = LinearGaussian()
    loss = estimator.differentiable_loss(toy.program.model, toy.program.guide, toy.draw(7))
    for gradient in torch.autograd.grad(loss, list(toy.program.posterior.parameters())):
        assert gradient.abs().max() < 1e-12


def hierarchy(inference):
    """Two layers, learned priors, whose guides depend on each other's draws."""
    linear = functools.partial(pv.nets.MLP, hidden=())
    make = functools.partial(pv.posteriors.MeanFieldNormal, net=linear)
    bottom_up = inference is pv.programs.BottomUp
    torch.manual_seed(1)
    posteriors = [make((2,), 1), make((1,), 1)] if bottom_up else [make((2,), 1, context=1), make((2,), 1)]
    program = pv.programs.Hierarchical(
        prior=pv.priors.Normal(1),
        layers=[pv.priors.ConditionalNormal(1, context=1, net=linear)],
        likelihood=pv.likelihoods.Normal(1, (2,), net=linear, scale=0.8),
        inference=inference(posteriors),
    ).double()
    with torch.no_grad():
        for p in program.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return program


@pytest.mark.parametrize("inference", [pv.programs.BottomUp, pv.programs.TopDown])
@pytest.mark.parametrize("estimator", [E.DReG, E.GDReG, E.StickingTheLanding])
def test_paths_through_a_hierarchy(estimator, inference):
    """The mean of the gradient is that of the plain estimator, for the top layer's guide through the lower one too."""
    program = hierarchy(inference)
    x = torch.tensor([[0.8, -1.1]], dtype=torch.float64)
    k = 1 if estimator is E.StickingTheLanding else 3
    _, plain = draws_of(E.IWAE(num_particles=k), program, x, seed=1)
    _, found = draws_of(estimator(num_particles=k), program, x, seed=2)
    error = ((plain.var(0) + found.var(0)) / BLOCKS).sqrt()
    assert ((plain.mean(0) - found.mean(0)).abs() <= 4.5 * error + 1e-12).all()


ALL = shelf.per_example()


def gradient_of(estimator, program, *data, seed=0):
    torch.manual_seed(seed)
    loss = estimator.differentiable_loss(program.model, program.guide, *data)
    parameters = list(program.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([loss.detach().reshape(1), *(g.flatten() for g in found)])


@pytest.mark.parametrize("estimator", [e for e in ALL if shelf.takes_passes(type(e))], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("program", ["vae", "hierarchy"])
def test_passes_change_nothing(estimator, program, monkeypatch):
    """Loss and gradient are those of the same draws kept in memory; the last pass is smaller."""
    program = small()[0] if program == "vae" else hierarchy(pv.programs.BottomUp)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    monkeypatch.setattr(estimator, "particles_per_pass", 4)
    found = gradient_of(estimator, program, x)
    monkeypatch.setattr(passes, "checkpoint", lambda function, size, use_reentrant: function(size))
    assert torch.allclose(found, gradient_of(estimator, program, x), rtol=1e-10, atol=1e-12)


def test_passes_bound_what_is_kept_for_the_backward_pass():
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(5),
        likelihood=pv.likelihoods.Bernoulli(5, (784,)),
        posterior=pv.posteriors.MeanFieldNormal((784,), 5),
    )
    x = torch.ones(2, 784)

    def kept(estimator):
        seen = {}

        def pack(t):
            seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = estimator.differentiable_loss(vae.model, vae.guide, x)
        del loss
        return sum(seen.values())

    assert kept(E.IWAE(num_particles=500, particles_per_pass=10)) < 0.3 * kept(E.IWAE(num_particles=500))


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("scale", [12.0, 0.25])
def test_scale_stands_outside(estimator, scale):
    """N/B and 1/B multiply loss and gradient, whatever stands inside of a logarithm."""
    vae, x = small()
    x = x * torch.tensor([[1.0], [0.3], [-1.0]], dtype=torch.float64)
    plain = gradient_of(estimator, vae, x)
    torch.manual_seed(0)
    loss = estimator.differentiable_loss(poutine.scale(vae.model, scale), poutine.scale(vae.guide, scale), x)
    found = torch.autograd.grad(loss, list(vae.parameters()), allow_unused=True, materialize_grads=True)
    assert torch.allclose(loss, scale * plain[0])
    assert torch.allclose(torch.cat([g.flatten() for g in found]), scale * plain[1:])


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: type(e).__name__)
def test_rows_do_not_know_of_each_other(estimator):
    """The loss of a batch is the sum over its rows, given the same noise; a masked row leaves value and gradient."""
    toy = LinearGaussian(off=0.2)
    x = toy.draw(4)
    program = toy.program
    torch.manual_seed(0)
    rows = estimator.per_datum(program.model, program.guide, x)
    torch.manual_seed(0)
    loss = estimator.differentiable_loss(program.model, program.guide, x)
    assert torch.allclose(loss, -rows.sum())
    mask = torch.tensor([True, False, True, True])
    torch.manual_seed(0)
    masked = estimator.differentiable_loss(
        poutine.mask(program.model, mask=mask), poutine.mask(program.guide, mask=mask), x
    )
    assert torch.allclose(masked, -rows[mask].sum())
    # another example in the batch, the same noise
    torch.manual_seed(0)
    other = estimator.per_datum(program.model, program.guide, torch.cat([x[:3], x[:1] + 5]))
    assert torch.allclose(other[:3], rows[:3])


@pytest.mark.parametrize("estimator", ALL, ids=lambda e: type(e).__name__)
def test_contract_of_pyro(estimator):
    """An AssertionError of `check_estimator` names what an estimator breaks of the contract of Pyro's ELBO."""
    pv.testing.check_estimator(LinearGaussian(off=0.1).program, estimator, LinearGaussian().draw(8))


class ScaleInside(E.IWAE):
    """Fault: the scale within the logarithm."""

    def local_loss(self, terms, beta):
        return -log_mean_exp(terms.sites[0].scale * terms.log_w(beta)).sum(), {}


class JointWeights(E.IWAE):
    """Fault: one weight for the whole batch."""

    def bound(self, terms, beta):
        log_w = terms.log_w(beta)
        return log_mean_exp(log_w.sum(-1, keepdim=True)).expand(log_w.shape[1]) / log_w.shape[1]


class WrongSign(E.IWAE):
    """Fault: the weight upside down in the latent sites."""

    def bound(self, terms, beta):
        return super().bound(terms, -beta)


class Undetached(E.DReG):
    """Fault: the gradient runs through the weights."""

    def bound(self, terms, beta):
        log_w = terms.log_w(beta, detached_params=True)
        return (log_w.softmax(0) * log_w).sum(0)


class Unsquared(E.DReG):
    """Fault: the weights of a draw not squared, which is sticking the landing."""

    bound = E.StickingTheLanding.bound


class Swapped(E.MIWAE):
    """Fault: the logarithm of the mean over the outer dimension."""

    def groups(self, log_w):
        return log_w.reshape(self.K, self.M, -1)


def fails(test, *args):
    with pytest.raises(AssertionError):
        test(*args)


def test_faults_are_seen(monkeypatch):
    """Each trap that public libraries fell into turns one of the tests above red."""
    fails(test_scale_stands_outside, ScaleInside(num_particles=6), 12.0)
    fails(test_rows_do_not_know_of_each_other, JointWeights(num_particles=6))
    faulty = {
        "WrongSign": (lambda: WrongSign(num_particles=2), log_mean_exp),
        "Undetached": (lambda: Undetached(num_particles=2), log_mean_exp),
        "Unsquared": (lambda: Unsquared(num_particles=2), log_mean_exp),
        "Swapped": (lambda: Swapped(1, 2), log_mean_exp),
    }
    for name, pair in faulty.items():
        monkeypatch.setitem(FORMULAS, name, pair)
        fails(test_value_and_gradient_are_those_of_quadrature, name, 1.0)


def test_values_of_pyros_own_estimators_agree():
    """Given the same noise: RenyiELBO with alpha 0 is the importance-weighted bound."""
    toy = LinearGaussian(off=0.2)
    x = toy.draw(1)
    torch.manual_seed(0)
    ours = E.IWAE(num_particles=7).loss(toy.program.model, toy.program.guide, x)
    torch.manual_seed(0)
    renyi = pyro.infer.RenyiELBO(alpha=0.0, num_particles=7, vectorize_particles=True, max_plate_nesting=1)
    theirs = renyi.loss(toy.program.model, toy.program.guide, x)
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: E.IWAE(num_particles=0), "num_particles"),
        (lambda: E.IWAE(particles_per_pass=0), "particles_per_pass"),
        (lambda: E.MIWAE(0, 3), "M"),
        (lambda: E.Renyi(alpha=math.inf), "alpha"),
        (lambda: E.CUBO(n=0.5), "n"),
        (lambda: E.CIWAE(share=2.0), "share"),
        (lambda: E.TVO(num_intervals=0), "num_intervals"),
        (lambda: E.TVO(first=1.0), "first"),
        (lambda: E.JackknifeIWAE(order=5), "order"),
        (lambda: E.IWAE(beta=-1.0), "beta"),
        (lambda: E.IWAE(free_bits=-1.0), "free_bits"),
    ],
)
def test_invalid_arguments(make, argument):
    with pytest.raises(ValueError, match=f"^{argument}: "):
        make()


def test_a_schedule_that_turns_negative_is_named_with_its_step():
    toy = LinearGaussian()
    estimator = E.IWAE(beta=lambda step: 1.0 - step)
    with pytest.raises(ValueError, match="got -1.0 at step 2"):
        pv.fit(toy.program, toy.draw(30), estimator=estimator, batch_size=10, epochs=1, progress=False)


def test_gdreg_names_the_prior_that_it_cannot_draw_from():
    vae = pv.VAE(
        prior=pv.priors.MixtureOfNormals(2),
        likelihood=pv.likelihoods.Normal(2, (3,)),
        posterior=pv.posteriors.MeanFieldNormal((3,), 2),
    )
    with pytest.raises(ValueError, match="prior: .*'z'"):
        E.GDReG().loss(vae.model, vae.guide, torch.zeros(4, 3))


@pytest.mark.parametrize(
    "estimator", [E.StickingTheLanding(), E.IWAE(), E.DReG(), E.GDReG()], ids=lambda e: type(e).__name__
)
def test_discrete_sites_are_refused_by_pathwise_estimators(estimator):
    vae = pv.VAE(
        prior=pv.priors.Bernoulli(2),
        likelihood=pv.likelihoods.Normal(2, (3,)),
        posterior=pv.posteriors.Bernoulli((3,), 2),
    )
    with pytest.raises(ValueError, match="guide: .*'z'.*Bernoulli"):
        estimator.loss(vae.model, vae.guide, torch.zeros(4, 3))
