"""Base of programs over counts with technical differences in their totals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.likelihoods import NegativeBinomial
from pyro_vae.programs.checks import first
from pyro_vae.programs.primitives import announce
from pyro_vae.programs.program import Program, evaluating

__all__ = ["CountProgram", "check_totals"]


class CountProgram(Program):
    """Counts given latents, a library size and covariates.

    A subclass adds the distribution of the latents in the model, and :meth:`decode_prior`. The library size is the
    observed total of an example, or a latent at the site ``"log_library"`` with a prior and a posterior.

    Args:
        likelihood: p(x given z, c, library size), built with ``library=True`` and ``context=WIDTH + 1`` for WIDTH
            covariates
        posterior: q(z given log(1 + x), c)
        library_prior: p(log library size given c) over one number
        library_posterior: q(log library size given log(1 + x), c) over one number

    Raises:
        ValueError: the likelihood has no library size, or only one part of a latent library size is given.
    """

    def __init__(
        self,
        *,
        likelihood: Conditional,
        posterior: Conditional,
        library_prior: Conditional | None,
        library_posterior: Conditional | None,
    ) -> None:
        super().__init__()
        if not getattr(likelihood, "library", False):
            raise ValueError(
                f"likelihood: expected one with a library size, got {type(likelihood).__name__} without. Use "
                "NegativeBinomial or ZeroInflatedNegativeBinomial with library=True and context=WIDTH + 1 (for WIDTH "
                "covariates, 0 for none), or a VAE"
            )
        if (library_prior is None) != (library_posterior is None):
            raise ValueError(
                "library_prior, library_posterior: expected both for a latent library size, neither for an observed "
                f"one, got only library_{'prior' if library_posterior is None else 'posterior'}"
            )
        self.likelihood, self.posterior = likelihood, posterior
        self.library_prior, self.library_posterior = library_prior, library_posterior

    @classmethod
    def default_parts(cls) -> dict[str, Callable[..., Any]]:
        """Return counts with a library size."""
        return {"likelihood": partial(NegativeBinomial, library=True)}

    @property
    def context(self) -> int:
        """Number of covariates per example."""
        return self.likelihood.context - 1

    def sample_library(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the library size in the model, ``(n, 1)``: the total of each example, or a sample."""
        if self.library_prior is None:
            return totals(x)
        announce(library_prior=self.library_prior)
        return pyro.sample("log_library", self.library_prior(*context)).exp()

    def infer_library(self, x: Tensor, *context: Tensor) -> None:
        """Sample a latent library size in the guide."""
        if self.library_posterior is not None:
            announce(library_posterior=self.library_posterior)
            pyro.sample("log_library", self.library_posterior(x.log1p(), *context))

    def encode(self, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return q(z given x) for counts of shape ``(n, *shape)``."""
        return self.posterior(x.log1p(), *context)

    def decode(self, z: Tensor, *context: Tensor, library: Tensor) -> TorchDistributionMixin:
        """Return p(x given z) for latents of shape ``(*batch, latent)`` and library sizes ``(*batch,)``."""
        return self.likelihood(z, *context, library.unsqueeze(-1))

    def decode_posterior(self, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Sample latents (and latent library sizes) given ``x`` and return p(x given z)."""
        z = self.encode(x, *context).sample()
        if self.library_posterior is None:
            return self.likelihood(z, *context, totals(x))
        return self.likelihood(z, *context, self.library_posterior(x.log1p(), *context).sample().exp())

    def normalized(
        self,
        x: Tensor,
        *context: Tensor,
        library: float = 1e4,
        decode_as: Tensor | None = None,
        num_samples: int = 10,
        seed: int = 0,
    ) -> Tensor:
        r"""Return the expected counts of each example at one common library size (denoised expression).

        .. math:: \ell\; \mathbb E_{q(z \mid x, c)}[\rho(z, c')]

        These are means of the negative binomial, without additional zeros (dropouts).

        Args:
            x: counts, ``(n, *shape)``
            context: covariates of each example, ``(n, width)``
            library: the common library size, to which the result sums
            decode_as: covariates c' for the decoder, ``(width,)`` for one batch for all examples or ``(n, width)``;
                the covariates of each example if None
            num_samples: number of samples of z that are averaged
            seed: seed of the samples

        Returns:
            Means of shape ``(n, *shape)``.

        Raises:
            ValueError: ``decode_as`` does not have the shape of the context, or the data do not fit.
        """
        num_samples = check_int("num_samples", num_samples)
        self.check(x, *context)
        if decode_as is not None and decode_as.shape not in ((self.context,), (len(x), self.context)):
            raise ValueError(
                f"decode_as: expected covariates of shape ({self.context},) or ({len(x)}, {self.context}), got "
                f"{tuple(decode_as.shape)}"
            )
        with evaluating(self), fork_rng(x.device, seed):
            z = self.encode(x, *context).sample((num_samples,))
            covariates = context if decode_as is None else (decode_as.expand(len(x), -1),)
            fn = self.decode(z, *covariates, library=x.new_tensor(library).expand(len(x)))
            return fn.base_dist.rate.mean(0)

    def check_data(self, x: Tensor, *context: Tensor) -> None:
        """Raise if counts or covariates do not fit, an example is empty, or the library size is not one number."""
        super().check_data(x, *context)
        check_totals(x, "cell", "counts")
        if self.library_prior is not None:
            shape = self.library_prior(*(c[:1] for c in context)).event_shape
            if shape != (1,):
                raise ValueError(
                    "library_prior: expected event shape (1,), the logarithm of the library size, got "
                    f"{tuple(shape)}. Build it with latent=1"
                )


def totals(x: Tensor) -> Tensor:
    """Return the sum of each example, of shape ``(n, 1)``."""
    return x.flatten(1).sum(-1, keepdim=True)


def check_totals(x: Tensor, row: str, things: str) -> None:
    """Raise if an example has only zeros, so that its proportions are undefined."""
    empty = totals(x) == 0
    if empty.any():
        raise ValueError(
            f"x: expected {things} in each {row}, but x[{first(empty.squeeze(-1))}] has none ({int(empty.sum()):,} "
            f"of {len(x):,} are empty). Remove such rows, x[x.flatten(1).sum(-1) > 0], from x and the context"
        )
