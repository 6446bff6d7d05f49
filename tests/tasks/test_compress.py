"""Bits-back coding: data are restored bit for bit from as many bits as the negative bound, and damage is detected."""

import functools
import math
import struct
import sys

import pytest
import torch
from pyro import distributions as dist

import pyro_vae as pv
from pyro_vae.distributions import IndependentBernoulli
from pyro_vae.tasks import Compressed, CompressionError, Compressor, NegativeBound, compress
from pyro_vae.tasks.bits_back import BitsBack
from pyro_vae.tasks.compressed import checksum

SMALL = functools.partial(pv.nets.MLP, hidden=(8,))


def make_vae(likelihood, latent=3, shape=(2, 2)):
    return pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=likelihood,
        posterior=pv.posteriors.MeanFieldNormal(shape, latent, net=SMALL),
    )


def is_restored(vae, x):
    compressor = Compressor(vae)
    back = compressor.decompress(compressor.compress(x))
    return back.dtype == x.dtype and torch.equal(back, x)


@pytest.mark.parametrize("name", [n for n in pv.likelihoods.__all__ if n not in ("Heterogeneous", "StudentTTable")])
def test_every_discrete_factorized_likelihood_is_restored(name):
    """Samples of every such likelihood are restored bit for bit; all others are refused by name."""
    vae = make_vae(getattr(pv.likelihoods, name).example())
    fn = vae.decode(torch.zeros(1, 3))
    if isinstance(fn, dist.Independent) and fn.support.is_discrete:
        x, step = vae.sample(6), getattr(fn.base_dist.support, "step", 1)
        assert is_restored(vae, (x / step).round() / round(1 / step))  # k / 255 rather than k * (1 / 255)
    else:
        with pytest.raises(TypeError, match=f"likelihood: .* {name}"):
            Compressor(vae)


@pytest.mark.parametrize("prior", ["StandardNormal", "Laplace", "Bernoulli", "MixtureOfNormals", "StudentT"])
def test_every_pair_of_prior_and_posterior_is_restored_or_refused(prior):
    """Independent latents that are binary or have distribution functions are restored, others are refused by name."""
    continuous = ("MeanFieldNormal", "Laplace")
    coded = {
        "StandardNormal": continuous,
        "Laplace": continuous,
        "Bernoulli": ("Bernoulli", "StraightThroughBernoulli"),
    }
    for posterior in set(pv.posteriors.__all__) - {"SemiAmortized"}:
        vae = pv.VAE(
            prior=getattr(pv.priors, prior).example(),
            likelihood=pv.likelihoods.Bernoulli(3, (2, 2), net=SMALL),
            posterior=getattr(pv.posteriors, posterior).example(),
        )
        if posterior in coded.get(prior, ()):
            assert is_restored(vae, torch.rand(5, 2, 2).round()), posterior
        else:
            with pytest.raises((TypeError, ValueError), match=posterior):
                Compressor(vae)


def test_semi_amortized_posterior_is_restored():
    """The decoder repeats the refinement of the posterior."""
    prior, likelihood = pv.priors.StandardNormal(2), pv.likelihoods.Bernoulli(2, (2, 2), net=SMALL)
    encoder = pv.posteriors.MeanFieldNormal((2, 2), 2, net=SMALL)
    posterior = pv.posteriors.SemiAmortized(encoder, prior=prior, likelihood=likelihood)
    assert is_restored(pv.VAE(prior=prior, likelihood=likelihood, posterior=posterior), torch.rand(3, 2, 2).round())


class BernoulliTable(pv.Conditional):
    """Binary values with the probabilities of row z."""

    def __init__(self, rows):
        super().__init__()
        self.rows = torch.nn.Parameter(torch.tensor(rows))

    def forward(self, z):
        return IndependentBernoulli(dist.Bernoulli(self.rows[z[..., 0].long()]), 1)


class ExactPosterior(pv.Conditional):
    """The exact posterior of a binary latent, with ``off`` added to its log-odds."""

    def __init__(self, prior, likelihood, off=0.0):
        super().__init__()
        self.parts, self.off = (prior, likelihood), off

    def forward(self, x):
        prior, likelihood = self.parts
        one, zero = (likelihood(torch.full((len(x), 1), v).to(x)).log_prob(x) for v in (1.0, 0.0))
        logits = (one - zero).unsqueeze(-1) + prior.logits + self.off
        return IndependentBernoulli(dist.Bernoulli(logits=logits), 1)


