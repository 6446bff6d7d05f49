"""Every estimator on every small program: value and gradient are exact, or the program is refused by name."""

from types import SimpleNamespace

import pyro
import pytest
import torch
from helpers import shelf
from helpers.small_programs import SmallProgram, programs
from helpers.small_programs_answers import elbo
from helpers.small_programs_draws import START, TABLE, Script, X, normal, observe, scripted
from helpers.small_programs_estimators import FORMULAS, Constant, build, formula_of
from helpers.small_programs_runs import structure
from helpers.small_programs_table import MARKS, committed
from helpers.small_programs_trials import Setting, Wrong, check, paired_distance, refusal, run, trial
from pyro.infer import TraceEnum_ELBO

import pyro_vae as pv

E = pv.estimators
PROGRAMS = programs()
CLASSES = shelf.classes()
#: Unbiased for the ELBO, value and gradient.
UNBIASED = ("ELBO", "Enumeration", "ReinforceLOO", "DisARM")
#: Valid programs that all of these refuse, and why.
REFUSED_BY_ALL = {
    "a normal site marked for enumeration": "the estimators of this library enumerate discrete sites alone",
    "scales that differ between model and guide": "such a program has no bound",
    "scale tensors that differ between model and guide": "such a program has no bound",
    "six nested plates": "at most four are supported",
    "an empty model": "there is nothing to estimate",
}
#: Programs on which beta and passes are tried as well.
OPTIONS = {"beta": {"beta": 0.4}, "passes": {"particles_per_pass": 2}}
WITH_OPTIONS = (
    "one plate of data",
    "two linear layers, guide from the top",
    "two linear layers, guide from the bottom",
    "a mask on latent and observation",
    "a weight per example around everything",
    "a shared latent and one per example",
    "a binary latent, enumerated",
    "a binary latent, drawn",
    "a latent per example and one per entry of a plate inside",
)


def wrong(name, check):
    """Return a line for each estimator that fails a check on a program."""
    found = []
    for cls in CLASSES:
        try:
            check(cls, PROGRAMS[name])
        except AssertionError as error:
            found.append(f"{cls.__name__}: {error}")
    return "\n".join(found)


@pytest.mark.parametrize("name", PROGRAMS)
def test_exact_or_refused_by_name(name):
    def as_on_the_page(cls, program):
        found = trial(cls, program)
        page = committed().get((name, cls.__name__))
        assert page == MARKS[found], f"found {found}: run `python tests/test_estimators_page.py`"

    assert not (lines := wrong(name, as_on_the_page)), lines


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_exact_or_refused_by_name_with_options(name, options):
    """With beta and passes; BetaTC is left out here, because its beta weights one of three parts."""

    def as_without(cls, program):
        if cls is not E.BetaTC:
            exact = trial(cls, program, **options) == "exact"
            assert exact or "particles_per_pass" in options or committed()[name, cls.__name__] != MARKS["exact"]

    assert not (lines := wrong(name, as_without)), lines


@pytest.mark.parametrize("name", [name for name, program in PROGRAMS.items() if program.valid])
def test_some_estimator_is_unbiased_for_the_elbo(name):
    """For every program that Pyro accepts there is an estimator with an unbiased gradient, but for listed ones."""
    marks = committed()
    exact = [cls for cls in UNBIASED if marks[name, cls] == MARKS["exact"]]
    assert bool(exact) != (name in REFUSED_BY_ALL), REFUSED_BY_ALL.get(name)


@pytest.mark.parametrize("name", [name for name, program in PROGRAMS.items() if program.entangled])
@pytest.mark.parametrize("cls", [cls for cls in CLASSES if formula_of(cls).twin], ids=lambda cls: cls.__name__)
def test_gradients_through_shared_draws_have_the_right_mean(cls, name):
    """Within five standard errors of the plain gradient at the same draws, for parameters of the guide at least."""
    twin, program = getattr(E, formula_of(cls).twin), PROGRAMS[name]
    module = program.build()
    found = paired_distance(cls, twin, program)
    used = set("agdhtv") if twin is E.MIWAE else {name for name, _ in module.named_parameters()}
    wrong = {name: round(score, 1) for name, score in found.items() if name in used and score > 5}
    assert not wrong


