"""The estimator laboratory: held to the linear-Gaussian model, whose bounds, evidence and gradients are exact."""

import copy
import csv
import json
import math
import warnings

import pytest
import torch
from helpers.programs import make_vae
from pyro import infer
from scipy import stats

import pyro_vae as pv
from pyro_vae.cli import command as cli
from pyro_vae.cli.compare import estimators_of
from pyro_vae.estimators import ELBO, IWAE, DReG, StickingTheLanding
from pyro_vae.evaluation.laboratory.cost import PeakMemory
from pyro_vae.evaluation.laboratory.gradients import Moments, guide_parameters
from pyro_vae.evaluation.laboratory.table import aligned, latex, number
from pyro_vae.testing import LinearGaussian


class WrongSign(ELBO):
    """Follows the gradient the wrong way."""

    def evaluate(self, terms):
        loss, metrics = super().evaluate(terms)
        return 2 * loss.detach() - loss, metrics


class HalfDivergence(ELBO):
    """Forgets half of the gradient of the divergence, and keeps the value."""

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


def compare(toy, estimators, n=12, **options):
    options = {"draws": 80, "reference": toy.log_evidence, **options}
    return pv.evaluation.compare_estimators(toy.program, toy.draw(n), estimators, **options)


@pytest.fixture(scope="module")
def toy():
    return LinearGaussian(off=0.1)


@pytest.fixture(scope="module")
def table(toy):
    return compare(toy, OURS)


def test_gaps_are_the_exact_ones(toy, table):
    x = toy.draw(12)
    exact = float((toy.log_evidence(x) - toy.elbo(x)).detach().mean())
    assert table.evidence == pytest.approx(float(toy.log_evidence(x).detach().mean()))
    for name in ("ELBO", "STL"):
        assert abs(table[name].gap - exact) < 4 * table[name].gap_error
    many = IWAE(num_particles=16).per_datum(toy.program.model, toy.program.guide, x.repeat(500, 1))
    draws = many.detach().reshape(500, 12).mean(1)
    gap = table.evidence - float(draws.mean())
    assert abs(table["IWAE 16"].gap - gap) < 4 * math.hypot(table["IWAE 16"].gap_error, float(draws.std()) / 500**0.5)
    assert 0 < gap < exact


def test_gradient_of_the_bound_has_the_exact_bias_and_cosine(toy, table):
    """The bias and cosine of the ELBO against the evidence are known for the model, and are 0 and 1 for the guide."""
    x = toy.draw(12)
    parameters = [p for n, p in toy.program.named_parameters() if not n.startswith("posterior")]
    flat = [
        torch.cat([g.flatten() for g in torch.autograd.grad(f(x).mean(), parameters)])
        for f in (toy.elbo, toy.log_evidence)
    ]
    bound, evidence = flat
    found = table["ELBO"].model
    exact = float((bound - evidence).norm() / evidence.norm())
    assert abs(found.bias - exact) < 4 * found.bias_error
    assert found.cosine == pytest.approx(float(torch.cosine_similarity(bound, evidence, 0)), abs=0.1)
    guide = table["ELBO"].guide
    assert guide.bias < 4 * guide.bias_error
    assert guide.cosine > 0.98


def test_signal_to_noise_tells_the_estimators_apart(table):
    assert table["DReG 16"].guide.snr > 2 * table["IWAE 16"].guide.snr
    assert table["DReG 16"].model.snr == pytest.approx(table["IWAE 16"].model.snr)
    assert table["IWAE 16"].model.snr > table["ELBO"].model.snr


def test_own_bias_is_zero_where_the_gradient_is_right(table):
    for name in ("ELBO", "STL", "IWAE 16", "DReG 16"):
        for part in (table[name].guide, table[name].model):
            assert abs(part.own_bias) < 4 * part.own_bias_error + 1e-6, name


def test_own_bias_is_small_in_single_precision():
    torch.manual_seed(0)
    vae, x = make_vae(), torch.rand(16, 8, 8).round()
    found = pv.evaluation.compare_estimators(vae, x, {"ELBO": ELBO()}, draws=16, reference_particles=200)["ELBO"]
    assert abs(found.guide.own_bias) < 3e-3
    assert abs(found.model.own_bias) < 3e-3


