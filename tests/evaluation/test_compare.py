"""The estimator laboratory against the linear-Gaussian model, which has exact bounds, evidence and gradients."""

import copy
import json
import math
import warnings

import pytest
import torch
from helpers.programs import make_vae
from pyro import infer

import pyro_vae as pv
from pyro_vae.estimators import ELBO, IWAE, DReG, StickingTheLanding
from pyro_vae.evaluation import compare_estimators
from pyro_vae.evaluation.cost import PeakMemory
from pyro_vae.evaluation.laboratory.gradients import Moments, guide_parameters
from pyro_vae.evaluation.result import number
from pyro_vae.testing import LinearGaussian


class WrongSign(ELBO):
    """The gradient with the wrong sign."""

    def evaluate(self, terms):
        loss, metrics = super().evaluate(terms)
        return 2 * loss.detach() - loss, metrics


class HalfDivergence(ELBO):
    """Half of the gradient of the divergence, with the right value."""

    def divergence(self, site):
        kl = super().divergence(site)
        return 0.5 * (kl + kl.detach())


OURS = {
    "ELBO": ELBO(),
    "STL": StickingTheLanding(),
    "IWAE 16": IWAE(num_particles=16),
    "DReG 16": DReG(num_particles=16),
    "STL 16": StickingTheLanding(num_particles=16),
    "wrong sign": WrongSign(),
    "half divergence": HalfDivergence(),
}


def compare(toy, estimators, n=32, **options):
    options = {"num_samples": 48, "reference": toy.log_evidence, **options}
    return pv.evaluation.compare_estimators(toy.program, toy.draw(n), estimators, **options)


@pytest.fixture(scope="module")
def toy():
    return LinearGaussian(off=0.1)


@pytest.fixture(scope="module")
def table(toy):
    return compare(toy, OURS)


def test_gaps_are_exact(toy, table):
    x = toy.draw(32)
    exact = float((toy.log_evidence(x) - toy.elbo(x)).detach().mean())
    assert table.evidence == pytest.approx(float(toy.log_evidence(x).detach().mean()))
    for name in ("ELBO", "STL"):
        assert abs(table[name].gap - exact) < 4 * table[name].gap_error
    with torch.no_grad():
        many = IWAE(num_particles=16).per_datum(toy.program.model, toy.program.guide, x.repeat(500, 1))
    samples = many.reshape(500, 32).mean(1)
    gap = table.evidence - float(samples.mean())
    error = math.hypot(table["IWAE 16"].gap_error, float(samples.std()) / 500**0.5)
    assert abs(table["IWAE 16"].gap - gap) < 4 * error
    assert 0 < gap < exact


def test_gradient_of_the_bound_has_the_exact_bias_and_cosine(toy, table):
    """Bias and cosine of the ELBO against the evidence: exact for the model, 0 and 1 for the guide."""
    x = toy.draw(32)
    parameters = [p for n, p in toy.program.named_parameters() if not n.startswith("posterior")]
    bound, evidence = (
        torch.cat([g.flatten() for g in torch.autograd.grad(f(x).mean(), parameters)])
        for f in (toy.elbo, toy.log_evidence)
    )
    found = table["ELBO"].model
    exact = float((bound - evidence).norm() / evidence.norm())
    assert abs(found.bias - exact) < 4 * found.bias_error
    assert found.cosine == pytest.approx(float(torch.cosine_similarity(bound, evidence, 0)), abs=0.1)
    guide = table["ELBO"].guide
    assert guide.bias < 4 * guide.bias_error
    assert guide.cosine > 0.98


def test_signal_to_noise_ratios(table):
    """DReG has a larger one than IWAE for the guide and the same for the model."""
    assert table["DReG 16"].guide.snr > 2 * table["IWAE 16"].guide.snr
    assert table["DReG 16"].model.snr == pytest.approx(table["IWAE 16"].model.snr)
    assert table["IWAE 16"].model.snr > table["ELBO"].model.snr


def test_own_bias_of_right_gradients_is_zero(table):
    for name in ("ELBO", "STL", "IWAE 16", "DReG 16"):
        for part in (table[name].guide, table[name].model):
            assert abs(part.own_bias) < 4 * part.own_bias_error + 1e-6, name


