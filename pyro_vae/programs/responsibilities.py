"""The optimal classifier of a mixture, in closed form."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae.conditional import Conditional

__all__ = ["Responsibilities"]


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

    @property
    def takes_missing(self) -> bool:
        """Whether the posterior takes NaN for missing entries."""
        return self.posterior.takes_missing

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
