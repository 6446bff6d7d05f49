"""Annealed importance sampling with Hamiltonian moves, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_vae.evaluation.likelihood.target import Target

__all__ = ["Pace", "backwards", "forwards", "temperatures", "tune"]

#: The acceptance rate that step sizes are tuned to, and how fast.
GOAL, RATE = 0.65, 0.1

#: The pilot run, in which step sizes are tuned, has one temperature for so many of the run itself.
SKIP = 4

#: Moves at the first temperature before the pilot run, and the step size where they begin.
WARM_UP, FIRST = 30, 0.2


class Pace:
    """Leapfrog steps of each move: how many, and of what size at each temperature, chain and datum.

    Args:
        sizes: of shape (temperatures of the pilot run, chains, batch)
        leapfrogs: steps a move
    """

    def __init__(self, sizes: Tensor, leapfrogs: int) -> None:
        self.sizes, self.leapfrogs = sizes, leapfrogs

    def at(self, k: int) -> Tensor:
        """Return the step sizes at a temperature of the whole run."""
        return self.sizes[min(k // SKIP, len(self.sizes) - 1)]


def temperatures(steps: int, like: Tensor) -> Tensor:
    """Return ``steps + 1`` numbers from 0 to 1, dense at both ends."""
    t = torch.sigmoid(torch.linspace(-4.0, 4.0, steps + 1, dtype=torch.float64))
    return ((t - t[0]) / (t[-1] - t[0])).to(like)


def tune(target: Target, steps: int, leapfrogs: int, tick: Callable[[], Any]) -> Pace:
    """Find step sizes in a run of their own: sizes that followed the run itself would bias its weights."""
    u = target.start()
    ladder = temperatures(steps, u)[1::SKIP]
    size = torch.full(u.shape[:2], FIRST, dtype=u.dtype, device=u.device)
    found = []
    for i in range(-WARM_UP, len(ladder)):
        u, accepted, _ = move(target, u, ladder[max(i, 0)], size, leapfrogs)
        size = size * (RATE * (accepted - GOAL)).exp()
        if i >= 0:
            found.append(size)
            tick()
    return Pace(torch.stack(found), leapfrogs)


def forwards(target: Target, steps: int, pace: Pace, tick: Callable[[], Any]) -> tuple[Tensor, Tensor]:
    """Anneal from the prior to the posterior; return log-weights (chains, batch) and the mean acceptance."""
    u = target.start()
    ladder = temperatures(steps, u)
    log_w = torch.zeros(u.shape[:2], dtype=torch.float64, device=u.device)
    rates = []
    for k in range(1, steps + 1):
        if k < steps:
            u, accepted, terms = move(target, u, ladder[k], pace.at(k), pace.leapfrogs)
            rates.append(accepted.mean())
        else:
            with torch.no_grad():
                terms = target.terms(u)
        log_w += (target.density(terms, ladder[k]) - target.density(terms, ladder[k - 1])).double()
        tick()
    return log_w, torch.stack(rates).mean()


def backwards(target: Target, u: Tensor, steps: int, pace: Pace, tick: Callable[[], Any]) -> Tensor:
    """Anneal from draws of the posterior to the prior; return log-weights (chains, batch), whose mean is 1 / p(x)."""
    ladder = temperatures(steps, u)
    log_w = torch.zeros(u.shape[:2], dtype=torch.float64, device=u.device)
    for k in range(steps, 0, -1):
        with torch.no_grad():
            terms = target.terms(u)
        log_w += (target.density(terms, ladder[k - 1]) - target.density(terms, ladder[k])).double()
        if k > 1:
            u, _, _ = move(target, u, ladder[k - 1], pace.at(k - 1), pace.leapfrogs)
        tick()
    return log_w


def move(
    target: Target, u: Tensor, t: Tensor, size: Tensor, leapfrogs: int
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Make one Hamiltonian move of each chain; return where it stands, its acceptance and the terms at the start."""
    p = torch.randn_like(u)
    size = size.unsqueeze(-1)
    start, slope, terms = ascend(target, u, t)
    position, momentum = u, p + 0.5 * size * slope
    for i in range(leapfrogs):
        position = position + size * momentum
        end, slope, _ = ascend(target, position, t)
        momentum = momentum + (size if i < leapfrogs - 1 else 0.5 * size) * slope
    gain = end - start + 0.5 * (p.square().sum(-1) - momentum.square().sum(-1))
    # a trajectory that left all numbers is one that is not accepted
    chance = gain.clamp(max=0.0).exp().nan_to_num(nan=0.0)
    taken = torch.rand_like(chance) < chance
    return torch.where(taken.unsqueeze(-1), position, u), chance, terms


def ascend(target: Target, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Return log f, its gradient by u, and the terms it is made of."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        terms = target.terms(u)
        value = target.density(terms, t)
        (slope,) = torch.autograd.grad(value.sum(), u)
    return value.detach(), slope, (terms[0].detach(), terms[1].detach())