@pytest.mark.parametrize("cls", [E.ELBO, E.Enumeration])
def test_shared_latents_are_drawn_for_each_particle(cls):
    """One run with draws of the right moments is exact, so that the particles differ in the shared latent."""
    name = "a shared latent alone"
    rows = list(range(4))
    found, _ = run(cls, PROGRAMS[name], 4, structure(name).moments(), [Setting(1.0, rows)], analytic_kl=False)
    check(found, elbo(name))


@pytest.mark.parametrize("cls", CLASSES)
def test_every_estimator_has_a_formula(cls):
    assert formula_of(cls) in FORMULAS.values()


def test_answers_agree_with_closed_forms_and_exact_sums():
    """The general answer equals those of closed forms and exact sums, and is below the evidence."""
    for name, program in PROGRAMS.items():
        p = SimpleNamespace(**{n: torch.as_tensor(v).double().requires_grad_() for n, v in program.parameters.items()})
        if program.exact is not None:
            exact, answer = program.exact(p, *program.args), elbo(name)
            assert answer.value == pytest.approx(float(exact.detach()), abs=1e-9)
            used = [n for n, g in answer.gradient.items() if g.abs().sum() > 0]
            grads = torch.autograd.grad(exact, [getattr(p, n) for n in used])
            torch.testing.assert_close([answer.gradient[n] for n in used], list(grads))
        if program.evidence is not None:
            assert elbo(name).value < float(program.evidence(p, *program.args).detach())


#: Programs that TraceEnum_ELBO does not take, or draws for.
NOT_COMPARED = (
    "an enumerated site with infer num_samples",
    "a normal site marked for enumeration",
    "a deterministic site",
    "data with an obs_mask",
    "an empty model",
)


def drawn(found):
    """Whether a program has discrete sites that are not marked for enumeration."""
    sites = {**found.model, **found.guide}.values()
    return any(s["fn"].has_enumerate_support and s["infer"].get("enumerate") != "parallel" for s in sites)


def test_answers_are_those_of_pyro():
    """TraceEnum_ELBO, averaged over draws of the right moments, has the value and the gradient of the answers."""
    compared = 0
    for name, program in PROGRAMS.items():
        if not program.valid or program.random or name in NOT_COMPARED or drawn(structure(name)):
            continue
        found, module, total = structure(name), program.build(), 0.0
        noise = found.moments()
        rows = max((len(table) for table in noise.values()), default=1)
        # one dimension between plates and values, where a test puts particles
        exact = TraceEnum_ELBO(max_plate_nesting=program.nesting + 1, strict_enumeration_warning=False)
        for row in range(rows):
            with scripted(Script(program.nesting, noise, row=row, shared_row=row, shared=found.shared)):
                loss = exact.differentiable_loss(module.model, module.guide, *program.args, **program.kwargs)
            total = total - loss / rows
        answer = elbo(name)
        assert total.item() == pytest.approx(answer.value, abs=1e-7), name
        for parameter, gradient in zip(
            answer.gradient, torch.autograd.grad(total, list(module.parameters()), allow_unused=True), strict=True
        ):
            gradient = torch.zeros_like(answer.gradient[parameter]) if gradient is None else gradient
            torch.testing.assert_close(gradient, answer.gradient[parameter], rtol=1e-6, atol=1e-7, msg=name)
        compared += 1
    assert compared > 40


SAME = {
    "one plate of data": (
        "plate of data at dim -3 and nothing in between",
        "no plate",
        "a sequential plate",
        "one plate entered several times",
        "data as keyword argument x",
        "a deterministic site",
    ),
    "a binary latent, enumerated": ("a binary latent, drawn", "a site marked for sequential enumeration"),
    "a number as scale around everything": ("a tensor as scale around everything",),
}


@pytest.mark.parametrize(("name", "other"), [(name, other) for name, others in SAME.items() for other in others])
def test_answers_of_one_model_written_in_two_ways_agree(name, other):
    a, b = elbo(name), elbo(other)
    assert a.value == pytest.approx(b.value, abs=1e-9)
    assert set(a.gradient) <= set(b.gradient)
    torch.testing.assert_close(a.gradient, {name: b.gradient[name] for name in a.gradient})


