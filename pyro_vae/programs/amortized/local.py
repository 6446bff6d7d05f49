"""The posterior of one latent of each example: an encoder, and the transform to the support of the latent."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_vae._util.abstract import Abstract
from pyro_vae.conditional import Conditional
from pyro_vae.nets import Shape
from pyro_vae.posteriors import Bernoulli, OneHotCategorical
from pyro_vae.programs.amortized.inspection import Latent
from pyro_vae.programs.amortized.on_support import OnSupport
from pyro_vae.programs.amortized.supports import fixed_support, to_support
from pyro_vae.programs.checks import describe, entry_support
from pyro_vae.programs.compatibility import contains, support_of

__all__ = ["Continuous", "Discrete", "Encoder", "encoder_of"]

#: Builds a posterior of the shelf: ``posterior(shape, latent)``, with ``net=`` and ``context=`` if there are any.
PosteriorBuilder = Callable[..., Conditional]


class Encoder(Abstract, nn.Module):
    """The posterior of a latent given the data of an example and other latents.

    Attributes:
        posterior: the part of the shelf with the network
        width: number of features of a value
    """

    posterior: Conditional
    width: int

    def forward(self, x: Tensor, *context: Tensor) -> Any:
        """Return q(z given x, context) with the event shape of the site."""
        return self.distribution(self.posterior(x, *context))

    @abstractmethod
    def distribution(self, q: Any) -> Any:
        """Return the distribution of the site."""

    @abstractmethod
    def features(self, value: Tensor) -> Tensor:
        """Return a value as what other encoders see, ``(*batch, width)``."""


class Continuous(Encoder):
    r"""A posterior over real vectors u, transformed to the support of the latent.

    .. math:: q(z \mid x) = q(u \mid x) \, |\det \partial z / \partial u|^{-1}, \qquad z = f(u)

    Args:
        latent: the site
        posterior: builds q(u given x)
        shape: shape of the data of one example
        options: ``net`` and ``context`` of the posterior
    """

    def __init__(self, latent: Latent, posterior: PosteriorBuilder, shape: Shape, **options: Any) -> None:
        super().__init__()
        self.event, self.support = latent.fn.event_shape, fixed_support(latent.fn)
        self.transform = to_support(self.support)
        self.inner = torch.Size(self.event if self.transform is None else self.transform.inverse_shape(self.event))
        self.real, self.width = entry_support(self.support) is constraints.real, self.inner.numel()
        self.posterior = posterior(shape, self.width, **options)

    def distribution(self, q: Any) -> Any:
        """Return the distribution of the site."""
        flat = self.event == (self.width,)
        if self.transform is None or (self.real and flat):
            return q
        if self.real and isinstance(q, dist.Independent) and isinstance(q.base_dist, dist.Normal):
            # for a divergence in closed form
            loc, scale = (p.reshape([*p.shape[:-1], *self.event]) for p in (q.base_dist.loc, q.base_dist.scale))
            return dist.Normal(loc, scale).to_event(len(self.event))
        if not contains(constraints.real, support_of(q) or constraints.real):
            raise ValueError(
                f"posterior: expected one over real vectors, which are transformed to the support of the latent, got "
                f"{type(self.posterior).__name__} on {describe(entry_support(q.support))}. Use one such as "
                "MeanFieldNormal"
            )
        return OnSupport(q, self.transform, self.inner, self.support)

    def features(self, value: Tensor) -> Tensor:
        """Return the unconstrained value."""
        value = value if self.transform is None else self.transform.inv(value)
        return value.reshape(*value.shape[: value.dim() - len(self.inner)], -1)


class Discrete(Encoder):
    """A posterior over the values of a discrete latent.

    Args:
        latent: the site: binary values, or a single class or one-hot vector
        shape: shape of the data of one example
        options: ``net`` and ``context`` of the posterior

    Raises:
        ValueError: the latent has another distribution.
    """

    def __init__(self, latent: Latent, shape: Shape, **options: Any) -> None:
        super().__init__()
        fn, self.event = latent.fn, latent.fn.event_shape
        while isinstance(fn, (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)):
            fn = fn.base_dist
        support = entry_support(fixed_support(latent.fn))
        self.binary, self.one_hot = (
            support is constraints.boolean,
            isinstance(fn, torch.distributions.OneHotCategorical),
        )
        classes = isinstance(fn, torch.distributions.Categorical) and not self.event
        if not (self.binary or self.one_hot or classes):
            raise ValueError(
                f"model: expected a discrete latent with binary values, or one class (Categorical, "
                f"OneHotCategorical), got {type(fn).__name__} with event shape {tuple(self.event)} at site "
                f"{latent.name!r}, {describe(support)}. Use one of those, or let estimators sum over it by "
                'infer={"enumerate": "parallel"} in the model'
            )
        self.width = self.event.numel() if self.binary else fn.probs.shape[-1]
        self.posterior = (Bernoulli if self.binary else OneHotCategorical)(shape, self.width, **options)

    def distribution(self, q: Any) -> Any:
        """Return the distribution of the site."""
        if self.binary:
            logits = q.base_dist.logits
            return dist.Bernoulli(logits=logits.reshape([*logits.shape[:-1], *self.event])).to_event(len(self.event))
        return q if self.one_hot else dist.Categorical(logits=q.logits)

    def features(self, value: Tensor) -> Tensor:
        """Return binary values and one-hot vectors as numbers."""
        if self.binary:
            return value.reshape(*value.shape[: value.dim() - len(self.event)], -1)
        dtype = next(self.posterior.parameters()).dtype
        return value.to(dtype) if self.one_hot else nn.functional.one_hot(value.long(), self.width).to(dtype)


def encoder_of(latent: Latent, posterior: PosteriorBuilder, shape: Shape, **options: Any) -> Encoder:
    """Build the encoder of a latent."""
    return Discrete(latent, shape, **options) if latent.discrete else Continuous(latent, posterior, shape, **options)
