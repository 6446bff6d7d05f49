"""Multimodal against a linear-Gaussian model of two modalities, whose evidence and posteriors are exact."""

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
from pyro_vae.estimators import ELBO, IWAE, DReG, GDReG, JackknifeIWAE, StickingTheLanding
from pyro_vae.programs import MixtureOfExperts, MixtureOfProducts, Multimodal, ProductOfExperts

NAN = float("nan")
SIGMA = {"a": 0.7, "b": 0.9}
JOINTS = [ProductOfExperts(), MixtureOfExperts(), MixtureOfProducts(), MixtureOfExperts(stratified=False)]
joints = pytest.mark.parametrize("joint", JOINTS, ids=lambda j: f"{type(j).__name__}-{vars(j).get('stratified', '')}")


class Linear(pv.Conditional):
    """A normal around a linear function, with fixed standard deviations."""

    def __init__(self, weight, bias, std):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        self.log_std = nn.Parameter(torch.as_tensor(std).log().expand(len(weight)).clone())

    def forward(self, x):
        loc = x @ self.weight.T + self.bias
        return dist.Normal(loc, self.log_std.exp().expand(loc.shape)).to_event(1)


class Oracle:
    """x_m = W_m z + noise; the columns of each W_m are orthogonal, so that all posteriors are diagonal."""

    def __init__(self, joint, latent=2, off=0.0):
        generator = torch.Generator().manual_seed(0)
        randn = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
        sizes = {"a": 3, "b": 4}
        self.weights = {m: torch.linalg.qr(randn(d, latent))[0] * (1 + torch.rand(latent)) for m, d in sizes.items()}
        likelihoods, posteriors = {}, {}
        for m, w in self.weights.items():
            likelihoods[m] = Linear(w, torch.zeros(len(w), dtype=w.dtype), torch.tensor(SIGMA[m], dtype=w.dtype))
            precision = (w.T @ w).diagonal() / SIGMA[m] ** 2
            if isinstance(joint, MixtureOfExperts):  # whose experts are posteriors
                precision = precision + 1
            mean = w.T / SIGMA[m] ** 2 / precision[:, None]
            posteriors[m] = Linear(mean + off * randn(*mean.shape), off * randn(latent), precision.rsqrt())
        prior = pv.priors.StandardNormal(latent).double()
        self.program = Multimodal(prior=prior, likelihoods=likelihoods, posteriors=posteriors, joint=joint)
        self.latent = latent

    def draw(self, n=6, seed=1):
        return tuple(self.program.sample(n, target=m, seed=seed) for m in "ab")

    def stacked(self, seen):
        """Weights and variances of the modalities that are seen."""
        w = torch.cat([self.weights[m] for m in seen])
        return w, torch.cat([torch.full((len(self.weights[m]),), SIGMA[m] ** 2, dtype=w.dtype) for m in seen])

    def evidence(self, **x):
        w, variance = self.stacked(x)
        return dist.MultivariateNormal(torch.zeros_like(variance), w @ w.T + variance.diag()).log_prob(
            torch.cat([*x.values()], -1)
        )

    def posterior(self, **x):
        w, variance = self.stacked(x)
        precision = w.T / variance @ w + torch.eye(self.latent, dtype=w.dtype)
        return torch.cat([*x.values()], -1) / variance @ w @ precision.inverse(), precision.inverse()


def hidden(x):
    return torch.full_like(x, NAN)


def bounds(estimator, program, *data):
    return estimator.per_datum(program.model, program.guide, *data)


def test_a_product_of_exact_experts_is_the_exact_posterior_of_each_subset():
    """With the prior counted once; its ELBO is the evidence of what is seen, at each draw."""
    oracle = Oracle(ProductOfExperts())
    a, b = oracle.draw()
    for data, seen in (((a, b), {"a": a, "b": b}), ((a, hidden(b)), {"a": a}), ((hidden(a), b), {"b": b})):
        q = oracle.program.encode(*data)
        mean, covariance = oracle.posterior(**seen)
        assert torch.allclose(q.mean, mean)
        assert torch.allclose(q.variance, covariance.diagonal().expand_as(q.variance))
        assert torch.allclose(bounds(ELBO(analytic_kl=False), oracle.program, *data), oracle.evidence(**seen))
        found = pv.evaluation.log_likelihood(oracle.program, data, num_particles=5, progress=False)
        assert torch.allclose(found.per_example, oracle.evidence(**seen), atol=1e-6)
    assert torch.allclose(bounds(ELBO(analytic_kl=False), oracle.program, a), oracle.evidence(a=a))


