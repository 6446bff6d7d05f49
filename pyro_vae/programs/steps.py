"""Steps of padded sequences: masks, inputs, and checks of them."""

from __future__ import annotations

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.distributions.missing import factorized, hide_missing
from pyro_vae.programs.checks import check_tensor, first

__all__ = [
    "check_inputs",
    "check_lengths",
    "check_observed",
    "check_transition",
    "entry_mask",
    "future",
    "pad",
    "past",
    "step_mask",
    "whole",
]


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


def past(inputs: Tensor | None, mask: Tensor) -> list[Tensor]:
    """Return the inputs of the steps of x as arguments of a part, padded; none without inputs."""
    return [] if inputs is None else [pad(inputs[:, : mask.shape[1]], mask)]


def future(inputs: Tensor | None, lengths: Tensor, num_steps: int) -> list[Tensor]:
    """Return the inputs of the steps after the end of each sequence as arguments of a part."""
    if inputs is None:
        return []
    steps = lengths.long().unsqueeze(-1) + torch.arange(num_steps, device=inputs.device)
    return [torch.take_along_dim(inputs, steps.unsqueeze(-1), 1)]


def check_lengths(lengths: Tensor | None, x: Tensor) -> None:
    """Raise unless there is a length from 1 to T for each sequence, or no lengths."""
    if lengths is None:
        return
    if lengths.shape != (len(x),):
        more = ". Pass inputs after the lengths: (x, lengths, inputs)" if lengths.dim() == 3 else ""
        raise ValueError(f"lengths: expected shape ({len(x)},), one per sequence, got {tuple(lengths.shape)}{more}")
    bad = ~((lengths >= 1) & (lengths <= x.shape[1]) & (lengths == lengths.long()))
    if bad.any():
        raise ValueError(
            f"lengths: expected integers from 1 to {x.shape[1]}, the number of steps in x, but "
            f"lengths[{first(bad)}] is {lengths[bad][0].item():g}. Remove empty sequences"
        )


def check_inputs(
    inputs: Tensor | None, width: int, mask: Tensor, dtype: torch.dtype, *, lengths: Tensor | None = None
) -> None:
    """Raise unless there are ``width`` finite inputs for each step that the mask selects.

    Args:
        inputs: the inputs, of shape ``(n, T or more, width)``, or None
        width: number of inputs that the program takes
        mask: which steps need inputs, of shape ``(n, T)``
        dtype: dtype of the program
        lengths: lengths of the sequences, if the steps are those after their end
    """
    if inputs is None and not width:
        return
    n, steps = mask.shape
    need = steps if lengths is None else int(lengths.max()) + steps
    shape = None if inputs is None else tuple(inputs.shape)
    if (
        inputs is None
        or shape is None
        or not width
        or len(shape) != 3
        or shape[0] != n
        or shape[1] < need
        or shape[2] != width
    ):
        expected = f"shape ({n}, {need} or more, {width}) in (x, lengths, inputs)" if width else "none"
        what = "the steps after the end of each sequence too" if lengths is not None else "the steps of x"
        hint = f"Pass the inputs of {what}" if width else "Build program and parts for them, with inputs=WIDTH"
        raise ValueError(f"inputs: expected {expected}, got {'none' if shape is None else shape}. {hint}")
    used = pad(inputs[:, :steps], mask) if lengths is None else future(inputs, lengths, steps)[0]
    check_tensor("inputs", used, (steps, width), dtype, advice="Inputs cannot be missing: fill them in")


def check_observed(x: Tensor) -> None:
    """Raise if all entries of a sequence are missing."""
    empty = torch.isnan(x).flatten(1).all(1)
    if empty.any():
        raise ValueError(
            f"x: expected an observed entry in each sequence, but all of x[{first(empty)}] are missing "
            f"({int(empty.sum()):,} of {len(x):,} sequences are). Remove these sequences"
        )


def check_transition(transition: Conditional, latent: int, inputs: int) -> None:
    """Raise if a transition declares a context of another width than that of latents and inputs."""
    if transition.context not in (0, latent + inputs):
        raise ValueError(
            f"transition: expected context={latent + inputs} for {latent} latents and {inputs} inputs, got "
            f"{type(transition).__name__} with context={transition.context}. Build it with context=latent + inputs"
        )
