"""The VQ-VAE against exact answers: its bound, its gradients, its codebook and a prior fitted afterwards."""

import copy
import functools
import itertools
import math

import pyro
import pytest
import torch
from helpers.small_parts import LINEAR, SMALL
from torch.nn.functional import one_hot

import pyro_vae as pv
from pyro_vae import estimators as E
from pyro_vae.distributions import NearestCode
from pyro_vae.nets.codebook import Codebook

GROUPS, CODES, DIM = 2, 3, 2


def make(seed=0, decay=None, prior=None, net=SMALL, shape=(4,), **options):
    """Two groups of three codes in two dimensions, in float64."""
    torch.manual_seed(seed)
    return pv.programs.VQVAE(
        prior=prior or pv.priors.PixelCNN(GROUPS * CODES, grid=(1, GROUPS), features=4, layers=1),
        likelihood=pv.likelihoods.Normal(GROUPS * DIM, shape, net=net),
        posterior=pv.posteriors.NearestCode(shape, GROUPS * CODES, groups=GROUPS, code_dim=DIM, net=net, decay=decay),
        **options,
    ).double()


def rows(n=50, seed=1):
    return torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def log_joint(program, x):
    """log p(k) + log p(x given k) for all nine lists of codes, (9, n)."""
    z = program.prior().enumerate_support()
    return program.prior().log_prob(z)[:, None] + torch.stack([program.decode(k).log_prob(x) for k in z])


# --- the bound -------------------------------------------------------------------------------------------------------


def test_the_bound_is_below_the_evidence_by_the_posterior_of_the_other_codes():
    """By enumeration: log p(x) = bound - log p(nearest codes given x)."""
    program, x = make().eval(), rows()
    with torch.no_grad():
        joint = log_joint(program, x)
        chosen = (program.codes(x) * torch.tensor([CODES, 1])).sum(-1)
        exact, log_posterior = joint.logsumexp(0), joint.log_softmax(0)[chosen, torch.arange(len(x))]
        for estimator in (E.ELBO(), E.IWAE(num_particles=3)):
            bound = estimator.per_datum(program.model, program.guide, x)
            assert (bound < exact).all()
            assert torch.allclose(bound, exact + log_posterior)
        found = pv.evaluation.log_likelihood(program, x, num_particles=7)
        assert torch.allclose(found.per_example, exact + log_posterior)


def test_the_bound_is_the_evidence_where_the_posterior_is_a_point_mass():
    """A linear decoder of far apart codes with little noise, whose inverse is the encoder."""
    torch.manual_seed(0)
    scale = pv.scales.Fixed(0.05)
    program = pv.programs.VQVAE(
        prior=pv.priors.ProductOfOneHotCategoricals(GROUPS * CODES, groups=GROUPS),
        likelihood=pv.likelihoods.Normal(GROUPS * DIM, (4,), net=LINEAR, scale=scale),
        posterior=pv.posteriors.NearestCode((4,), GROUPS * CODES, groups=GROUPS, code_dim=DIM, net=LINEAR),
    ).double()
    with torch.no_grad():
        program.codebook.codes.copy_(torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]]))
        for part in (program.likelihood, program.posterior):
            (weight,) = [p for p in part.parameters() if p.dim() == 2]
            weight.copy_(torch.eye(4))
            next(p for p in part.parameters() if p.dim() == 1).zero_()
        x = program.eval().sample(20)
        bound = E.ELBO().per_datum(program.model, program.guide, x)
        assert torch.allclose(bound, log_joint(program, x).logsumexp(0), atol=1e-10)
        assert torch.equal(program.reconstruct(x).round(), x.round())


def test_the_distribution_is_a_point_mass_on_the_nearest_codes():
    outputs, codebook = torch.randn(5, 2, 3), torch.randn(4, 3)
    fn = NearestCode(outputs, codebook)
    values = pv.priors.ProductOfOneHotCategoricals(8, groups=2)().enumerate_support()
    p = fn.log_prob(values[:, None]).exp()
    assert p.shape == (16, 5)
    assert torch.equal(p.sum(0), torch.ones(5))
    assert torch.equal(values[p.argmax(0)], fn.sample())
    distances = (outputs[:, :, None] - codebook).square().sum(-1)
    assert torch.equal(fn.sample().unflatten(-1, (2, 4)).argmax(-1), distances.argmin(-1))
    assert torch.equal(fn.rsample((7,)), fn.sample((7,)))
    assert torch.equal(fn.entropy(), torch.zeros(5))


# --- gradients -------------------------------------------------------------------------------------------------------


def test_the_gradient_of_the_code_vectors_is_that_of_the_encoder_outputs():
    """Of a linear function a e it is a, for codes that span the space; their span's part of a elsewhere."""
    torch.manual_seed(0)
    for codes, dim in ((4, 3), (3, 3), (2, 3)):
        outputs = torch.randn(5, 2, dim, dtype=torch.float64, requires_grad=True)
        codebook, a = (torch.randn(n, dim, dtype=torch.float64) for n in (codes, 2))
        vectors = NearestCode(outputs, codebook).rsample().unflatten(-1, (2, codes)) @ codebook
        (found,) = torch.autograd.grad((a * vectors).sum(), outputs)
        expected = a @ torch.linalg.pinv(codebook) @ codebook
        assert torch.allclose(found, expected.expand(5, 2, dim))
        assert torch.allclose(expected, a) == (codes >= dim)


