"""What estimators are compared with: log p(x), its gradient, and the gradient of the ELBO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyro_vae._util.random_state import derive_seed, fork_rng
from pyro_vae.estimators import ELBO
from pyro_vae.evaluation.laboratory.gradients import GradientSampler, Moments
from pyro_vae.evaluation.likelihood.importance_sampling import LogLikelihood, log_weights
from pyro_vae.evaluation.likelihood.log_likelihood import log_likelihood
from pyro_vae.evaluation.likelihood.marginal_bounds import MarginalBounds
from pyro_vae.evaluation.over import at_once
from pyro_vae.programs.program import Program

__all__ = ["Evidence", "Reference", "find_reference"]

#: ``evidence(x, *context) -> (n,)``: log p(x) of each example, differentiable with respect to the model's parameters.
Evidence = Callable[..., Tensor]

#: Number of importance-sampled gradients that are averaged, and particles of the sampled gradients of the ELBO.
PASSES, PARTICLES = 20, 16


@dataclass
class Reference:
    """Log p(x) of a batch in mean nats per example with its standard error, and gradients to compare with.

    ``groups["model"]`` is the gradient of log p(x) and ``groups["guide"]`` that of the ELBO, or ``missing`` has the
    reason why there is none.
    """

    name: str
    value: float
    error: float
    groups: dict[str, Moments] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def find_reference(
    program: Program,
    batch: tuple[Tensor, ...],
    groups: dict[str, list[str]],
    *,
    given: Evidence | LogLikelihood | MarginalBounds | None,
    num_particles: int,
    num_samples: int,
    seed: int,
) -> Reference:
    """Find log p(x), its gradient from ``num_particles`` particles, and that of the ELBO from ``num_samples`` samples.

    Log p(x) is given as a callable or the result of another evaluation; if None, it is ``program.log_evidence`` if the
    program has one, else it is estimated by importance sampling.
    """
    model = None
    given = getattr(program, "log_evidence", None) if given is None else given
    if given is None:
        given = log_likelihood(program, batch, num_particles=num_particles, seed=seed, progress=False)
    if isinstance(given, (LogLikelihood, MarginalBounds)):
        reference = Reference(given.source, given.mean, given.monte_carlo_error)
        model = sampled_gradient(program, batch, groups["model"], num_particles, seed)
    else:
        value = given(*batch)
        if not isinstance(value, Tensor) or value.shape != batch[0].shape[:1]:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"reference: expected log p(x) of each example, of shape ({len(batch[0])},), got {shape} from the "
                "callable"
            )
        reference = Reference("exact evidence", float(value.detach().mean()), 0.0)
        if value.requires_grad:
            model = Moments()
            model.add(flat_gradient(value.mean(), program, groups["model"]))
    if model is not None and groups["model"]:
        reference.groups["model"] = model
    else:
        reference.missing["model"] = "the reference has no gradient with respect to the model's parameters"
    if not groups["guide"]:
        reference.missing["guide"] = "the guide has no parameters"
        return reference
    try:
        reference.groups["guide"] = elbo_gradient(program, batch, groups["guide"], num_samples, seed)
    except ValueError as error:
        reference.missing["guide"] = f"no gradient of the ELBO: {error}"
    return reference


def sampled_gradient(
    program: Program, batch: tuple[Tensor, ...], names: list[str], num_particles: int, seed: int
) -> Moments:
    """Return the gradient of log p(x) by self-normalized importance sampling."""
    particles = max(2, min(num_particles // PASSES, at_once(batch[0]) // len(batch[0])))
    found = Moments()
    with fork_rng(batch, seed):
        for _ in range(PASSES):
            log_w = log_weights(program, batch, particles)
            surrogate = (log_w.detach().softmax(0) * log_w).sum(0).mean()
            found.add(flat_gradient(surrogate, program, names))
    return found


def flat_gradient(value: Tensor, program: Program, names: list[str]) -> Tensor:
    """Return the gradient of a number with respect to these parameters as one vector."""
    named = dict(program.named_parameters())
    parameters = [named[n] for n in names]
    if not parameters:
        return torch.zeros(0)
    grads = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in grads])


def elbo_gradient(program: Program, batch: Sequence[Tensor], names: list[str], num_samples: int, seed: int) -> Moments:
    """Return the gradient of the ELBO, which for the guide is that of minus its divergence from the posterior."""
    sampler = GradientSampler(program, ELBO(num_particles=PARTICLES), batch)
    found = Moments()
    for i in range(num_samples):
        sampler.backward(derive_seed(seed, i))
        found.add(sampler.gradient(names))
    return found
