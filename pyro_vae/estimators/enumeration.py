"""The evidence lower bound with every discrete latent summed over."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent

from pyro_vae.estimators.elbo import ELBO
from pyro_vae.trace.run import Record
from pyro_vae.trace.terms import PARTICLES, Site

__all__ = ["Enumeration"]

#: Values of one site that are run at once at most: those of 12 bits.
LARGEST = 4096


class EveryDiscrete(Record):
    """Give every site that has finitely many values all of them, marked for enumeration or not."""

    def enumerates(self, msg: Any) -> bool:
        """Whether a site gets all its values."""
        return super().enumerates(msg) or (not msg["is_observed"] and factor(msg["fn"]).has_enumerate_support)

    def values(self, msg: Any) -> Tensor:
        """Return all values of a site, of shape ``(values, *event)``."""
        return support(msg["name"], msg["fn"])


class Enumeration(ELBO):
    r"""The evidence lower bound with an exact sum over the values of each discrete latent.

    .. math:: \sum_z q(z \mid x) \left(\log p(x \mid z) + \beta \log \frac{p(z)}{q(z \mid x)}\right)

    As :class:`ELBO` for a guide that marks its discrete sites for enumeration; here the marks are not needed, and
    vectors of bits or of one-hot groups are summed over as well. Without continuous latents value and gradient are
    exact, with them both are unbiased. Time and memory grow with the number of values, over several discrete
    sites with the product.

    References:
        Semi-supervised learning with deep generative models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298

    Args:
        options: ``analytic_kl`` of :class:`ELBO`, ``num_particles``, ``particles_per_pass``, ``beta`` and
            ``free_bits`` of :class:`Estimator`

    Raises:
        ValueError: in the first step, a site with more than 4096 values (12 bits), or one outside the
            plate of the data or in a further plate.

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.Bernoulli(3),
        ...     likelihood=pv.likelihoods.Normal(3, (4,)),
        ...     posterior=pv.posteriors.Bernoulli((4,), 3),
        ... )
        >>> Enumeration().per_datum(vae.model, vae.guide, torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    record = EveryDiscrete

    def check_site(self, site: Site) -> None:
        """Refuse an enumerated site whose values are not those of one datum."""
        super().check_site(site)
        plates = {frame.dim for frame in site.guide["cond_indep_stack"] if frame.name != PARTICLES} - {None}
        if site.enumerated and plates != {-1}:
            raise ValueError(
                f"Enumeration sums over the values of each datum, but site {site.name!r} stands outside the plate of "
                "the data or in a further plate: make it an event of the datum by `.to_event`"
            )


def factor(fn: Any) -> Any:
    """Return the distribution of one factor of an independent product."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn


def support(name: str, fn: Any) -> Tensor:
    """List the values of a site, of shape ``(values, *event)``."""
    one = factor(fn)
    # how often the factor stands in the event; a joined vector of groups lists its own values
    count = fn.event_shape.numel() // one.event_shape.numel()
    values = one.enumerate_support(expand=False)
    values = values.reshape(-1, *one.event_shape)
    if len(values) ** count > LARGEST:
        size = f"{len(values)}^{count}" if count > 1 else f"{len(values):,}"
        raise ValueError(
            f"Enumeration sums over all values of a site, but {name!r} has {size} of them, and {LARGEST:,} are the "
            "most that are run at once: use fewer latents, or VIMCO or ReinforceLOO"
        )
    index = torch.cartesian_prod(*[torch.arange(len(values), device=values.device)] * count)
    return values[index].reshape(-1, *fn.event_shape)
