"""TopicModel: against the exact Dirichlet-multinomial evidence, and known topics."""

import functools
import math

import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.evaluation import Perplexity
from pyro_vae.nets import BagEncoder, MixtureOfTopics, ProductOfTopics
from pyro_vae.programs import TopicModel
from pyro_vae.testing import check_part

WORDS = 4
ALPHA = 0.7
NUM_SAMPLES = 4000


class OneWordEach(torch.nn.Module):
    """Topic k is word k, so that topic proportions are word probabilities."""

    def __init__(self, in_shape, out_shape):
        super().__init__()

    def forward(self, z):
        return z.clamp(min=1e-300).log()


class Posterior(pv.Conditional):
    """The exact posterior, moved off by `off`."""

    def __init__(self, off=0.0):
        super().__init__()
        self.off = torch.nn.Parameter(torch.tensor(off))

    def forward(self, x):
        return dist.Dirichlet(x + ALPHA + self.off)


def conjugate(off=0.0):
    return TopicModel(
        prior=pv.priors.Dirichlet(WORDS, concentration=ALPHA),
        likelihood=pv.likelihoods.Multinomial(WORDS, (WORDS,), net=OneWordEach),
        posterior=Posterior(off),
    ).double()


def sequence_evidence(x):
    """Exact log-probability of words in their order: a ratio of multivariate Beta functions."""
    log_beta = lambda a: a.lgamma().sum(-1) - a.sum(-1).lgamma()  # noqa: E731
    alpha = torch.full((WORDS,), ALPHA, dtype=x.dtype)
    return log_beta(alpha + x) - log_beta(alpha)


def evidence(x):
    """Exact log-probability of counts."""
    return sequence_evidence(x) + (x.sum(-1) + 1).lgamma() - (x + 1).lgamma().sum(-1)


