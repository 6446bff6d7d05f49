"""A VAE for entries that are missing because of their own value (not-MIWAE)."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.distributions.missing import hide_missing
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.self_masking import SelfMasking
from pyro_vae.programs.vae import VAE

__all__ = ["MissingNotAtRandom"]


class MissingNotAtRandom(VAE):
    r"""A VAE with a model of which entries are observed, given all entries (not-MIWAE).

    .. math:: p(x_{\text{o}}, s) = \int p(z)\, p(x_{\text{o}} \mid z)\, p(x_{\text{m}} \mid z)\,
              p(s \mid x_{\text{o}}, x_{\text{m}})\, dz\, dx_{\text{m}}, \qquad
              q = q(z \mid x_{\text{o}})\, p(x_{\text{m}} \mid z)

    Guide and model both sample the missing entries from the decoder, which adds no KL divergence.

    References:
        not-MIWAE: deep generative modelling with missing not at random data (Ipsen et al., 2021),
        https://arxiv.org/abs/2006.12871

    Args:
        prior: p(z)
        likelihood: p(x given z), a product over entries with a reparameterized sampler, such as Normal
        posterior: q(z given x)
        mask: p(s given x) over one binary value per entry, such as :class:`SelfMasking`

    Example:
        >>> import torch, pyro_vae as pv
        >>> program = pv.programs.MissingNotAtRandom(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Normal(2, (4,)),
        ...     posterior=pv.posteriors.MeanFieldNormal((4,), 2),
        ...     mask=pv.programs.SelfMasking((4,)),
        ... )
        >>> x = torch.where(torch.arange(4) < 2, torch.zeros(8, 4), torch.tensor(float("nan")))
        >>> len(pv.fit(program, x, epochs=1, progress=False))
        1
    """

    def __init__(
        self, *, prior: Conditional, likelihood: Conditional, posterior: Conditional, mask: Conditional
    ) -> None:
        super().__init__(prior=prior, likelihood=likelihood, posterior=posterior, missing=True)
        self.mask = mask

    @classmethod
    def example(cls, **options: Any) -> VAE:
        """Build a small instance, with further ``options`` of the constructor."""
        return super().example(**{"mask": SelfMasking((4,)), **options})

    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        """Sample z and the missing entries; observe the other entries, and which ones they are."""
        announce(prior=self.prior, likelihood=self.likelihood, mask=self.mask)
        seen = ~torch.isnan(x)
        with DataPlate(x):
            z = pyro.sample("z", self.prior(*context))
            fn = self.likelihood(z, *context)
            missing = pyro.sample("missing", self._missing(fn, seen))
            observe("seen", self.mask(torch.where(seen, x, missing)), seen.to(x.dtype))
            return observe("x", *hide_missing(fn, x))

    def guide(self, x: Tensor, *context: Tensor) -> Tensor:
        """Sample z from the posterior and the missing entries from the decoder."""
        announce(posterior=self.posterior, likelihood=self.likelihood)
        with DataPlate(x):
            z = pyro.sample("z", self.encode(x, *context))
            fn = self.likelihood(z, *context)
            return pyro.sample("missing", self._missing(fn, ~torch.isnan(x)))

    def check_data(self, x: Tensor, *context: Tensor) -> None:
        """Raise if shape, type, context or values of the data, or the shape of the mask, do not fit."""
        super().check_data(x, *context)
        shape = self.mask(torch.nan_to_num(x[:1])).event_shape
        if shape != x.shape[1:]:
            raise ValueError(
                f"mask: expected one binary value per entry of x, of shape {tuple(x.shape[1:])}, got {tuple(shape)} "
                f"from {type(self.mask).__name__}. Build it with the shape of one example"
            )

    @staticmethod
    def _missing(fn: dist.Independent, seen: Tensor) -> dist.Independent:
        return fn.base_dist.mask(~seen).to_event(fn.reinterpreted_batch_ndims)