@pytest.mark.parametrize("decay", [None, 0.9])
@pytest.mark.parametrize("estimator", [E.ELBO(), E.IWAE(num_particles=3), pyro.infer.Trace_ELBO()])
def test_gradients_of_the_loss(estimator, decay):
    """Straight through the codes for the encoder, with the commitment; exact for decoder, prior and codes."""
    program, x = make(decay=decay, commitment=0.7), rows()
    if decay is not None:  # so many earlier outputs that one batch does not move their mean
        program.codebook.counts.fill_(1e12)
        program.codebook.sums.copy_(1e12 * program.codebook.codes)
    parameters = dict(program.named_parameters())
    outputs = program.posterior.net(x)
    codes = program.codebook.codes
    hot = one_hot((outputs.unsqueeze(-2) - codes).square().sum(-1).argmin(-1), CODES).double()
    vectors = hot @ codes
    through = vectors + outputs - outputs.detach()
    bound = program.prior().log_prob(hot.flatten(1)) + program.likelihood(through.flatten(1)).log_prob(x)
    pull = 0.7 * (outputs - vectors.detach()).square().sum((1, 2)) + (outputs.detach() - vectors).square().sum((1, 2))
    expected = torch.autograd.grad((pull - bound).sum(), list(parameters.values()))
    loss = estimator.differentiable_loss(program.model, program.guide, x)
    found = torch.autograd.grad(loss, list(parameters.values()))
    assert float(loss.detach()) == pytest.approx(-float(bound.detach().sum()))
    assert ("posterior.codebook.codes" in parameters) == (decay is None)
    for name, a, b in zip(parameters, found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-8), name


def test_the_commitment_changes_no_loss():
    """In training mode the guide has a factor of value 0, in evaluation mode none."""
    program, x = make(), rows()
    sites = [set(pyro.poutine.trace(program.train(mode).guide).get_trace(x).nodes) for mode in (True, False)]
    assert sites[0] - sites[1] == {"commitment"}
    losses = [E.ELBO().loss(program.train(mode).model, program.guide, x) for mode in (True, False)]
    assert losses[0] == losses[1]
    assert E.ELBO().loss(*(make(commitment=5.0).model, make(commitment=5.0).guide), x) == losses[0]


@pytest.mark.parametrize("estimator", [E.DReG(num_particles=2), E.StickingTheLanding(), E.ELBO(free_bits=0.1)])
def test_estimators_that_would_drop_the_commitment_are_refused(estimator):
    program, x = make(), rows()
    with pytest.raises(ValueError, match="commitment"):
        pv.fit(program, x, estimator=estimator, epochs=1, progress=False)


# --- the codebook ----------------------------------------------------------------------------------------------------


def test_codes_are_the_running_means_in_closed_form():
    torch.manual_seed(0)
    codebook, decay, steps = Codebook(3, 2, decay=0.8).double(), 0.8, 5
    batches = torch.randn(steps, 40, 2, dtype=torch.float64)
    hot = one_hot(torch.arange(40) % 3, 3).double()
    for batch in batches:
        codebook.update(batch, hot)
    weights = decay ** torch.arange(steps - 1, -1, -1, dtype=torch.float64)
    sums = torch.einsum("t,tnd,nk->kd", weights, batches, hot)
    counts = weights.sum() * hot.sum(0)
    assert torch.allclose(codebook.codes, sums / counts[:, None])


def test_unused_codes_are_replaced_by_encoder_outputs():
    codebook = Codebook(4, 2)
    outputs, hot = torch.randn(30, 2), one_hot(torch.zeros(30, dtype=torch.long), 4).float()
    codebook.update(outputs, hot)
    assert torch.allclose(codebook.codes[0], outputs.mean(0), atol=1e-6)
    for code in codebook.codes[1:]:
        assert (code - outputs).abs().sum(-1).min() < 1e-5


def test_codes_follow_the_encoder_in_training_alone():
    """Neither evaluation, a run without gradients nor a frozen encoder changes them."""
    program, x = make(decay=0.9), rows()
    before = program.codebook.codes.clone()
    program.eval().guide(x)
    with torch.no_grad():
        program.train().guide(x)
    program.posterior.requires_grad_(False)
    program.guide(x)
    pv.evaluation.log_likelihood(program, x, num_particles=2)
    assert torch.equal(program.codebook.codes, before)
    program.posterior.requires_grad_(True)
    program.guide(x)
    assert not torch.equal(program.codebook.codes, before)


