"""Counts whose totals differ from datum to datum for technical reasons, as those of single cells."""

from __future__ import annotations

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.conditional import Conditional
from pyro_vae.programs.checks import check_context, check_supports, check_tensor, check_values, first
from pyro_vae.programs.program import DataPlate, Program, announce, evaluating, mean_or_draw, observe

__all__ = ["CountVAE"]


class CountVAE(Program):
    r"""Counts given latents z, a library size and covariates such as the batch of a cell (scVI).

    .. math:: p(x \mid c) = \int p(z)\, p(\ell \mid c)\, \mathrm{NB}(x \mid \ell\, \rho(z, c), r)\, dz\, d\ell, \qquad
              \sum_g \rho_g = 1

    The library size :math:`\ell`, how deep a cell was sequenced, is its observed total; or, where a prior and a
    posterior of its logarithm are given, one more latent at the site ``"log_library"``. The encoders see
    :math:`\log(1 + x)`. Covariates (a one-hot batch, say) are the context of the data: as the decoder is told them, z
    need not hold them, and :meth:`normalized` can decode all cells as if they came from one batch.

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018),
        https://doi.org/10.1038/s41592-018-0229-2

    Args:
        prior: p(z)
        likelihood: p(x given z, c, library size), with ``library=True`` and ``context=WIDTH + 1`` for covariates of
            WIDTH numbers: ``likelihoods.NegativeBinomial`` or ``likelihoods.ZeroInflatedNegativeBinomial``
        posterior: q(z given log(1 + x), c)
        library_prior: p(log library size given c), over one number: ``priors.Normal(1)``, or
            ``priors.ConditionalNormal(1, context=WIDTH)`` for one of each batch
        library_posterior: q(log library size given log(1 + x), c), over one number

    Raises:
        ValueError: a likelihood without library size, or only one of the two parts of a latent one.

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
        super().__init__()
        if not getattr(likelihood, "library", False):
            raise ValueError(
                f"likelihood: expected one that takes a library size, got {type(likelihood).__name__} without: use "
                "NegativeBinomial or ZeroInflatedNegativeBinomial with library=True and context=WIDTH + 1 (WIDTH "
                "numbers of covariates, 0 for none), or a VAE"
            )
        if (library_prior is None) != (library_posterior is None):
            raise ValueError(
                "library_prior, library_posterior: a latent library size needs both, and an observed one neither; "
                f"only library_{'prior' if library_posterior is None else 'posterior'} was given"
            )
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior
        self.library_prior, self.library_posterior = library_prior, library_posterior

    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        """Draw z (and the library size where it is latent), and observe ``x``."""
        announce(prior=self.prior, likelihood=self.likelihood)
        with DataPlate(x):
            z = pyro.sample("z", self.prior(*context))
            size = totals(x)
            if self.library_prior is not None:
                announce(library_prior=self.library_prior)
                size = pyro.sample("log_library", self.library_prior(*context)).exp()
            return observe("x", self.likelihood(z, *context, size), x)

    def guide(self, x: Tensor, *context: Tensor) -> Tensor:
        """Draw z (and the library size where it is latent) from the posteriors of ``x``."""
        announce(posterior=self.posterior)
        with DataPlate(x):
            z = pyro.sample("z", self.encode(x, *context))
            if self.library_posterior is not None:
                announce(library_posterior=self.library_posterior)
                pyro.sample("log_library", self.library_posterior(x.log1p(), *context))
            return z

    def encode(self, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return q(z given x) for counts of shape ``(n, *shape)``."""
        return self.posterior(x.log1p(), *context)

    def decode(self, z: Tensor, *context: Tensor, library: Tensor) -> TorchDistributionMixin:
        """Return p(x given z) for latents of shape ``(*batch, latent)`` and library sizes ``(*batch,)``."""
        return self.likelihood(z, *context, library.unsqueeze(-1))

    def sample(self, n: int, *context: Tensor, library: float | Tensor, mean: bool = False) -> Tensor:
        """Draw ``n`` new data with the given library sizes, a number or one for each; ``mean`` for their means."""
        if n < 1:
            raise ValueError(f"n: expected at least one sample, got {n}")
        with evaluating(self):
            z = self.prior(*context).expand((n,)).sample()
            fn = self.decode(z, *context, library=torch.as_tensor(library).to(z).expand(n))
            return mean_or_draw(fn) if mean else fn.sample()

    def reconstruct(self, x: Tensor, *context: Tensor) -> Tensor:
        """Encode ``x``, draw z and return the mean of p(x given z) at the library size of each datum."""
        with evaluating(self):
            z = self.encode(x, *context).sample()
            return mean_or_draw(self.likelihood(z, *context, self._library(x, *context)))

    def normalized(
        self,
        x: Tensor,
        *context: Tensor,
        library: float = 1e4,
        decode_as: Tensor | None = None,
        num_particles: int = 10,
        seed: int = 0,
    ) -> Tensor:
        r"""Return the expected counts of each datum at one common library size.

        .. math:: \ell\; \mathbb E_{q(z \mid x, c)}[\rho(z, c')]

        These are means of the negative binomial: additional zeros (dropouts) are left out.

        Args:
            x: counts, ``(n, *shape)``
            context: covariates of each datum, ``(n, width)``
            library: the common library size, to which the result sums
            decode_as: covariates c' that the decoder gets in place of each datum's own, ``(width,)`` for one batch to
                which all are brought, or ``(n, width)``
            num_particles: draws of z that are averaged
            seed: of the draws

        Returns:
            Means of shape ``(n, *shape)``.

        Raises:
            ValueError: ``decode_as`` has another width than the context.
        """
        self.check(x, *context)
        width = self.likelihood.context - 1
        if decode_as is not None and decode_as.shape not in ((width,), (len(x), width)):
            raise ValueError(
                f"decode_as: expected covariates of shape ({width},) or ({len(x)}, {width}), as wide as the context, "
                f"got {tuple(decode_as.shape)}"
            )
        with evaluating(self), fork_rng(x.device, seed):
            z = self.encode(x, *context).sample((num_particles,))
            covariates = context if decode_as is None else (decode_as.expand(len(x), -1),)
            fn = self.decode(z, *covariates, library=x.new_tensor(library).expand(len(x)))
            return fn.base_dist.rate.mean(0)

    def check(self, x: Tensor, *context: Tensor) -> None:
        """Refuse counts and covariates that do not fit the parts, and data without counts."""
        dtype = self.dtype
        if not isinstance(x, Tensor):
            raise TypeError(f"x: expected a tensor, got {type(x).__name__}")
        check_context(context, self.likelihood.context - 1, len(x) if x.dim() else 0, dtype)
        with evaluating(self):
            row = [c[:1] for c in context]
            prior = self.prior(*row)
            z, one = x.new_zeros(1, *prior.event_shape, dtype=dtype), x.new_ones(1, dtype=dtype)
            p = self.decode(z, *row, library=one)
            check_tensor("x", x, p.event_shape, dtype)
            check_values("x", x, p.support, self.likelihood)
            check_totals(x, "cell", "counts")
            self._check_pair(self.encode(x[:1], *row), prior, "posterior", "prior")
            if self.library_prior is not None:
                library = self.library_prior(*row)
                q = self.library_posterior(x[:1].log1p(), *row)
                self._check_pair(q, library, "library_posterior", "library_prior")
                if library.event_shape != (1,):
                    raise ValueError(
                        f"library_prior: expected one number a datum, the logarithm of its library size (latent=1), "
                        f"got event shape {tuple(library.event_shape)}"
                    )

    def _check_pair(self, q: TorchDistributionMixin, p: TorchDistributionMixin, posterior: str, prior: str) -> None:
        names = type(getattr(self, posterior)).__name__, type(getattr(self, prior)).__name__
        if q.event_shape != p.event_shape:
            raise ValueError(
                f"{posterior} {names[0]} makes latents of shape {tuple(q.event_shape)}, {prior} {names[1]} has "
                f"{tuple(p.event_shape)}: build both with the same `latent`"
            )
        check_supports(q, p, *names)

    def _library(self, x: Tensor, *context: Tensor) -> Tensor:
        if self.library_posterior is None:
            return totals(x)
        return self.library_posterior(x.log1p(), *context).sample().exp()


def totals(x: Tensor) -> Tensor:
    """Return the sum of each datum, of shape ``(n, 1)``."""
    return x.flatten(1).sum(-1, keepdim=True)


def check_totals(x: Tensor, datum: str, things: str) -> None:
    """Refuse data whose counts are all zero: they have no shares."""
    empty = totals(x) == 0
    if empty.any():
        raise ValueError(
            f"x: expected {things} in each {datum}, but x[{first(empty.squeeze(-1))}] has none ({int(empty.sum()):,} "
            f"of {len(x):,} are empty); leave such rows out, x[x.flatten(1).sum(-1) > 0], of the context too"
        )
