"""The product of experts (MVAE)."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Normal

from pyro_vae.programs.multimodal.joint import Joint, product

__all__ = ["ProductOfExperts"]


class ProductOfExperts(Joint):
    r"""The prior times one expert per modality that is seen (MVAE).

    .. math:: q(z \mid x_S) \propto p(z) \prod_{m \in S} \tilde q_m(z \mid x_m)

    An expert stands for the likelihood of its modality as a function of z: the posterior of one modality is the prior
    times its expert. With exact experts the product is the exact posterior. Prior and experts are diagonal normals.

    References:
        Multimodal generative models for scalable weakly-supervised learning (Wu and Goodman, 2018),
        https://arxiv.org/abs/1802.05335

    Example:
        >>> import torch
        >>> q = ProductOfExperts()(
        ...     Normal(torch.zeros(1), 1.0), torch.ones(1, 2, 1), torch.ones(1, 2, 1), torch.ones(1, 2, dtype=bool)
        ... )
        >>> round(float(q.mean), 3), round(float(q.variance), 3)
        (0.667, 0.333)
    """

    def __call__(self, prior: Normal, loc: Tensor, scale: Tensor, seen: Tensor) -> dist.Independent:
        """Return q(z given the modalities that are seen)."""
        loc, scale = product(prior, loc, scale, seen.unsqueeze(-2))
        return dist.Normal(loc.squeeze(-2), scale.squeeze(-2)).to_event(1)