def test_own_bias_is_small_in_single_precision():
    torch.manual_seed(0)
    vae, x = make_vae(), torch.rand(16, 8, 8).round()
    options = {"num_samples": 16, "reference_num_particles": 200}
    found = pv.evaluation.compare_estimators(vae, x, {"ELBO": ELBO()}, **options)["ELBO"]
    assert abs(found.guide.own_bias) < 3e-3
    assert abs(found.model.own_bias) < 3e-3


def test_faults_are_detected(table):
    """The wrong sign, a missing half of a gradient, and the known bias of the path derivative for K = 16."""
    wrong = table["wrong sign"].guide
    assert abs(wrong.own_bias - 2) < 4 * wrong.own_bias_error
    assert wrong.cosine < -0.9
    half = table["half divergence"].guide
    assert abs(half.own_bias) > 4 * half.own_bias_error + 0.05
    assert half.bias > 3 * half.bias_error
    assert table["half divergence"].gap == table["ELBO"].gap
    path = table["STL 16"]
    assert path.guide.own_bias > 4 * path.guide.own_bias_error + 0.1
    assert abs(path.model.own_bias) < 1e-6


def test_path_derivative_has_no_variance_at_the_exact_posterior():
    chosen = {"ELBO": ELBO(analytic_kl=False), "STL": StickingTheLanding()}
    found = compare(LinearGaussian(), chosen, num_samples=12)
    assert found["STL"].guide.variance < 1e-20
    assert found["ELBO"].guide.variance > 1e-2
    assert found["STL"].gap == pytest.approx(0.0, abs=1e-9)
    assert found["STL"].ess == pytest.approx(1.0)
    assert found["STL"].pareto_k == -math.inf


def test_results_do_not_depend_on_order_or_other_estimators(toy):
    chosen = {"a": DReG(num_particles=4), "b": IWAE(num_particles=4)}
    first = compare(toy, chosen, num_samples=8)
    second = compare(toy, dict(reversed(chosen.items())), num_samples=8)
    alone = compare(toy, {"a": chosen["a"]}, num_samples=8)
    for key in ("bound", "gap", "guide", "model", "ess", "pareto_k", "megabytes"):
        assert getattr(first["a"], key) == getattr(second["a"], key) == getattr(alone["a"], key), key
    assert compare(toy, {"a": chosen["a"]}, num_samples=8, seed=1)["a"].bound != first["a"].bound


def test_importance_sampling_replaces_the_exact_evidence(toy, table):
    found = compare(toy, {"ELBO": ELBO()}, reference=None, reference_num_particles=20000, num_samples=32)
    assert "20,000 particles" in found.reference
    assert abs(found.evidence - table.evidence) < 4 * found.evidence_error
    assert abs(found["ELBO"].model.bias - table["ELBO"].model.bias) < 4 * found["ELBO"].model.bias_error
    assert math.isfinite(found["ELBO"].guide.cosine)


def test_reference_from_the_program_or_from_annealing(toy):
    """Without a reference a program's own `log_evidence` is used."""
    toy, x, options = copy.deepcopy(toy), toy.draw(6), {"estimators": [ELBO()], "num_samples": 8}
    bounds = pv.evaluation.marginal_bounds(toy.program, x, num_chains=4, num_steps=8, num_simulated=0)
    found = pv.evaluation.compare_estimators(toy.program, x, reference=bounds, **options)
    assert found.reference == "annealing, 4 chains, 8 temperatures"
    assert found.evidence == bounds.mean
    toy.program.log_evidence = toy.log_evidence
    found = pv.evaluation.compare_estimators(toy.program, x, **options)
    assert found.reference == "exact evidence"
    assert found.evidence == pytest.approx(float(toy.log_evidence(x).mean().detach()))


