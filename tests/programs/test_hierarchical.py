"""Hierarchical: an exact linear-Gaussian hierarchy, closed forms only where valid, training of five layers."""

import functools

import pyro
import pytest
import torch
from helpers.linear_hierarchy import evidence, linear

import pyro_vae as pv
from pyro_vae.testing import check_estimator


@pytest.mark.parametrize("inference", [pv.programs.BottomUp, pv.programs.TopDown])
def test_exact_evidence_and_agreement_with_pyro(inference):
    program = linear(inference)
    x = program.sample(6)
    exact = evidence(program, x).detach()
    found = pv.evaluation.log_likelihood(program, x, num_particles=10000)
    # 6 examples: 4 standard errors of the importance-sampled estimate
    assert ((found.per_example - exact).abs() < 4 * found.per_example_error).all()
    ours = pv.estimators.ELBO(num_particles=1000)
    drawn = pv.estimators.ELBO(num_particles=1000, analytic_kl=False)
    with torch.no_grad():
        a = torch.stack([ours.per_datum(program.model, program.guide, x) for _ in range(10)])
        b = torch.stack([drawn.per_datum(program.model, program.guide, x) for _ in range(10)])
        theirs = [pyro.infer.Trace_ELBO(1000, vectorize_particles=True).loss(program.model, program.guide, x)]
    error = (a.var(0) / 10 + b.var(0) / 10).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() < 4.5 * error).all()
    assert (a.mean(0) < exact + 4 * error).all()
    spread = b.sum(1).std()
    assert abs(theirs[0] + b.sum(1).mean()) < 5 * spread
    # bottom-up, z2 is drawn after z1 and depends on it: no closed form for z1
    forms = {"z1": "Monte Carlo", "z2": "closed form"}
    if inference is pv.programs.TopDown:
        forms = {"z1": "closed form", "z2": "closed form"}
    assert ours.kl_forms(program.model, program.guide, x) == forms


@pytest.mark.parametrize("inference", [pv.programs.BottomUp, pv.programs.TopDown])
def test_laws(inference):
    """An AssertionError of `check_estimator` names the law that the pair breaks."""
    program = linear(inference)
    check_estimator(program, pv.estimators.ELBO(num_particles=3), program.sample(6))


@pytest.mark.parametrize("down", [False, True])
def test_five_layers_with_skip_connections_train(down, digits):
    sizes = [16, 12, 8, 6, 4]
    q = functools.partial(pv.posteriors.MeanFieldNormal, net=functools.partial(pv.nets.MLP, hidden=(64,)))
    if down:
        posteriors = [q((8, 8), s, context=above) for s, above in zip(sizes, sizes[1:], strict=False)]
        inference = pv.programs.TopDown([*posteriors, q((8, 8), sizes[-1])])
    else:
        below = [(8, 8), *((s,) for s in sizes)]
        inference = pv.programs.BottomUp([q(b, s) for b, s in zip(below, sizes, strict=False)])
    layers = [q((above,), s) for above, s in zip(sizes[:0:-1], sizes[-2::-1], strict=True)]
    program = pv.programs.Hierarchical(
        prior=pv.priors.StandardNormal(sizes[-1]),
        layers=layers,
        likelihood=pv.likelihoods.Bernoulli(16, (8, 8), context=sum(sizes[1:])),
        inference=inference,
        skip=True,
    )
    adam = functools.partial(torch.optim.Adam, lr=5e-3)
    history = pv.fit(program, digits.train, valid=digits.valid, optimizer=adam, epochs=5, progress=False)
    # independent pixels at their mean rates cost 27.5 nats per digit
    assert history["valid_bound"][-1] > history["valid_bound"][0] + 1
    assert history["valid_bound"][-1] > -28
    assert program.sample(3).shape == (3, 8, 8)
    assert program.reconstruct(digits.test.x[:5]).shape == (5, 8, 8)
    assert set(pv.evaluation.latents(program, digits.test.x[:50]).active) == {f"z{i}" for i in range(1, 6)}


def test_errors():
    q = pv.posteriors.MeanFieldNormal
    parts = {"prior": pv.priors.StandardNormal(2), "likelihood": pv.likelihoods.Bernoulli(3, (4,))}
    with pytest.raises(ValueError, match="^inference"):
        pv.programs.Hierarchical(layers=[q((2,), 3)], inference=pv.programs.BottomUp([q((4,), 3)]), **parts)
    with pytest.raises(TypeError, match="^inference"):
        pv.programs.Hierarchical(layers=[q((2,), 3)], inference=q((4,), 3), **parts)
