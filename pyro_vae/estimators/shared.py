"""Checks of the sites that examples share, which are outside the plate of the data."""

from __future__ import annotations

from pyro_vae.trace import Terms

__all__ = ["refuse_later"]


def refuse_later(terms: Terms, user: str, *, scored: bool = False) -> None:
    """Raise if a site outside the plate of the data comes after a latent of the examples, on which it may depend.

    Args:
        terms: one run of guide and model
        user: name of the estimator, for the message
        scored: leave out latents with a reparameterized sampler, whose gradient goes through their draw
    """
    shared = {site.name for site in terms.sites if not site.local}
    if not shared:
        return
    local = {site.name for site in terms.latent if site.local and not (scored and site.reparameterized)}
    for order in terms.order:
        first = min((place for place, name in enumerate(order) if name in local), default=len(order))
        for name in order[first:]:
            if name in shared:
                raise ValueError(
                    f"program: {user} weights the draws of each example separately, but site {name!r}, outside the "
                    "plate of the data, may depend on them, as it comes after them: move it before the plate, or use "
                    "ELBO or ReinforceLOO"
                )