def toy(off=0.0):
    prior = pv.priors.Bernoulli(1, probs=0.3)
    likelihood = BernoulliTable([[0.9, 0.2, 0.6], [0.3, 0.7, 0.5]])
    return pv.VAE(prior=prior, likelihood=likelihood, posterior=ExactPosterior(prior, likelihood, off)).double()


def exact(vae, x):
    """Return log p(x), and KL(q || p(z given x)), by enumeration."""
    z = torch.tensor([[0.0], [1.0]], dtype=x.dtype)
    joint = vae.prior().log_prob(z)[:, None] + vae.decode(z[:, None]).log_prob(x)
    evidence = joint.logsumexp(0)
    q = vae.encode(x).base_dist.probs.squeeze(-1)
    q = torch.stack([1 - q, q])
    return evidence.detach(), (q * (q.log() - joint + evidence)).sum(0).detach()


def test_length_is_the_negative_log_evidence_under_the_exact_posterior():
    """By Bayes' rule x costs -log2 p(x) whatever z is: within 2 words and 1e-4 bits per example."""
    vae = toy()
    torch.manual_seed(1)
    x = vae.sample(200)
    compressor = Compressor(vae)
    data = compressor.compress(x)
    assert torch.equal(compressor.decompress(data), x)
    bits = -exact(vae, x)[0].sum().item() / math.log(2)
    assert abs(Compressed.from_bytes(data).bits - bits) < 64 + 200 * 1e-4


def test_excess_is_the_divergence_of_the_posterior():
    """An inexact posterior costs KL(q || posterior) more on average: within 4 standard errors of the samples."""
    vae = toy(off=3.0)
    torch.manual_seed(1)
    x = vae.sample(400)
    evidence, divergence = exact(vae, x)
    found = Compressed.from_bytes(Compressor(vae).compress(x))
    # the cost of an example has two values, one per z, which differ like log q - log posterior
    q = vae.encode(x).base_dist.probs.squeeze(-1).detach()
    error = 4 * (q * (1 - q) * 3.0**2).sum().sqrt().item() / math.log(2)
    excess = found.bits + evidence.sum().item() / math.log(2)
    expected = divergence.sum().item() / math.log(2)
    assert abs(excess - expected) < error + 64
    assert expected > 2 * error


@pytest.mark.parametrize(
    ("likelihood", "binarize"),
    [
        (pv.likelihoods.Bernoulli, "static"),
        (functools.partial(pv.likelihoods.Binomial, total=16, grid=True), None),
        (functools.partial(pv.likelihoods.DiscretizedLogistic, levels=17), None),
    ],
)
def test_rate_is_within_two_percent_of_the_negative_bound(likelihood, binarize):
    """Binary and grey digits under a small trained VAE are restored, from as many bits as the negative bound."""
    data = pv.data.load("digits", binarize=binarize)
    torch.manual_seed(0)
    net = functools.partial(pv.nets.MLP, hidden=(32,))
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(4),
        likelihood=likelihood(4, (8, 8), net=net),
        posterior=pv.posteriors.MeanFieldNormal((8, 8), 4, net=net),
    )
    adam = functools.partial(torch.optim.Adam, lr=3e-2)
    pv.fit(vae, data.train, epochs=4, optimizer=adam, compile=False, progress=False)
    x = data.test.x[:100]
    compressor = Compressor(vae)
    file = compressor.compress(x)
    assert torch.equal(compressor.decompress(file), x)
    bound = float(NegativeBound(50)(vae, x).mean()) / math.log(2) / 64
    found = Compressed.from_bytes(file)
    assert abs(found.bits_per_dimension / bound - 1) < 0.02
    assert len(file) * 8 == found.bits + found.initial_bits + found.header_bits
    assert found.initial_bits <= 32 * 4 + 96 + 31


@pytest.fixture(scope="module")
def compressor():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Compressor(make_vae(pv.likelihoods.Bernoulli(3, (2, 2), net=SMALL)))


@pytest.fixture(scope="module")
def data(compressor):
    return compressor.compress(torch.ones(4, 2, 2))


def test_damage_is_detected(compressor, data):
    """Every flipped bit, every truncation and every extension raises an error."""
    for i in range(len(data)):
        flipped = data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :]
        for damaged in (data[:i], flipped):
            with pytest.raises(CompressionError, match="data"):
                compressor.decompress(damaged)
    with pytest.raises(CompressionError, match="damaged"):
        compressor.decompress(data + b"\0")
    with pytest.raises(TypeError, match="data"):
        compressor.decompress("x")


