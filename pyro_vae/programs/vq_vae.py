"""The VQ-VAE: a VAE whose latents are codes of a codebook."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae._util.validation import check_number
from pyro_vae.conditional import Conditional
from pyro_vae.likelihoods import Normal
from pyro_vae.posteriors import NearestCode
from pyro_vae.priors import ProductOfOneHotCategoricals
from pyro_vae.programs.primitives import DataPlate, announce
from pyro_vae.programs.program import SMALL, evaluating
from pyro_vae.programs.vae import VAE

__all__ = ["VQVAE"]


class VQVAE(VAE):
    r"""A list or grid of codes per example: the codes nearest to the encoder outputs, decoded from their vectors.

    .. math:: p(x) = \sum_k p(k)\, p(x \mid e_{k_1}, \dots, e_{k_G}), \qquad
              \log p(x) \ge \log p(k^*) + \log p(x \mid e_{k^*}), \qquad
              k^*_g = \operatorname{argmin}_k \lVert \mathrm{net}(x)_g - e_k \rVert^2

    The posterior is a point mass of entropy 0, so that the bound is exact and bits per dimension are comparable with
    those of other models. The gradient of the encoder is straight-through, which is biased; it does not include the
    prior. The gradients of decoder, prior and codes are exact.

    In training mode the guide contains the factor ``"commitment"`` of value 0 with the gradient of

    .. math:: \beta \lVert u - \operatorname{stop}(e_{k^*}) \rVert^2 + \lVert \operatorname{stop}(u) - e_{k^*}
              \rVert^2, \qquad u = \mathrm{net}(x),

    so that losses stay bounds. The second term moves codes that are parameters (``decay=None``); otherwise they are
    running means of the encoder outputs. A ``beta`` of the estimator also weights this factor.

    The decoder sees the code vectors, group by group. Estimators that separate the gradient of the guide's density
    from that of its draws (DReG, STL) refuse the factor; use ELBO. Fit a better prior afterwards, such as a
    ``priors.PixelCNN`` over a grid, by :class:`pyro_vae.tasks.AggregatePosterior`.

    References:
        Neural discrete representation learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937

    Args:
        prior: p(k) over one-hot vectors, such as ``priors.ProductOfOneHotCategoricals`` or ``priors.PixelCNN``
        likelihood: p(x given the code vectors), with ``latent`` = groups times ``code_dim``
        posterior: a ``posteriors.NearestCode``
        commitment: :math:`\beta`, the weight of the distance of the encoder outputs from their codes
        missing: whether entries of x may be missing (NaN), see :class:`VAE`

    Raises:
        TypeError: the posterior is not a NearestCode.
        ValueError: the likelihood takes another number of latents, or ``commitment`` is negative.

    Example:
        >>> import torch, pyro_vae as pv
        >>> vae = VQVAE(
        ...     prior=pv.priors.ProductOfOneHotCategoricals(4 * 8, groups=4),
        ...     likelihood=pv.likelihoods.Bernoulli(4 * 2, (8, 8)),
        ...     posterior=pv.posteriors.NearestCode((8, 8), 4 * 8, groups=4, code_dim=2),
        ... )
        >>> history = pv.fit(vae, torch.ones(20, 8, 8), epochs=1, progress=False)
        >>> vae.codes(torch.ones(5, 8, 8)).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        *,
        prior: Conditional,
        likelihood: Conditional,
        posterior: Conditional,
        commitment: float = 0.25,
        missing: bool = False,
    ) -> None:
        super().__init__(prior=prior, likelihood=likelihood, posterior=posterior, missing=missing)
        if not isinstance(posterior, NearestCode):
            raise TypeError(f"posterior: expected a posteriors.NearestCode, got {type(posterior).__name__}")
        self.commitment = check_number("commitment", commitment, 0)
        self.codebook = posterior.codebook
        expected = posterior.net.out_shape[0] * posterior.net.out_shape[1]
        found = getattr(getattr(likelihood, "net", None), "in_shape", (expected,))
        if found != (expected,):
            raise ValueError(
                f"likelihood: expected latent = groups * code_dim = {expected}, the numbers in the code vectors, got "
                f"{found[0]}. Build {type(likelihood).__name__} with latent={expected}"
            )

    @classmethod
    def example(cls, **options: Any) -> VAE:
        """Build a small instance whose codes are parameters, with further ``options`` of the constructor."""
        parts = {
            "prior": ProductOfOneHotCategoricals(6, groups=2),
            "likelihood": Normal(4, (4,), net=SMALL),
            "posterior": NearestCode((4,), 6, groups=2, code_dim=2, net=SMALL, decay=None),
        }
        return cls(**{**parts, **options})

    @classmethod
    def default_parts(cls) -> dict[str, Callable[..., Any]]:
        """Return the parts of the command, by argument: one code, whose vector is as long as z."""
        return {"prior": ProductOfOneHotCategoricals, "posterior": NearestCode}

    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        """Sample codes from the prior and observe ``x`` under the likelihood of their vectors."""
        announce(codebook=self.codebook)
        return super().model(x, *context)

    def guide(self, x: Tensor, *context: Tensor) -> Tensor:
        """Take the codes nearest to the encoder outputs."""
        announce(posterior=self.posterior)
        with DataPlate(x):
            fn = self.encode(x, *context)
            z = pyro.sample("z", fn)
            if self.training and torch.is_grad_enabled():
                outputs, vectors = fn.outputs, fn.code_vectors()
                pull = self.commitment * (outputs - vectors.detach()).square().sum((-2, -1))
                pull = pull + (outputs.detach() - vectors).square().sum((-2, -1))
                pyro.factor("commitment", pull - pull.detach(), has_rsample=True)
            return z

    def decode(self, z: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return p(x given codes) for one-hot vectors of shape ``(*batch, latent)``, group by group."""
        one_hot = z.unflatten(-1, (-1, len(self.codebook.codes)))
        return self.likelihood(self.codebook(one_hot).flatten(-2), *context)

    def codes(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the number of the nearest code for each group of each row, of shape ``(n, groups)``."""
        with evaluating(self):
            return self.encode(x, *context).sample().unflatten(-1, (-1, len(self.codebook.codes))).argmax(-1)

    def perplexity(self, x: Tensor, *context: Tensor) -> float:
        r"""Return the perplexity :math:`\exp(-\sum_k f_k \log f_k)` of the code frequencies in rows ``x``.

        It is the number of codes if all are equally frequent, and 1 if there is only one code. A warning names the
        number of unused codes.
        """
        counts = torch.bincount(self.codes(x, *context).flatten(), minlength=len(self.codebook.codes))
        if unused := int((counts == 0).sum()):
            hint = ", or use a posterior with a `decay`, which replaces them" if self.codebook.decay is None else ""
            warnings.warn(
                f"codebook: {unused} of {len(counts)} codes are nearest to no output. Train with fewer codes{hint}",
                stacklevel=2,
            )
        return float(torch.distributions.Categorical(counts / counts.sum()).entropy().exp())
