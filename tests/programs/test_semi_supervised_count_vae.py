"""SemiSupervisedCountVAE (scANVI): against quadrature, CountVAE, StackedSemiSupervised and its formula written out."""

import copy
import math

import pyro
import pytest
import torch
from helpers import shelf
from helpers.compiled import SGD
from helpers.small_parts import LINEAR, SMALL, Given
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.programs import CountVAE, SemiSupervised, SemiSupervisedCountVAE, StackedSemiSupervised
from pyro_vae.training import eager_graph

GENES, CLASSES, WIDTH = 3, 2, 2


def cells(n=6):
    generator = torch.Generator().manual_seed(0)
    rates = torch.rand(n, GENES, generator=generator) * 12
    return torch.poisson(rates, generator=generator).double() + torch.eye(n, GENES).double()[0]


def batches(n=6):
    return torch.eye(WIDTH).double()[torch.arange(n) // 2 % WIDTH]


def labels(n=6, known=3):
    y = torch.eye(CLASSES).double()[torch.arange(n) % CLASSES]
    y[known:] = math.nan
    return y


class Size(pv.Conditional):
    """Log library size around the logarithm of the total."""

    def __init__(self):
        super().__init__()
        self.off = torch.nn.Parameter(torch.tensor([0.1]))

    def forward(self, log_x, *context):
        return dist.Normal(log_x.expm1().sum(-1, keepdim=True).log() + self.off, 0.5).to_event(1)


def log_size(*context, loc):
    return dist.Normal(loc, 0.6).to_event(1)


def sizes(latent):
    if not latent:
        return {}
    return {"library_prior": Given(log_size, loc=torch.tensor([2.8])), "library_posterior": Size()}


def parts(width=0):
    """The likelihood of counts given one latent, and the posterior of that latent."""
    torch.manual_seed(3)
    likelihood = pv.likelihoods.NegativeBinomial(1, (GENES,), net=LINEAR, context=width + 1, library=True)
    posterior = pv.posteriors.MeanFieldNormal((GENES,), 1, net=LINEAR, context=width)
    return {"likelihood": likelihood, "posterior": wide(posterior)}


def wide(posterior):
    """A posterior wide enough for importance weights with a finite variance."""
    with torch.no_grad():
        encoder = posterior.net.body[0]
        encoder.weight.mul_(0.2)
        encoder.bias[1] = 1.0
    return posterior


def below(z2, y, w, mu, std):
    return dist.Normal(z2 * w + y @ mu, std).to_event(1)


class Toy:
    """z1 = w z2 + mu_y + noise, so that p(z1 given y) is normal and everything else is at most two integrals."""

    def __init__(self, width=0, latent_library=False, alpha=0.0):
        own = parts(width)
        means = {"w": torch.tensor([0.8]), "mu": torch.tensor([[-1.0], [1.5]]), "std": torch.tensor([0.7])}
        top = SemiSupervised(
            classes=pv.priors.OneHotCategorical(CLASSES, learned=True),
            prior=pv.priors.StandardNormal(1),
            likelihood=Given(below, **means),
            classifier=pv.posteriors.OneHotCategorical((1,), CLASSES, net=LINEAR),
            posterior=wide(pv.posteriors.MeanFieldNormal((1,), 1, context=CLASSES, net=LINEAR)),
            alpha=alpha,
        )
        with torch.no_grad():
            top.classes.logits[0] = 0.4
            top.classifier.net.body[0].weight.copy_(torch.tensor([[-1.2], [1.0]]))
        self.program = SemiSupervisedCountVAE(top=top, **own, **sizes(latent_library)).double()
        self.top = top

    def grid(self, x, *context):
        """Return z1 (Z,), log sizes (n, L), log p(x given both) (n, Z, L), and the log-width of a cell."""
        n, z = len(x), torch.linspace(-9, 9, 241).double()
        size = x.sum(-1, keepdim=True).log()
        if self.program.library_prior is not None:
            size = size + torch.linspace(-4, 4, 121).double()
        shape = (n, len(z), size.shape[1])
        here = [c[:, None, None].expand(*shape, -1) for c in context]
        fn = self.program.likelihood(
            z[None, :, None, None].expand(*shape, 1), *here, size[:, None, :, None].exp().expand(*shape, 1)
        )
        step = z[1] - z[0] if size.shape[1] == 1 else (z[1] - z[0]) * (size[0, 1] - size[0, 0])
        return z, size, fn.log_prob(x[:, None, None]), step.log()

    def log_joint(self, x, *context):
        """Return the exact log p(x, y) for each class, (n, classes)."""
        z, size, log_px, width = self.grid(x, *context)
        own = self.top.likelihood.own
        spread = (own["w"] ** 2 + own["std"] ** 2).sqrt()
        log_pz = dist.Normal(own["mu"].squeeze(-1), spread).log_prob(z[:, None]) + self.top.classes().logits
        if self.program.library_prior is not None:
            log_px = log_px + self.program.library_prior().base_dist.log_prob(size)[:, None]
        log_px = log_px.logsumexp(-1)
        return (log_px[:, :, None] + log_pz + width).logsumexp(1)

    def bound(self, x, y, *context):
        """Return the exact ELBO of each row, with ``alpha`` times the classification term of labelled rows."""
        z, size, log_px, width = self.grid(x, *context)
        q = self.program.encode(x, *context).base_dist
        log_q = q.log_prob(z)[:, :, None].expand_as(log_px)
        value = log_px - log_q
        if self.program.library_prior is not None:
            log_ql = self.program.library_posterior(x.log1p()).base_dist.log_prob(size)[:, None]
            value = value + self.program.library_prior().base_dist.log_prob(size)[:, None] - log_ql
            log_q = log_q + log_ql
        own, each = self.top.likelihood.own, torch.eye(CLASSES).double()
        at = z[:, None, None].expand(-1, CLASSES, 1)
        inner = self.top.posterior(at, each.expand(len(z), -1, -1)).base_dist
        mean, variance = inner.mean.squeeze(-1), inner.variance.squeeze(-1)
        fit = dist.Normal(mean * own["w"] + own["mu"].squeeze(-1), own["std"]).log_prob(z[:, None])
        fit = fit - own["w"] ** 2 * variance / (2 * own["std"] ** 2)
        term = self.top.classes().logits + fit - 0.5 * (mean**2 + variance - 1 - variance.log())
        log_qy = self.top.classifier(z[:, None]).logits
        free = (log_qy.exp() * (term - log_qy)).sum(-1)
        given = y.nan_to_num() @ (term + self.top.alpha * log_qy).T
        value = value + torch.where(y.isnan().any(-1, keepdim=True), free, given)[:, :, None]
        return ((log_q + width).exp() * value).sum((1, 2))


SETTINGS = pytest.mark.parametrize(("width", "latent_library"), [(0, False), (WIDTH, False), (WIDTH, True)])


def columns(width):
    return (batches(),) if width else ()


@SETTINGS
def test_evidence_is_that_of_a_quadrature(width, latent_library):
    """With and without labels, 4 standard errors."""
    toy, x, c, y = Toy(width, latent_library), cells(), columns(width), labels()
    joint = toy.log_joint(x, *c).detach()
    exact = torch.where(y.isnan().any(-1), joint.logsumexp(-1), (joint * y.nan_to_num()).sum(-1))
    for data, truth in (((x, *c, y), exact), ((x, *c), joint.logsumexp(-1))):
        found = pv.evaluation.log_likelihood(toy.program, data, num_particles=3000, progress=False)
        assert (found.per_example_error < 0.1).all()
        assert ((found.per_example - truth).abs() < 4 * found.per_example_error).all()
    assert (toy.bound(x, y, *c) < exact).all()


@SETTINGS
@pytest.mark.parametrize("estimator", [pv.estimators.ELBO(), pv.estimators.ELBO(analytic_kl=False)])
def test_value_and_gradient_are_those_of_a_quadrature(width, latent_library, estimator):
    """Of labelled and unlabelled rows in training, with the classification term; 4.5 standard errors."""
    toy, x, c, y = Toy(width, latent_library, alpha=1.5), cells(), columns(width), labels()
    program, parameters = toy.program.train(), list(toy.program.parameters())
    exact = toy.bound(x, y, *c).sum()
    slopes = torch.cat([g.flatten() for g in torch.autograd.grad(exact, parameters)])
    copies, num_draws = 60, 40
    data = [column.repeat(copies, 1) for column in (x, *c, y)]
    torch.manual_seed(0)
    found = []
    for _ in range(num_draws):
        loss = -estimator.differentiable_loss(program.model, program.guide, *data) / copies
        found.append(
            torch.cat([loss.detach().reshape(1), *(g.flatten() for g in torch.autograd.grad(loss, parameters))])
        )
    found = torch.stack(found)
    error = found.std(0) / math.sqrt(num_draws)
    assert ((found.mean(0) - torch.cat([exact.detach().reshape(1), slopes])).abs() < 4.5 * error + 1e-9).all()


@SETTINGS
def test_bound_is_the_sum_over_sites_and_classes(width, latent_library):
    toy, x, c, y = Toy(width, latent_library), cells(), columns(width), labels()
    program, top = toy.program, toy.top
    torch.manual_seed(0)
    found = pv.estimators.ELBO(num_particles=3, analytic_kl=False).per_datum(program.model, program.guide, x, *c, y)
    torch.manual_seed(0)
    q = program.posterior(x.log1p(), *c)
    z1, library = q.rsample((3,)), x.sum(-1, keepdim=True)
    expected = -q.log_prob(z1)
    if latent_library:
        p, q = program.library_prior(*c), program.library_posterior(x.log1p(), *c)
        log_library = q.rsample((3,))
        expected, library = expected + p.log_prob(log_library) - q.log_prob(log_library), log_library.exp()
    expected = expected + program.likelihood(z1, *c, library).log_prob(x)
    # each class has a draw of z2; those of a labelled row are all under its label
    each = torch.where(y.isnan(), torch.eye(CLASSES).double()[:, None, None], y).expand(-1, 3, -1, -1)
    q = top.posterior(z1.expand(CLASSES, -1, -1, -1), each)
    z2 = q.rsample()
    inner = top.prior().log_prob(z2) - q.log_prob(z2) + top.likelihood(z2, each).log_prob(z1)
    inner = inner + top.classes().log_prob(each)
    qy = top.classifier(z1)
    inner = inner - torch.where(y.isnan().any(-1), qy.logits.movedim(-1, 0), 0.0)
    assert torch.allclose(found, (expected + (qy.probs.movedim(-1, 0) * inner).sum(0)).mean(0))


def same_noise(estimator, program, data, parameters):
    """Return value and gradient of the sum over rows, from the same random numbers for every program."""
    torch.manual_seed(0)
    value = estimator.per_datum(program.model, program.guide, *data)
    return value, torch.autograd.grad(value.sum(), parameters)


def refused(estimator, program, *data):
    """Whether an estimator refuses the program, by an error that names itself or the site."""
    try:
        estimator.differentiable_loss(program.model, program.guide, *data)
    except ValueError as found:
        error = str(found)
    else:
        return False
    assert error.startswith(("guide: ", "model: ", "program: ", "prior: "))
    assert type(estimator).__name__ in error or "site '" in error
    return True


@pytest.mark.parametrize("cls", shelf.classes())
@pytest.mark.parametrize("latent_library", [False, True])
def test_labels_without_information_leave_the_count_vae(cls, latent_library):
    """Every estimator has the value and gradient of `CountVAE` at each draw, or refuses the program by name."""
    ones = {"w": torch.tensor([0.6]), "mu": torch.zeros(CLASSES, 1), "std": torch.tensor([0.8])}
    top = SemiSupervised(
        classes=pv.priors.OneHotCategorical(CLASSES),
        prior=pv.priors.StandardNormal(1),
        likelihood=Given(below, **ones),
        classifier=Given(lambda z1: dist.OneHotCategorical(logits=0 * z1.expand(*z1.shape[:-1], CLASSES))),
        # the exact posterior of z2, whatever the class
        posterior=Given(lambda z1, y: dist.Normal(0.6 * z1 + 0 * y[..., :1], 0.8).to_event(1)),
        alpha=0.0,
    )
    program = SemiSupervisedCountVAE(top=top, **parts(WIDTH), **sizes(latent_library)).double()
    plain = CountVAE(
        prior=pv.priors.StandardNormal(1),
        likelihood=program.likelihood,
        posterior=program.posterior,
        library_prior=program.library_prior,
        library_posterior=program.library_posterior,
    )
    estimator = shelf.build(cls)
    if hasattr(estimator, "analytic_kl"):
        estimator.analytic_kl = False
    x, c, y = cells(), batches(), labels()
    if refused(estimator, program, x, c, y):
        return
    parameters = list(plain.parameters())
    value, slopes = same_noise(estimator, plain, (x, c), parameters)
    for data in ((x, c), (x, c, y)):
        found, gradient = same_noise(estimator, program, data, parameters)
        known = (~y.isnan().any(-1)).double() if len(data) == 3 else torch.zeros(len(x))
        assert torch.allclose(found, value - known * math.log(CLASSES), atol=1e-9)
        for a, b in zip(gradient, slopes, strict=True):
            assert torch.allclose(a, b, atol=1e-7)


def test_the_estimators_that_take_it():
    """The others refuse it by name; the classification term is for the ELBO alone."""
    takes = {}
    for alpha in (0.0, 2.0):
        program = Toy(alpha=alpha).program.train()
        data = cells(), labels()
        takes[alpha] = {c.__name__ for c in shelf.classes() if not refused(shelf.build(c), program, *data)}
    assert takes[2.0] == {"ELBO", "Enumeration"}
    assert takes[0.0] == takes[2.0] | {"CIWAE", "FDivergence", "IWAE", "JackknifeIWAE", "MIWAE", "Renyi"}


@pytest.mark.parametrize("known", [0, 3, 6])
def test_one_library_size_leaves_the_stacked_program(known):
    """All cells have the same total: value and gradient of the whole loss at each draw."""
    program = Toy(alpha=2.0).program.train()
    x, y = cells(), labels(known=known)
    x[:, 0] += x.sum(-1).max() - x.sum(-1)
    size = x.sum(-1, keepdim=True)[:1]
    stacked = StackedSemiSupervised(
        top=program.top,
        likelihood=Given(lambda z1: program.likelihood(z1, size.expand(*z1.shape[:-1], 1))),
        posterior=Given(lambda x: program.posterior(x.log1p())),
    )
    parameters = list(program.parameters())
    found = []
    for own in (program, stacked):
        torch.manual_seed(0)
        loss = pv.estimators.ELBO(num_particles=2).differentiable_loss(own.model, own.guide, x, y)
        found.append([loss, *torch.autograd.grad(loss, parameters, materialize_grads=True, allow_unused=True)])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b)


