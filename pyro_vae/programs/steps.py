"""Steps of padded sequences: masks, inputs, chains of latents, and checks of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions.missing import factorized, hide_missing
from pyro_vae.programs.checks import check_tensor
from pyro_vae.programs.primitives import resample

__all__ = [
    "Sampler",
    "check_future",
    "check_inputs",
    "check_shape",
    "check_summary",
    "check_transition",
    "entry_mask",
    "future",
    "pad",
    "past",
    "sample_chain",
    "step_mask",
    "whole",
]

#: A sample statement: from a name and a distribution to a value.
Sampler = Callable[[str, TorchDistributionMixin], Tensor]

#: What to do about NaN in inputs.
FILL = "Inputs cannot be missing: fill them in"


def step_mask(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return which steps belong to each sequence, of shape ``(n, T)``."""
    steps = torch.arange(x.shape[1], device=x.device)
    return (steps < x.shape[1]).expand(len(x), -1) if lengths is None else steps < lengths.unsqueeze(-1)


def entry_mask(mask: Tensor, dim: int) -> Tensor:
    """Return a mask over steps with trailing dimensions of size 1, ``dim`` dimensions in total."""
    return mask.reshape(*mask.shape, *[1] * (dim - mask.dim()))


def pad(x: Tensor, mask: Tensor) -> Tensor:
    """Fill the padding with the first step, which is finite and inside the support of any likelihood."""
    return torch.where(entry_mask(mask, x.dim()), x, x[:, :1])


def whole(
    fn: TorchDistributionMixin, x: Tensor, mask: Tensor, *, missing: bool
) -> tuple[TorchDistributionMixin, Tensor]:
    """Return p(x given z) of whole sequences from p(x_t given z_t), and x, without padding and missing entries."""
    if missing:
        fn, x = hide_missing(fn, torch.where(entry_mask(mask, x.dim()), x, torch.nan))
        return fn.to_event(1), x
    if not factorized(fn):
        return fn.mask(mask).to_event(1), pad(x, mask)
    # mask entry by entry, so that a scale that is fitted to the batch ignores the padding as well
    k = fn.reinterpreted_batch_ndims
    masked = fn.base_dist.mask(entry_mask(mask, 2 + k).expand(fn.base_dist.batch_shape))
    return masked.to_event(1 + k), pad(x, mask)


def sample_chain(
    step: Callable[[int, Any], TorchDistributionMixin],
    mask: Tensor,
    z: Any,
    sample: Sampler = pyro.sample,
    log_joint: Callable[[int, Tensor | None, Tensor], Tensor] | None = None,
) -> Tensor:
    """Sample the sites ``z_1``, ``z_2``, ... of a chain and return their values, ``(*batch, n, T, latent)``.

    Args:
        step: the distribution of the latents of step t given those before it
        mask: which steps belong to each sequence, ``(n, T)``
        z: what the first step is given
        sample: the sample statement
        log_joint: log p(z_t, x_t given z_(t-1)) of step t, from t, z_(t-1) (None at the first step) and z_t; in a
            guide, so that its particles can be resampled
    """
    chain: list[Tensor] = []
    log_weight = None
    for t, inside in enumerate(mask.unbind(-1)):
        name = f"z_{t + 1}"
        with poutine.mask(mask=inside):
            z = resample(name, z, log_weight)
            fn, before = step(t, z), z if chain else None
            new = sample(name, fn)
        # padding repeats the last latents: a chain that continued could overflow, and a masked NaN has a gradient
        z = torch.where(inside.unsqueeze(-1), new, z) if chain else new
        chain.append(z)
        if log_joint is not None:
            log_weight = partial(weight, inside, partial(log_joint, t, before, z), partial(fn.log_prob, new))
    return torch.stack(chain, -2)


def weight(inside: Tensor, log_joint: Callable[[], Tensor], log_q: Callable[[], Tensor]) -> Tensor:
    """Return the log-weight of a step, 0 after the end of a sequence."""
    return torch.where(inside, log_joint() - log_q(), 0.0)


