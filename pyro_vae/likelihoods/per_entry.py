"""Base of likelihoods whose entries are independent given z, with the same number of decoder outputs per entry.

A subclass calls the constructor with its number of ``outputs`` (and its scales) and defines ``distribution``.
"""

from __future__ import annotations

from abc import abstractmethod

from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.nets import NetBuilder, Shape
from pyro_vae.nets.contract import build
from pyro_vae.nets.shapes import as_shape
from pyro_vae.scales import OptimalSigma, Scale

__all__ = ["PerEntry"]


class PerEntry(Conditional):
    r"""Independent entries, each with parameters from the decoder.

    .. math:: p(x \mid z) = \prod_i p(x_i \mid \mathrm{net}(z)_i)

    Args:
        latent: number of latents
        shape: shape of one example
        net: builds the decoder, ``net((latent,), (outputs, *shape))``
        context: width of the context in addition to z
        outputs: number of decoder outputs per entry; None for a single one: ``net((latent,), shape)``
        scales: scales by name: each becomes an attribute and adds its own ``outputs``
    """

    def __init__(
        self,
        latent: int,
        shape: Shape,
        *,
        net: NetBuilder,
        context: int,
        outputs: int | None = None,
        **scales: Scale | OptimalSigma,
    ) -> None:
        super().__init__(latent=latent, context=context)
        self.shape, self.outputs = as_shape(shape), outputs
        for name, scale in scales.items():
            setattr(self, name, scale)
        rows = () if outputs is None else (outputs + sum(scale.outputs for scale in scales.values()),)
        self.net = build(net, (latent,), (*rows, *self.shape), context)

    @abstractmethod
    def distribution(self, *outputs: Tensor) -> TorchDistributionMixin:
        """Return the distribution of every entry, given one tensor ``(*batch, *shape)`` per decoder output."""

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        out, k = self.net(z, *context), len(self.shape)
        return self.distribution(*([out] if self.outputs is None else out.unbind(-1 - k))).to_event(k)
