"""A hierarchy of latents, with bottom-up or top-down inference."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.likelihoods import Normal
from pyro_vae.nets import Net
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import StandardNormal
from pyro_vae.programs.inference import Inference
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.program import SMALL, Program
from pyro_vae.programs.top_down import TopDown

__all__ = ["Hierarchical"]


class Hierarchical(Program):
    r"""Layers of latents, each given the layer above (hierarchical VAE, ladder VAE).

    .. math:: p(x) = \int p(x \mid z_1) \prod_{l < L} p(z_l \mid z_{l+1})\, p(z_L)\, dz_{1:L}

    References:
        Stochastic backpropagation and approximate inference in deep generative models (Rezende et al., 2014),
        https://arxiv.org/abs/1401.4082; Ladder variational autoencoders (Sonderby et al., 2016),
        https://arxiv.org/abs/1602.02282

    Args:
        prior: p(z_L) of the top layer
        layers: p(z_l given z_(l+1)), from the layer below the top down to z1: Conditionals of one vector, such as
            ``posteriors.MeanFieldNormal((above,), below)``
        likelihood: p(x given z1); with ``skip`` its context is the concatenation of all layers above
        inference: :class:`BottomUp` or :class:`TopDown`
        skip: whether the likelihood depends on all layers; build it with ``context=`` the latents above z1

    Raises:
        TypeError: ``inference`` is neither BottomUp nor TopDown.
        ValueError: the number of posteriors is not the number of layers, or the likelihood ignores the layers of
            ``skip``.

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
        net = getattr(likelihood, "net", None)
        if skip and isinstance(net, Net) and not (net.context or likelihood.context):
            raise ValueError(
                f"likelihood: expected one whose context is the layers above z1, because skip=True, got "
                f"{type(likelihood).__name__} with context=0. Build it with context=N for N latents in those layers"
            )
        self.prior, self.layers, self.likelihood = prior, nn.ModuleList(layers), likelihood
        self.inference, self.skip = inference, skip

    @classmethod
    def example(cls) -> Hierarchical:
        """Build a small instance with two layers."""
        return cls(
            prior=StandardNormal(2),
            layers=[MeanFieldNormal((2,), 3, net=SMALL)],
            likelihood=Normal(3, (4,), net=SMALL),
            inference=TopDown([MeanFieldNormal((4,), 3, context=2, net=SMALL), MeanFieldNormal((4,), 2, net=SMALL)]),
        )

    def model(self, x: Tensor) -> Tensor:
        """Sample the layers from the top down and observe ``x``."""
        announce(prior=self.prior, layers=self.layers, likelihood=self.likelihood)
        with DataPlate(x):
            return observe("x", self.decode(*self._sample_layers()), x)

    def guide(self, x: Tensor) -> list[Tensor]:
        """Sample the layers from the posterior of ``x``."""
        announce(inference=self.inference)
        with DataPlate(x):
            return self.inference.sample(x)

    def _sample_layers(self) -> list[Tensor]:
        top = len(self.layers) + 1
        z = [pyro.sample(f"z{top}", self.prior())]
        for i, layer in zip(range(top - 1, 0, -1), self.layers, strict=True):
            z.insert(0, pyro.sample(f"z{i}", layer(z[0])))
        return z

    def decode(self, *z: Tensor) -> TorchDistributionMixin:
        """Return p(x given z1), or given all layers z1, z2, ... with skip connections."""
        return self.likelihood(z[0], torch.cat(z[1:], -1)) if self.skip and len(z) > 1 else self.likelihood(z[0])

    def decode_prior(self, num_samples: int) -> TorchDistributionMixin:
        """Sample all layers from the prior and return p(x given z)."""
        with DataPlate(torch.empty(num_samples, device=self.device)):
            return self.decode(*self._sample_layers())

    def decode_posterior(self, x: Tensor) -> TorchDistributionMixin:
        """Sample all layers given ``x`` and return p(x given z)."""
        return self.decode(*self.inference.sample(x))

    def check_data(self, x: Tensor, *context: Tensor) -> None:
        """Raise if shape, type or values of the data do not fit."""
        super().check_data(x, *context)  # x is all that the model observes
