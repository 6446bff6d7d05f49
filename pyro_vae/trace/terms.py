"""All sites of one run of guide and model, and the sums over them that estimators and evaluations use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor

from pyro_vae.trace.layout import Layout
from pyro_vae.trace.site import Site, log_q_unmasked

__all__ = ["Draw", "Terms"]


class Draw(NamedTuple):
    """The values at which the latent sites of one pass are scored.

    Attributes:
        start: first particle of the pass
        stop: first particle after it
        values: by site, the value, its plates and its number of event dimensions
        layout: the layout of the dimensions
    """

    start: int
    stop: int
    values: dict[str, tuple[Tensor, Any]]
    layout: Layout = Layout()

    def without(self, names: Collection[str]) -> Draw:
        """Return the draws of the other sites."""
        return self._replace(values={name: value for name, value in self.values.items() if name not in names})

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

    @cached_property
    def log_value_weights(self) -> Tensor | None:
        """Log-probability under the guide of each combination of enumerated values, ``(*values, particles, batch)``.

        None where nothing is enumerated. Masks are left out: all other sites are averaged by this weight, also those
        of examples for which the enumerated site itself is masked.
        """
        sites = [site.read(log_q_unmasked) for site in self.latent if site.enumerated]
        return sum(sites) if sites else None

    def log_ratio(self, beta: float | Tensor = 1.0, *, detached_params: bool = False) -> Tensor:
        r"""Return :math:`\log p(x \mid z) + \beta (\log p(z) - \log q(z))`, ``(*values, particles, batch)``.

        Args:
            beta: weight of the divergence
            detached_params: hold the parameters of the guide constant, so that only the draws carry its gradient
        """
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

    def log_q(self, *, unreparameterized: bool = False, detached_draws: bool = False) -> Tensor | float:
        """Return the joint log-density of the latents under the guide, ``(particles, batch)``.

        Args:
            unreparameterized: only the sites whose draws carry no gradient
            detached_draws: at constant draws, so that the gradient is the score

        Raises:
            ValueError: a site is enumerated, so that it has no single draw.
        """
        refuse_enumerated(self.latent, "log q of a draw")
        sites = [site for site in self.latent if not (unreparameterized and site.reparameterized)]
        return sum(site.log_q_detached_draws if detached_draws else site.log_q for site in sites)

    def kl(self, site: Site) -> Tensor:
        """Return the divergence of a latent site per example, ``(batch,)``: in closed form where there is one."""
        each = self.expect(site.sampled_kl if site.closed_form_kl is None else site.closed_form_kl)
        return each.mean(0)

    def expect(self, term: Tensor) -> Tensor:
        """Average over the enumerated values, to ``(particles, batch)``."""
        if self.log_value_weights is None or term.dim() == 2:
            return term
        term = self.log_value_weights.exp() * term
        return term.sum(tuple(range(term.dim() - 2)))

    def log_expect(self, log_w: Tensor) -> Tensor:
        """Average the exponentials over the enumerated values and return the logarithm, ``(particles, batch)``."""
        if self.log_value_weights is None:
            return log_w
        log_w = self.log_value_weights + log_w
        return log_w.logsumexp(tuple(range(log_w.dim() - 2)))

    def split(self) -> tuple[Terms, Terms]:
        """Return the sites in the plate of the data, and those that all examples share."""
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