@joints
def test_missing_modalities_are_marginalized_row_by_row(joint):
    """The estimate of each row is the evidence of the modalities that it has, 0 for a row that has none."""
    oracle = Oracle(joint, off=0.1)
    a, b = oracle.draw(4)
    exact = torch.stack(
        [*(oracle.evidence(**s)[i] for i, s in enumerate(({"a": a, "b": b}, {"a": a}, {"b": b}))), a.new_zeros(())]
    )
    a, b = a.clone(), b.clone()
    a[2:] = NAN
    b[1] = b[3] = NAN
    found = pv.evaluation.log_likelihood(oracle.program, (a, b), num_particles=20_000, seed=2, progress=False)
    error = found.per_example_error.clamp_min(1e-12)
    assert ((found.per_example - exact).abs() <= 4 * error + 1e-9).all()
    assert error.max() < 0.1


@joints
def test_iwae_rises_to_the_evidence(joint):
    oracle = Oracle(joint, off=0.2)
    data = oracle.draw(5)
    exact = oracle.evidence(a=data[0], b=data[1])
    torch.manual_seed(0)
    runs = [torch.stack([bounds(IWAE(num_particles=k), oracle.program, *data) for _ in range(100)]) for k in (6, 600)]
    few, many = (r.mean(0) for r in runs)
    few_error, many_error = (r.std(0) / 10 for r in runs)
    assert (few < many + 4 * (few_error + many_error)).all()
    assert (many < exact + 4 * many_error).all()
    assert (exact - many).max() < 0.1


@pytest.mark.parametrize("stratified", [True, False])
def test_densities_of_mixtures_against_direct_computation(stratified):
    torch.manual_seed(0)
    prior = dist.Normal(torch.randn(2), torch.rand(2) + 0.5)
    loc, scale = torch.randn(4, 2, 2), torch.rand(4, 2, 2) + 0.5
    seen = torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]]).bool()
    z = torch.randn(4, 2)
    p = prior.log_prob(z).sum(-1)
    one, two = (dist.Normal(loc[:, m], scale[:, m]).log_prob(z).sum(-1) for m in (0, 1))
    experts = torch.stack([torch.logaddexp(one, two)[0] - torch.tensor(2.0).log(), one[1], two[2], p[3]])
    assert torch.allclose(MixtureOfExperts(stratified=stratified)(prior, loc, scale, seen).log_prob(z), experts)

    def product(row, *members):
        """The normalized product, by the definition of its density on a grid of one dimension after the other."""
        grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
        total = 0.0
        for d in range(2):
            parts = [(prior.loc[d], prior.scale[d])] + [(loc[row, m, d], scale[row, m, d]) for m in members]
            log = sum(dist.Normal(m.double(), s.double()).log_prob(grid) for m, s in parts)
            at = sum(dist.Normal(m.double(), s.double()).log_prob(z[row, d].double()) for m, s in parts)
            total = total + at - torch.trapezoid(log.exp(), grid).log()
        return total

    first = torch.stack([product(0, 0), product(0, 1), product(0, 0, 1)]).logsumexp(0) - torch.tensor(3.0).log()
    exact = torch.stack([first, product(1, 0), product(2, 1), p[3]])
    found = MixtureOfProducts(stratified=stratified)(prior, loc, scale, seen).log_prob(z)
    assert torch.allclose(found.double(), exact, atol=1e-5)


