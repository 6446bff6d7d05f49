"""The estimator laboratory: bounds, gradients and costs of many estimators on one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import derive_seed, fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.inputs import BUDGET, one_batch
from pyro_vae.evaluation.laboratory.comparison import Comparison
from pyro_vae.evaluation.laboratory.cost import PeakMemory, milliseconds
from pyro_vae.evaluation.laboratory.gradients import Gradients, Resumer, collect, guide_parameters, not_smooth
from pyro_vae.evaluation.laboratory.reference import Evidence, find_reference
from pyro_vae.evaluation.likelihood.log_likelihood import LogLikelihood, log_weights, summarize
from pyro_vae.evaluation.likelihood.marginal_bounds import MarginalBounds
from pyro_vae.evaluation.likelihood.pareto import pareto_k
from pyro_vae.evaluation.rows import row_of
from pyro_vae.programs.program import Program, buffers_kept, evaluating

__all__ = ["compare_estimators", "named"]

#: Rounds of the clock, and draws for the tail of the importance weights.
ROUNDS, WEIGHTS = 5, 1000


def compare_estimators(
    program: Program,
    x: Any,
    estimators: Mapping[str, PyroELBO] | Iterable[PyroELBO],
    *,
    reference: Evidence | LogLikelihood | MarginalBounds | None = None,
    reference_particles: int = 5000,
    draws: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> Comparison:
    r"""Measure bounds, gradients and costs of several estimators on the same data with the same noise.

    With g one draw of the gradient of the objective (minus the loss in mean nats per datum), taken by the parameters
    of the guide and by those of the model apart, the columns are

    .. math::
        \mathrm{SNR} = \frac1P \sum_{i=1}^{P} \frac{|\mathbb E[g_i]|}{\sqrt{\operatorname{Var}[g_i]}}, \quad
        \mathrm{variance} = \sum_i \operatorname{Var}[g_i], \quad
        \mathrm{bias} = \frac{\lVert \mathbb E[g] - r \rVert}{\lVert r \rVert}, \quad
        \mathrm{cosine} = \frac{\mathbb E[g] \cdot r}{\lVert \mathbb E[g] \rVert \, \lVert r \rVert}

    * The **reference gradient** r is that of the evidence for the model. For the guide, on which the evidence does not
      depend, it is that of the ELBO, the way down the divergence of the guide from the posterior. An estimator of
      another bound is not meant to follow it: its bias says how far the two objectives pull apart.
    * The **own bias** is the relative error of the gradient against the estimator's *own* objective L, along the
      unit vector u of its mean gradient: :math:`1 - \frac{d}{de} \mathbb E[L(\theta + e u)] / (u \cdot \mathbb E[g])`.
      Zero is right, 2 is the wrong sign; what is orthogonal to u is not seen. The derivative is a central difference
      with equal noise (good to about 1e-3 in float32): it exists only where the draws are reparameterized.
    * Cosine and own bias are NaN where the mean gradient is not told from zero: more draws, or a larger batch, help.
    * Norms are corrected for the noise of a mean of so many draws. The error beside the bias is the size of that
      noise: a bias below it is not told from zero. Of a ratio without signal, the mean is about
      :math:`0.8 / \sqrt{\text{draws}}`.
    * The **gap** is the reference less the bound at beta 1; standard errors are those of the noise, for these data.
      An estimator of Pyro tells its loss alone, which is taken for the bound.
    * The effective sample size is that of the estimator's number of particles, the mean over the data; the Pareto k
      (:func:`pareto_k`) is that of the guide, the median over the data.
    * A step is the forward and backward pass and Adam: the fastest of five rounds in turn. Its memory is the peak of
      what it allocates in tensors, beside weights and moments of Adam.

    A parameter on which the guide depends counts to the guide, also where the model shares it (a VampPrior). All
    gradients are taken in the mode (training or evaluation) in which the program is; the program, the estimators and
    the random streams are left as they were.

    References:
        Tighter variational bounds are not necessarily better (Rainforth et al., 2018),
        https://arxiv.org/abs/1802.04537

    Args:
        program: a Program
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``: one batch
        estimators: of ``pyro_vae.estimators`` or of ``pyro.infer``; a mapping gives them names
        reference: the evidence of each datum as a callable ``(x, *context) -> (n,)``, differentiable for the gradient
            of the model; or what ``log_likelihood`` or ``marginal_bounds`` found; if None, ``program.log_evidence``
            where the program has one, and importance sampling where it has not
        reference_particles: of that importance sampling
        draws: gradients drawn of each estimator
        seed: of all noise
        progress: show a progress bar

    Returns:
        The comparison: it prints as tables, exports and plots.

    Raises:
        TypeError: an estimator is none.
        ValueError: the data do not fit the program, an estimator refuses it, or two have the same name.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> both = [pv.estimators.IWAE(num_particles=16), pv.estimators.DReG(num_particles=16)]
        >>> table = compare_estimators(toy.program, toy.draw(8), both, reference=toy.log_evidence, draws=50)
        >>> table["DReG (16)"].guide.snr > table["IWAE (16)"].guide.snr
        True
    """
    check_int("draws", draws, 8)
    chosen = named(estimators)
    batch = one_batch(program, x)
    followers = {name: Resumer(program, estimator, batch) for name, estimator in chosen.items()}
    for name, follower in followers.items():
        try:
            follower.follow(seed)
        except (ValueError, NotImplementedError) as error:
            raise ValueError(f"estimators: {name} does not work with this program: {error}") from error
    with buffers_kept(program):
        inference = set(guide_parameters(program, batch))
        trained = [name for name, p in program.named_parameters() if p.requires_grad]
        groups = {
            "guide": [name for name in trained if name in inference],
            "model": [name for name in trained if name not in inference],
        }
        found = find_reference(
            program,
            batch,
            groups,
            given=reference,
            num_particles=reference_particles,
            draws=draws,
            seed=derive_seed(seed, 2**32),
        )
        rough = not_smooth(program, batch)
    most = max(estimator.num_particles for estimator in chosen.values())
    log_w = weights(program, batch, max(WEIGHTS, most), seed)
    drawn: dict[str, Gradients] = {}
    total = len(followers) * (draws + ROUNDS + 1)
    with progress_bar(total=total, unit="draw", progress=progress) as bar:
        for name, follower in followers.items():
            bar.set_description(name)
            drawn[name] = collect(follower, groups, draws=draws, seed=seed, smooth=not rough, tick=bar.update)
        bar.set_description("clock")
        with fork_rng(batch, seed):
            steps = {name: follower.step for name, follower in followers.items()}
            times = milliseconds(steps, batch[0].device, rounds=ROUNDS, tick=bar.update)
            memory = {name: peak(step) for name, step in steps.items()}
    tail = float(pareto_k(log_w).median())
    rows = [
        row_of(
            name,
            estimator,
            drawn[name],
            found,
            rough,
            ess=effective(log_w, estimator.num_particles),
            pareto_k=tail,
            milliseconds=times[name],
            megabytes=memory[name],
        )
        for name, estimator in chosen.items()
    ]
    return Comparison(rows, found.name, found.value, found.error, draws, len(batch[0]))


def named(estimators: Mapping[str, PyroELBO] | Iterable[PyroELBO]) -> dict[str, PyroELBO]:
    """Return estimators by name, those without one by class and number of particles.

    Example:
        >>> import pyro_vae as pv
        >>> list(named([pv.estimators.ELBO(), pv.estimators.IWAE(num_particles=8)]))
        ['ELBO (1)', 'IWAE (8)']
    """
    if isinstance(estimators, Mapping):
        pairs = list(estimators.items())
    else:
        pairs = [(f"{type(e).__name__} ({getattr(e, 'num_particles', '')})", e) for e in estimators]
    for name, estimator in pairs:
        if not isinstance(estimator, PyroELBO):
            raise TypeError(
                f"estimators: expected objects of pyro_vae.estimators or pyro.infer, got {estimator!r} for {name!r}"
            )
    if not pairs:
        raise ValueError("estimators: expected at least one, got none")
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"estimators: two have the name {', '.join(twice)}; pass a mapping from names of your own")
    return found


def weights(program: Program, batch: tuple[Tensor, ...], draws: int, seed: int) -> Tensor:
    """Return log-weights of the guide's draws, (draws, batch)."""
    entries = max(batch[0].numel(), 512 * len(batch[0]))
    at_once = max(1, BUDGET // entries)
    with evaluating(program), fork_rng(batch, seed):
        return torch.cat(
            [log_weights(program, batch, min(at_once, draws - done)) for done in range(0, draws, at_once)]
        )


def effective(log_w: Tensor, k: int) -> float:
    """Return the effective sample size of k particles, the mean over the data and over groups of k draws."""
    sizes = [summarize(group.double())[2] for group in log_w.split(k) if len(group) == k]
    return float(torch.stack(sizes).mean())


def peak(step: Callable[[], Any]) -> float:
    """Return the most megabytes that a step allocates at once."""
    with PeakMemory() as memory:
        step()
    return memory.bytes / 1e6
