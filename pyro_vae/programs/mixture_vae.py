"""Clustering with a VAE: a mixture prior whose component is enumerated exactly."""

from __future__ import annotations

from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.conditional import Conditional
from pyro_vae.likelihoods import Normal
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import ConditionalNormal
from pyro_vae.programs.program import SMALL
from pyro_vae.programs.semi_supervised import SemiSupervised

__all__ = ["MixtureVAE", "Responsibilities"]


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

    def cluster(self, x: Tensor) -> Tensor:
        """Return the most probable cluster of each example, of shape ``(n,)``."""
        return self.classify(x).argmax(-1)


class Responsibilities(Conditional):
    r"""The q(k given x) that maximizes the ELBO, in closed form: a ``classifier`` of ``MixtureVAE``.

    .. math:: q(k \mid x) \propto p(k) \exp\bigl(-KL(q(z \mid x) \,\|\, p(z \mid k))\bigr)

    It is optimal if q(z given x) does not depend on the cluster; other bounds, such as IWAE, have another optimum. It
    has no parameters: at the maximum the gradient with respect to its probabilities is 0, and they are constants in a
    training step. A classifier network often ignores clusters early in training; these probabilities follow the prior.

    References:
        Variational deep embedding (Jiang et al., 2017), https://arxiv.org/abs/1611.05148, which uses one sample of z
        instead of the KL divergence

    Args:
        classes: p(k), the same object as in the program
        prior: p(z given k), the same object
        posterior: q(z given x), the same object, built without ``context``

    Raises:
        ValueError: the posterior depends on the cluster.
        TypeError: the KL divergence of posterior and prior has no closed form.

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(clusters,)``.

    Example:
        >>> import pyro_vae as pv
        >>> parts = {
        ...     "classes": pv.priors.OneHotCategorical(3, learned=True),
        ...     "prior": pv.priors.ConditionalNormal(2, context=3),
        ...     "posterior": pv.posteriors.MeanFieldNormal((4,), 2),
        ... }
        >>> program = pv.programs.MixtureVAE(
        ...     **parts, likelihood=pv.likelihoods.Normal(2, (4,)), classifier=Responsibilities(**parts)
        ... )
        >>> program.cluster(torch.randn(5, 4)).shape
        torch.Size([5])
    """

    def __init__(self, *, classes: Conditional, prior: Conditional, posterior: Conditional) -> None:
        super().__init__()
        if getattr(posterior, "context", 0):
            raise ValueError(
                f"posterior: expected one that does not depend on the cluster, got {type(posterior).__name__} with "
                f"context={posterior.context}. Use a classifier network, such as posteriors.OneHotCategorical"
            )
        self.classes, self.prior, self.posterior = classes, prior, posterior

    def forward(self, x: Tensor, *context: Tensor) -> dist.OneHotCategorical:
        """Return q(k given x)."""
        with torch.no_grad():
            q, p = self.posterior(x), self.classes()
            each = p.enumerate_support()
            k = each.reshape(len(each), *[1] * len(q.batch_shape), *p.event_shape)
            try:
                logits = p.log_prob(k) - kl_divergence(q, self.prior(k))
            except NotImplementedError as error:
                raise TypeError(
                    f"posterior: expected a closed-form KL divergence, got none from {type(self.posterior).__name__} "
                    f"to the prior {type(self.prior).__name__}. Use MeanFieldNormal with ConditionalNormal"
                ) from error
        return dist.OneHotCategorical(logits=logits.movedim(0, -1))