def test_faults_are_seen(table):
    """A wrong sign, a gradient that was half forgotten, and the known bias of the path derivative for K = 16."""
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
    found = compare(LinearGaussian(), {"ELBO": ELBO(analytic_kl=False), "STL": StickingTheLanding()}, draws=20)
    assert found["STL"].guide.variance < 1e-20
    assert found["ELBO"].guide.variance > 1e-2
    assert found["STL"].gap == pytest.approx(0.0, abs=1e-9)
    assert found["STL"].ess == pytest.approx(1.0)
    assert found["STL"].pareto_k == -math.inf


def test_order_and_company_change_nothing_and_nothing_is_left_changed(toy):
    chosen = {"a": DReG(num_particles=4), "b": IWAE(num_particles=4)}
    before = copy.deepcopy(toy.program.state_dict())
    state = torch.get_rng_state()
    first = compare(toy, chosen, draws=8)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in toy.program.state_dict().items())
    assert all(p.grad is None for p in toy.program.parameters())
    second = compare(toy, dict(reversed(chosen.items())), draws=8)
    alone = compare(toy, {"a": DReG(num_particles=4)}, draws=8)
    same = ("bound", "gap", "guide", "model", "ess", "pareto_k", "megabytes")
    for key in same:
        assert getattr(first["a"], key) == getattr(second["a"], key) == getattr(alone["a"], key), key
    assert compare(toy, {"a": DReG(num_particles=4)}, draws=8, seed=1)["a"].bound != first["a"].bound


def test_importance_sampling_stands_in_for_the_exact_evidence(toy, table):
    found = compare(toy, {"ELBO": ELBO()}, reference=None, reference_particles=20000, draws=40)
    assert "20,000 particles" in found.reference
    assert abs(found.evidence - table.evidence) < 4 * found.evidence_error
    assert abs(found["ELBO"].model.bias - table["ELBO"].model.bias) < 4 * found["ELBO"].model.bias_error
    assert number(found["ELBO"].guide.cosine) != "-"


