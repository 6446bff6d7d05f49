"""The estimator laboratory: bounds, gradients and costs of several estimators on one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.memory import enough_memory
from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import derive_seed, fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.cost import PeakMemory, milliseconds
from pyro_vae.evaluation.laboratory.comparison import Comparison, EstimatorRow, GradientRow
from pyro_vae.evaluation.laboratory.gradients import (
    Gradients,
    GradientSampler,
    guide_parameters,
    own_bias,
    sample_gradients,
    sample_sites,
)
from pyro_vae.evaluation.laboratory.names import named, swept
from pyro_vae.evaluation.laboratory.reference import Evidence, Reference, find_reference
from pyro_vae.evaluation.likelihood.importance_sampling import LogLikelihood, log_weights, pareto_k, summarize
from pyro_vae.evaluation.likelihood.marginal_bounds import MarginalBounds
from pyro_vae.evaluation.over import one_batch
from pyro_vae.programs.program import Program, evaluating, keep_buffers
from pyro_vae.trace import Recorder, Resampled

__all__ = ["compare_estimators"]

#: Timing rounds, and samples for the tail of the importance weights.
ROUNDS, WEIGHTS = 5, 1000


@in_turn
def compare_estimators(
    program: Program,
    x: Any,
    estimators: Mapping[str, PyroELBO] | Iterable[PyroELBO] | Iterable[type[PyroELBO]],
    *,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    reference: Evidence | LogLikelihood | MarginalBounds | None = None,
    reference_num_particles: int = 5000,
    num_samples: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> Comparison:
    r"""Compare bounds, gradients and costs of several estimators on the same data with the same random seeds.

    With g a sampled gradient of the objective (minus the loss in mean nats per example), separately for the parameters
    of the guide and of the model, the columns are

    .. math::
        \mathrm{SNR} = \frac1P \sum_{i=1}^{P} \frac{|\mathbb E[g_i]|}{\sqrt{\operatorname{Var}[g_i]}}, \quad
        \mathrm{variance} = \sum_i \operatorname{Var}[g_i], \quad
        \mathrm{bias} = \frac{\lVert \mathbb E[g] - r \rVert}{\lVert r \rVert}, \quad
        \mathrm{cosine} = \frac{\mathbb E[g] \cdot r}{\lVert \mathbb E[g] \rVert \, \lVert r \rVert}

    * The **reference gradient** r is that of log p(x) for the model. For the guide, on which log p(x) does not depend,
      it is that of the ELBO. The bias of an estimator of another bound shows how much the two objectives differ.
    * The **own bias** is the relative error of the gradient against the estimator's *own* objective L, along the
      unit vector u of its mean gradient: :math:`1 - \frac{d}{de} \mathbb E[L(\theta + e u)] / (u \cdot \mathbb E[g])`.
      Zero is right and 2 the wrong sign; errors orthogonal to u are not detected. The derivative is a central
      difference (accurate to about 1e-3 in float32), so the latents have to be reparameterized.
    * Cosine and own bias are NaN if the mean gradient cannot be distinguished from zero: use more samples or a larger
      batch. Norms are corrected for noise, and a bias below its error cannot be distinguished from zero. Without
      signal the mean of the SNR is about :math:`0.8 / \sqrt{\text{num\_samples}}`.
    * The **gap** is log p(x) minus the bound at beta 1, or minus the loss of an estimator of Pyro.
    * The effective sample size is for the estimator's number of particles, averaged over the examples; the Pareto k
      (:func:`pareto_k`) is that of the guide, the median over the examples.
    * **Variance times cost**, and the SNR of the mean of all gradients that one second allows, decide between
      estimators of one objective: :math:`\mathrm{SNR} \sqrt{1\,\mathrm s / \text{time of a step}}`.
    * A step is forward pass, backward pass and Adam: the fastest of five rounds. Its memory is the peak of newly
      created tensors.

    A parameter on which the guide depends belongs to the guide, even if the model shares it (a VampPrior). Gradients
    are taken in the present mode (training or evaluation) of the program.

    References:
        Tighter variational bounds are not necessarily better (Rainforth et al., 2018),
        https://arxiv.org/abs/1802.04537

    Args:
        program: a Program
        x: rows of data, or a tuple ``(x, context)``, as in ``fit``: one batch
        estimators: of ``pyro_vae.estimators`` or of ``pyro.infer``; a mapping gives them names. With ``sweep``,
            classes, or functions that return an estimator
        sweep: options and their values, such as ``{"num_particles": [1, 4, 16]}``: each class is called with each
            combination
        reference: log p(x) of each example: a callable ``(x, *context) -> (n,)``, differentiable for the gradient of
            the model, or the result of ``log_likelihood`` or ``marginal_bounds``; if None, ``program.log_evidence`` if
            the program has one, else importance sampling
        reference_num_particles: particles of that importance sampling
        num_samples: sampled gradients per estimator, at least 8
        seed: random seed
        progress: show a progress bar

    Returns:
        The comparison.

    Raises:
        TypeError: an estimator is not an ELBO.
        ValueError: the data do not fit the program, an estimator does not, or two have the same name.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> both = [pv.estimators.IWAE(num_particles=16), pv.estimators.DReG(num_particles=16)]
        >>> table = compare_estimators(toy.program, toy.draw(8), both, reference=toy.log_evidence, num_samples=50)
        >>> table["DReG (16)"].guide.snr > table["IWAE (16)"].guide.snr
        True
    """
    num_samples = check_int("num_samples", num_samples, 8)
    reference_num_particles = check_int("reference_num_particles", reference_num_particles)
    chosen = named(estimators if sweep is None else swept(estimators, sweep))
    batch = one_batch(program, x, seed=seed)
    samplers = {name: GradientSampler(program, estimator, batch) for name, estimator in chosen.items()}
    for name, sampler in samplers.items():
        try:
            with enough_memory("estimators", f"Lower num_particles of {name}, or set its particles_per_pass"):
                sampler.backward(seed)
        except (ValueError, NotImplementedError) as error:
            raise ValueError(f"estimators: {name} does not work with this program: {error}") from error
    with keep_buffers(program):
        of_guide = set(guide_parameters(program, batch))
        trained = [name for name, p in program.named_parameters() if p.requires_grad]
        groups = {
            "guide": [name for name in trained if name in of_guide],
            "model": [name for name in trained if name not in of_guide],
        }
        found = find_reference(
            program,
            batch,
            groups,
            given=reference,
            num_particles=reference_num_particles,
            num_samples=num_samples,
            seed=derive_seed(seed, 2**32),
        )
        rough = {name: not_reparameterized(program, batch, estimator) for name, estimator in chosen.items()}
    most = max(estimator.num_particles for estimator in chosen.values())
    with evaluating(program), fork_rng(batch, seed):
        log_w = log_weights(program, batch, max(WEIGHTS, most)).double()
    gradients: dict[str, Gradients] = {}
    total = len(samplers) * (num_samples + ROUNDS + 1)
    with progress_bar(total=total, unit="sample", progress=progress) as bar:
        for name, sampler in samplers.items():
            bar.set_description(name)
            options: dict[str, Any] = {
                "num_samples": num_samples,
                "seed": seed,
                "smooth": not rough[name],
                "tick": bar.update,
            }
            gradients[name] = sample_gradients(sampler, groups, **options)
        bar.set_description("timing")
        with fork_rng(batch, seed):
            steps = {name: sampler.step for name, sampler in samplers.items()}
            times = milliseconds(steps, batch[0].device, rounds=ROUNDS, tick=bar.update)
            memory = {name: megabytes(step) for name, step in steps.items()}
    tail = float(pareto_k(log_w).median())
    rows = []
    for name, estimator in chosen.items():
        ess = effective(log_w, estimator.num_particles)
        costs = {"ess": ess, "pareto_k": tail, "milliseconds": times[name], "megabytes": memory[name]}
        rows.append(row_of(name, estimator, gradients[name], found, rough[name], **costs))
    bounds = {name: torch.tensor(each.bounds, dtype=torch.float64) for name, each in gradients.items()}
    return Comparison(rows, found.name, found.value, found.error, num_samples, len(batch[0]), bounds)


def row_of(
    name: str, estimator: PyroELBO, gradients: Gradients, reference: Reference, rough: str, **costs: Any
) -> EstimatorRow:
    """Return the row of an estimator."""
    missing = {f"bias and cosine of the {key}": why for key, why in reference.missing.items()}
    if rough:
        missing["own bias"] = rough
    bound, error = float(gradients.bound.mean), math.sqrt(gradients.bound.square_error)
    if not math.isfinite(bound):
        bound = error = math.nan
        missing["bound and gap"] = f"the loss of {type(estimator).__name__} is not finite"
    parts: dict[str, Any] = {
        key: GradientRow(
            moments.snr,
            float(moments.variance.sum()),
            *moments.bias(reference.groups.get(key)),
            *own_bias(gradients.slopes.get(key)),
        )
        for key, moments in gradients.groups.items()
    }
    gap, gap_error = reference.value - bound, math.hypot(error, reference.error)
    return EstimatorRow(name, estimator.num_particles, bound, error, gap, gap_error, **parts, **costs, missing=missing)


def effective(log_w: Tensor, k: int) -> float:
    """Return the effective sample size of k particles, averaged over examples and groups of k samples."""
    groups = log_w[: len(log_w) // k * k].unflatten(0, (-1, k)).transpose(0, 1)
    return float(summarize(groups)[2].mean())


def megabytes(step: Callable[[], Any]) -> float:
    """Return the peak memory of a step."""
    with PeakMemory() as memory:
        step()
    return memory.bytes / 1e6


def not_reparameterized(program: Program, batch: Sequence[Tensor], estimator: PyroELBO) -> str:
    """Return what is drawn without reparameterization, such as a latent of the guide; empty if nothing is."""
    if issubclass(getattr(estimator, "draws", Recorder), Resampled):
        return f"{type(estimator).__name__} samples the ancestors of particles without reparameterization"
    with fork_rng(batch), torch.no_grad():
        for name, site in sample_sites(program, batch).items():
            if not site["fn"].has_rsample:
                return f"the guide samples {name!r} without reparameterization"
    return ""
