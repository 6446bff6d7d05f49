"""Run an estimator on a small program at chosen draws, and compare it with the exact answer."""

import itertools
import math
import re
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import pyro_vae as pv
from helpers.small_programs_answers import bound, elbo
from helpers.small_programs_draws import Script, scripted
from helpers.small_programs_estimators import average, build, formula_of
from helpers.small_programs_random import distance, means, standard_errors
from helpers.small_programs_runs import PAIR, PARTICLES, Copies, run_at, structure

#: Verbs, one of which a refusal contains.
WAYS_OUT = "use|give|declare|leave|scale|wrap|draw|mark|move|pass|put|write|sum|observe|needs"
PACKAGE = str(Path(pv.__file__).parent)


class Wrong(AssertionError):
    """A value or a gradient differs from the exact one, or an error is not the library's own."""


@dataclass
class Result:
    """Mean value and gradient of runs of an estimator."""

    value: float
    gradient: dict


@dataclass
class Setting:
    """One run: its probability and the draws."""

    chance: float
    rows: list
    row: int = 0
    shared_row: int = 0
    values: dict | None = None


def trial(cls, program, **options):
    """Return "exact" or "refused" for an estimator on a program; raise Wrong otherwise."""
    try:
        if not program.valid:
            run(cls, program, PARTICLES, {}, [Setting(1.0, [])], **options)
            raise Wrong("accepted, although model and guide do not fit each other")
        compare(cls, program, **options)
    except Wrong:
        raise
    except Exception as error:
        refusal(error, cls)
        return "refused"
    return "exact"