def bags(n=6, seed=0):
    """Documents of different lengths, each with at least one word."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 4, (n, WORDS), generator=generator).double() + torch.eye(WORDS)[torch.arange(n) % WORDS]
    x[::2, 0] *= 5
    return x


def prod_lda(words=12, topics=3, **options):
    return TopicModel(
        prior=pv.priors.LogisticNormal.like_dirichlet(topics),
        likelihood=pv.likelihoods.Multinomial(topics, (words,), net=ProductOfTopics),
        posterior=pv.posteriors.LogisticNormal((words,), topics, net=functools.partial(BagEncoder, **options)),
    )


def test_bound_with_the_exact_posterior_is_the_evidence():
    program, x = conjugate(), bags()
    for particles in (1, 5):
        elbo = pv.estimators.ELBO(num_particles=particles, analytic_kl=False)
        assert torch.allclose(elbo.per_datum(program.model, program.guide, x), evidence(x), atol=1e-9)
    found = pv.evaluation.log_likelihood(program, x, num_particles=3)
    assert torch.allclose(found.per_example, evidence(x), atol=1e-9)


def test_bound_is_below_and_importance_sampling_finds_the_evidence():
    program, x = conjugate(off=-0.4), bags()
    elbo = pv.estimators.ELBO(num_particles=NUM_SAMPLES)
    found = elbo.per_datum(program.model, program.guide, x)
    q, p = dist.Dirichlet(x + ALPHA - 0.4), dist.Dirichlet(x + ALPHA)
    gap = torch.distributions.kl_divergence(q, p)
    # standard deviation of log p(x given z) under q
    spread = program.likelihood(q.sample((2000,))).log_prob(x).std(0) / math.sqrt(NUM_SAMPLES)
    assert (gap > 0.005).all()
    assert ((found - (evidence(x) - gap)).abs() < 4 * spread).all()
    weighted = pv.evaluation.log_likelihood(program, x, num_particles=NUM_SAMPLES)
    assert ((weighted.per_example - evidence(x)).abs() < 4 * weighted.per_example_error).all()


def test_perplexity_is_that_of_ordered_words():
    program, x = conjugate(), bags()
    found = pv.evaluation.perplexity(program, x, batch_size=4)
    exact, size = sequence_evidence(x), x.sum(-1)
    assert found.per_token == pytest.approx(float((-exact.sum() / size.sum()).exp()), rel=1e-9)
    assert found.per_document == pytest.approx(float((-exact / size).mean().exp()), rel=1e-9)
    assert found.per_token != pytest.approx(found.per_document, rel=1e-3)
    weighted = pv.evaluation.log_likelihood(program, x, num_particles=5).per_example
    assert Perplexity.of(weighted, x).per_token == pytest.approx(found.per_token, rel=1e-9)


def test_uniform_words_have_the_perplexity_of_the_vocabulary():
    x = bags(9)
    uniform = pv.distributions.BagOfWords(torch.zeros(WORDS).double()).log_prob(x)
    found = Perplexity.of(uniform, x)
    assert found.per_token == pytest.approx(WORDS)
    assert found.per_document == pytest.approx(WORDS)


def test_perplexity_is_computed_from_the_bound():
    program, x = conjugate(off=-0.4), bags()
    found = pv.evaluation.perplexity(program, x, num_particles=NUM_SAMPLES)
    gap = torch.distributions.kl_divergence(dist.Dirichlet(x + ALPHA - 0.4), dist.Dirichlet(x + ALPHA))
    exact = (-(sequence_evidence(x) - gap).sum() / x.sum()).exp()
    # log weights have a standard deviation below 1 per document: 4 standard errors of the mean of 6
    assert found.per_token == pytest.approx(float(exact), rel=4 * math.sqrt(len(x) / NUM_SAMPLES) / float(x.sum()))


def test_topics_proportions_and_top_words():
    program, x = conjugate(), bags()
    assert torch.allclose(program.topics(), torch.eye(WORDS).double())
    shares = (x + ALPHA) / (x + ALPHA).sum(-1, keepdim=True)
    assert torch.allclose(program.proportions(x), shares)
    assert program.top_words(["a", "b", "c", "d"], 1) == [["a"], ["b"], ["c"], ["d"]]
    with pytest.raises(ValueError, match="^vocabulary"):
        program.top_words(["a", "b", "c"])
    with pytest.raises(ValueError, match="^num_words"):
        program.top_words(["a", "b", "c", "d"], 5)


def test_proportions_without_a_closed_form_are_averaged():
    program, x = prod_lda(WORDS), bags().float()
    state = torch.get_rng_state()
    found = program.proportions(x, num_samples=4000)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.allclose(found.sum(-1), torch.ones(len(x)))
    with torch.no_grad():
        z = program.eval().encode(x).sample((4000,))
    assert ((found - z.mean(0)).abs() < 4 * z.std(0) * math.sqrt(2 / 4000)).all()


def test_words_of_a_mixture_and_of_a_product_of_topics():
    z = torch.tensor([[0.3, 0.7]]).double()
    mixture = MixtureOfTopics((2,), (5,)).double()
    logits = mixture.body.logits
    topics = ((logits - logits.mean(0)) / (logits.std(0) + 1e-5)).softmax(-1)
    assert torch.allclose(mixture(z).exp(), z @ topics)
    product = ProductOfTopics((2,), (5,)).double().eval()
    linear, norm = product.body
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean):
            values.normal_()
        expected = (z @ linear.weight.T - norm.running_mean) / math.sqrt(1 + 1e-5) * norm.weight + norm.bias
    assert torch.allclose(product(z), expected)
    counts = torch.tensor([0.0, 1.0, 3.0, 7.0, 15.0])
    start = ProductOfTopics((2,), (5,), counts=counts).body[1].bias.exp()
    assert torch.allclose(start / start.sum(), (counts + 1) / 31)
    start = MixtureOfTopics((2,), (5,), counts=counts).body.bias.exp()
    assert torch.allclose(start / start.sum(), (counts + 1) / 31)
    with pytest.raises(ValueError, match="^counts"):
        ProductOfTopics((2,), (5,), counts=torch.ones(4))


@pytest.mark.parametrize("net", [ProductOfTopics, MixtureOfTopics])
def test_decoders_and_encoder_obey_the_laws_of_parts(net):
    """An AssertionError of `check_part` names the law that a network breaks."""
    # in evaluation mode, as the batch statistics of training make rows depend on each other
    check_part(pv.likelihoods.Multinomial(3, (5,), net=net).eval(), (3,))
    check_part(pv.posteriors.LogisticNormal((5,), 3, net=BagEncoder).eval(), (5,))


def rows(n, side=4, seed=0):
    """Documents of thirty words (pixels of a square), each from two topics (rows of the square)."""
    generator = torch.Generator().manual_seed(seed)
    topics = torch.eye(side).repeat_interleave(side, 1) / side
    pairs = torch.rand(n, side, generator=generator).argsort(-1)[:, :2]
    share = 0.2 + 0.6 * torch.rand(n, 1, generator=generator)
    shares = torch.zeros(n, side).scatter(1, pairs, torch.cat([share, 1 - share], -1))
    words = torch.multinomial(shares @ topics, 30, replacement=True, generator=generator)
    return torch.nn.functional.one_hot(words, side**2).sum(1).float(), topics, shares


@pytest.mark.slow
def test_recovers_topics():
    x, topics, shares = rows(400)
    k, words = topics.shape
    torch.manual_seed(0)
    program = TopicModel(
        prior=pv.priors.LogisticNormal.like_dirichlet(k, concentration=0.2),
        likelihood=pv.likelihoods.Multinomial(k, (words,), net=MixtureOfTopics),
        posterior=pv.posteriors.LogisticNormal((words,), k, net=functools.partial(BagEncoder, dropout=0.0)),
    )
    adam = functools.partial(torch.optim.Adam, lr=2e-2, betas=(0.99, 0.999))
    pv.fit(program, x, optimizer=adam, epochs=80, batch_size=50, progress=False)
    # each row has a nearest topic of its own, with the same words
    cosine = torch.nn.functional.cosine_similarity(topics.unsqueeze(1), program.topics().unsqueeze(0), dim=-1)
    nearest = cosine.argmax(1)
    assert nearest.unique().numel() == k
    assert (cosine.max(1).values > 0.95).all()
    assert (program.proportions(x)[:, nearest] - shares).abs().mean() < 0.1


def test_bad_input():
    program, x = conjugate(), bags()
    x[2] = 0
    message = r"^x: .*x\[2\].*1 of 6"
    with pytest.raises(ValueError, match=message):
        pv.fit(program, x, epochs=1, progress=False)
    with pytest.raises(ValueError, match=message):
        pv.evaluation.perplexity(program, x)
    normal = TopicModel(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Multinomial(2, (4,)),
        posterior=pv.posteriors.MeanFieldNormal((4,), 2),
    )
    with pytest.raises(ValueError, match="^prior: .*StandardNormal"):
        pv.fit(normal, bags(), epochs=1, progress=False)
    poisson = TopicModel(
        prior=pv.priors.Dirichlet(2),
        likelihood=pv.likelihoods.Poisson(2, (4,)),
        posterior=pv.posteriors.Dirichlet((4,), 2),
    )
    with pytest.raises(ValueError, match="^likelihood: .*Poisson"):
        pv.fit(poisson, bags(), epochs=1, progress=False)
