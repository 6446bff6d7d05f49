"""Checks of the arguments and data of a Multimodal program."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.distributions.missing import factorized, hide_missing, readable
from pyro_vae.programs.checks import check_tensor, check_values
from pyro_vae.programs.compatibility import check_pair
from pyro_vae.programs.multimodal.joint import Joint
from pyro_vae.programs.multimodal.latents import private_site

__all__ = ["check_arguments", "check_modalities"]


def check_arguments(
    joint: Any,
    likelihoods: Mapping[str, Conditional],
    posteriors: Collection[str],
    private_priors: Mapping[str, Conditional],
    private_posteriors: Collection[str],
) -> None:
    """Raise if the names of the parts differ, or a modality has the name of another site."""
    if not isinstance(joint, Joint):
        raise TypeError(f"joint: expected an instance such as programs.ProductOfExperts(), got {joint!r}")
    same_names("posteriors", posteriors, "likelihoods", likelihoods)
    same_names("private_posteriors", private_posteriors, "private_priors", private_priors)
    if not likelihoods or not private_priors.keys() <= likelihoods.keys():
        raise ValueError(
            f"likelihoods: expected at least one modality and all of private_priors, {[*private_priors]}, got "
            f"{[*likelihoods]}"
        )
    taken = {"z", "data"} | {private_site(name) for name in private_priors}
    if taken & likelihoods.keys():
        raise ValueError(
            f"likelihoods: expected modalities without the names of latents and plates, got "
            f"{sorted(taken & likelihoods.keys())}. Rename them"
        )


def check_modalities(program: Any, x: Tensor, *others: Tensor) -> None:
    """Raise if shapes, types or values of the data, or the latents of the parts, do not fit."""
    if len(others) >= len(program.names):
        raise ValueError(f"data: expected one column for each of {program.names}, got {1 + len(others)} columns")
    fns = program.decode_all(1)
    for name, column in program.given(x, *others).items():
        fn = fns[name]
        advice = f"{type(program.likelihoods[name]).__name__} takes none, as its entries are not independent"
        check_tensor(name, column, fn.event_shape, program.dtype, missing=factorized(fn), advice=advice)
        if len(column) != len(x):
            raise ValueError(f"{name}: expected {len(x)} rows, as {program.names[0]} has, got {len(column)}")
        value = hide_missing(fn, column)[1] if factorized(fn) else column
        check_values(name, value, fn.support, program.likelihoods[name])
        part = program.posteriors[name]
        label = f"posteriors.{name} {type(part).__name__}"
        check_pair(
            "z", label, part(readable(part, column[:1])), f"prior {type(program.prior).__name__}", program.prior()
        )


def same_names(first: str, a: Collection[str], second: str, b: Collection[str]) -> None:
    """Raise unless two arguments have parts of the same names."""
    if set(a) != set(b):
        raise ValueError(f"{first}: expected the names of {second}, {[*b]}, got {[*a]}. Give one part per modality")