#: Estimators over a batch, with penalties of full weight.
PENALIZED = {
    "BetaTC": lambda: E.BetaTC(data_size=100, alpha=2.0, beta=6.0, num_particles=4),
    "DIP": lambda: E.DIP(of_means=False, num_particles=4),
    "FactorVAE": lambda: E.FactorVAE(discriminator=Constant(), num_particles=4),
    "InfoVAE": lambda: E.InfoVAE(alpha=0.5, num_particles=4),
    "MMD": lambda: E.MMD(num_particles=4),
    "TrimmedELBO": lambda: E.TrimmedELBO(trim=0.5, num_particles=4),
    "WAE": lambda: E.WAE(num_particles=4),
}


@pytest.mark.parametrize("cls", shelf.over_batch(), ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("name", ["plate of data at dim -3 and nothing in between", "data as keyword argument x"])
def test_penalties_of_one_model_written_in_two_ways_agree(cls, name):
    found = []
    for each in ("one plate of data", name):
        program = PROGRAMS[each]
        module, script = program.build(), Script(program.nesting, structure(each).arbitrary(4), rows=[0, 1, 2, 3])
        torch.manual_seed(0)
        with scripted(script):
            loss = PENALIZED[cls.__name__]().differentiable_loss(
                module.model, module.guide, *program.args, **program.kwargs
            )
        found.append([loss, *torch.autograd.grad(loss, list(module.parameters()))])
    torch.testing.assert_close(*found)


def changing():
    """A program whose plates depend on its data."""

    def model(p, x):
        with pyro.plate("data", x.shape[-1]):
            with pyro.plate("inner", len(x), dim=-2) if x.dim() > 1 else pyro.poutine.block(hide=[]):
                observe("x", p.w * normal("z", p.b, p.s) + p.c, x)

    def guide(p, x):
        with pyro.plate("data", x.shape[-1]):
            with pyro.plate("inner", len(x), dim=-2) if x.dim() > 1 else pyro.poutine.block(hide=[]):
                normal("z", p.a * x + p.d, p.t)

    return SmallProgram("changing", model, guide, START, nesting=2)


@pytest.mark.parametrize("order", [(X, TABLE), (TABLE, X)], ids=["more", "fewer"])
@pytest.mark.parametrize("cls", CLASSES)
def test_plates_may_change_between_calls(cls, order):
    """A later call gives what the first call of another copy gives."""
    found = []
    for calls in (order, order[1:]):
        module = changing().build()
        for x in calls:
            torch.manual_seed(1)
            try:
                loss = build(cls, 4).differentiable_loss(module.model, module.guide, x)
                gradient = torch.autograd.grad(loss, list(module.parameters()))
            except ValueError as error:
                refusal(error, cls)
                loss, gradient = torch.tensor(torch.nan), []
        found.append([loss, *gradient])
    torch.testing.assert_close(*found, equal_nan=True)


class NotAMean(E.IWAE):
    def bound(self, terms, beta):
        return terms.log_w(beta).logsumexp(0)


class WithoutScore(E.IWAE):
    def bound(self, terms, beta):
        return (
            terms.log_w(beta, detached_params=True).logsumexp(0) - terms.log_w(beta).detach().exp().mean(0).log() * 0
        )


class OneWeight(E.IWAE):
    def bound(self, terms, beta):
        log_w = terms.log_w(beta)
        return super().bound(terms, beta) * 0 + log_w.sum(1).logsumexp(0) / log_w.shape[1]


class ScaleInside(E.ELBO):
    def local_loss(self, terms, beta):
        loss, metrics = super().local_loss(terms, beta)
        return loss / torch.as_tensor(terms.sites[0].scale).mean(), metrics


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (NotAMean, "one plate of data"),
        (WithoutScore, "two linear layers, guide from the top"),
        (OneWeight, "latents in a plate inside of the data"),
        (ScaleInside, "a subsampled plate"),
        (ScaleInside, "a number as scale around everything"),
    ],
)
def test_a_wrong_estimator_is_seen(cls, name):
    with pytest.raises(Wrong, match="wrong"):
        trial(cls, PROGRAMS[name])