def past(inputs: Tensor | None, mask: Tensor) -> list[Tensor]:
    """Return the inputs of the steps of x as arguments of a part, padded; none without inputs."""
    return [] if inputs is None else [pad(inputs[:, : mask.shape[1]], mask)]


def future(inputs: Tensor | None, lengths: Tensor, num_steps: int) -> list[Tensor]:
    """Return the inputs of the steps after the end of each sequence as arguments of a part."""
    if inputs is None:
        return []
    steps = lengths.long().unsqueeze(-1) + torch.arange(num_steps, device=inputs.device)
    return [torch.take_along_dim(inputs, steps.unsqueeze(-1), 1)]


def check_shape(x: Tensor, shape: Sequence[int]) -> None:
    """Raise unless x is a batch of sequences with at least one step of this shape."""
    if x.dim() < 2 or not x.shape[1] or x.shape[2:] != tuple(shape):
        expected = ", ".join(["(n, T", *map(str, shape)]) + ")"
        hint = "Pass one sequence as a batch: x[None]" if x.shape[1:] == tuple(shape) else "Pad shorter sequences"
        raise ValueError(f"x: expected shape {expected}, one sequence per row, got {tuple(x.shape)}. {hint}")


def check_inputs(inputs: Tensor | None, width: int, mask: Tensor, dtype: torch.dtype) -> None:
    """Raise unless there are ``width`` finite inputs for each step that a mask ``(n, T)`` selects."""
    n, steps = mask.shape
    if takes_inputs(inputs, width, n, steps, "the steps of x"):
        check_tensor("inputs", *past(inputs, mask), (steps, width), dtype, advice=FILL)


def check_future(inputs: Tensor | None, width: int, lengths: Tensor, num_steps: int, dtype: torch.dtype) -> None:
    """Raise unless there are ``width`` finite inputs for each of the steps after the end of each sequence."""
    need = int(lengths.max()) + num_steps
    if takes_inputs(inputs, width, len(lengths), need, "the steps after the end of each sequence too"):
        check_tensor("inputs", *future(inputs, lengths, num_steps), (num_steps, width), dtype, advice=FILL)


def takes_inputs(inputs: Tensor | None, width: int, n: int, need: int, what: str) -> bool:
    """Whether there are inputs, of which a program takes ``width`` for each of ``need`` steps of n sequences.

    Raises:
        ValueError: their shape is another one, or one of the two has none.
    """
    if inputs is None and not width:
        return False
    shape = None if inputs is None else tuple(inputs.shape)
    if not width or shape is None or len(shape) != 3 or (shape[0], shape[2]) != (n, width) or shape[1] < need:
        expected = f"shape ({n}, {need} or more, {width}) in (x, lengths, inputs)" if width else "none"
        hint = f"Pass the inputs of {what}" if width else "Build program and parts for them, with inputs=WIDTH"
        raise ValueError(f"inputs: expected {expected}, got {'none' if shape is None else shape}. {hint}")
    return True


def check_summary(summary: nn.Module, h: Any, mask: Tensor) -> None:
    """Raise unless the output of a summary has one row per sequence and step."""
    if not isinstance(h, Tensor) or h.dim() < 3 or h.shape[:2] != mask.shape:
        found = tuple(h.shape) if isinstance(h, Tensor) else type(h).__name__
        n, steps = mask.shape
        raise ValueError(
            f"summary: expected one tensor of shape ({n}, {steps}, features), got {found} from "
            f"{type(summary).__name__}. For a torch.nn.GRU, use batch_first=True and return its first result"
        )


def check_transition(transition: Conditional, latent: int, inputs: int) -> None:
    """Raise if a transition declares a context of another width than that of latents and inputs."""
    if transition.context not in (0, latent + inputs):
        raise ValueError(
            f"transition: expected context={latent + inputs} for {latent} latents and {inputs} inputs, got "
            f"{type(transition).__name__} with context={transition.context}. Build it with context=latent + inputs"
        )
