"""The mixture of experts (MMVAE)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Normal

from pyro_vae.distributions import NormalMixture
from pyro_vae.programs.multimodal.joint import MixtureJoint

__all__ = ["MixtureOfExperts"]


class MixtureOfExperts(MixtureJoint):
    r"""The mixture, with equal weights, of one posterior per modality that is seen (MMVAE).

    .. math:: q(z \mid x_S) = \frac{1}{|S|} \sum_{m \in S} q_m(z \mid x_m)

    Each expert is the posterior of its modality, without a further factor of the prior. The density is that of the
    mixture, so that the particles of all experts are weighted together. Where no modality is seen, q is the prior.

    References:
        Variational mixture-of-experts autoencoders for multi-modal deep generative models (Shi et al., 2019),
        https://arxiv.org/abs/1911.03393

    Args:
        stratified: whether the particles of an example come from all experts equally often, which lowers the variance
            of the ELBO and tightens IWAE. Estimators whose gradient needs independent particles (DReG, GDReG,
            JackknifeIWAE) take ``stratified=False``

    Example:
        >>> q = MixtureOfExperts()(
        ...     Normal(torch.zeros(1), 1.0), torch.ones(1, 2, 1), torch.ones(1, 2, 1), torch.ones(1, 2, dtype=bool)
        ... )
        >>> float(q.mean), float(q.variance)
        (1.0, 1.0)
    """

    def __call__(self, prior: Normal, loc: Tensor, scale: Tensor, seen: Tensor) -> NormalMixture:
        """Return q(z given the modalities that are seen)."""
        own = prior.expand((len(loc), 1, loc.shape[-1]))
        takes_part = torch.cat([seen, ~seen.any(-1, keepdim=True)], -1)
        return self.mixture(torch.cat([loc, own.loc], -2), torch.cat([scale, own.scale], -2), takes_part)