def test_estimators_of_pyro_are_rows(toy):
    """They run beside ours and agree with them; what they do not tell is left out with the reason."""
    vectorized = {"num_particles": 3, "vectorize_particles": True, "max_plate_nesting": 1}
    pyros = {
        "Trace": infer.Trace_ELBO(),
        "MeanField": infer.TraceMeanField_ELBO(),
        "Graph": infer.TraceGraph_ELBO(),
        "Renyi": infer.RenyiELBO(alpha=0, **vectorized),
        "Tail": infer.TraceTailAdaptive_ELBO(**vectorized),
        "RWS": infer.ReweightedWakeSleep(num_particles=2, max_plate_nesting=1),
    }
    ours = {"ELBO": ELBO(), "ELBO drawn": ELBO(analytic_kl=False), "IWAE": IWAE(num_particles=3)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compare(toy, {**pyros, **ours}, draws=12)
    for theirs, mine in (("Trace", "ELBO drawn"), ("MeanField", "ELBO"), ("Renyi", "IWAE")):
        assert found[theirs].bound == pytest.approx(found[mine].bound)
        assert found[theirs].guide.snr == pytest.approx(found[mine].guide.snr)
        assert found[theirs].guide.own_bias == pytest.approx(found[mine].guide.own_bias, abs=1e-6, nan_ok=True)
    assert math.isnan(found["Tail"].gap)
    assert "no number" in found["Tail"].missing["bound and gap"]
    assert "no number" in str(found)
    assert all(math.isfinite(row.guide.snr) and row.milliseconds > 0 for row in found.rows)


def test_discrete_guides_have_gradients_and_no_slopes():
    vae = pv.VAE(
        prior=pv.priors.Bernoulli(3),
        likelihood=pv.likelihoods.Normal(3, (4,)),
        posterior=pv.posteriors.Bernoulli((4,), 3),
    )
    chosen = {"VIMCO": pv.estimators.VIMCO(num_particles=4)}
    found = pv.evaluation.compare_estimators(vae, torch.randn(6, 4), chosen, draws=16, reference_particles=200)
    row = found["VIMCO"]
    assert math.isfinite(row.guide.snr)
    assert math.isfinite(row.model.cosine)
    assert math.isnan(row.guide.own_bias)
    assert "'z' without a reparameterized sampler" in row.missing["own bias"]
    with pytest.raises(ValueError, match="IWAE .* does not work with this program"):
        pv.evaluation.compare_estimators(vae, torch.randn(6, 4), [IWAE()])


def test_shared_parameters_count_to_the_guide():
    posterior = pv.posteriors.MeanFieldNormal((4,), 2)
    vae = pv.VAE(
        prior=pv.priors.VampPrior(posterior, num_components=3),
        likelihood=pv.likelihoods.Normal(2, (4,)),
        posterior=posterior,
    )
    found = guide_parameters(vae, [torch.randn(5, 4)])
    shared = {id(p) for p in posterior.parameters()}
    assert {id(dict(vae.named_parameters())[name]) for name in found} == shared


def test_tables_survive_their_files(table, tmp_path):
    table.to_csv(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == list(OURS)
    assert float(lines[2]["guide_snr"]) == table["IWAE 16"].guide.snr
    table.to_json(tmp_path / "t.json")
    record = json.loads((tmp_path / "t.json").read_text())
    assert record["rows"][1]["model"]["variance"] == table["STL"].model.variance
    assert record["reference"] == "exact evidence"
    table.to_latex(tmp_path / "t.tex")
    assert (tmp_path / "t.tex").read_text().count(r"\begin{tabular}") == 3
    lines = str(table).splitlines()
    assert lines[0].startswith("evidence ")
    assert max(map(len, lines)) < 120
    assert [axes.get_xlabel() for axes in table.plot().axes][3] == "milliseconds"


def test_cells_are_written_to_the_precision_of_their_errors():
    assert number(1.23456, 0.0123) == "1.235 ± 0.012"
    assert number(math.nan, 1.0) == "-"
    assert aligned([{"a": "x", "b": 1}, {"a": "yy", "b": 22}]).splitlines() == ["a    b", "x    1", "yy  22"]
    assert latex([{"a_b": "1 ± 2"}]).splitlines()[2:5] == [r"a\_b \\", r"\midrule", r"1 $\pm$ 2 \\"]


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.5, 0.9, 1.4])
def test_pareto_k_finds_the_shape_of_a_known_tail(k):
    """Means over 200 samples, with room for the prior at 0.5 and for the body of the distribution in the tail."""
    draws = stats.genpareto(k).rvs((4000, 200), random_state=0)
    found = pv.evaluation.pareto_k(torch.as_tensor(draws).log())
    size = math.ceil(3 * math.sqrt(4000))
    expected = (k * size + 0.5 * 10) / (size + 10)
    assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / 200**0.5 + 0.03


