"""What estimators are compared with: the evidence and the gradients of evidence and divergence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyro_vae._util.random_state import derive_seed, fork_rng
from pyro_vae.estimators import ELBO
from pyro_vae.evaluation.inputs import BUDGET
from pyro_vae.evaluation.laboratory.gradients import Moments, Resumer
from pyro_vae.evaluation.likelihood.log_likelihood import LogLikelihood, log_likelihood, log_weights
from pyro_vae.evaluation.likelihood.marginal_bounds import MarginalBounds
from pyro_vae.programs.program import Program

__all__ = ["Evidence", "Reference", "find_reference"]

#: The evidence of each datum, ``evidence(x, *context) -> (n,)``, differentiable by the parameters of the model.
Evidence = Callable[..., Tensor]

#: Passes of importance sampling, and draws of the bound with so many particles, whose gradients are averaged.
PASSES, PARTICLES = 20, 16


@dataclass
class Reference:
    """The evidence of a batch in mean nats per datum, and gradients to compare with.

    Attributes:
        name: how it was found
        value: log p(x)
        error: standard error of ``value``
        groups: for ``"model"``, of the gradient of the evidence; for ``"guide"``, of the ELBO
        missing: why one of them is not there
    """

    name: str
    value: float
    error: float
    groups: dict[str, Moments] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def find_reference(
    program: Program,
    batch: Sequence[Tensor],
    groups: dict[str, list[str]],
    *,
    given: Evidence | LogLikelihood | MarginalBounds | None,
    num_particles: int,
    draws: int,
    seed: int,
) -> Reference:
    """Find the evidence and the gradients to compare with.

    Args:
        program: is left as it is
        batch: x and context
        groups: names of the parameters of guide and model
        given: the evidence, or a value that another evaluation found; if None, ``program.log_evidence`` where the
            program has one, and importance sampling where it has not
        num_particles: of the importance sampling where the evidence is not given
        draws: of the gradient of the ELBO
        seed: of all noise
    """
    model = None
    given = getattr(program, "log_evidence", None) if given is None else given
    if given is None:
        given = log_likelihood(program, tuple(batch), num_particles=num_particles, seed=seed)
    if isinstance(given, (LogLikelihood, MarginalBounds)):
        name = given.source
        reference = Reference(name, given.mean, given.monte_carlo_error)
        model = sampled_gradient(program, batch, groups["model"], num_particles, seed)
    else:
        value = given(*batch)
        if not isinstance(value, Tensor) or value.shape != batch[0].shape[:1]:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"reference: expected log p(x) of each datum, of shape ({len(batch[0])},), from the callable; "
                f"got {shape}"
            )
        reference = Reference("exact evidence", float(value.detach().mean()), 0.0)
        if value.requires_grad:
            model = Moments()
            model.add(flat_gradient(value.mean(), program, groups["model"]))
    if model is not None and groups["model"]:
        reference.groups["model"] = model
    else:
        reference.missing["model"] = "the reference has no gradient by the parameters of the model"
    if not groups["guide"]:
        reference.missing["guide"] = "the guide has no parameters"
        return reference
    try:
        reference.groups["guide"] = elbo_gradient(program, batch, groups["guide"], draws, seed)
    except ValueError as error:
        reference.missing["guide"] = f"no gradient of the ELBO: {error}"
    return reference


def sampled_gradient(
    program: Program, batch: Sequence[Tensor], names: list[str], num_particles: int, seed: int
) -> Moments:
    """Return the gradient of the evidence by self-normalised importance sampling, for the model's parameters."""
    entries = max(batch[0].numel() // len(batch[0]), 512)
    particles = max(2, min(num_particles // PASSES, BUDGET // (entries * len(batch[0]))))
    found = Moments()
    with fork_rng(batch, seed):
        for _ in range(PASSES):
            log_w = log_weights(program, tuple(batch), particles)
            surrogate = (log_w.detach().softmax(0) * log_w).sum(0).mean()
            found.add(flat_gradient(surrogate, program, names))
    return found


def flat_gradient(value: Tensor, program: Program, names: list[str]) -> Tensor:
    """Return the gradient of a number by these parameters as one vector."""
    named = dict(program.named_parameters())
    parameters = [named[n] for n in names]
    if not parameters:
        return torch.zeros(0)
    grads = torch.autograd.grad(value, parameters, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, grads, strict=True)]
    )


def elbo_gradient(program: Program, batch: Sequence[Tensor], names: list[str], draws: int, seed: int) -> Moments:
    """Return the gradient of the ELBO, which is that of minus the divergence of the guide from the posterior."""
    follower = Resumer(program, ELBO(num_particles=PARTICLES), batch)
    found = Moments()
    for i in range(draws):
        follower.follow(derive_seed(seed, i))
        found.add(follower.gradient(names))
    return found