def test_stratified_samples_come_from_all_components_that_take_part_equally_often():
    """Each single sample has the density of the mixture, whatever the number of samples."""
    loc = torch.tensor([-100.0, 0.0, 100.0]).reshape(3, 1).expand(3, 3, 1)
    part = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0]]).bool()
    q = pv.distributions.StratifiedNormalMixture(loc, torch.ones(3, 3, 1), part)
    for fn, z in ((q, q.rsample((12,))), (q.expand((12, 3)), q.expand((12, 3)).rsample())):
        counts = torch.stack([((z - c).abs() < 50).sum(0).squeeze(-1) for c in (-100, 0, 100)], -1)
        assert counts.tolist() == [[4, 4, 4], [6, 0, 6], [0, 12, 0]], fn
    torch.manual_seed(0)
    first = q.__class__(loc[0].expand(3000, 3, 1), torch.ones(3, 1), part[0].expand(3000, 3)).rsample()[:, 0]
    share = torch.stack([((first - c).abs() < 50).double().mean() for c in (-100, 0, 100)])
    assert ((share - 1 / 3).abs() < 4 * (2 / 9 / 3000) ** 0.5).all()


def quadrature(oracle, a, b):
    """The exact ELBO of a program with one latent, differentiable in the parameters."""
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64).reshape(-1, 1, 1)
    q = oracle.program.encode(a, b)
    log_q = q.log_prob(z)
    log_p = oracle.program.prior().log_prob(z)
    for m, x in (("a", a), ("b", b)):
        log_p = log_p + oracle.program.likelihoods[m](z).log_prob(x)
    return torch.trapezoid(log_q.exp() * (log_p - log_q), z[:, 0, 0], dim=0).sum()


def describe_id(estimator):
    return f"{type(estimator).__name__}-{estimator.num_particles}"


def repeated(estimator, program, data, copies=100, runs=100):
    """Independent gradients of the loss of the data, each a mean over copies of the rows."""
    many = [column.repeat(copies, 1) for column in data]
    losses = (estimator.differentiable_loss(program.model, program.guide, *many) / copies for _ in range(runs))
    return torch.stack([gradients(loss, program) for loss in losses])


def gradients(loss, program):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(program.parameters()))])


@pytest.mark.parametrize("joint", JOINTS[1:3], ids=lambda j: type(j).__name__)
@pytest.mark.parametrize(
    "estimator", [ELBO(num_particles=1), ELBO(num_particles=4), StickingTheLanding(num_particles=1)], ids=describe_id
)
def test_gradients_of_stratified_particles_are_unbiased(joint, estimator):
    """Within 4.5 standard errors of the gradient of the exact bound; 4 particles of 2 or 3 components."""
    oracle = Oracle(joint, latent=1, off=0.3)
    program, data = oracle.program, oracle.draw(3)
    exact = -gradients(quadrature(oracle, *data), program)
    torch.manual_seed(0)
    found = repeated(estimator, program, data)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - exact).abs() <= 4.5 * error + 1e-6).all()


def test_stratified_particles_have_a_lower_variance_and_a_tighter_bound():
    for estimator, statistic in ((ELBO, lambda r: -r.var(0).mean()), (IWAE, lambda r: r.mean())):
        torch.manual_seed(0)
        found = []
        for stratified in (False, True):
            oracle = Oracle(MixtureOfExperts(stratified=stratified), off=0.3)
            data = oracle.draw(4)
            many = [column.repeat(2000, 1) for column in data]
            found.append(statistic(bounds(estimator(num_particles=2), oracle.program, *many).reshape(2000, 4)))
        assert found[1] > found[0]


@pytest.mark.parametrize("cls", [MixtureOfExperts, MixtureOfProducts])
def test_dreg_is_unbiased_with_independent_particles(cls):
    """Its mean gradient is that of IWAE within 4.5 standard errors, and estimators refuse dependent particles."""
    oracle = Oracle(cls(stratified=False), latent=1, off=0.3)
    program, data = oracle.program, oracle.draw(3)
    torch.manual_seed(0)
    runs = [repeated(e, program, data) for e in (IWAE(num_particles=3), DReG(num_particles=3))]
    error = sum(run.var(0) / len(run) for run in runs).sqrt()
    assert ((runs[0].mean(0) - runs[1].mean(0)).abs() <= 4.5 * error + 1e-6).all()
    program.joint = cls()
    for estimator in (DReG, GDReG, JackknifeIWAE):
        with pytest.raises(ValueError, match="stratified=False"):
            estimator(num_particles=4).differentiable_loss(program.model, program.guide, *data)