def test_pareto_k_of_importance_weights():
    """Normal weights under a guide of variance v have the tail shape 1 - v for v below 1, and a light tail above."""
    z = torch.randn(20000, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shapes = []
    for v in (0.5, 2.0):
        log_w = -0.5 * (v - 1) * z.square()
        shapes.append(float(pv.evaluation.pareto_k(log_w).mean()))
    assert shapes[0] == pytest.approx(0.5, abs=0.1)
    assert shapes[1] < 0.1
    shifted = pv.evaluation.pareto_k(-0.5 * (0.5 - 1) * z.square() + 1e4)
    assert float(shifted.mean()) == pytest.approx(shapes[0], abs=1e-6)
    with pytest.raises(ValueError, match="at least 25 draws"):
        pv.evaluation.pareto_k(z[:10])


def test_moments_are_those_of_all_vectors():
    rows, moments = torch.randn(50, 7, dtype=torch.float64), Moments()
    for row in rows:
        moments.add(row)
    assert torch.allclose(moments.mean, rows.mean(0))
    assert torch.allclose(moments.variance, rows.var(0))
    assert moments.noise == pytest.approx(float(rows.var(0).sum() / 50))


def test_memory_is_the_peak_of_what_is_alive():
    weight = torch.nn.Parameter(torch.ones(1000))
    with PeakMemory() as memory:
        y = weight * 2
        del y
        z = (weight * 2).exp()  # both 2 w and exp(2 w) live here
        assert memory.now == 4000  # the factor 2 needs no copy of 2 w
        z.sum().backward()
    assert 8000 <= memory.bytes <= 16100


@pytest.mark.slow
def test_memory_grows_with_particles_and_passes_save_it(toy):
    chosen = {
        "4": IWAE(num_particles=4),
        "64": IWAE(num_particles=64),
        "64 in passes": IWAE(num_particles=64, particles_per_pass=8),
    }
    found = compare(toy, chosen, draws=8)
    assert found["64"].megabytes > 8 * found["4"].megabytes
    assert found["64 in passes"].megabytes < 0.5 * found["64"].megabytes
    assert found["64 in passes"].bound == pytest.approx(found["64"].bound, abs=4 * found["64"].bound_error)


@pytest.mark.parametrize(
    ("estimators", "options", "said"),
    [
        ([], {}, "at least one"),
        (["ELBO"], {}, "estimators: expected objects"),
        ([ELBO(), ELBO()], {}, r"two have the name ELBO \(1\)"),
        ([ELBO()], {"draws": 2}, "draws: expected an int of at least 8"),
        ([ELBO()], {"reference": lambda x: x}, r"reference: expected log p\(x\) of each datum, of shape \(12,\)"),
    ],
)
def test_bad_input_is_refused(toy, estimators, options, said):
    with pytest.raises((ValueError, TypeError), match=said):
        compare(toy, estimators, **options)


def trained(toy, budget, estimators=None, **options):
    chosen = estimators or {"ELBO": ELBO(), "IWAE": IWAE(num_particles=8)}
    options = {"valid": toy.draw(40, seed=2), "batch_size": 16, "points": 4, **options}
    return pv.evaluation.train_under(toy.program, toy.draw(100), chosen, budget=budget, **options)


def test_trainings_start_equal_and_get_equal_budgets():
    toy = LinearGaussian(off=0.4)
    before = copy.deepcopy(toy.program.state_dict())
    found = trained(toy, pv.evaluation.Steps(40))
    elbo, iwae = found.curves
    assert [p.steps for p in elbo.points] == [p.steps for p in iwae.points] == [0, 10, 20, 30, 40]
    assert elbo.points[0].log_likelihood == iwae.points[0].log_likelihood
    assert elbo.points[-1].log_likelihood > elbo.points[0].log_likelihood
    assert all(torch.equal(v, before[k]) for k, v in toy.program.state_dict().items())
    again = trained(toy, pv.evaluation.Steps(40), {"IWAE": IWAE(num_particles=8)})
    assert [p.log_likelihood for p in again.curves[0].points] == [p.log_likelihood for p in iwae.points]
    particles = trained(toy, pv.evaluation.Particles(6400)).curves
    assert particles[0].points[-1].steps > 7 * particles[1].points[-1].steps
    assert all(6400 <= c.points[-1].particles < 6400 + 16 * 8 for c in particles)
    seconds = trained(toy, pv.evaluation.Seconds(0.2), points=1).curves
    assert all(0.2 <= c.points[-1].seconds for c in seconds)


def test_same_noise_and_batches_for_each_training(toy):
    """DReG has the model gradient of IWAE: with a frozen guide the two trainings are the same, step by step."""
    program = copy.deepcopy(toy.program)
    program.posterior.requires_grad_(False)
    chosen = {"IWAE": IWAE(num_particles=8), "DReG": DReG(num_particles=8)}
    found = pv.evaluation.train_under(
        program, toy.draw(100), chosen, budget=pv.evaluation.Steps(6), valid=toy.draw(10), points=2, batch_size=16
    )
    one, other = ([p.log_likelihood for p in c.points] for c in found.curves)
    assert one == pytest.approx(other, abs=1e-9)


def test_a_training_that_breaks_says_so(toy, tmp_path):
    class Broken(ELBO):
        def bound(self, terms, beta):
            return super().bound(terms, beta)

        def evaluate(self, terms):
            loss, metrics = super().evaluate(terms)
            return loss * (float("nan") if self.step > 3 else 1.0), metrics

    found = trained(toy, pv.evaluation.Steps(8), {"broken": Broken(), "ELBO": ELBO()})
    assert "not finite" in found.curves[0].failure
    assert len(found.curves[0].points) == 3
    assert len(found.curves[1].points) == 5
    assert "not finite" in str(found)
    found.to_csv(tmp_path / "t.csv")
    found.to_json(tmp_path / "t.json")
    found.to_latex(tmp_path / "t.tex")
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 1 + 3 + 5
    left, right = found.plot().axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("steps", "seconds in steps")


def test_budgets_are_refused(toy):
    with pytest.raises(ValueError, match="Steps expects a number above 0"):
        pv.evaluation.Steps(0)
    with pytest.raises(TypeError, match="budget: expected Steps"):
        trained(toy, 100)


SMALL = ["--estimators=ELBO, Renyi(alpha=0.3), pyro.Trace_ELBO", "--draws=8", "--particles=2", "--epochs=1", "--quiet"]
NET = ["--posterior.net.hidden=[8]", "--likelihood.net.hidden=[8]", "--latent=2"]


def test_command_leaves_tables_and_figures(tmp_path, capsys):
    folder = tmp_path / "run"
    assert cli.main(["compare", *SMALL, *NET, "--batch-size=8", "--total_particles=200", f"--run-dir={folder}"]) == 0
    out = capsys.readouterr().out
    assert "gradient, guide" in out
    assert "after 200 particles from the same weights" in out
    names = {p.name for p in folder.iterdir()} | {p.name for p in (folder / "figures").iterdir()}
    suffixes = ("csv", "json", "tex", "png")
    assert {f"{name}.{suffix}" for name in ("comparison", "training") for suffix in suffixes} <= names
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["ELBO", "Renyi(alpha=0.3)", "pyro.Trace_ELBO"]
    assert [row["particles"] for row in rows] == [2, 2, 2]


def test_command_help(capsys):
    assert cli.main(["compare", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"--{name}" in out for name in ("estimators", "particles", "draws", "steps", "seconds"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--estimators=IWEA", "did you mean IWAE?"),
        ("--estimators=IWAE(8)", "expected names or NAME(option=value)"),
        ("--estimators=os.system(command='ls')", "estimators: expected one of"),
        ("--estimators=IWAE(num_particles=print(1))", "expected names or NAME(option=value)"),
        ("--estimators=Renyi(alhpa=1)", "cannot build Renyi(alhpa=1)"),
        ("--steps=3 --seconds=2", "expected one budget, got 2"),
    ],
)
def test_command_tells_mistakes_in_one_line(line, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", *line.split(" ")]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert (out, len(err.splitlines())) == ("", 1)
    assert not list(tmp_path.iterdir())


def test_estimators_of_the_command_take_options():
    found = estimators_of("MIWAE(M=2, K=3), IWAE, IWAE(num_particles=5), pyro.RenyiELBO(alpha=0)", 7)
    assert [e.num_particles for e in found.values()] == [6, 7, 5, 7]
    assert found["pyro.RenyiELBO(alpha=0)"].vectorize_particles


def test_the_evidence_of_the_program_or_of_annealing_is_the_reference():
    """Without a reference a program's own `log_evidence` is taken; bounds by annealing are told as what they are."""
    toy = LinearGaussian(off=0.1)
    x = toy.draw(6)
    bounds = pv.evaluation.marginal_bounds(toy.program, x, chains=4, steps=40, simulated=0)
    found = pv.evaluation.compare_estimators(toy.program, x, [ELBO()], reference=bounds, draws=8)
    assert found.reference == "annealing, 4 chains, 40 temperatures"
    assert found.evidence == bounds.mean
    toy.program.log_evidence = toy.log_evidence
    found = pv.evaluation.compare_estimators(toy.program, x, [ELBO()], draws=8)
    assert found.reference == "exact evidence"
    assert found.evidence == pytest.approx(float(toy.log_evidence(x).mean().detach()))