def test_perplexity_counts_the_codes():
    program = make().eval()
    x = torch.cat([rows(), 4 * rows(seed=5)])
    counts = torch.bincount(program.codes(x).flatten(), minlength=CODES)
    f = counts[counts > 0] / counts.sum()
    found = program.perplexity(x) if (counts > 0).all() else None
    assert found == pytest.approx(float((-(f * f.log()).sum()).exp()))
    with pytest.warns(UserWarning, match="codebook: 1 of 3 codes"):
        assert program.perplexity(x[:1]) <= 2.0


def test_with_processes_running_means_are_refused(monkeypatch):
    monkeypatch.setattr("pyro_vae.nets.codebook.is_initialized", lambda: True)
    monkeypatch.setattr("pyro_vae.nets.codebook.get_world_size", lambda: 2)
    with pytest.raises(ValueError, match=r"^decay.*NearestCode|^decay.*posterior"):
        make(decay=0.9).guide(rows())
    make().guide(rows())


# --- training --------------------------------------------------------------------------------------------------------


def images(n=200):
    """Two independent groups of three patterns."""
    g = torch.Generator().manual_seed(3)
    patterns = 3 * torch.randn(CODES, 2, generator=g, dtype=torch.float64)
    index = torch.randint(CODES, (n, 2), generator=g)
    index[:, 1] = torch.where(torch.rand(n, generator=g) < 0.8, index[:, 0], index[:, 1])
    noise = 0.1 * torch.randn(n, 4, generator=g, dtype=torch.float64)
    return patterns[index].flatten(1) + noise


ADAM = functools.partial(torch.optim.Adam, lr=0.02)
TRAINED = {"optimizer": ADAM, "batch_size": 50, "progress": False}


@pytest.mark.parametrize("decay", [None, 0.95])
def test_compiled_and_resumed_training_are_the_same_training(decay, tmp_path):
    x = images()
    plain, compiled, resumed = (make(decay=decay) for _ in range(3))
    pv.fit(plain, x, epochs=4, **TRAINED)
    pv.fit(compiled, x, epochs=4, compile=pv.training.eager_graph, **TRAINED)
    pv.fit(resumed, x, epochs=2, run_dir=tmp_path, **TRAINED)
    again = make(decay=decay)
    pv.fit(again, x, epochs=4, run_dir=tmp_path, resume=True, **TRAINED)
    for name, value in plain.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
        assert torch.allclose(compiled.state_dict()[name], value, atol=1e-6), name
    loaded = pv.load(tmp_path)
    assert torch.equal(loaded.codes(x), plain.eval().codes(x))
    copied = copy.deepcopy(plain)
    assert copied.posterior.codebook is copied.codebook


def test_a_prior_fitted_afterwards_raises_the_bound_and_changes_nothing_else():
    """To within 0.02 nats of the entropy of the code frequencies; the fit alone knows that groups depend."""
    x = images(400)
    uniform = pv.priors.ProductOfOneHotCategoricals(GROUPS * CODES, groups=GROUPS)
    program = make(decay=0.95, prior=uniform)
    pv.fit(program, x, epochs=30, **TRAINED)
    before = {name: value.clone() for name, value in program.state_dict().items()}
    start = pv.priors.PixelCNN(GROUPS * CODES, grid=(1, GROUPS), features=8, layers=1).double()
    prior = pv.tasks.AggregatePosterior(program, x, start, epochs=60, **TRAINED)
    assert all(torch.equal(value, before[name]) for name, value in program.state_dict().items())
    fitted = pv.programs.VQVAE(prior=prior, likelihood=program.likelihood, posterior=program.posterior)
    with torch.no_grad():
        low, high = (E.ELBO().per_datum(p.eval().model, p.guide, x) for p in (program, fitted))
        counts = torch.bincount((program.codes(x) * torch.tensor([CODES, 1])).sum(-1), minlength=CODES**GROUPS)
        f = counts[counts > 0] / counts.sum()
    gain = float((high - low).mean())
    assert gain == pytest.approx(GROUPS * math.log(CODES) + float((f * f.log()).sum()), abs=0.02)
    assert gain > 0.2
    assert pv.tasks.generate(program, 7, prior=prior).shape == (7, 4)


def test_wrong_parts_are_refused_by_name():
    parts = {name: getattr(make(), name) for name in ("prior", "likelihood", "posterior")}
    with pytest.raises(TypeError, match=r"^posterior.*NearestCode"):
        pv.programs.VQVAE(**{**parts, "posterior": pv.posteriors.OneHotCategorical((4,), 6)})
    with pytest.raises(ValueError, match=r"^likelihood.*latent=4"):
        pv.programs.VQVAE(**{**parts, "likelihood": pv.likelihoods.Normal(6, (4,))})
    with pytest.raises(ValueError, match="^commitment"):
        pv.programs.VQVAE(**parts, commitment=-1.0)
    for option, value in {"groups": 4, "decay": 1.0, "code_dim": 0}.items():
        with pytest.raises(ValueError, match=f"^{option}"):
            pv.posteriors.NearestCode((4,), 6, **{option: value})
    for groups, codes in itertools.product([1, 2], [1, 2]):
        made = pv.posteriors.NearestCode((4,), groups * codes, groups=groups)
        assert made(torch.zeros(3, 4)).sample().shape == (3, groups * codes)
