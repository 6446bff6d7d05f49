"""SemiSupervised and MixtureVAE: exact linear-Gaussian models with a class."""

import math

import pyro
import pytest
import torch
from helpers.classes import CLASSES, FEATURES, LATENT, SIGMA, Classes, Classifier, Decoder, Toy, given, labels
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
