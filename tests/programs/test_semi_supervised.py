"""SemiSupervised and MixtureVAE: exact linear-Gaussian models with a class."""

import functools
import math

import pyro
import pytest
import torch
from helpers.classes import CLASSES, FEATURES, LATENT, SIGMA, Classes, Classifier, Decoder, Toy, given, labels
from helpers.missing import holes
from helpers.small_parts import SMALL
from pyro import distributions as dist

import pyro_vae as pv


def test_bound_with_the_exact_posterior_is_the_evidence_with_and_without_labels():
    toy = Toy()
    x = toy.program.sample(9)
    y = labels(9, known=4)
    exact = torch.cat([(toy.log_joint(x) * y.nan_to_num()).sum(-1)[:4], toy.log_joint(x).logsumexp(-1)[4:]])
    for particles in (1, 5):
        elbo = pv.estimators.ELBO(num_particles=particles, analytic_kl=False)
        found = elbo.per_datum(toy.program.model, toy.program.guide, x, y)
        assert torch.allclose(found, exact, atol=1e-9)
        found = pv.evaluation.log_likelihood(toy.program, (x, y), num_particles=particles)
        assert torch.allclose(found.per_example, exact, atol=1e-9)
    unlabelled = pv.estimators.ELBO(analytic_kl=False).per_datum(toy.program.model, toy.program.guide, x)
    assert torch.allclose(unlabelled, toy.log_joint(x).logsumexp(-1), atol=1e-9)


def test_classifier_is_the_exact_posterior_of_the_class():
    toy = Toy()
    x = toy.program.sample(9)
    assert torch.allclose(toy.program.classify(x), toy.log_joint(x).softmax(-1))


def test_enumerated_value_and_gradient_off_the_optimum():
    """Against the closed form, summed over classes, and against Pyro's TraceEnum_ELBO."""
    toy = Toy(off=0.3)
    x = toy.program.sample(6)
    program = toy.program
    exact_logits = program.classifier(x).logits
    elbo = pv.estimators.ELBO()
    # each row has noise of its own: 40 copies of the data are 40 samples
    copies = x.repeat(40, 1)
    values = torch.cat([elbo.per_datum(program.model, program.guide, copies).reshape(40, 6) for _ in range(10)])
    # closed form: sum over y of q(y) [E log p(x given z, y) - KL + log p(y) - log q(y)]
    closed = 0
    for k in range(CLASSES):
        y = torch.nn.functional.one_hot(torch.tensor(k), CLASSES).double().expand(6, -1)
        q = program.posterior(x, y).base_dist
        error = (x - q.mean @ toy.w.T - toy.mu[k]).square().sum(-1) + (toy.w.square() * q.variance.unsqueeze(-2)).sum(
            (-1, -2)
        )
        rec = -0.5 * FEATURES * math.log(2 * math.pi * SIGMA**2) - error / (2 * SIGMA**2)
        kl = 0.5 * (q.mean.square() + q.variance - 1 - q.variance.log()).sum(-1)
        log_q = exact_logits.log_softmax(-1)[:, k]
        closed = closed + log_q.exp() * (rec - kl + toy.probs[k].double().log() - log_q)
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - closed).abs() < 4 * error).all()
    assert (closed < toy.log_joint(x).logsumexp(-1)).all()
    parameters = [program.classifier.off, program.posterior.off]
    exact = torch.autograd.grad(closed.sum(), parameters)
    grads = [
        torch.autograd.grad(elbo.per_datum(program.model, program.guide, copies).sum() / 40, parameters)
        for _ in range(40)
    ]
    for found, truth in zip(zip(*grads, strict=True), exact, strict=True):
        found = torch.stack(found)
        assert ((found.mean(0) - truth).abs() < 4.5 * found.std(0) / math.sqrt(40) + 1e-9).all()
    enum = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1)
    theirs = torch.tensor([enum.loss(program.model, program.guide, copies) / 40 for _ in range(40)])
    assert abs(float(theirs.mean() + closed.detach().sum())) < 4 * float(theirs.std()) / math.sqrt(40)


def test_alpha_adds_the_classification_of_the_labelled_in_training_only():
    toy, plain = Toy(off=0.3, alpha=2.0), Toy(off=0.3)
    x = plain.program.sample(6)
    y = labels(6, known=4)
    elbo = pv.estimators.ELBO()

    def loss(program):
        torch.manual_seed(0)
        return elbo.differentiable_loss(program.model, program.guide, x, y)

    term = (toy.program.classifier(x).logits.log_softmax(-1) * y.nan_to_num()).sum()
    assert torch.allclose(loss(toy.program.train()), loss(plain.program) - 2 * term)
    assert torch.allclose(loss(toy.program.eval()), loss(plain.program))