def refusal(error, cls):
    """Raise unless an error is a plain sentence of the library that names a site and the way out."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    text = f"{type(error).__name__}: {error} ({where})"
    if not isinstance(error, (ValueError, TypeError)) or not last.filename.startswith(PACKAGE):
        raise Wrong(f"crashed by {text}") from error
    if not re.match(r"[a-z_]+( and [a-z_]+)?: ", str(error)):
        raise Wrong(f"refused, but does not start with an argument: {text}") from error
    if cls.__name__ not in str(error) and not re.search(r"'\w+'", str(error)):
        raise Wrong(f"refused, but names neither a site nor the estimator: {text}") from error
    if not re.search(rf"\b({WAYS_OUT})\b", str(error)):
        raise Wrong(f"refused without a way out: {text}") from error


def compare(cls, program, **options):
    """Compare value and gradient with the exact ones."""
    formula, beta = formula_of(cls), options.get("beta", 1.0)
    if program.random:
        return near(distance(cls, program, **options))
    if formula.statistical:
        exact = elbo(program.name, beta)
        exact = torch.cat(
            [torch.tensor([exact.value], dtype=torch.float64), *(g.flatten() for g in exact.gradient.values())]
        )
        if options.get("particles_per_pass"):
            options["particles_per_pass"] = 500
        return near(standard_errors(means(cls, program, 1000, 15, **options), exact))
    found = structure(program.name)
    if formula.value is None:
        noise = found.moments()
        rows = max((len(table) for table in noise.values()), default=2)
        shared = range(rows if any(name in found.shared for name in noise) else 1)
        settings = [Setting(1 / len(shared), list(range(rows)), shared_row=r) for r in shared]
        result, drawn = run(cls, program, rows, noise, settings[:1], **options)
        if not drawn:
            if len(settings) > 1:
                result, _ = run(cls, program, rows, noise, settings, **options)
            local = None if formula.local is None else formula.local * beta
            return check(result, elbo(program.name, beta, local, beta))
        noise, settings = all_values(program)
        # a closed form does not know the draws
        sampled = {"analytic_kl": False} if issubclass(cls, pv.estimators.ELBO) else {}
        result, _ = run(cls, program, PAIR, noise, settings, **sampled, **options)
        return check(result, bound(program.name, average, drawn=True, beta=beta, particles=PAIR))
    noise = found.arbitrary(PARTICLES)
    shared = range(max((len(noise[name]) for name in noise if name in found.shared), default=1))
    settings = [Setting(1 / len(shared), list(range(PARTICLES)), shared_row=r) for r in shared]
    result, drawn = run(cls, program, PARTICLES, noise, settings[:1], **options)
    if drawn:
        noise, settings = all_values(program)
        result, _ = run(cls, program, PAIR, noise, settings, **options)
        drawn = {"drawn": True, "beta": beta, "particles": PAIR}
        return check(result, bound(program.name, formula.value, formula.weights, **drawn))
    if len(settings) > 1:
        result, _ = run(cls, program, PARTICLES, noise, settings, **options)
    if found.shared and not formula.shared:
        raise Wrong("accepted, although the bounds of shared latents and of examples are of different directions")
    answer = bound(program.name, formula.value, formula.weights, guide=formula.guide, beta=beta)
    partial = formula.value_only or (program.entangled and formula.weights is not None)
    check(result, answer, gradient=not partial)
    if formula.single:
        noise = found.moments()
        rows = max((len(table) for table in noise.values()), default=1)
        settings = [Setting(1 / rows, [r], r, r) for r in range(rows)]
        result, _ = run(cls, program, 1, noise, settings, **options)
        check(result, elbo(program.name, beta))
    return None


def all_values(program):
    """Return noise for a pair of particles, and a run for each pair of values of the discrete sites."""
    found = structure(program.name)
    noise = found.arbitrary(PAIR)
    shapes = {name: found.guide[name]["value"].shape for name in found.discrete}
    supports = {name: found.guide[name]["fn"].enumerate_support(expand=False).flatten() for name in found.discrete}
    per_site = []
    for name, shape in shapes.items():
        tables = itertools.product(supports[name].tolist(), repeat=shape.numel())
        per_site.append([(name, torch.tensor(t, dtype=torch.float64).reshape(shape)) for t in tables])
    whole = [dict(pairs) for pairs in itertools.product(*per_site)]
    copies, settings = Copies(program), []
    rows = range(max((len(noise[name]) for name in noise if name in found.shared), default=1))
    # without noise and shared sites, the particles of a pair can be swapped
    swaps = not found.normals and not any(name in found.shared for name in found.discrete)
    for row in rows:
        with torch.no_grad():
            grid = [[run_at(found, copies, noise, k, row, state)[0] for state in whole] for k in range(PAIR)]
        chances = [[math.exp(float(r.chance.sum() + r.shared_chance.sum())) for r in runs] for runs in grid]
        for (i, first), (j, second) in itertools.product(enumerate(whole), repeat=2):
            if swaps and j < i:
                continue
            values = {name: torch.stack([first[name], second[name]]) for name in first}
            chance = chances[0][i] * chances[1][j] * (2 if swaps and i < j else 1) / len(rows)
            settings.append(Setting(chance, [0, 1], shared_row=row, values=values))
    return noise, settings


def run(cls, program, num_particles, noise, settings, **options):
    """Return mean value and gradient over settings, and whether discrete sites were drawn."""
    module, value, drawn = program.build(), 0.0, set()
    gradient = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    shared = structure(program.name).shared if program.valid else frozenset()
    for setting in settings:
        values = setting.values
        if values is None and program.valid:
            known = structure(program.name)
            sites = {name: known.guide[name]["value"].double() for name in known.discrete}
            values = {name: value.expand(num_particles, *value.shape) for name, value in sites.items()}
        script = Script(program.nesting, noise, values or {}, setting.rows, setting.row, setting.shared_row, shared)
        estimator = build(cls, num_particles, **options)
        parameters = dict(module.named_parameters())
        with scripted(script):
            loss = estimator.differentiable_loss(module.model, module.guide, *program.args, **program.kwargs)
            # passes are computed again for the gradient
            tensors = list(parameters.values()) if loss.requires_grad else []
            found = torch.autograd.grad(loss, tensors, allow_unused=True) if tensors else ()
        value -= setting.chance * float(loss.detach())
        for name, each in zip(parameters, found, strict=False):
            if each is not None:
                gradient[name] = gradient[name] - setting.chance * each
        drawn |= script.drawn
    return Result(value, gradient), drawn


def near(standard_errors):
    """Raise unless a mean is within five standard errors of the exact one."""
    if not standard_errors < 5:
        raise Wrong(f"wrong by {standard_errors:.1f} standard errors")


def check(result, answer, gradient=True):
    """Raise unless value and gradient are the exact ones."""
    if answer is None:
        raise Wrong("accepted, although the program has no bound per example")
    faults = []
    if not math.isclose(result.value, answer.value, rel_tol=1e-7, abs_tol=1e-7):
        faults.append(f"value {result.value:.6f}, exact {answer.value:.6f}")
    for name, exact in answer.gradient.items() if gradient else ():
        if not torch.allclose(result.gradient[name], exact, rtol=1e-6, atol=1e-7):
            faults.append(f"gradient of {name} {result.gradient[name].tolist()}, exact {exact.tolist()}")
    if faults:
        raise Wrong("wrong " + "; ".join(faults))


def paired_distance(cls, twin, program, copies=300, repeats=10):
    """Return by how many standard errors the gradients of two estimators differ at the same draws, by name."""
    found, differences = structure(program.name), []
    many = replace(program, args=tuple(arg.repeat(copies) for arg in program.args))
    shared = {name: table for name, table in found.moments().items() if name in found.shared}
    rows = range(max(len(table) for table in shared.values()))
    settings = [Setting(1 / len(rows), list(range(PARTICLES)), shared_row=row) for row in rows]
    generator = torch.Generator().manual_seed(0)
    for _ in range(repeats):
        sizes = {n: (shape[0] * copies, *shape[1:]) for n, shape in found.normals.items() if n not in shared}
        draws = {n: torch.randn(PARTICLES, *s, generator=generator).double() for n, s in sizes.items()}
        first, second = (run(c, many, PARTICLES, {**shared, **draws}, settings)[0].gradient for c in (cls, twin))
        differences.append({name: first[name] - second[name] for name in first})
    result = {}
    for name in differences[0]:
        values = torch.stack([each[name] for each in differences]) / copies
        result[name] = float(values.mean().abs() / (values.std() / math.sqrt(repeats) + 1e-9))
    return result
