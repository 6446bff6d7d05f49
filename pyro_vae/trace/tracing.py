"""Run guide and model once and pair their sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.trace.call import Call
from pyro_vae.trace.handlers import Recorder
from pyro_vae.trace.layout import Layout, same
from pyro_vae.trace.rerun import rerun_guide
from pyro_vae.trace.site import Site
from pyro_vae.trace.terms import Draw, Terms

__all__ = ["run"]


def run(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    num_particles: int = 1,
    draws: Callable[[], Recorder] = Recorder,
) -> Terms:
    """Run the guide, replay the model against it, and pair their sites.

    Args:
        model: a Pyro model
        guide: its guide, called with the same arguments
        args: arguments of both
        kwargs: keyword arguments of both
        num_particles: number of draws of the latents of each example
        draws: makes the handler that decides how latents are drawn, such as ``pyro_vae.trace.Detached``

    Returns:
        The sites of the run.

    Raises:
        ValueError: model and guide have different latent sites.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> terms = run(toy.program.model, toy.program.guide, (toy.draw(5),), num_particles=3)
        >>> [site.name for site in terms.latent], [site.name for site in terms.observed]
        (['z'], ['x'])
    """
    call = Call(model, guide, args, kwargs or {}, check_int("num_particles", num_particles))
    drawn = call.trace(guide, draws())
    if len(drawn.sites) > 1:
        # separate the gradient of the densities from the gradient of later draws of the guide
        for name, message in drawn.sites.items():
            if isinstance(message["value"], Tensor) and not message["is_observed"]:
                drawn.sites[name] = {**message, "value": message["value"].view_as(message["value"])}
    scored = call.trace(model, Recorder({**drawn.sites, **drawn.subsamples}))
    layout = Layout.of(scored.sites.values())
    auxiliary = {name: m for name, m in drawn.sites.items() if m["infer"].get("is_auxiliary")}
    latent = same_latents(scored, drawn, auxiliary, layout)
    stopped = cache(lambda what: rerun_guide(call, drawn, what))
    sites = []
    order, before = list(drawn.sites), set()
    for name, message in scored.sites.items():
        if name not in latent:
            sites.append(Site(name, message, layout=layout))
            continue
        # a closed form integrates over this site alone: it is unbiased if every latent that the model's density may
        # depend on was drawn before it in the guide, so that none of them depends on it
        earlier = before <= set(order[: order.index(name)]) and same(message["mask"], drawn.sites[name]["mask"])
        enumerated = name in drawn.enumerated
        sites.append(Site(name, message, drawn.sites[name], layout, enumerated, False, earlier, stopped))
        before.add(name)
    # such as the unconstrained value of an autoguide, whose image is the latent: a density of the guide alone
    sites += [Site(name, m, m, layout, auxiliary=True, stopped=stopped) for name, m in auxiliary.items()]
    values = {
        name: (m["value"], {"cond_indep_stack": m["cond_indep_stack"], "event_dim": m["fn"].event_dim})
        for name, m in drawn.sites.items()
        if name in latent
    }
    return Terms(
        [site for site in sites if site.guide is not None],
        [site for site in sites if site.guide is None],
        num_particles,
        (Draw(0, num_particles, values, layout),),
        call,
    )


def same_latents(scored: Recorder, drawn: Recorder, auxiliary: Mapping[str, Any], layout: Layout) -> set[str]:
    """Return the names of the latent sites; raise if model and guide differ in them."""
    for name, message in auxiliary.items():
        # estimators that weight draws would weight both the auxiliary site and the latent that is made of it
        if layout.name is not None and layout.contains(message):
            raise ValueError(
                f"guide: the auxiliary site {name!r} is in the plate of the data, where the latent itself must be "
                "drawn: give it a distribution of its own, such as a TransformedDistribution"
            )
    p = {name for name, message in scored.sites.items() if not message["is_observed"]}
    q = {name for name, message in drawn.sites.items() if not message["is_observed"]} - set(auxiliary)
    if p != q:
        alone = ((p - q, "model"), (q - p, "guide"))
        raise ValueError(
            "model and guide: expected the same latent sites, but "
            + "; ".join(f"{sorted(names)} occur only in the {where}" for names, where in alone if names)
        )
    return p
