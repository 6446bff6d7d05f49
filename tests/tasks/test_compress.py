"""Bits-back coding: data come back bit for bit, in as many bits as minus the bound, and damage is told."""

import functools
import math
import struct

import pytest
import torch
from pyro import distributions as dist
from pyro_vae.tasks.container import checksum

import pyro_vae as pv
from pyro_vae.distributions import IndependentBernoulli
from pyro_vae.tasks import Compressed, CompressionError, Compressor, NegativeBound
from pyro_vae.tasks import compress as task
from pyro_vae.tasks.bits_back import BitsBack

SMALL = functools.partial(pv.nets.MLP, hidden=(64,))


def vae_of(likelihood, latent=3, shape=(2, 2)):
    return pv.VAE(
        prior=pv.priors.StandardNormal(latent),
        likelihood=likelihood,
        posterior=pv.posteriors.MeanFieldNormal(shape, latent),
    )


def comes_back(vae, x):
    compressor = Compressor(vae)
    back = compressor.decompress(compressor.compress(x))
    return back.dtype == x.dtype and torch.equal(back, x)


@pytest.mark.parametrize("name", [n for n in pv.likelihoods.__all__ if n != "Heterogeneous"])
def test_every_likelihood_comes_back_or_is_refused_by_name(name):
    """Whatever stands on the shelf: draws of it come back bit for bit if it is discrete and factorized."""
    likelihood = getattr(pv.likelihoods, name).example()
    vae = vae_of(likelihood)
    fn = vae.decode(torch.zeros(1, 3))
    if isinstance(fn, dist.Independent) and fn.support.is_discrete:
        x = vae.sample(6)
        assert comes_back(vae, (x * 255).round() / 255 if x.max() <= 1 else x)
    else:
        with pytest.raises(TypeError, match=f"{name} is not discrete, or no product"):
            Compressor(vae)


@pytest.mark.parametrize("posterior", [n for n in pv.posteriors.__all__ if n != "SemiAmortized"])
@pytest.mark.parametrize("prior", ["StandardNormal", "Laplace", "Bernoulli", "MixtureOfNormals", "StudentT"])
def test_every_pair_of_latents_comes_back_or_is_refused(prior, posterior):
    """Independent latents with distribution functions, or bits, come back; all others are refused by name."""
    vae = pv.VAE(
        prior=getattr(pv.priors, prior).example(),
        likelihood=pv.likelihoods.Bernoulli(3, (2, 2)),
        posterior=getattr(pv.posteriors, posterior).example(),
    )
    real = ("MeanFieldNormal", "Laplace")
    coded = {"StandardNormal": real, "Laplace": real, "Bernoulli": ("Bernoulli", "StraightThroughBernoulli")}
    if posterior in coded.get(prior, ()):
        assert comes_back(vae, torch.rand(5, 2, 2).round())
    else:
        with pytest.raises((TypeError, ValueError), match=posterior):
            Compressor(vae)


def test_semi_amortized_posterior_comes_back():
    """A posterior that refines itself against the model does so again when it decodes."""
    prior, likelihood = pv.priors.StandardNormal(3), pv.likelihoods.Bernoulli(3, (2, 2))
    encoder = pv.posteriors.MeanFieldNormal((2, 2), 3)
    posterior = pv.posteriors.SemiAmortized(encoder, prior=prior, likelihood=likelihood)
    assert comes_back(pv.VAE(prior=prior, likelihood=likelihood, posterior=posterior), torch.rand(5, 2, 2).round())


class Bits(pv.Conditional):
    """Bits with given probabilities, of which there is a row for each value of the first entry of z."""

    def __init__(self, rows):
        super().__init__()
        self.rows = torch.nn.Parameter(torch.tensor(rows))

    def forward(self, z):
        return IndependentBernoulli(dist.Bernoulli(self.rows[z[..., 0].long()]), 1)


class Bayes(pv.Conditional):
    """The exact posterior of a bit, its log-odds moved by ``off``."""

    def __init__(self, prior, likelihood, off=0.0):
        super().__init__()
        self.given, self.off = (prior, likelihood), off

    def forward(self, x):
        prior, likelihood = self.given
        one, zero = (likelihood(torch.full((len(x), 1), v).to(x)).log_prob(x) for v in (1.0, 0.0))
        logits = (one - zero).unsqueeze(-1) + prior.logits + self.off
        return IndependentBernoulli(dist.Bernoulli(logits=logits), 1)


def toy(off=0.0):
    prior = pv.priors.Bernoulli(1, probs=0.3)
    likelihood = Bits([[0.9, 0.2, 0.6], [0.3, 0.7, 0.5]])
    return pv.VAE(prior=prior, likelihood=likelihood, posterior=Bayes(prior, likelihood, off)).double()