def test_a_scaled_batch_has_scaled_gradients_and_missing_rows_add_nothing():
    oracle = Oracle(ProductOfExperts())
    a, b = oracle.draw(8)
    b = b.clone()
    b[:4] = NAN
    exact = torch.cat([oracle.evidence(a=a[:4]), oracle.evidence(a=a[4:], b=b[4:])])
    scaled = [poutine.scale(f, 10.0) for f in (oracle.program.model, oracle.program.guide)]
    for estimator in (ELBO(analytic_kl=False), IWAE(num_particles=3), DReG(num_particles=3)):
        loss = estimator.differentiable_loss(*scaled, a, b)
        assert torch.allclose(loss, -10 * exact.sum())


def private(joint=None, **options):
    """A program in which modality x has private latents."""
    net = functools.partial(pv.nets.MLP, hidden=(8,))
    return Multimodal.example(
        joint=joint,
        likelihoods={"x": pv.likelihoods.Normal(2 + 1, (4,), net=net), "y": pv.likelihoods.Normal(2, (3,), net=net)},
        private_priors={"x": pv.priors.StandardNormal(1)},
        private_posteriors={"x": pv.posteriors.MeanFieldNormal((4,), 1, net=net)},
        **options,
    )


@joints
def test_private_latents_train_and_do_not_count_where_their_modality_is_missing(joint):
    torch.manual_seed(0)
    program = private(joint)
    x, y = torch.randn(12, 4), torch.randn(12, 3)
    before = {n: p.clone() for n, p in program.named_parameters()}
    independent = [DReG(num_particles=2)] if isinstance(joint, ProductOfExperts) or not joint.stratified else []
    for estimator in (ELBO(num_particles=2), IWAE(num_particles=4), *independent):
        pv.fit(program, (x, y), estimator=estimator, epochs=2, progress=False)
    assert not any(torch.equal(p, before[n]) for n, p in program.named_parameters())
    terms = pv.trace.run(program.model, program.guide, (hidden(x), y))
    (site,) = (s for s in terms.latent if s.name == "private_x")
    assert not site.log_p.any()
    assert not site.log_q.any()
    assert program.generate({"y": y}, "x").shape == x.shape
    assert program.reconstruct(x, y).shape == x.shape


@joints
def test_conditional_samples_have_the_exact_distribution(joint):
    """Mean and variance of b given a, with exact experts, within 4 standard errors."""
    oracle = Oracle(joint)
    a, _ = oracle.draw(1)
    n = 20_000
    found = oracle.program.generate({"a": a.expand(n, -1)}, "b", seed=3)
    mean, covariance = oracle.posterior(a=a)
    w = oracle.weights["b"]
    exact = w @ covariance @ w.T + SIGMA["b"] ** 2 * torch.eye(len(w))
    variance = exact.diagonal()
    assert ((found.mean(0) - (mean @ w.T)[0]).abs() < 4 * (variance / n).sqrt()).all()
    assert ((found.var(0) - variance).abs() < 4 * variance * (2 / n) ** 0.5).all()


def test_conditional_log_likelihoods_are_exact():
    """The difference of the log-likelihoods of all modalities and of those that are given."""
    oracle = Oracle(ProductOfExperts())
    a, b = oracle.draw()
    exact = oracle.evidence(a=a, b=b) - oracle.evidence(b=b)
    both, given = (
        pv.evaluation.log_likelihood(oracle.program, oracle.program.columns(data), num_particles=30, progress=False)
        for data in ({"a": a, "b": b}, {"b": b})
    )
    assert torch.allclose(both.per_example - given.per_example, exact, atol=1e-5)


