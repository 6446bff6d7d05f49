"""The exact value and gradient of the ELBO and of other bounds on a small program."""

import functools
import itertools
from dataclasses import dataclass

import torch

from helpers.small_programs_runs import PAIR, Copies, run_at, structure

ZERO = torch.zeros((), dtype=torch.float64)


@dataclass
class Answer:
    """The exact value of a bound and its gradient by name of the parameter."""

    value: float
    gradient: dict


def log_p(runs, beta):
    """Return the log-density of the model per example, with the sites of the model alone summed out."""
    each = [r.observed + beta * r.prior for r in runs]
    return each[0] if len(each) == 1 else torch.stack(each).logsumexp(0)


@functools.cache
def elbo(name, beta=1.0, local=None, shared=None):
    """Return the exact ELBO; divergences are weighted by ``beta``, or by weights for local and shared latents."""
    found = structure(name)
    copies, noise = Copies(found.program), found.moments()
    local, shared = beta if local is None else local, beta if shared is None else shared
    rows = 1 if not found.normals else len(next(iter(noise.values())))
    total = ZERO
    for row in range(rows):
        for switch in found.shared_states:
            inner, chance, outer = ZERO, ZERO, ZERO
            for state in found.local_states:
                runs = run_at(found, copies, noise, row, row, {**switch, **state})
                r, weight = runs[0], runs[0].chance.exp()
                if len(runs) > 1:
                    here = log_p(runs, local) - local * r.posterior
                else:
                    here = r.scaled_observed + local * r.scaled_latent
                # a value that the guide never takes contributes nothing
                here = torch.where(weight > 0, weight * torch.where(weight > 0, here, ZERO), ZERO)
                inner = inner + here.sum()
                chance = r.shared_chance.sum().exp()
                outer = r.scaled_shared_observed + shared * r.scaled_shared_latent
            total = total + chance * (inner + outer.sum())
    value = total / rows
    return Answer(float(value.detach()), copies.gradient(value))


@dataclass
class Table:
    """Log weights and log-probabilities of discrete values, ``(states, particles, examples)``, for one shared draw."""

    log_w: torch.Tensor
    log_q: torch.Tensor
    scale: torch.Tensor | None
    rest: torch.Tensor
    chance: torch.Tensor


@functools.cache
def tables(name, beta, particles):
    """Return the copies of the parameters and the table of each shared draw; None without a bound per example."""
    found = structure(name)
    copies, noise = Copies(found.program), found.arbitrary(particles)
    shared_rows = max((len(noise[n]) for n in noise if n in found.shared), default=1)
    result = []
    for row, switch in itertools.product(range(shared_rows), found.shared_states):
        log_w, log_q = [], []
        for state in found.local_states:
            grid = [run_at(found, copies, noise, k, row, {**switch, **state}) for k in range(particles)]
            log_w.append(torch.stack([(log_p(runs, beta) - beta * runs[0].posterior).reshape(-1) for runs in grid]))
            log_q.append(torch.stack([runs[0].chance.expand_as(log_w[-1][0]) for runs in grid]))
        r = grid[0][0]
        scale = torch.ones(1, dtype=torch.float64) if r.scale is None else r.scale.reshape(-1)
        if scale.isnan().any():
            return copies, None
        rest = (r.scaled_shared_observed + beta * r.scaled_shared_latent).sum()
        chance = r.shared_chance.sum().exp() / shared_rows
        result.append(Table(torch.stack(log_w), torch.stack(log_q), scale, rest, chance))
    return copies, result


def bound(name, formula, weights=None, *, guide=False, drawn=False, beta=1.0, particles=4):
    """Return the exact value and gradient of a bound at the given noise, averaged over draws that examples share.

    Args:
        name: of the program
        formula: from log weights and log-probabilities of discrete values, ``(states, particles, examples)`` each, to
            the bound of each example
        weights: from log weights, ``(particles, examples)``, to the factors with which the gradient of each log weight
            enters that of the model, that along draws and that of the guide's densities; None if the gradient is that
            of the value
        guide: whether draws that examples share have the factor of those of an example, not that of the model
        drawn: whether discrete latents are drawn for each particle, and not summed over within the bound
        beta: weight of the divergence
        particles: number of particles

    Returns:
        The answer, or None if the program has no bound per example.
    """
    copies, found = tables(name, beta, particles)
    if found is None:
        return None
    value = by_model = by_path = by_score = rest = ZERO
    for table in found:
        log_q = table.log_q
        # values that the guide never takes
        log_w = torch.where(log_q == -torch.inf, ZERO, table.log_w)
        chance = torch.ones(1, 1, dtype=torch.float64)
        if drawn and len(log_w) > 1:
            log_w, chance = tuples(log_w, log_q)
            log_q = torch.zeros_like(log_w)
        each = formula(log_w, log_q)
        value = value + table.chance * (table.rest + (table.scale * chance * each).sum())
        if weights is not None:
            fixed = (table.scale * chance * table.chance).detach()
            rest = rest + table.chance.detach() * table.rest
            model, path, score = (fixed * w for w in weights(log_w[0].detach(), beta))
            by_model, by_path = by_model + (model * log_w[0]).sum(), by_path + (path * log_w[0]).sum()
            by_score = by_score + (score * log_w[0]).sum()
    if weights is None:
        return Answer(float(value.detach()), copies.gradient(value))
    parts = [
        copies.gradient(rest),
        copies.gradient(by_model, ("model",) if guide else ("model", "shared")),
        copies.gradient(by_path, ("path", "shared") if guide else ("path",)),
        copies.gradient(by_score, ("score",)),
    ]
    return Answer(float(value.detach()), {n: sum(part[n] for part in parts) for n in parts[0]})


def tuples(log_w, log_q):
    """Return log weights ``(1, particles, pairs * ..., examples)`` of all pairs of values, and their probabilities."""
    states, particles, examples = log_w.shape
    assert particles == PAIR
    index = torch.cartesian_prod(torch.arange(states), torch.arange(states))
    first, second = index[:, 0], index[:, 1]
    log_w = torch.stack([log_w[first, 0], log_w[second, 1]]).unsqueeze(0)
    return log_w, (log_q[first, 0] + log_q[second, 1]).exp()