def exact(vae, x):
    """Return log p(x), and KL(q || p(z given x)), by enumeration."""
    z = torch.tensor([[0.0], [1.0]], dtype=x.dtype)
    joint = vae.prior().log_prob(z)[:, None] + vae.decode(z[:, None]).log_prob(x)
    evidence = joint.logsumexp(0)
    q = vae.encode(x).base_dist.probs.squeeze(-1)
    q = torch.stack([1 - q, q])
    return evidence.detach(), (q * (q.log() - joint + evidence)).sum(0).detach()


@pytest.mark.slow
def test_length_is_minus_the_log_evidence_under_the_exact_posterior():
    """Enumerable, with Bayes' rule: x costs -log2 p(x) whatever z is drawn, within 2 words and 1e-4 bits a datum."""
    vae = toy()
    torch.manual_seed(1)
    x = vae.sample(800)
    compressor = Compressor(vae)
    data = compressor.compress(x)
    assert torch.equal(compressor.decompress(data), x)
    bits = -exact(vae, x)[0].sum().item() / math.log(2)
    assert abs(Compressed.from_bytes(data).bits - bits) < 64 + 800 * 1e-4


def test_excess_is_the_divergence_of_the_posterior():
    """A posterior that is off costs KL(q || posterior) more on average: within 4 standard errors of the draws."""
    vae = toy(off=2.0)
    torch.manual_seed(1)
    x = vae.sample(800)
    evidence, divergence = exact(vae, x)
    found = Compressed.from_bytes(Compressor(vae).compress(x))
    # what a datum costs takes two values, one for each z: their distance is that of log q - log posterior
    q = vae.encode(x).base_dist.probs.squeeze(-1).detach()
    error = 4 * (q * (1 - q) * 2.0**2).sum().sqrt().item() / math.log(2)
    excess = found.bits + evidence.sum().item() / math.log(2)
    expected = divergence.sum().item() / math.log(2)
    assert abs(excess - expected) < error + 64
    assert expected > 2 * error


@pytest.mark.parametrize(
    ("likelihood", "binarize"),
    [
        (pv.likelihoods.Bernoulli, "static"),
        pytest.param(functools.partial(pv.likelihoods.Binomial, total=16, grid=True), None, marks=pytest.mark.slow),
        pytest.param(functools.partial(pv.likelihoods.DiscretizedLogistic, levels=17), None, marks=pytest.mark.slow),
    ],
)
def test_rate_is_within_two_percent_of_minus_the_bound(likelihood, binarize):
    """Real digits, binary and grey, under a small trained VAE: 300 test images come back, at the bound's rate."""
    data = pv.data.load("digits", binarize=binarize)
    torch.manual_seed(0)
    vae = pv.VAE(
        prior=pv.priors.StandardNormal(6),
        likelihood=likelihood(6, (8, 8), net=SMALL),
        posterior=pv.posteriors.MeanFieldNormal((8, 8), 6, net=SMALL),
    )
    pv.fit(vae, data.train, epochs=15, progress=False)
    x = data.test.x
    compressor = Compressor(vae)
    file = compressor.compress(x)
    assert torch.equal(compressor.decompress(file), x)
    bound = float(NegativeBound(50)(vae, x).mean()) / math.log(2) / 64
    found = Compressed.from_bytes(file)
    assert abs(found.bits_per_dimension / bound - 1) < 0.02
    assert len(file) * 8 == found.bits + found.initial_bits + found.header_bits
    assert found.initial_bits <= 32 * 6 + 96 + 31


@pytest.fixture(scope="module")
def compressor():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Compressor(vae_of(pv.likelihoods.Bernoulli(3, (2, 2))))


@pytest.fixture(scope="module")
def data(compressor):
    return compressor.compress(torch.ones(4, 2, 2))