def test_newer_versions_and_other_programs_are_detected(compressor, data):
    """Programs with other weights, another activation or another shape are other programs."""
    newer = data[:8] + struct.pack("<H", 2) + data[10:-16]
    with pytest.raises(CompressionError, match="version 1 or older, got 2"):
        compressor.decompress(newer + checksum(newer))
    tanh = functools.partial(SMALL, activation=torch.nn.Tanh)
    other = make_vae(pv.likelihoods.Bernoulli(3, (2, 2), net=tanh))
    other.load_state_dict(compressor.program.state_dict())
    weights = make_vae(pv.likelihoods.Bernoulli(3, (2, 2), net=SMALL))
    shape = make_vae(pv.likelihoods.Bernoulli(3, (4,), net=SMALL), 3, (4,))
    for vae in (other, weights, shape):
        with pytest.raises(CompressionError, match="another program"):
            Compressor(vae).decompress(data)


def test_conditional_program_takes_context():
    """Data are restored with their context; the checksum of the data detects another one."""
    vae = pv.VAE(
        prior=pv.priors.ConditionalNormal(2, context=2, net=SMALL),
        likelihood=pv.likelihoods.Bernoulli(2, (4, 4), context=2, net=SMALL),
        posterior=pv.posteriors.MeanFieldNormal((4, 4), 2, context=2, net=SMALL),
    )
    x, c = torch.rand(20, 4, 4).round(), torch.eye(2).repeat(10, 1)
    compressor = Compressor(vae)
    data = compressor.compress((x, c))
    assert torch.equal(compressor.decompress(data, c), x)
    with pytest.raises(CompressionError, match="context"):
        compressor.decompress(data, 3 - 2 * c)
    for context in ((c[:3],), (), (c, c)):
        with pytest.raises(ValueError, match="context"):
            compressor.decompress(data, *context)


def test_bad_input(compressor):
    grey = Compressor(make_vae(pv.likelihoods.Categorical(3, (2, 2), levels=5, net=SMALL)))
    counts = Compressor(make_vae(pv.likelihoods.Poisson(3, (2, 2), net=SMALL)))
    parts = {name: getattr(compressor.program, name) for name in ("prior", "likelihood", "posterior")}
    incomplete = Compressor(pv.VAE(**parts, missing=True))
    for coder, x, message in (
        (compressor, torch.zeros(0, 2, 2), "at least one"),
        (compressor, torch.full((1, 2, 2), 0.5), r"x\[0, 0, 0\] is 0.5"),
        (grey, torch.tensor([[[0.0, 0.25], [0.5, 0.75001]]]), r"x: .* 0.75, got 0.75001.* at x\[0, 1, 1\]"),
        (counts, torch.full((1, 2, 2), 70000.0), "x: expected counts"),
        (incomplete, torch.tensor([[[0.0, 1.0], [1.0, math.nan]]]), "x: .*missing"),
    ):
        with pytest.raises(ValueError, match=message):
            coder.compress(x)
    for num_buckets in (1, 5000, 2.0):
        with pytest.raises(ValueError, match="num_buckets"):
            Compressor(compressor.program, num_buckets=num_buckets)
    with pytest.raises(TypeError, match="program"):
        Compressor(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="context"):
        compressor.decompress(compressor.compress(torch.ones(4, 2, 2)), torch.ones(4, 1))


def test_the_number_of_threads_does_not_matter(compressor, data):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert compressor.compress(torch.ones(4, 2, 2)) == data
        assert torch.equal(compressor.decompress(data), torch.ones(4, 2, 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_initial_bits_are_doubled_until_they_are_enough(compressor, monkeypatch):
    coding = BitsBack(compressor.exact, num_buckets=16)
    symbols = coding.levels.symbols_of(torch.ones(4, 4))
    assert compress.encode(coding, symbols, [()] * 4, 1, progress=False) is None
    encode, tried = compress.encode, []

    def third_time(*args, **options):
        tried.append(args[3])
        return encode(*args, **options) if len(tried) == 3 else None

    monkeypatch.setattr(compress, "encode", third_time)
    data = compressor.compress(torch.ones(4, 2, 2))
    assert tried == [tried[0], 2 * tried[0], 4 * tried[0]]
    assert Compressed.from_bytes(data).initial_bits == 32 * tried[2]
    assert torch.equal(compressor.decompress(data), torch.ones(4, 2, 2))


def test_missing_library_is_named(compressor, monkeypatch):
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ImportError, match="compress"):
        Compressor(compressor.program)
