"""All sites of one run of guide and model, and the sums over them that estimators and evaluations use."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor

from pyro_vae.trace.call import outline
from pyro_vae.trace.layout import Layout, readable, same
from pyro_vae.trace.site import Site, log_probabilities
from pyro_vae.trace.values import Probabilities

__all__ = ["Draw", "Terms"]

#: The largest number of combinations of enumerated values for which importance weights are computed.
MAX_COMBINATIONS = 2**20


class Draw(NamedTuple):
    """The values at which the latent sites of one pass are scored.

    Attributes:
        start: first particle of the pass
        stop: first particle after it
        values: by site, the value, its plates and its number of event dimensions
        layout: the layout of the dimensions
        shared: the values of sites outside the plate of the data, where they are left out
    """

    start: int
    stop: int
    values: dict[str, tuple[Tensor, Any]]
    layout: Layout = Layout()
    shared: dict[str, tuple[Tensor, Any]] = {}

    def without(self, names: Collection[str]) -> Draw:
        """Return the draws of the other sites."""
        kept, left_out = {}, {}
        for name, value in self.values.items():
            (left_out if name in names else kept)[name] = value
        return self._replace(values=kept, shared=left_out)

    def rows(self, name: str, like: Tensor | None = None) -> Tensor:
        """Return the draws of a site, or a tensor of their shape, as ``(particles, batch, dims)``."""
        value, message = self.values[name]
        return self.layout.per_row(value if like is None else like, message, message["event_dim"])


@dataclass
class Terms:
    r"""All sites of one run of guide and model.

    Attributes:
        latent: latent sites
        observed: observed sites
        num_particles: number of draws of the latents of each example
        draws: the values that the sites were scored at, pass by pass
        call: runs guide and model again
        values: all enumerated sites, in the order of their dimensions
        order: names of the sites of the guide, and of those of the model, in the order of their sample statements
        subsamples: messages of subsampled plates, by name, so that model or guide can run again on the same rows

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> terms = pv.trace.run(toy.program.model, toy.program.guide, (toy.draw(5),), num_particles=3)
        >>> terms.log_w().shape
        torch.Size([3, 5])
    """

    latent: list[Site]
    observed: list[Site]
    num_particles: int
    draws: Sequence[Draw] = ()
    call: Any = None
    values: Sequence[Site] = ()
    order: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    subsamples: Mapping[str, Any] = field(default_factory=dict)
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    def read(self, quantity: Callable[[Terms], Any]) -> Any:
        """Return a function of these terms, computed at the first call: random numbers are drawn once per run."""
        if quantity not in self._cache:
            self._cache[quantity] = quantity(self)
        return self._cache[quantity]

    @property
    def sites(self) -> list[Site]:
        """Latent, then observed sites."""
        return self.latent + self.observed

    def same_scale(self, site: Site, other: Site | None = None) -> bool:
        """Whether a site is scaled in the guide as in the model, or like another site.

        Tensors on another device than the CPU are compared in a dry run, once for a program.
        """
        message = site.guide if other is None else other.model
        alike = same(site.model["scale"], message["scale"]) if other is None else same(site.scale, other.scale)
        if not alike or readable(site.model["scale"], message["scale"]) or self.call is None:
            return alike
        scales = outline(self.call).scales
        where = ("guide", site.name) if other is None else ("model", other.name)
        return scales.get(("model", site.name)) == scales.get(where)

    def probabilities(self, number: int) -> Probabilities:
        """Return the probabilities under the guide of the values of an enumerated site, given those of earlier ones.

        Masks are left out: all other sites are averaged by these probabilities, also those of examples for which the
        enumerated site itself is masked.
        """
        key = "probabilities", number
        if key not in self._cache:
            self._cache[key] = Probabilities.of(self.values[number].read(log_probabilities))
        return self._cache[key]

    def log_ratio(self, beta: float | Tensor = 1.0, *, detached_params: bool = False) -> Tensor:
        r"""Return :math:`\log p(x \mid z) + \beta (\log p(z) - \log q(z))`, ``(*values, particles, batch)``.

        Args:
            beta: weight of the divergence
            detached_params: hold the parameters of the guide constant, so that only the draws carry its gradient

        Raises:
            ValueError: there are more than a million combinations of enumerated values.
        """
        if len(self.values) > 1:
            sizes = [self.probabilities(number).log_q.shape[0] for number in range(len(self.values))]
            if math.prod(sizes) > MAX_COMBINATIONS:
                raise ValueError(
                    f"guide: sites {[site.name for site in self.values]} have {math.prod(sizes):,} combinations of "
                    f"values, and at most {MAX_COMBINATIONS:,} are weighted at once: use ELBO, which sums site by site"
                )
        log_w = sum(site.log_p for site in self.observed)
        for site in self.latent:
            gap = site.log_p - (site.log_q_detached_params if detached_params else site.log_q)
            log_w = log_w + (gap if isinstance(beta, float) and beta == 1.0 else beta * gap)
        return log_w

    def log_w(self, beta: float | Tensor = 1.0, *, detached_params: bool = False) -> Tensor:
        r"""Return the log importance weight of each particle, ``(particles, batch)``.

        It is :meth:`log_ratio`, averaged over enumerated values inside the logarithm.

        Args:
            beta: weight of the divergence
            detached_params: hold the parameters of the guide constant
        """
        return self.log_expect(self.log_ratio(beta, detached_params=detached_params))

    def log_q(self, *, detached_draws: bool = False) -> Tensor | float:
        """Return the joint log-density of the latents under the guide, ``(particles, batch)``.

        Args:
            detached_draws: at constant draws, so that the gradient is the score

        Raises:
            ValueError: a site is enumerated, so that it has no single draw.
        """
        refuse_enumerated(self.latent, "log q of a draw")
        return sum(site.log_q_detached_draws if detached_draws else site.log_q for site in self.latent)

    def score_function(self) -> Tensor | float:
        """Return the score function of the draws, ``(particles, batch)``.

        Its gradient is what the gradient through the draws leaves out. It is the log-density under the guide of the
        latents without a reparameterized sampler, and that of the accepted proposals of a rejection sampler; 0 where
        all latents are reparameterized.

        Raises:
            ValueError: a site is enumerated, so that it has no single draw.
        """
        refuse_enumerated(self.latent, "a score function")
        return sum(site.score_function for site in self.latent if not site.reparameterized)

    def kl(self, site: Site) -> Tensor:
        """Return the divergence of a latent site per example, ``(batch,)``: in closed form where there is one."""
        return self.divergence(site).mean(0)

    def divergence(self, site: Site) -> Tensor:
        """Return the divergence of a latent site at each draw, ``(particles, batch)``; 1 particle in closed form."""
        return self.expect(site.sampled_kl if site.closed_form_kl is None else site.closed_form_kl)

    def expect(self, term: Tensor) -> Tensor:
        """Average over the enumerated values, to ``(particles, batch)``."""
        while term.dim() > 2:
            # the last site first: its probabilities depend on the values of the earlier ones
            term = term[0] if term.shape[0] == 1 else self.probabilities(term.dim() - 3).average(term)
        return term

    def log_expect(self, log_w: Tensor) -> Tensor:
        """Average the exponentials over the enumerated values and return the logarithm, ``(particles, batch)``.

        Raises:
            ValueError: an enumerated site has other plates than that of the data.
        """
        for site in self.values:
            if site.inner or not site.local:
                raise ValueError(
                    f"guide: importance weights of an example need the values of each example, but those of site "
                    f"{site.name!r}, outside the plate of the data or in a further plate, are averaged there: use "
                    "ELBO, or declare what belongs to one example by .to_event"
                )
        while log_w.dim() > 2:
            number = log_w.dim() - 3
            log_w = log_w[0] if log_w.shape[0] == 1 else self.probabilities(number).log_average(log_w)
        return log_w

    def split(self) -> tuple[Terms, Terms]:
        """Return the sites in the plate of the data, and those that all examples share; both know all values."""
        outside = {site.name for site in self.sites if not site.local}
        if not outside:
            return self, replace(self, latent=[], observed=[], draws=())
        return tuple(
            replace(
                self,
                latent=[s for s in self.latent if s.local == local],
                observed=[s for s in self.observed if s.local == local],
                draws=[draw.without(outside) for draw in self.draws] if local else (),
            )
            for local in (True, False)
        )


def refuse_enumerated(sites: Sequence[Site], what: str) -> None:
    """Raise if a site is enumerated where single draws are needed."""
    for site in sites:
        if site.enumerated:
            raise ValueError(
                f"guide: {what} does not exist for site {site.name!r}, whose values are summed over: use ELBO, "
                "IWAE or Enumeration"
            )
