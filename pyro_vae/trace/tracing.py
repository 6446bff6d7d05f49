"""Run guide and model once and pair their sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.trace.call import Call
from pyro_vae.trace.combined import check_values
from pyro_vae.trace.handlers import Recorder
from pyro_vae.trace.layout import same
from pyro_vae.trace.marginals import marginals
from pyro_vae.trace.matching import check_sites
from pyro_vae.trace.rerun import rerun_guide
from pyro_vae.trace.score_function import score_masks
from pyro_vae.trace.site import Site
from pyro_vae.trace.terms import Draw, Terms

__all__ = ["pair", "run", "run_call"]


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
        ValueError: model and guide have different latent sites, or give one different shapes or plates; a dimension of
            a site is in no plate; the model has no sample statement.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> terms = run(toy.program.model, toy.program.guide, (toy.draw(5),), num_particles=3)
        >>> [site.name for site in terms.latent], [site.name for site in terms.observed]
        (['z'], ['x'])
    """
    return run_call(Call(model, guide, args, kwargs or {}, check_int("num_particles", num_particles)), draws)


def run_call(call: Call, draws: Callable[[], Recorder]) -> Terms:
    """Run the guide of a call, replay the model against it, and pair their sites."""
    drawn = call.trace(call.guide, draws())
    if len(drawn.sites) > 1:
        # separate the gradient of the densities from the gradient of later draws of the guide
        for name, message in drawn.sites.items():
            if isinstance(message["value"], Tensor) and not message["is_observed"]:
                drawn.sites[name] = {**message, "value": message["value"].view_as(message["value"])}
    return pair(call, drawn, call.trace(call.model, Recorder({**drawn.sites, **drawn.subsamples}, drawn.enumerated)))


def pair(call: Call, drawn: Recorder, scored: Recorder) -> Terms:
    """Pair the sites of a run of the guide with those of a run of the model."""
    layout = check_sites(call.guide, drawn, scored)
    stopped = cache(lambda what: rerun_guide(call, drawn, what))
    sites: list[Site] = []
    order, before = list(drawn.sites), set()
    for name, message in scored.sites.items():
        if message["is_observed"]:
            sites.append(Site(name, message, layout=layout))
        elif name in drawn.sites:
            # a closed form integrates over this site alone: it is unbiased if every latent that the model's density
            # may depend on was drawn before it in the guide, so that none of them depends on it
            earlier = before <= set(order[: order.index(name)]) and same(message["mask"], drawn.sites[name]["mask"])
            enumerated = name in drawn.enumerated
            sites.append(Site(name, message, drawn.sites[name], layout, enumerated, False, earlier, stopped))
            before.add(name)
    if len(before) < len(drawn.sites):
        # such as the unconstrained value of an autoguide, whose image is the latent: a density of the guide alone
        alone = [(name, m) for name, m in drawn.sites.items() if name not in before]
        sites += [Site(name, m, m, layout, auxiliary=True, stopped=stopped) for name, m in alone]
    for name, mask in score_masks(drawn.sites, scored.sites).items():
        next(site for site in sites if site.name == name).score_mask = mask
    enumerated_sites: list[Site] = []
    if drawn.enumerated or scored.enumerated:
        check_values(call, drawn, scored)
        by_name = {site.name: site for site in sites if site.guide is not None}
        enumerated_sites = [by_name[name] for name in drawn.enumerated]
        sums = marginals(scored, layout, enumerated_sites) if scored.enumerated else {}
        # values of each example are averaged after the sum over plates
        apart = any(site.inner or not site.local for site in enumerated_sites)
        for site in sites:
            site.values = enumerated_sites if apart or not site.local else ()
            site.marginal = sums.get(site.name)
    if not sites:
        raise ValueError("model: expected an observed site, got only sites that it sums over: observe data by obs=x")
    values = {
        name: (m["value"], {"cond_indep_stack": m["cond_indep_stack"], "event_dim": m["fn"].event_dim})
        for name, m in drawn.sites.items()
        if name in before
    }
    return Terms(
        [site for site in sites if site.guide is not None],
        [site for site in sites if site.guide is None],
        call.num_particles,
        (Draw(0, call.num_particles, values, layout),),
        call,
        enumerated_sites,
        (tuple(drawn.sites), tuple(scored.sites)),
        {**scored.subsamples, **drawn.subsamples},
    )