def test_weight_decay_is_a_normal_prior_over_the_weights_of_the_classifier():
    """With 1 / labels, the classification term is alpha times the log-posterior of the weights, without constants."""
    plain, decayed = (pv.programs.SemiSupervised.example(alpha=2.0, weight_decay=decay) for decay in (0.0, 0.25))
    decayed.load_state_dict(plain.state_dict())
    x, y, losses = torch.randn(6, 4), labels(6, known=4).float(), []
    for program in (plain, decayed):
        torch.manual_seed(0)
        losses.append(pv.estimators.ELBO().differentiable_loss(program.train().model, program.guide, x, y))
    weights = [layer.weight.flatten() for layer in decayed.classifier.modules() if isinstance(layer, torch.nn.Linear)]
    log_prior = -0.5 * torch.cat(weights).square().sum()
    assert torch.allclose(losses[1], losses[0] - 2 * log_prior)


@pytest.mark.filterwarnings("ignore:(?s).*enumerate")
@pytest.mark.parametrize("known", [6, 4, 1, 0])
def test_the_default_alpha_is_that_of_the_paper(known):
    """A tenth of the number of examples times the mean over the labelled ones, under every kind of ELBO."""
    toy, plain = Toy(off=0.3, alpha=None), Toy(off=0.3)
    x, y = plain.program.sample(6), labels(6, known=known)
    toy.program.train()
    term = (toy.program.classifier(x).logits.log_softmax(-1) * y.nan_to_num()).sum() / max(known, 1)
    expected = {
        "ELBO": pv.estimators.ELBO(num_particles=2),
        "Trace_ELBO": pyro.infer.Trace_ELBO(),
        "TraceEnum_ELBO": pyro.infer.TraceEnum_ELBO(max_plate_nesting=1),
    }
    for elbo in expected.values():
        losses = []
        for program in (toy.program, plain.program):
            torch.manual_seed(0)
            losses.append(elbo.differentiable_loss(program.model, program.guide, x, y))
        assert torch.allclose(losses[0], losses[1] - 0.1 * 6 * term)


def learned(alpha, num_labelled=200):
    """The error of a classifier of two clusters, trained with this alpha."""
    y = torch.arange(200) % 2
    x = torch.randn(200, 4) + 3 * y.unsqueeze(-1)
    one_hot = torch.nn.functional.one_hot(y, 3).float()
    one_hot[num_labelled:] = math.nan
    program = pv.programs.SemiSupervised.example(alpha=alpha)
    fast = functools.partial(torch.optim.Adam, lr=1e-2)
    pv.fit(program, (x, one_hot), optimizer=fast, epochs=20, batch_size=50, progress=False)
    return float((program.classify(x).argmax(-1) != y).float().mean())


def test_the_default_alpha_trains_the_classifier_and_zero_warns():
    assert learned(None) < 0.05
    with pytest.warns(UserWarning, match="^alpha"):
        learned(0.0)
    learned(0.0, num_labelled=0)


def test_labels_of_a_loader_warn_too():
    toy = Toy(alpha=0.0)
    data = torch.utils.data.TensorDataset(toy.program.sample(6), labels(6, known=4))
    with pytest.warns(UserWarning, match="^alpha"):
        pv.fit(toy.program, torch.utils.data.DataLoader(data, batch_size=3), epochs=1, progress=False)


def test_a_compiled_step_has_the_default_alpha():
    losses = []
    for compiled in (False, pv.training.eager_graph):
        torch.manual_seed(0)
        program = Toy(off=0.3, alpha=None).program
        data = program.sample(12), labels(12, known=5)
        history = pv.fit(program, data, epochs=3, batch_size=6, compile=compiled, progress=False)
        losses.append(torch.tensor(history["loss"]))
    assert torch.allclose(*losses)


class Clusters(pv.Conditional):
    """z given k: normal with a learned mean."""

    def __init__(self, centres):
        super().__init__()
        self.centres = torch.nn.Parameter(centres.double())

    def forward(self, k):
        return dist.Normal(k @ self.centres, 0.5).to_event(1)


def test_mixture_has_the_exact_evidence_of_a_mixture_of_normals():
    w, mu, probs = given()
    centres = 2 * torch.randn(CLASSES, LATENT, generator=torch.Generator().manual_seed(1)).double()
    components = w @ w.T * 0.25 + SIGMA**2 * torch.eye(FEATURES, dtype=torch.float64)
    mean = centres @ w.T + mu[0]

    class Model:
        def log_joint(self, x):
            return dist.MultivariateNormal(mean, components).log_prob(x.unsqueeze(-2)) + probs.double().log()

    class Posterior(pv.Conditional):
        def __init__(self):
            super().__init__()
            self.wide = torch.nn.Parameter(torch.tensor(0.8).double())

        def forward(self, x, k):
            m = w.T @ w / SIGMA**2 + 4 * torch.eye(LATENT, dtype=torch.float64)
            right = (x - mu[0]) @ w / SIGMA**2 + 4 * (k @ centres)
            return dist.MultivariateNormal(torch.linalg.solve(m, right.unsqueeze(-1)).squeeze(-1), m.inverse())

    program = pv.programs.MixtureVAE(
        classes=Classes(probs),
        prior=Clusters(centres),
        likelihood=Decoder(w, mu, shift=False),
        classifier=Classifier(Model()),
        posterior=Posterior(),
    ).double()
    x = program.sample(8)
    exact = Model().log_joint(x).logsumexp(-1)
    found = pv.estimators.ELBO(analytic_kl=False).per_datum(program.model, program.guide, x)
    assert torch.allclose(found, exact, atol=1e-9)
    assert torch.equal(program.cluster(x), Model().log_joint(x).argmax(-1))


