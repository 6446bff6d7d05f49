"""A VAE for counts with technical differences in their totals, such as single-cell data (scVI)."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.likelihoods import NegativeBinomial
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import StandardNormal
from pyro_vae.programs.count_program import CountProgram
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.program import SMALL

__all__ = ["CountVAE"]


class CountVAE(CountProgram):
    r"""Counts given latents z, a library size and covariates such as the batch of a cell (scVI).

    .. math:: p(x \mid c) = \int p(z)\, p(\ell \mid c)\, \mathrm{NB}(x \mid \ell\, \rho(z, c), r)\, dz\, d\ell, \qquad
              \sum_g \rho_g = 1

    The library size :math:`\ell` (the sequencing depth of a cell) is the observed total. With a prior and a posterior
    of its logarithm it is a latent, at the site ``"log_library"``. The encoders see :math:`\log(1 + x)`. Covariates (a
    one-hot batch, say) are the context of the data. Because the decoder depends on them, z need not encode them, and
    :meth:`normalized` can decode all cells as if they came from one batch.

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018),
        https://doi.org/10.1038/s41592-018-0229-2

    Args:
        prior: p(z)
        likelihood: p(x given z, c, library size), built with ``library=True`` and ``context=WIDTH + 1`` for WIDTH
            covariates: ``likelihoods.NegativeBinomial`` or ``likelihoods.ZeroInflatedNegativeBinomial``
        posterior: q(z given log(1 + x), c)
        library_prior: p(log library size given c) over one number: ``priors.Normal(1)``, or
            ``priors.ConditionalNormal(1, context=WIDTH)`` for one distribution per batch
        library_posterior: q(log library size given log(1 + x), c) over one number

    Raises:
        ValueError: the likelihood has no library size, or only one part of a latent library size is given.

    Example:
        >>> import torch, pyro_vae as pv
        >>> program = pv.programs.CountVAE(
        ...     prior=pv.priors.StandardNormal(3),
        ...     likelihood=pv.likelihoods.NegativeBinomial(3, (20,), context=2 + 1, library=True),
        ...     posterior=pv.posteriors.MeanFieldNormal((20,), 3, context=2),
        ... )
        >>> x, batch = torch.ones(8, 20), torch.eye(2).repeat(4, 1)
        >>> history = pv.fit(program, (x, batch), epochs=1, progress=False)
        >>> program.normalized(x, batch, decode_as=torch.tensor([1.0, 0.0])).sum(-1).round()
        tensor([10000., 10000., 10000., 10000., 10000., 10000., 10000., 10000.])
    """

    def __init__(
        self,
        *,
        prior: Conditional,
        likelihood: Conditional,
        posterior: Conditional,
        library_prior: Conditional | None = None,
        library_posterior: Conditional | None = None,
    ) -> None:
        super().__init__(
            likelihood=likelihood,
            posterior=posterior,
            library_prior=library_prior,
            library_posterior=library_posterior,
        )
        self.prior = prior

    @classmethod
    def example(cls, **options: Any) -> CountVAE:
        """Build a small instance, with further ``options`` of the constructor."""
        likelihood = NegativeBinomial(2, (4,), context=1, library=True, net=SMALL)
        posterior = MeanFieldNormal((4,), 2, net=SMALL)
        return cls(prior=StandardNormal(2), likelihood=likelihood, posterior=posterior, **options)

    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        """Sample z (and a latent library size), and observe ``x``."""
        announce(prior=self.prior, likelihood=self.likelihood)
        with DataPlate(x):
            z = pyro.sample("z", self.prior(*context))
            return observe("x", self.likelihood(z, *context, self.sample_library(x, *context)), x)

    def guide(self, x: Tensor, *context: Tensor) -> Tensor:
        """Sample z (and a latent library size) from the posteriors of ``x``."""
        announce(posterior=self.posterior)
        with DataPlate(x):
            z = pyro.sample("z", self.encode(x, *context))
            self.infer_library(x, *context)
            return z

    def sample(
        self, num_samples: int, *context: Tensor, library: float | Tensor, mean: bool = False, seed: int = 0
    ) -> Tensor:
        """Sample new data as :meth:`Program.sample`, with the given library sizes (a number, or one per sample)."""
        return self._sample(num_samples, *context, mean=mean, seed=seed, library=library)

    def decode_prior(
        self, num_samples: int, *context: Tensor, library: float | Tensor = 1.0
    ) -> TorchDistributionMixin:
        """Sample latents from the prior and return p(x given z) at the given library sizes."""
        z = self.prior(*context).expand((num_samples,)).sample()
        return self.decode(z, *context, library=torch.as_tensor(library).to(z).expand(num_samples))
