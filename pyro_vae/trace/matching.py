"""Checks that the sites of a model and of its guide fit together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.messenger import Messenger

from pyro_vae.trace.handlers import Recorder
from pyro_vae.trace.layout import Layout
from pyro_vae.trace.plates import check_match, check_plates

__all__ = ["check_sites"]


def check_sites(guide: Callable[..., Any], drawn: Recorder, scored: Recorder) -> Layout:
    """Return the layout of the dimensions of a run; raise if model and guide do not fit together.

    Args:
        guide: the guide
        drawn: a run of the guide, from which the observed sites of a guide that runs the model are removed
        scored: a run of the model at its values

    Raises:
        ValueError: the latent sites differ, or one has other shapes or plates in model and guide; a dimension is in no
            plate; the guide observes a site; the model has no sample statement.
    """
    if not scored.sites:
        raise ValueError(
            "model: expected a sample statement, got none: observe the data by pyro.sample('x', ..., obs=x)"
        )
    layout = Layout.of(scored.sites, scored.enumerated)
    p = {name for name, message in scored.sites.items() if not message["is_observed"]}.difference(scored.enumerated)
    q, observed = set(), []
    for name, message in drawn.sites.items():
        check_plates(message, "guide")
        if message["is_observed"]:
            observed.append(name)
            continue
        if message["infer"].get("is_auxiliary"):
            continue
        q.add(name)
        if name in p:
            check_match(name, message, scored.sites[name])
    if observed:
        check_observed(guide, drawn, observed)
    if p != q:
        alone = ((p - q, "model"), (q - p, "guide"))
        raise ValueError(
            "model and guide: expected the same latent sites, but "
            + "; ".join(f"{sorted(names)} occur only in the {where}" for names, where in alone if names)
            + ': draw them in both, or mark discrete sites of the model infer={"enumerate": "parallel"}'
        )
    return layout


def check_observed(guide: Callable[..., Any], drawn: Recorder, observed: Sequence[str]) -> None:
    """Raise if the guide observes a site that is not a density of its own, or a factor of unknown gradient."""
    for name in observed:
        if isinstance(poutine.unwrap(guide), Messenger):  # a guide that runs the model, whose sites they are
            del drawn.sites[name]
        elif not drawn.sites[name]["infer"].get("is_auxiliary"):
            raise ValueError(
                f"guide: expected draws of latents, but site {name!r} is observed: observe it in the model, or mark "
                'it infer={"is_auxiliary": True} to count its density as one of the guide'
            )
        elif isinstance(drawn.sites[name]["fn"], Unit) and "has_rsample" not in vars(drawn.sites[name]["fn"]):
            raise ValueError(
                f"guide: factor {name!r} does not say whether it depends on a reparameterized draw: write "
                "pyro.factor(..., has_rsample=True) or has_rsample=False"
            )
