"""Clustering with a VAE: a mixture prior whose component is enumerated exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pyro_vae.likelihoods import Normal
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import ConditionalNormal
from pyro_vae.programs.program import SMALL
from pyro_vae.programs.semi_supervised import SemiSupervised

__all__ = ["MixtureVAE"]


class MixtureVAE(SemiSupervised):
    r"""A cluster k and latents z per example: a mixture prior of z, whose cluster is enumerated exactly.

    .. math:: p(x) = \sum_k p(k) \int p(z \mid k)\, p(x \mid z)\, dz, \qquad
              q(k, z \mid x) = q(k \mid x)\, q(z \mid x, k)

    This is a :class:`SemiSupervised` program without labels, whose likelihood does not depend on the class.

    References:
        Deep unsupervised clustering with Gaussian mixture variational autoencoders (Dilokthanakul et al., 2016),
        https://arxiv.org/abs/1611.02648; Variational deep embedding (Jiang et al., 2017),
        https://arxiv.org/abs/1611.05148

    Args:
        classes: p(k), a prior over one-hot vectors
        prior: p(z given k), such as ``priors.ConditionalNormal``
        likelihood: p(x given z)
        classifier: q(k given x), a posterior over one-hot vectors, or :class:`Responsibilities`
        posterior: q(z given x, k), or q(z given x)

    Example:
        >>> import torch, pyro_vae as pv
        >>> clusters = pv.programs.MixtureVAE(
        ...     classes=pv.priors.OneHotCategorical(3),
        ...     prior=pv.priors.ConditionalNormal(2, context=3),
        ...     likelihood=pv.likelihoods.Bernoulli(2, (4,)),
        ...     classifier=pv.posteriors.OneHotCategorical((4,), 3),
        ...     posterior=pv.posteriors.MeanFieldNormal((4,), 2),
        ... )
        >>> clusters.sample(5).shape
        torch.Size([5, 4])
    """

    @classmethod
    def example(cls, **options: Any) -> SemiSupervised:
        """Build a small instance with three clusters; ``options`` replace arguments of the constructor."""
        return super().example(
            **{
                "prior": ConditionalNormal(2, context=3, net=SMALL),
                "likelihood": Normal(2, (4,), net=SMALL),
                "posterior": MeanFieldNormal((4,), 2, net=SMALL),
                **options,
            }
        )

    @classmethod
    def default_parts(cls) -> dict[str, Callable[..., Any]]:
        """Return a prior with one normal per cluster."""
        return {"prior": ConditionalNormal}

    def cluster(self, x: Tensor) -> Tensor:
        """Return the most probable cluster of each example, of shape ``(n,)``."""
        return self.classify(x).argmax(-1)
