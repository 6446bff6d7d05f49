"""Checks that the sites of a model and of its guide fit together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.messenger import Messenger

from pyro_vae.trace.handlers import Recorder
from pyro_vae.trace.layout import Layout
from pyro_vae.trace.plates import VALUES_DIM, batch_shape, check_match, check_plates

__all__ = ["check_sites"]


def check_sites(guide: Callable[..., Any], drawn: Recorder, scored: Recorder) -> Layout:
    """Return the layout of the dimensions of a run; raise if model and guide do not fit together.

    Args:
        guide: the guide
        drawn: a run of the guide, from which the observed sites of a guide that runs the model are removed
        scored: a run of the model at its values

    Raises:
        ValueError: the latent sites differ, or one has other shapes or plates in model and guide; a dimension is in no
            plate; the guide observes a site, or has a plate of its own that is empty or draws other rows; the model
            has no sample statement.
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
    if not drawn.subsamples.keys() <= scored.subsamples.keys():
        check_guide_plates(drawn, scored)
    if drawn.enumerated or scored.enumerated:
        check_history(drawn, [*drawn.enumerated, *scored.enumerated])
        check_history(scored, [*drawn.enumerated, *scored.enumerated])
    return layout


def check_guide_plates(drawn: Recorder, scored: Recorder) -> None:
    """Raise if a plate that only the guide has is empty, or has rows that no plate of the model has."""
    used = {frame.name for message in drawn.sites.values() for frame in message["cond_indep_stack"]}
    for name in drawn.subsamples.keys() - scored.subsamples.keys():
        rows, size = drawn.subsamples[name]["value"], drawn.subsamples[name]["fn"].size
        known = len(rows) == size or any(message["value"] is rows for message in scored.subsamples.values())
        if name not in used or not known:
            found = "draws rows of its own" if name in used else "has no sample statement"
            raise ValueError(
                f"guide: expected the plates of the model, but plate {name!r} occurs only in the guide and {found}: "
                "give it the name of the plate of the model that it belongs to, or remove it"
            )


def check_history(run: Recorder, enumerated: Sequence[str]) -> None:
    """Raise if a site depends on an enumerated one that is out of its reach in ``pyro.markov``."""
    for name, message in run.sites.items():
        reach = message["infer"].get("_markov_scope")
        if reach is None:
            continue
        shape = batch_shape(message)
        for number, other in enumerate(enumerated):
            depth = run.sites[other]["infer"].get("_markov_depth") if other in run.sites and other != name else None
            dim = VALUES_DIM - number
            if depth not in (None, reach.get(other)) and len(shape) >= -dim and shape[dim] > 1:
                raise ValueError(
                    f"history: site {name!r} depends on {other!r}, which is further back than pyro.markov declares: "
                    "use a greater `history`"
                )


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
