"""How the latents of a run are drawn where no gradient goes through some of the draws."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae.trace.handlers import Recorder
from pyro_vae.trace.score_function import rejection_sampler, score_function_of
from pyro_vae.trace.site import Site

__all__ = ["Detached", "Scored", "ScoredEverywhere"]


class ScoredEverywhere(Recorder):
    """Draw as the guide says, and leave what has no gradient through its draw to a score function.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> terms = pv.trace.run(toy.program.model, toy.program.guide, (toy.draw(5),), draws=ScoredEverywhere)
        >>> terms.latent[0].reparameterized
        True
    """

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and rejection_sampler(msg["fn"]) is not None:
            # a rejection sampler may know the proposals of its last draw alone
            msg["score_function"] = score_function_of(msg["fn"], msg["value"])
        super()._pyro_post_sample(msg)


class Scored(ScoredEverywhere):
    """Draw as :class:`ScoredEverywhere`, for estimators that weight the draws of each example separately.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> terms = pv.trace.run(toy.program.model, toy.program.guide, (toy.draw(5),), draws=Scored)
        >>> terms.latent[0].reparameterized
        True
    """

    def check(self, site: Site, user: str) -> None:
        """Raise if a site that needs a score function is shared by all examples."""
        # its learning signal would be that of all examples at once
        if not site.reparameterized and not site.local:
            raise ValueError(
                f"guide: {user} weights the draws of each example separately, but site {site.name!r}, outside the "
                "plate of the data, has no reparameterized sampler: use ReinforceLOO, or a sampler that has one"
            )


class Detached(Scored):
    """Draw the latents of each example without a gradient, for estimators that need none through the draw.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> terms = pv.trace.run(toy.program.model, toy.program.guide, (toy.draw(5),), draws=Detached)
        >>> terms.draws[0].rows("z").requires_grad
        False
    """

    needs_layout = True

    def _pyro_post_sample(self, msg: Any) -> None:
        if self.layout.contains(msg) and not msg["is_observed"] and isinstance(msg["value"], Tensor):
            msg["value"] = msg["value"].detach()
        Recorder._pyro_post_sample(self, msg)  # a score function is that of a draw with its gradient
