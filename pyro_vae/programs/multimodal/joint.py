"""Base of the ways to combine the posteriors of several modalities into one."""

from __future__ import annotations

from abc import abstractmethod

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Normal

from pyro_vae._util.abstract import Abstract
from pyro_vae._util.describe import Described
from pyro_vae.distributions import NormalMixture, StratifiedNormalMixture

__all__ = ["Joint", "MixtureJoint", "product"]


class Joint(Described, Abstract):
    """A function from the prior and one expert per modality to q(z given the modalities that are seen).

    Example:
        >>> import torch, pyro_vae as pv
        >>> class FirstSeen(pv.programs.Joint):
        ...     def __call__(self, prior, loc, scale, seen):
        ...         index = seen.to(torch.uint8).argmax(-1)[:, None, None].expand(-1, 1, loc.shape[-1])
        ...         loc, scale = (p.gather(1, index) for p in (loc, scale))
        ...         one = seen.any(-1, keepdim=True)
        ...         return pv.programs.ProductOfExperts()(prior, loc, scale, one)
        >>> pv.programs.Multimodal.example(joint=FirstSeen()).encode(torch.zeros(5, 4)).event_shape
        torch.Size([2])
    """

    @abstractmethod
    def __call__(self, prior: Normal, loc: Tensor, scale: Tensor, seen: Tensor) -> TorchDistributionMixin:
        """Return q(z given the modalities that are seen), of batch shape ``(n,)``.

        Args:
            prior: p(z), a normal of batch shape ``(latent,)``
            loc: means of the experts, ``(n, modalities, latent)``
            scale: their standard deviations, likewise
            seen: which modalities of each row are not missing, ``(n, modalities)``
        """


class MixtureJoint(Joint):
    """Base of joint posteriors that are mixtures.

    Args:
        stratified: whether the particles of an example come from all components equally often, which lowers the
            variance of the ELBO and tightens IWAE. Estimators whose gradient needs independent particles (DReG, GDReG,
            JackknifeIWAE) take ``stratified=False``
    """

    def __init__(self, *, stratified: bool = True) -> None:
        self.stratified = stratified

    def mixture(self, loc: Tensor, scale: Tensor, takes_part: Tensor) -> NormalMixture:
        """Return the mixture with equal weights of the components that take part."""
        if self.stratified:
            return StratifiedNormalMixture(loc, scale, takes_part)
        return NormalMixture(loc, scale, torch.zeros_like(loc[..., 0]).masked_fill(~takes_part, -torch.inf))


def product(prior: Normal, loc: Tensor, scale: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the prior times the experts that are members.

    Args:
        prior: p(z), a normal of batch shape ``(latent,)``
        loc: means of the experts, ``(n, modalities, latent)``
        scale: their standard deviations, likewise
        members: ``(..., modalities)``, whose other dimensions broadcast with ``n`` and are those of the result
    """
    weight, own = scale.square().reciprocal(), prior.scale.square().reciprocal()
    chosen = members.to(loc.dtype)
    precision = own + chosen @ weight
    return (own * prior.loc + chosen @ (weight * loc)) / precision, precision.rsqrt()
