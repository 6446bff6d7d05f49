"""The q(k given x) of a mixture that is optimal for the ELBO, in closed form."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.conditional import Conditional

__all__ = ["Responsibilities"]


class Responsibilities(Conditional):
    r"""The cluster given a datum, optimal for the ELBO of a ``MixtureVAE``: its ``classifier``.

    .. math:: q(k \mid x) \propto p(k) \exp\bigl(-KL(q(z \mid x) \,\|\, p(z \mid k))\bigr)

    No other q(k given x) makes the ELBO larger, where q(z given x) does not see the cluster; of other bounds, such as
    that of IWAE, another one may be optimal. There is nothing to learn, and as the ELBO is at its largest, its
    gradient by these probabilities vanishes: they are constants in a step. A network in their place often forgets
    clusters early in training; these follow the prior.

    References:
        Variational deep embedding (Jiang et al., 2017), https://arxiv.org/abs/1611.05148, where a draw of z stands in
        for the divergence

    Args:
        classes: p(k), the same object that the program has
        prior: p(z given k), the same object
        posterior: q(z given x), the same object, built without ``context``

    Raises:
        ValueError: the posterior sees the cluster.
        TypeError: the divergence of posterior and prior is not known in closed form.

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
                f"posterior: expected one that does not see the cluster, but {type(posterior).__name__} was built "
                "with context; give MixtureVAE a network for its classifier, such as posteriors.OneHotCategorical"
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
                    f"posterior {type(self.posterior).__name__}, prior {type(self.prior).__name__}: their divergence "
                    "is not known in closed form; use MeanFieldNormal with ConditionalNormal, say"
                ) from error
        return dist.OneHotCategorical(logits=logits.movedim(0, -1))
