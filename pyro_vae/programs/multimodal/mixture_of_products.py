"""The mixture of products of experts (MoPoE)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Normal

from pyro_vae.distributions import NormalMixture
from pyro_vae.programs.multimodal.joint import MixtureJoint, product

__all__ = ["MixtureOfProducts"]


class MixtureOfProducts(MixtureJoint):
    r"""The mixture, with equal weights, of the products of experts of all subsets of the modalities (MoPoE).

    .. math:: q(z \mid x_S) = \frac{1}{2^{|S|} - 1} \sum_{\emptyset \ne A \subseteq S} q_A(z), \qquad
              q_A(z) \propto p(z) \prod_{m \in A} \tilde q_m(z \mid x_m)

    Experts are those of :class:`ProductOfExperts`. Where no modality is seen, q is the prior. The bound has the
    density of the mixture; the paper bounds its divergence from above by the mean divergence of the products.

    References:
        Generalized multimodal ELBO (Sutter et al., 2021), https://arxiv.org/abs/2105.02470

    Args:
        stratified: whether the particles of an example come from all products equally often, which lowers the variance
            of the ELBO and tightens IWAE. Estimators whose gradient needs independent particles (DReG, GDReG,
            JackknifeIWAE) take ``stratified=False``

    Example:
        >>> q = MixtureOfProducts()(
        ...     Normal(torch.zeros(1), 1.0), torch.ones(1, 2, 1), torch.ones(1, 2, 1), torch.ones(1, 2, dtype=bool)
        ... )
        >>> round(float(q.mean), 3)  # the mean of 1/2, 1/2 and 2/3
        0.556
    """

    def __call__(self, prior: Normal, loc: Tensor, scale: Tensor, seen: Tensor) -> NormalMixture:
        """Return q(z given the modalities that are seen)."""
        modalities = seen.shape[-1]
        numbers = torch.arange(2**modalities, device=seen.device).unsqueeze(-1)
        subsets = (numbers >> torch.arange(modalities, device=seen.device)) % 2 == 1
        possible = ~(subsets & ~seen.unsqueeze(-2)).any(-1)
        # the empty subset is the prior
        takes_part = possible & (subsets.any(-1) | ~seen.any(-1, keepdim=True))
        return self.mixture(*product(prior, loc, scale, subsets), takes_part)