def test_damage_is_told(compressor, data):
    """Every flipped bit of the bytes, every shorter piece and anything longer is refused."""
    for place in range(len(data)):
        with pytest.raises(CompressionError, match="damaged|not written by"):
            compressor.decompress(data[:place])
        with pytest.raises(CompressionError, match="damaged|not written by"):
            compressor.decompress(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
    with pytest.raises(CompressionError, match="damaged"):
        compressor.decompress(data + b"\0")
    with pytest.raises(CompressionError, match="these 0 bytes were not written"):
        compressor.decompress(b"")
    with pytest.raises(TypeError, match="data: expected bytes, got str"):
        compressor.decompress("x")


def test_newer_version_and_other_programs_are_told(compressor, data):
    """A file of a later format says so; other weights, another kind of layer and another shape are another program."""
    newer = data[:8] + struct.pack("<H", 2) + data[10:-16]
    with pytest.raises(CompressionError, match="version 2 of the format, newer than 1: update pyro_vae"):
        compressor.decompress(newer + checksum(newer))
    tanh = functools.partial(pv.nets.MLP, activation=torch.nn.Tanh)
    other = vae_of(pv.likelihoods.Bernoulli(3, (2, 2), net=tanh))
    other.load_state_dict(compressor.program.state_dict())
    for vae in (
        other,
        vae_of(pv.likelihoods.Bernoulli(3, (2, 2))),
        vae_of(pv.likelihoods.Bernoulli(3, (4,)), 3, (4,)),
    ):
        with pytest.raises(CompressionError, match="compressed with another program"):
            Compressor(vae).decompress(data)


def test_conditional_program_takes_context():
    """With the context of compression all comes back, with another one the checksum of the data tells."""
    vae = pv.VAE(
        prior=pv.priors.ConditionalNormal(3, context=2),
        likelihood=pv.likelihoods.Bernoulli(3, (8, 8), context=2),
        posterior=pv.posteriors.MeanFieldNormal((8, 8), 3, context=2),
    )
    x, c = torch.rand(20, 8, 8).round(), torch.eye(2).repeat(10, 1)
    compressor = Compressor(vae)
    data = compressor.compress((x, c))
    assert torch.equal(compressor.decompress(data, c), x)
    with pytest.raises(CompressionError, match="what came out is not what was compressed"):
        compressor.decompress(data, 3 - 2 * c)
    with pytest.raises(ValueError, match="expected 20 rows"):
        compressor.decompress(data, c[:3])
    with pytest.raises(ValueError, match="context: this program needs 2 numbers"):
        compressor.decompress(data)
    with pytest.raises(ValueError, match="context"):
        compressor.decompress(data, c, c)


def test_bad_input_is_refused(compressor):
    """No data, holes, values that would not come back, and settings that cannot be."""
    with pytest.raises(ValueError, match="at least one datum"):
        compressor.compress(torch.zeros(0, 2, 2))
    with pytest.raises(ValueError, match=r"x\[0, 0, 0\] is 0.5, outside the support"):
        compressor.compress(torch.full((1, 2, 2), 0.5))
    grey = Compressor(vae_of(pv.likelihoods.Categorical(3, (2, 2), levels=5)))
    with pytest.raises(ValueError, match=r"x\[0, 1, 1\] is 0.75001.* would come back as 0.75"):
        grey.compress(torch.tensor([[[0.0, 0.25], [0.5, 0.75001]]]))
    with pytest.raises(ValueError, match="expected counts up to 65,535"):
        Compressor(vae_of(pv.likelihoods.Poisson(3, (2, 2)))).compress(torch.full((1, 2, 2), 70000.0))
    holes = pv.VAE(**{n: getattr(compressor.program, n) for n in ("prior", "likelihood", "posterior")}, missing=True)
    with pytest.raises(ValueError, match="has missing entries"):
        Compressor(holes).compress(torch.tensor([[[0.0, 1.0], [1.0, float("nan")]]]))
    for buckets in (1, 5000, 2.0):
        with pytest.raises(ValueError, match="buckets: expected"):
            Compressor(compressor.program, buckets=buckets)
    with pytest.raises(TypeError, match="expected a VAE"):
        Compressor(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="context: no part of this program takes a context"):
        compressor.decompress(compressor.compress(torch.ones(4, 2, 2)), torch.ones(4, 1))


def test_nothing_else_moves_and_threads_do_not_matter(compressor, data):
    """Weights, modes, threads and random streams stay, and another number of threads decodes the same."""
    vae = compressor.program.train()
    before = (torch.get_rng_state().tolist(), torch.get_num_threads(), [p.tolist() for p in vae.parameters()])
    again = Compressor(vae).compress(torch.ones(4, 2, 2))
    after = (torch.get_rng_state().tolist(), torch.get_num_threads(), [p.tolist() for p in vae.parameters()])
    assert after == before
    assert vae.training
    assert again == data
    torch.set_num_threads(2)
    try:
        assert torch.equal(compressor.decompress(data), torch.ones(4, 2, 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before[1])


def test_more_bits_at_the_start_if_they_run_out(compressor, monkeypatch):
    """Too few bits to draw latents from are told, and doubled."""
    coding = BitsBack(compressor.exact, buckets=16)
    letters = coding.levels.write(torch.ones(4, 4))
    assert task.encoded(coding, letters, [()] * 4, 1, progress=False) is None
    encoded = task.encoded
    tried = []

    def short(*args, **options):
        tried.append(args[3])
        return encoded(*args, **options) if len(tried) == 3 else None

    monkeypatch.setattr(task, "encoded", short)
    data = compressor.compress(torch.ones(4, 2, 2))
    assert tried == [tried[0], 2 * tried[0], 4 * tried[0]]
    assert Compressed.from_bytes(data).initial_bits == 32 * tried[2]
    assert torch.equal(compressor.decompress(data), torch.ones(4, 2, 2))


def test_missing_library_is_named(compressor, monkeypatch):
    """Without constriction it says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "constriction", None)
    with pytest.raises(ImportError, match=r"pip install pyro-vae\[compress\]"):
        Compressor(compressor.program)