def test_probabilities_of_classes_are_means_over_z1():
    """Against a quadrature over q(z1 given x, c); the samples depend on the seed alone."""
    toy, x, c = Toy(WIDTH), cells(), batches()
    z, _, _, _ = toy.grid(x, c)
    weight = toy.program.encode(x, c).base_dist.log_prob(z).exp() * (z[1] - z[0])
    exact = (weight[:, :, None] * toy.top.classifier(z[:, None]).probs).sum(1)
    num_samples, state = 20_000, torch.get_rng_state()
    found = toy.program.classify(x, c, num_samples=num_samples)
    assert ((found - exact).abs() < 4 * 0.5 / math.sqrt(num_samples)).all()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(toy.program.classify(x, c), toy.program.classify(x, c, seed=0))
    assert not torch.equal(toy.program.classify(x, c), toy.program.classify(x, c, seed=1))
    tasks = [pv.tasks.classify(toy.program, (x, c), seed=seed, progress=False).probabilities for seed in (0, 0, 1)]
    assert torch.equal(tasks[0], tasks[1])
    assert not torch.equal(tasks[0], tasks[2])
    with pytest.raises(ValueError, match="^x: .* without labels"):
        pv.tasks.classify(toy.program, (x, c, labels()), progress=False)


@pytest.mark.parametrize("latent_library", [False, True])
def test_samples_have_the_class_batch_and_library_size_that_are_given(latent_library):
    program, n = Toy(WIDTH, latent_library).program, 4000
    c, y = batches(n), labels(n, known=n)
    with pytest.raises(TypeError, match="library"):
        program.sample(n, c)
    means = program.sample(n, c, y=y, library=100.0, mean=True)
    assert torch.allclose(means.sum(-1), torch.tensor(100.0).double())
    assert torch.allclose(program.sample(n, c, y=y, library=torch.full((n,), 200.0), mean=True), 2 * means)
    own = program.top.likelihood.own
    spread = (own["w"] ** 2 + own["std"] ** 2).sqrt()
    for k in range(CLASSES):
        for b in range(WIDTH):
            here = (y[:, k] == 1) & (c[:, b] == 1)
            z = own["mu"][k] + spread * torch.randn(20_000, 1, dtype=torch.float64)
            batch = torch.eye(WIDTH).double()[b].expand(len(z), -1)
            given = program.decode(z, batch, library=torch.full((len(z),), 100.0)).mean
            error = (means[here].var(0) / int(here.sum()) + given.var(0) / len(z)).sqrt()
            assert ((means[here].mean(0) - given.mean(0)).abs() < 4.5 * error).all()