def test_estimators_of_pyro(toy):
    """They agree with the same estimators of this library; what they do not return is missing with the reason."""
    vectorized = {"num_particles": 3, "vectorize_particles": True, "max_plate_nesting": 1}
    pyros = {
        "Trace": infer.Trace_ELBO(),
        "MeanField": infer.TraceMeanField_ELBO(),
        "Graph": infer.TraceGraph_ELBO(),
        "Renyi": infer.RenyiELBO(alpha=0, **vectorized),
        "Tail": infer.TraceTailAdaptive_ELBO(**vectorized),
        "RWS": infer.ReweightedWakeSleep(num_particles=2, max_plate_nesting=1),
    }
    ours = {"ELBO": ELBO(), "ELBO sampled": ELBO(analytic_kl=False), "IWAE": IWAE(num_particles=3)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compare(toy, {**pyros, **ours}, num_samples=8)
    for theirs, mine in (("Trace", "ELBO sampled"), ("MeanField", "ELBO"), ("Renyi", "IWAE")):
        assert found[theirs].bound == pytest.approx(found[mine].bound)
        assert found[theirs].guide.snr == pytest.approx(found[mine].guide.snr)
        assert found[theirs].guide.own_bias == pytest.approx(found[mine].guide.own_bias, abs=1e-6, nan_ok=True)
    assert math.isnan(found["Tail"].gap)
    assert "bound and gap" in found["Tail"].missing
    assert found["Tail"].missing["bound and gap"] in str(found)
    assert all(math.isfinite(row.guide.snr) and row.milliseconds > 0 for row in found.estimators)


def test_discrete_guides_have_gradients_without_slopes():
    vae = pv.VAE(
        prior=pv.priors.Bernoulli(3),
        likelihood=pv.likelihoods.Normal(3, (4,)),
        posterior=pv.posteriors.Bernoulli((4,), 3),
    )
    chosen, options = [pv.estimators.VIMCO(num_particles=4)], {"num_samples": 12, "reference_num_particles": 200}
    (row,) = pv.evaluation.compare_estimators(vae, torch.randn(6, 4), chosen, **options).estimators
    assert math.isfinite(row.guide.snr)
    assert math.isfinite(row.model.cosine)
    assert math.isnan(row.guide.own_bias)
    assert "'z'" in row.missing["own bias"]
    with pytest.raises(ValueError, match="estimators.*IWAE"):
        pv.evaluation.compare_estimators(vae, torch.randn(6, 4), [IWAE()])


def test_shared_parameters_belong_to_the_guide():
    posterior = pv.posteriors.MeanFieldNormal((4,), 2)
    vae = pv.VAE(
        prior=pv.priors.VampPrior(posterior, num_components=3),
        likelihood=pv.likelihoods.Normal(2, (4,)),
        posterior=posterior,
    )
    named = dict(vae.named_parameters())
    found = {id(named[name]) for name in guide_parameters(vae, [torch.randn(5, 4)])}
    assert found == {id(p) for p in posterior.parameters()}


def test_exported_rows(table, tmp_path):
    table.to_json(tmp_path / "t.json")
    record = json.loads((tmp_path / "t.json").read_text())
    assert [row["name"] for row in record["rows"]] == list(OURS)
    assert record["rows"][1]["model_variance"] == table["STL"].model.variance
    assert record["reference"] == "exact evidence"
    assert max(map(len, str(table).splitlines())) < 120
    assert [axes.get_xlabel() for axes in table.plot().axes][3] == "milliseconds"
    with pytest.raises(KeyError, match="IWEA"):
        table["IWEA"]


def test_moments_are_those_of_all_vectors():
    rows, moments = torch.randn(50, 7, dtype=torch.float64), Moments()
    for row in rows:
        moments.add(row)
    assert torch.allclose(moments.mean, rows.mean(0))
    assert torch.allclose(moments.variance, rows.var(0))
    assert moments.square_error == pytest.approx(float(rows.var(0).sum() / 50))


def test_norms_and_biases_are_corrected_for_noise():
    """20 vectors around a mean of length 3 in 50 dimensions; a mean of zero has norm 0."""
    exact, moments, zero = Moments(), Moments(), Moments()
    mean = torch.full((50,), 3 / 50**0.5, dtype=torch.float64)
    exact.add(mean)
    for row in torch.randn(20, 50, dtype=torch.float64):
        moments.add(mean + row)
        zero.add(row)
    assert moments.norm == pytest.approx(3.0, abs=0.7)  # 2.5 too large in its square without the correction
    bias, error, cosine = moments.bias(exact)
    assert bias < error
    assert error == pytest.approx(2.5**0.5 / 3, rel=0.1)
    assert cosine == pytest.approx(1.0, abs=0.15)
    assert zero.norm == 0.0
    assert math.isnan(zero.bias(exact)[2])


def test_peak_memory():
    weight = torch.nn.Parameter(torch.ones(1000))
    with PeakMemory() as memory:
        y = weight * 2
        del y
        z = (weight * 2).exp()  # both 2 w and exp(2 w) are alive here
        assert memory.now == 4000  # the backward pass of a factor needs no copy of 2 w
        z.sum().backward()
    assert 8000 <= memory.bytes <= 16100


@pytest.mark.slow
def test_memory_grows_with_particles_and_passes_save_it(toy):
    chosen = {
        "4": IWAE(num_particles=4),
        "64": IWAE(num_particles=64),
        "64 in passes": IWAE(num_particles=64, particles_per_pass=8),
    }
    found = compare(toy, chosen, num_samples=8)
    assert found["64"].megabytes > 8 * found["4"].megabytes
    assert found["64 in passes"].megabytes < 0.5 * found["64"].megabytes
    assert found["64 in passes"].bound == pytest.approx(found["64"].bound, abs=4 * found["64"].bound_error)


@pytest.mark.parametrize(
    ("estimators", "options", "error", "argument"),
    [
        ([], {}, ValueError, "estimators"),
        (["ELBO"], {}, TypeError, "estimators"),
        ([ELBO(), ELBO()], {}, ValueError, r"estimators.*ELBO \(1\)"),
        ([ELBO()], {"reference": lambda x: x}, ValueError, "reference"),
    ],
)
def test_bad_input_is_refused(toy, estimators, options, error, argument):
    with pytest.raises(error, match=argument):
        compare(toy, estimators, num_samples=8, **options)


def test_a_sweep_over_particles_says_which_number_pays():
    toy = LinearGaussian(off=0.1)
    classes = [pv.estimators.IWAE, pv.estimators.DReG]
    options = {"reference": toy.log_evidence, "num_samples": 40, "progress": False}
    found = compare_estimators(toy.program, toy.draw(8), classes, sweep={"num_particles": [2, 16]}, **options)
    names = [f"{cls}(num_particles={k})" for cls in ("IWAE", "DReG") for k in (2, 16)]
    assert [row.name for row in found.estimators] == names
    assert [row.num_particles for row in found.estimators] == [2, 16, 2, 16]
    assert torch.equal(found.bounds[names[1]], found.bounds[names[3]])  # the same draws
    row = found[names[0]]
    assert row.flat()["guide_variance_times_cost"] == row.guide.variance * row.milliseconds
    assert row.signal("guide") == pytest.approx(row.guide.snr * (1000 / row.milliseconds) ** 0.5)
    few, many = found.bounds[names[0]], found.bounds[names[1]]
    assert f"highest bound: {names[1]}, " in found.notes()
    assert number(float((many - few).mean()), float((many - few).std()) / 40**0.5) in found.notes()
    best = max(found.estimators, key=lambda row: row.signal("model"))
    assert f"most signal for its time, model: {best.name}, " in found.notes()
    with pytest.raises(TypeError, match="estimators.*sweep"):
        compare_estimators(toy.program, toy.draw(8), [pv.estimators.IWAE()], sweep={"num_particles": [2]}, **options)
    with pytest.raises(TypeError, match="sweep.*num_particles"):
        compare_estimators(toy.program, toy.draw(8), classes, sweep={"num_particles": 2}, **options)
    with pytest.raises(TypeError, match="estimators.*sweep"):
        compare_estimators(toy.program, toy.draw(8), classes, **options)


@pytest.mark.parametrize(
    ("sweep", "error"), [({"particles": [1]}, TypeError), ({"num_particles": [0]}, ValueError)], ids=["name", "value"]
)
def test_wrong_options_of_a_sweep_are_named(sweep, error):
    toy = LinearGaussian()
    with pytest.raises(error, match="sweep: cannot build IWAE.*particles"):
        compare_estimators(toy.program, toy.draw(4), [pv.estimators.IWAE], sweep=sweep, progress=False)
