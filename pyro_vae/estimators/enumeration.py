"""The evidence lower bound with every discrete latent summed over."""

from __future__ import annotations

from pyro_vae.estimators.elbo import ELBO
from pyro_vae.trace import Enumerated

__all__ = ["Enumeration"]


class Enumeration(ELBO):
    r"""The evidence lower bound with an exact sum over the values of each discrete latent.

    .. math:: \sum_z q(z \mid x) \left(\log p(x \mid z) + \beta \log \frac{p(z)}{q(z \mid x)}\right)

    As :class:`ELBO` for a guide that marks its discrete sites for enumeration; here the marks are not needed, and
    vectors of binary values or of one-hot groups are summed as well. Without continuous latents value and gradient are
    exact, with them both are unbiased. Time and memory grow with the number of values, for several discrete sites with
    the product of their numbers.

    References:
        Semi-supervised learning with deep generative models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298

    Args:
        options: ``analytic_kl`` of :class:`ELBO`, ``num_particles``, ``particles_per_pass``, ``beta``,
            ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: in the first step, a site with more than 4096 values (12 binary values).

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.Bernoulli(3),
        ...     likelihood=pv.likelihoods.Normal(3, (4,)),
        ...     posterior=pv.posteriors.Bernoulli((4,), 3),
        ... )
        >>> Enumeration().per_datum(vae.model, vae.guide, torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    draws = Enumerated