def test_subsets_are_the_sum_of_the_objective_of_mvae():
    oracle = Oracle(ProductOfExperts())
    a, b = oracle.draw(5)
    data = pv.programs.modality_subsets(a, b)
    found = bounds(ELBO(analytic_kl=False), oracle.program, *data).reshape(3, 5)
    assert torch.allclose(found, torch.stack([oracle.evidence(a=a, b=b), oracle.evidence(a=a), oracle.evidence(b=b)]))
    more = pv.programs.modality_subsets(a, b, num_subsets=40)
    seen = torch.stack([~torch.isnan(c[15:]).all(-1) for c in more], -1)
    assert len(seen) == 40 * 5
    assert seen.any(-1).all()
    assert seen.unique(dim=0).shape == (3, 2)


@joints
def test_it_stays_pyro_and_is_loaded_from_its_run_folder(joint, tmp_path):
    torch.manual_seed(0)
    program = private(joint)
    data = torch.randn(10, 4), torch.randn(10, 3)
    data[1][2] = NAN
    for other in (copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        before = {n: p.clone() for n, p in other.named_parameters()}
        svi = infer.SVI(other.model, other.guide, pyro.optim.Adam({"lr": 1e-2}), infer.Trace_ELBO())
        assert all(torch.isfinite(torch.tensor(svi.step(*data))) for _ in range(2))
        assert not any(torch.equal(p, before[n]) for n, p in other.named_parameters())
        svi = infer.SVI(
            other.model,
            other.guide,
            pyro.optim.Adam({"lr": 1e-2}),
            infer.Trace_ELBO(num_particles=4, vectorize_particles=True),
        )
        assert torch.isfinite(torch.tensor(svi.step(*data)))
    assert len(pyro.get_param_store()) == 0
    found = infer.Predictive(program.model, guide=program.guide, num_samples=3)(*data)
    assert found["z"].shape == (3, 10, 2)
    pv.fit(program, data, epochs=1, run_dir=tmp_path / "run", progress=False)
    loaded = pv.load(tmp_path / "run")
    assert torch.equal(loaded.generate({"y": data[1]}, "x"), program.generate({"y": data[1]}, "x"))


@joints
def test_a_compiled_step_equals_an_eager_one(joint):
    torch.manual_seed(0)
    first = private(joint)
    data = torch.randn(12, 4), torch.randn(12, 3)
    data[1][2] = NAN
    losses = []
    for compile in (False, pv.training.eager_graph):
        program = copy.deepcopy(first)
        history = pv.fit(program, data, epochs=3, batch_size=6, compile=compile, progress=False)
        losses.append([row["loss"] for row in history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_columns_change_nothing_but_the_form():
    program, y, before = Multimodal.example().train(), torch.randn(5, 3), torch.get_rng_state()
    x, same = program.columns({"y": y})
    assert x.shape == (5, 4)
    assert torch.isnan(x).all()
    assert same is y
    assert program.training
    assert torch.equal(torch.get_rng_state(), before)


def test_mistakes_are_named():
    program, x, y = Multimodal.example(), torch.randn(5, 4), torch.randn(5, 3)
    with pytest.raises(ValueError, match="^y: expected shape"):
        program.check(x, y[:, :2])
    with pytest.raises(ValueError, match="^y: expected 5 rows"):
        program.check(x, y[:3])
    with pytest.raises(ValueError, match="^data"):
        program.check(x, y, y)
    with pytest.raises(ValueError, match="^modalities"):
        program.columns({"w": x})
    with pytest.raises(ValueError, match="^target"):
        program.generate({"x": x}, "w")
    with pytest.raises(ValueError, match="^target"):
        program.sample(3, target="w")
    with pytest.raises(TypeError, match="^joint"):
        Multimodal.example(joint="product")
    with pytest.raises(ValueError, match="^posteriors"):
        Multimodal.example(posteriors={"x": pv.posteriors.MeanFieldNormal((4,), 2)})
    laplace = {"x": pv.posteriors.Laplace((4,), 2), "y": pv.posteriors.MeanFieldNormal((3,), 2)}
    with pytest.raises(ValueError, match=r"^posteriors\.x: expected a diagonal normal"):
        pv.fit(Multimodal.example(posteriors=laplace), (x, y), epochs=1, progress=False)
    with pytest.raises(ValueError, match="likelihoods"):
        Multimodal.example(private_priors={"w": pv.priors.StandardNormal(1)}, private_posteriors={"w": None})