class Seen(pv.Conditional):
    """The exact classifier or posterior given the observed entries."""

    takes_missing = True

    def __init__(self, toy, what):
        super().__init__()
        self.toy, self.what = [toy], what
        self.off = torch.nn.Parameter(torch.zeros(()).double())

    def forward(self, x, *y):
        toy = self.toy[0]
        if self.what == "class":
            return dist.OneHotCategorical(logits=observed_log_joint(toy, x) + 0 * self.off)
        seen = (~x.isnan()).double().unsqueeze(-1)
        w = toy.w * seen
        precision = w.mT @ w / SIGMA**2 + torch.eye(LATENT).double()
        rest = (x.nan_to_num() - y[0] @ toy.mu).unsqueeze(-1) * seen
        mean = torch.linalg.solve(precision, w.mT @ rest / SIGMA**2).squeeze(-1)
        return dist.MultivariateNormal(mean + self.off, precision_matrix=precision)


def observed_log_joint(toy, x):
    """Exact log p(observed entries of x, y) for each class, of shape (n, classes)."""
    rows = []
    for row in x:
        w, mu = toy.w[~row.isnan()], toy.mu.double()[:, ~row.isnan()]
        covariance = w @ w.T + SIGMA**2 * torch.eye(len(w), dtype=torch.float64)
        rows.append(dist.MultivariateNormal(mu, covariance).log_prob(row[~row.isnan()]) + toy.probs.double().log())
    return torch.stack(rows)


def test_missing_entries_leave_the_evidence_of_the_observed_ones():
    """Exactly, with the exact guide given the observed entries; with labels for some rows, whose alpha is 0 here."""
    toy = Toy()
    parts = {"classes": toy.program.classes, "prior": toy.program.prior, "likelihood": toy.program.likelihood}
    exact = {"classifier": Seen(toy, "class"), "posterior": Seen(toy, "latents")}
    program = pv.programs.SemiSupervised(**parts, **exact, alpha=0.0, missing=True).double()
    x, y = holes(toy.program.sample(8)), labels(8, known=3)
    assert x.isnan().any()
    joint = observed_log_joint(toy, x)
    elbo = pv.estimators.ELBO(analytic_kl=False)
    found = elbo.per_datum(program.model, program.guide, x)
    assert torch.allclose(found, joint.logsumexp(-1), atol=1e-9)
    found = elbo.per_datum(program.model, program.guide, x, y)
    expected = torch.where(y.isnan().any(-1), joint.logsumexp(-1), (joint * y.nan_to_num()).sum(-1))
    assert torch.allclose(found, expected, atol=1e-9)
    assert torch.allclose(program.classify(x), joint.softmax(-1))


@pytest.mark.parametrize("cls", [pv.programs.SemiSupervised, pv.programs.MixtureVAE])
def test_programs_with_classes_train_with_missing_entries(cls):
    """Networks that take no NaN see 0; the weights stay finite, and the results are numbers."""
    program, x = cls.example(missing=True), holes(torch.randn(40, 4))
    history = pv.fit(program, x, epochs=2, progress=False)
    assert math.isfinite(history["loss"][-1])
    assert all(p.isfinite().all() for p in program.parameters())
    assert program.reconstruct(x).isfinite().all()
    assert pv.tasks.classify(program, x, progress=False).probabilities.isfinite().all()
    with pytest.raises(ValueError, match="^x: .*missing=True"):
        pv.fit(cls.example(), x, epochs=1, progress=False)


def test_responsibilities_read_what_their_posterior_reads():
    net = functools.partial(pv.nets.ZeroImputed, net=SMALL)
    for encoder in (net, SMALL):
        parts = {
            "classes": pv.priors.OneHotCategorical(3),
            "prior": pv.priors.ConditionalNormal(2, context=3, net=SMALL),
            "posterior": pv.posteriors.MeanFieldNormal((4,), 2, net=encoder),
        }
        classifier = pv.programs.Responsibilities(**parts)
        likelihood = pv.likelihoods.Normal(2, (4,), net=SMALL)
        program = pv.programs.MixtureVAE(**parts, likelihood=likelihood, classifier=classifier, missing=True)
        x = holes(torch.randn(40, 4))
        assert math.isfinite(pv.fit(program, x, epochs=1, progress=False)["loss"][-1])
        zeros = program.classify(x.nan_to_num())
        assert torch.equal(program.classify(x), zeros) == (encoder is SMALL)


def test_bad_labels():
    toy = Toy()
    x = toy.program.sample(6)
    y = labels(6, known=6)
    y[2] = torch.tensor([0.5, 0.5, 0.0])
    with pytest.raises(ValueError, match=r"^y: y\[2\]"):
        pv.fit(toy.program, (x, y), epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"^y: .*\(n, 3\)"):
        pv.fit(toy.program, (x, torch.zeros(6).double()), epochs=1, progress=False)
    with pytest.raises(ValueError, match="^alpha"):
        Toy(alpha=-1.0)
