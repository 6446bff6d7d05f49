"""A hierarchy of latents, with bottom-up or top-down inference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.programs.checks import check_tensor, check_values
from pyro_vae.programs.program import DataPlate, Program, announce, evaluating, mean_or_draw, observe

__all__ = ["BottomUp", "Hierarchical", "Inference", "TopDown"]


class Inference(nn.Module, ABC):
    """The order in which the guide draws the layers, and from what.

    Args:
        posteriors: one Conditional a layer, from the layer at the data (z1) to the top
    """

    def __init__(self, posteriors: Sequence[Conditional]) -> None:
        super().__init__()
        self.posteriors = nn.ModuleList(posteriors)

    @abstractmethod
    def draw(self, x: Tensor) -> list[Tensor]:
        """Draw ``z1``, ``z2``, ... by sample statements of these names and return them in this order."""


class BottomUp(Inference):
    r"""From the data upwards: :math:`q(z_1 \mid x)\, q(z_2 \mid z_1) \cdots q(z_L \mid z_{L-1})`.

    References:
        Importance weighted autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519

    Args:
        posteriors: q(z1 given x), then q of each layer given the one below

    Example:
        >>> import pyro_vae as pv
        >>> q = pv.posteriors.MeanFieldNormal
        >>> len(BottomUp([q((8, 8), 5), q((5,), 2)]).posteriors)
        2
    """

    def draw(self, x: Tensor) -> list[Tensor]:
        """Draw z1 from x, then each layer from the one below."""
        drawn = [x]
        for i, posterior in enumerate(self.posteriors, 1):
            drawn.append(pyro.sample(f"z{i}", posterior(drawn[-1])))
        return drawn[1:]


class TopDown(Inference):
    r"""From the top downwards: :math:`q(z_L \mid x) \prod_{l < L} q(z_l \mid x, z_{l+1})`.

    Each posterior below the top takes the layer above as a context (``context=`` the latents of that layer). The
    divergence of each layer is then one of conditionals given the same draw, in closed form where there is one.

    References:
        Ladder variational autoencoders (Sonderby et al., 2016), https://arxiv.org/abs/1602.02282;
        Improving variational inference with inverse autoregressive flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934

    Args:
        posteriors: q of each layer from z1 to the top, all given x

    Example:
        >>> import pyro_vae as pv
        >>> q = pv.posteriors.MeanFieldNormal
        >>> len(TopDown([q((8, 8), 5, context=2), q((8, 8), 2)]).posteriors)
        2
    """

    def draw(self, x: Tensor) -> list[Tensor]:
        """Draw the top from x, then each layer from x and the one above."""
        above: list[Tensor] = []
        for i in range(len(self.posteriors), 0, -1):
            above.insert(0, pyro.sample(f"z{i}", self.posteriors[i - 1](x, *above[:1])))
        return above


class Hierarchical(Program):
    r"""Layers of latents, each drawn from the one above.

    .. math:: p(x) = \int p(x \mid z_1) \prod_{l < L} p(z_l \mid z_{l+1})\, p(z_L)\, dz_{1:L}

    References:
        Stochastic backpropagation and approximate inference in deep generative models (Rezende et al., 2014),
        https://arxiv.org/abs/1401.4082; Ladder variational autoencoders (Sonderby et al., 2016),
        https://arxiv.org/abs/1602.02282

    Args:
        prior: p of the top layer
        layers: p(z_l given z_(l+1)), from the layer below the top down to z1: Conditionals of one vector, such as
            ``posteriors.MeanFieldNormal((above,), below)``
        likelihood: p(x given z1); with ``skip`` it takes all layers above as one context
        inference: :class:`BottomUp` or :class:`TopDown`
        skip: whether the likelihood sees all layers, built with ``context=`` the sum of those above z1

    Raises:
        TypeError: ``inference`` is neither BottomUp nor TopDown.
        ValueError: there is not one posterior for each layer.

    Example:
        >>> import torch, pyro_vae as pv
        >>> q = pv.posteriors.MeanFieldNormal
        >>> two = pv.programs.Hierarchical(
        ...     prior=pv.priors.StandardNormal(2),
        ...     layers=[q((2,), 5)],
        ...     likelihood=pv.likelihoods.Bernoulli(5, (8, 8)),
        ...     inference=pv.programs.TopDown([q((8, 8), 5, context=2), q((8, 8), 2)]),
        ... )
        >>> two.sample(3).shape
        torch.Size([3, 8, 8])
    """

    def __init__(
        self,
        *,
        prior: Conditional,
        layers: Sequence[Conditional],
        likelihood: Conditional,
        inference: Inference,
        skip: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(inference, Inference):
            raise TypeError(f"inference: expected BottomUp(posteriors) or TopDown(posteriors), got {inference!r}")
        if len(inference.posteriors) != len(layers) + 1:
            raise ValueError(
                f"inference: expected {len(layers) + 1} posteriors, one for each of {len(layers)} layers and one for "
                f"the top, got {len(inference.posteriors)}"
            )
        self.prior, self.layers, self.likelihood = prior, nn.ModuleList(layers), likelihood
        self.inference, self.skip = inference, skip

    def model(self, x: Tensor) -> Tensor:
        """Draw the layers from the top down and observe ``x``."""
        announce(prior=self.prior, layers=self.layers, likelihood=self.likelihood)
        with DataPlate(x):
            return observe("x", self.decode(*self._latents()), x)

    def guide(self, x: Tensor) -> list[Tensor]:
        """Draw the layers from the posterior of ``x``."""
        announce(inference=self.inference)
        with DataPlate(x):
            return self.inference.draw(x)

    def _latents(self) -> list[Tensor]:
        top = len(self.layers) + 1
        drawn = [pyro.sample(f"z{top}", self.prior())]
        for i, layer in zip(range(top - 1, 0, -1), self.layers, strict=True):
            drawn.insert(0, pyro.sample(f"z{i}", layer(drawn[0])))
        return drawn

    def decode(self, *z: Tensor) -> pyro.distributions.TorchDistribution:
        """Return p(x given z1), or given all layers z1, z2, ... where there are skip connections."""
        return self.likelihood(z[0], torch.cat(z[1:], -1)) if self.skip and len(z) > 1 else self.likelihood(z[0])

    def sample(self, n: int, *, mean: bool = False) -> Tensor:
        """Draw ``n`` new data, or the means of p(x given z), of shape ``(n, *shape)``."""
        with evaluating(self):
            z = self.prior().expand((n,)).sample()
            drawn = [z]
            for layer in self.layers:
                drawn.insert(0, layer(drawn[0]).sample())
            fn = self.decode(*drawn)
            return mean_or_draw(fn) if mean else fn.sample()

    def reconstruct(self, x: Tensor) -> Tensor:
        """Draw all layers given ``x`` and return the mean of p(x given z), of the shape of ``x``."""
        with evaluating(self):
            return mean_or_draw(self.decode(*self.inference.draw(x)))

    def check(self, x: Tensor, *context: Tensor) -> None:
        """Refuse data that do not fit the parts."""
        if context:
            raise ValueError(f"context: this program takes none, but the data have {1 + len(context)} columns")
        dtype = self.dtype
        with evaluating(self), torch.random.fork_rng(devices=[]):
            z = [self.prior().sample((1,))]
            for layer in self.layers:
                z.insert(0, layer(z[0]).sample())
            p = self.decode(*z)
            check_tensor("x", x, p.event_shape, dtype)
            check_values("x", x, p.support, self.likelihood)