def test_expression_is_that_of_the_count_vae():
    """Labels may be passed and change nothing; covariates may be replaced."""
    toy, x, c, y = Toy(WIDTH), cells(), batches(), labels()
    plain = CountVAE(
        prior=pv.priors.StandardNormal(1), likelihood=toy.program.likelihood, posterior=toy.program.posterior
    ).double()
    for options in ({}, {"decode_as": torch.eye(WIDTH)[0].double()}, {"library": 10.0}):
        expected = plain.normalized(x, c, **options)
        assert torch.equal(toy.program.normalized(x, c, **options), expected)
        assert torch.equal(toy.program.normalized(x, c, y, **options), expected)
    assert torch.equal(toy.program.reconstruct(x, c, y), plain.reconstruct(x, c))
    assert torch.equal(toy.program.reconstruct(x, c), plain.reconstruct(x, c))


def small(alpha=1.0):
    top = SemiSupervised(
        classes=pv.priors.OneHotCategorical(CLASSES),
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Normal(2, (2,), context=CLASSES, net=SMALL, scale=pv.scales.PerExample()),
        classifier=pv.posteriors.OneHotCategorical((2,), CLASSES, net=SMALL),
        posterior=pv.posteriors.MeanFieldNormal((2,), 2, context=CLASSES, net=SMALL),
        alpha=alpha,
    )
    return SemiSupervisedCountVAE(
        top=top,
        likelihood=pv.likelihoods.ZeroInflatedNegativeBinomial(
            2, (GENES,), context=WIDTH + 1, library=True, net=SMALL
        ),
        posterior=pv.posteriors.MeanFieldNormal((GENES,), 2, context=WIDTH, net=SMALL),
        library_prior=pv.priors.ConditionalNormal(1, context=WIDTH, net=SMALL),
        library_posterior=pv.posteriors.MeanFieldNormal((GENES,), 1, context=WIDTH, net=SMALL),
    )


