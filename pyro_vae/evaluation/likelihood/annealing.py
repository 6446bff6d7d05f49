"""Annealed importance sampling with Hamiltonian moves, from the prior to the posterior and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae.evaluation.likelihood.annealing_path import AnnealingPath

__all__ = ["PILOT", "anneal", "temperatures"]

#: The acceptance rate to which step sizes are tuned, and the rate of the tuning.
TARGET, RATE = 0.65, 0.1

#: The pilot run, in which step sizes are tuned, has one temperature for this many of the run itself.
PILOT = 4

#: Moves at the first temperature before the pilot run, and the initial step size.
WARM_UP, INITIAL = 30, 0.2


def anneal(
    path: AnnealingPath, num_steps: int, num_leapfrog_steps: int, exact: Tensor | None = None, *, progress: bool
) -> tuple[Tensor, ...]:
    """Anneal from the prior to the posterior, and back from exact samples ``(chains, batch, size)`` if there are some.

    Returns:
        Log-weights with mean p(x), of shape ``(chains, batch)``; the mean acceptance rate of each example; and, given
        exact samples, log-weights of the way back with mean 1 / p(x).
    """
    total = num_steps + -(-num_steps // PILOT) + (0 if exact is None else num_steps)
    with progress_bar(total=total, desc="annealing", unit="step", leave=False, progress=progress) as bar:
        sizes = tune(path, num_steps, num_leapfrog_steps, bar.update)

        def step(u: Tensor, k: int) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
            return move(path, u, ladder[k], sizes[min(k // PILOT, len(sizes) - 1)], num_leapfrog_steps)

        u = path.sample_prior()
        ladder = temperatures(num_steps, u)
        log_w = torch.zeros(u.shape[:2], dtype=torch.float64, device=u.device)
        acceptance = torch.zeros_like(log_w)
        for k in range(1, num_steps + 1):
            if k < num_steps:
                u, accepted, terms = step(u, k)
                acceptance += accepted / (num_steps - 1)
            else:
                terms = path.terms(u)
            log_w += (path.density(terms, ladder[k]) - path.density(terms, ladder[k - 1])).double()
            bar.update()
        if exact is None:
            return log_w, acceptance.mean(0)
        u, back = exact, torch.zeros_like(log_w)
        for k in range(num_steps, 0, -1):
            terms = path.terms(u)
            back += (path.density(terms, ladder[k - 1]) - path.density(terms, ladder[k])).double()
            if k > 1:
                u, _, _ = step(u, k - 1)
            bar.update()
    return log_w, acceptance.mean(0), back


def temperatures(num_steps: int, like: Tensor) -> Tensor:
    """Return ``num_steps + 1`` numbers from 0 to 1, dense at both ends."""
    t = torch.sigmoid(torch.linspace(-4.0, 4.0, num_steps + 1, dtype=torch.float64))
    return ((t - t[0]) / (t[-1] - t[0])).to(like)


def tune(path: AnnealingPath, num_steps: int, num_leapfrog_steps: int, tick: Callable[[], Any]) -> list[Tensor]:
    """Return step sizes for each temperature of a pilot run, of shape ``(chains, batch)``.

    They need a run of their own: step sizes that depended on the run itself would bias its weights.
    """
    u = path.sample_prior()
    ladder = temperatures(num_steps, u)[1::PILOT]
    size = torch.full(u.shape[:2], INITIAL, dtype=u.dtype, device=u.device)
    found = []
    for i in range(-WARM_UP, len(ladder)):
        u, accepted, _ = move(path, u, ladder[max(i, 0)], size, num_leapfrog_steps)
        size = size * (RATE * (accepted - TARGET)).exp()
        if i >= 0:
            found.append(size)
            tick()
    return found


def move(
    path: AnnealingPath, u: Tensor, t: Tensor, size: Tensor, num_leapfrog_steps: int
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Make one Hamiltonian move per chain; return the new points, acceptance rates and the terms at the start."""
    p = torch.randn_like(u)
    size = size.unsqueeze(-1)
    start, slope, terms = value_and_slope(path, u, t)
    position, momentum = u, p + 0.5 * size * slope
    for i in range(num_leapfrog_steps):
        position = position + size * momentum
        end, slope, _ = value_and_slope(path, position, t)
        momentum = momentum + (size if i < num_leapfrog_steps - 1 else 0.5 * size) * slope
    gain = end - start + 0.5 * (p.square().sum(-1) - momentum.square().sum(-1))
    # a trajectory that diverged to NaN is rejected
    chance = gain.clamp(max=0.0).exp().nan_to_num(nan=0.0)
    taken = torch.rand_like(chance) < chance
    return torch.where(taken.unsqueeze(-1), position, u), chance, terms


def value_and_slope(path: AnnealingPath, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Return log f, its gradient with respect to u, and its terms."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        terms = path.terms(u)
        value = path.density(terms, t)
        (slope,) = torch.autograd.grad(value.sum(), u)
    return value.detach(), slope, (terms[0].detach(), terms[1].detach())
