"""The estimators of a comparison by name."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyro.infer import ELBO as PyroELBO

__all__ = ["named", "swept"]


def swept(estimators: Any, sweep: Mapping[str, Sequence[Any]]) -> dict[str, PyroELBO]:
    """Return each estimator with each combination of options, by names such as ``"IWAE(num_particles=4)"``.

    Example:
        >>> import pyro_vae as pv
        >>> list(swept([pv.estimators.ELBO, pv.estimators.IWAE], {"num_particles": [1, 4]}))
        ['ELBO(num_particles=1)', 'ELBO(num_particles=4)', 'IWAE(num_particles=1)', 'IWAE(num_particles=4)']
    """
    pairs = (
        estimators.items()
        if isinstance(estimators, Mapping)
        else [(getattr(e, "__name__", repr(e)), e) for e in estimators]
    )
    for option, values in sweep.items():
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise TypeError(f"sweep: expected a list of values for {option!r}, got {values!r}. Write [{values!r}]")
    found = {}
    for name, build in pairs:
        if isinstance(build, PyroELBO) or not callable(build):
            raise TypeError(
                f"estimators: expected classes such as pyro_vae.estimators.IWAE, which sweep calls, got {build!r}"
            )
        for values in itertools.product(*sweep.values()):
            options = dict(zip(sweep, values, strict=True))
            full = f"{name}({', '.join(f'{key}={value}' for key, value in options.items())})"
            try:
                found[full] = build(**options)
            except (TypeError, ValueError) as error:
                raise type(error)(f"sweep: cannot build {full}: {error}") from error
    return found


def named(estimators: Mapping[str, PyroELBO] | Iterable[PyroELBO]) -> dict[str, PyroELBO]:
    """Return estimators by name; without names they get their class and number of particles.

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
                f"estimators: expected objects of pyro_vae.estimators or pyro.infer, got {estimator!r} for {name!r}. "
                "A class needs parentheses, such as IWAE(), or sweep="
            )
    if not pairs:
        raise ValueError("estimators: expected at least one, got none")
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(
            f"estimators: expected different names, got {', '.join(twice)} twice. Pass a mapping of names"
        )
    return found