def data(n=20):
    return tuple(column.float() for column in (cells(n), batches(n), labels(n, known=n // 2)))


@pytest.mark.filterwarnings("error:compile")
def test_compiled_training_is_uncompiled_training():
    found = []
    for compile in (False, eager_graph):
        torch.manual_seed(0)
        program = small()
        history = pv.fit(program, data(), optimizer=SGD, epochs=2, batch_size=8, compile=compile, progress=False)
        found.append((history["loss"], program.state_dict()))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    for name, weight in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], weight, rtol=1e-4, atol=1e-5)


def test_a_resumed_training_is_an_uninterrupted_one(tmp_path):
    found = []
    for epochs in ((4,), (2, 4)):
        torch.manual_seed(0)
        program = small()
        for i, number in enumerate(epochs):
            how = {"optimizer": SGD, "batch_size": 8, "run_dir": tmp_path / str(len(epochs)), "progress": False}
            pv.fit(program, data(), epochs=number, resume=i > 0, **how)
        found.append(program.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.filterwarnings("ignore:(?s).*enumerate")
def test_stock_pyro_takes_columns():
    program, batch = small(), data()
    elbo = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1)
    svi = pyro.infer.SVI(program.model, program.guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    before = copy.deepcopy(program.state_dict())
    assert math.isfinite(svi.step(*batch))
    trained = {n for n, p in program.named_parameters() if not torch.equal(p, before[n])}
    assert trained == {n for n, _ in program.named_parameters()}
    found = pyro.infer.Predictive(program.model, guide=program.guide, num_samples=5)(*batch)
    assert found["log_library"].shape == (5, 20, 1)


def test_loss_is_that_of_pyro():
    """TraceEnum_ELBO sums over all classes too; 4 standard errors."""
    program, batch = Toy(WIDTH, latent_library=True, alpha=1.5).program.train(), (cells(), batches(), labels())
    elbo = pv.estimators.ELBO(num_particles=400)
    theirs = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1, num_particles=400, vectorize_particles=True)
    found = [torch.tensor([e.loss(program.model, program.guide, *batch) for _ in range(10)]) for e in (elbo, theirs)]
    error = math.sqrt(sum(float(f.var()) for f in found) / 10)
    assert abs(float(found[0].mean() - found[1].mean())) < 4 * error


def test_bad_input_is_refused():
    program, (x, c, y) = small(), data()

    def rejects(message, *columns):
        with pytest.raises(ValueError, match=message):
            pv.fit(program, columns, epochs=1, progress=False)

    rejects("^context: .*2", x)
    rejects("^context: .*2", x, y[:, :1])
    rejects("^data: .*labels", x, c, y, y)
    rejects(r"^y: .*\(n, 2\)", x, c, torch.ones(len(x), 3))
    rejects(r"^y: y\[12\]", x, c, torch.where(torch.arange(20)[:, None] == 12, torch.tensor([0.5, 0.5]), y))
    rejects(r"^x: .*x\[3\].*1 of 20", torch.where(torch.arange(20)[:, None] == 3, 0.0, x), c, y)
    rejects("^x: .*ZeroInflated", x + 0.5, c, y)
    with pytest.raises(ValueError, match="^decode_as"):
        program.normalized(x, c, decode_as=torch.ones(3))
    own = {"likelihood": program.likelihood, "posterior": program.posterior}
    with pytest.raises(TypeError, match="^top"):
        SemiSupervisedCountVAE(top=program, **own)
    with pytest.raises(ValueError, match="only library_prior"):
        SemiSupervisedCountVAE(top=program.top, library_prior=program.library_prior, **own)
    with pytest.raises(ValueError, match="^likelihood"):
        SemiSupervisedCountVAE(
            top=program.top, likelihood=pv.likelihoods.Poisson(2, (GENES,)), posterior=program.posterior
        )
