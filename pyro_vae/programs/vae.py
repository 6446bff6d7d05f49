"""The variational autoencoder: a prior, a likelihood and a posterior as one Pyro program."""

from __future__ import annotations

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions.missing import factorized, hide_missing
from pyro_vae.programs.checks import check_context, check_supports, check_tensor, check_values
from pyro_vae.programs.program import DataPlate, Program, announce, evaluating, mean_or_draw, observe

__all__ = ["VAE"]


class VAE(Program):
    r"""A latent z a datum, drawn from the prior and decoded by the likelihood.

    .. math:: p(x) = \int p(x \mid z)\, p(z)\, dz, \qquad q(z \mid x) \approx p(z \mid x)

    Context (labels, covariates) is passed on to all three parts, so that a conditional VAE,
    :math:`p(x \mid z, c)\, p(z \mid c)`, is a VAE whose parts were built with ``context=WIDTH``.

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Args:
        prior: p(z)
        likelihood: p(x given z), the decoder inside
        posterior: q(z given x), the encoder inside
        missing: whether entries of x may be NaN, that is, not observed: they leave the bound and its gradient, and a
            posterior that does not take NaN itself (an attribute ``takes_missing``) sees 0 there

    Raises:
        TypeError: a part is no module built with its arguments.

    Example:
        >>> import torch, pyro, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli(2, (8, 8)),
        ...     posterior=pv.posteriors.MeanFieldNormal((8, 8), 2),
        ... )
        >>> svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO())
        >>> loss = svi.step(torch.ones(5, 8, 8))
        >>> vae.sample(7).shape
        torch.Size([7, 8, 8])
    """

    def __init__(
        self, *, prior: Conditional, likelihood: Conditional, posterior: Conditional, missing: bool = False
    ) -> None:
        super().__init__()
        for name, part in (("prior", prior), ("likelihood", likelihood), ("posterior", posterior)):
            if not callable(part) or isinstance(part, type):
                raise TypeError(
                    f"{name}: expected an object such as pyro_vae.{name.removesuffix('y')}... built with its "
                    f"arguments, got {part!r}"
                )
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior
        self.missing = missing

    @property
    def context(self) -> int:
        """How many numbers of context one datum brings."""
        return max(getattr(part, "context", 0) for part in self.children())

    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        """Draw z from the prior and observe ``x`` under the likelihood."""
        announce(prior=self.prior, likelihood=self.likelihood)
        with DataPlate(x):
            z = pyro.sample("z", self.prior(*context))
            fn = self.likelihood(z, *context)
            if self.missing:
                fn, x = hide_missing(fn, x)
            return observe("x", fn, x)

    def guide(self, x: Tensor, *context: Tensor) -> Tensor:
        """Draw z from the posterior of ``x``."""
        announce(posterior=self.posterior)
        with DataPlate(x):
            return pyro.sample("z", self.encode(x, *context))

    def encode(self, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return q(z given x) for a batch ``x`` of shape ``(n, *shape)``."""
        encoders = self.posterior, getattr(self.posterior, "net", None)
        if self.missing and not any(getattr(encoder, "takes_missing", False) for encoder in encoders):
            x = torch.nan_to_num(x)
        return self.posterior(x, *context)

    def decode(self, z: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return p(x given z) for latents of shape ``(*batch, latent)``."""
        return self.likelihood(z, *context)

    def sample(self, n: int, *context: Tensor, mean: bool = False) -> Tensor:
        """Draw ``n`` new data.

        Args:
            n: how many
            context: ``n`` rows of context for a conditional VAE
            mean: return the mean of p(x given z) in place of a draw, which is what most papers show for images

        Returns:
            Data of shape ``(n, *shape)``.

        Raises:
            ValueError: ``n`` is no number of data, or the context does not fit.
        """
        check_int("n", n)
        check_context(context, self.context, n, self.dtype)
        with evaluating(self):
            prior = self.prior(*context)
            z = prior.expand((n,)).sample()
            x = self.decode(z, *context)
            return mean_or_draw(x) if mean else x.sample()

    def reconstruct(self, x: Tensor, *context: Tensor) -> Tensor:
        """Encode ``x``, draw z and return the mean of p(x given z) (a draw where it has none in closed form).

        Raises:
            ValueError: the data do not fit the program.
        """
        self.check(x, *context)
        with evaluating(self):
            z = self.encode(x, *context).sample()
            return mean_or_draw(self.decode(z, *context))

    def check(self, x: Tensor, *context: Tensor) -> None:
        """Refuse data that do not fit the parts, and parts that do not fit each other.

        Raises:
            ValueError: it names the argument, what was expected, what came and the first bad index.
        """
        dtype = self.dtype
        if not isinstance(x, Tensor):
            raise TypeError(f"x: expected a tensor, got {type(x).__name__}")
        check_context(context, self.context, len(x) if x.dim() else 0, dtype)
        with evaluating(self):
            row = [c[:1] for c in context]
            prior = self.prior(*row)
            p = self.likelihood(x.new_zeros(1, *prior.event_shape, dtype=dtype), *row)
            if self.missing and not factorized(p):
                raise ValueError(
                    f"likelihood {type(self.likelihood).__name__} is no product over the entries of a datum, so that "
                    "none of them can be missing: use one that is, such as Normal, or missing=False"
                )
            check_tensor("x", x, p.event_shape, dtype, missing=self.missing)
            if self.missing:
                _, x = hide_missing(p, x)
            check_values("x", x, p.support, self.likelihood)
            q = self.encode(x[:1], *row)
        if q.event_shape != prior.event_shape:
            raise ValueError(
                f"posterior {type(self.posterior).__name__} makes latents of shape {tuple(q.event_shape)}, prior "
                f"{type(self.prior).__name__} has {tuple(prior.event_shape)}: build both with the same `latent`"
            )
        check_supports(q, prior, type(self.posterior).__name__, type(self.prior).__name__)
