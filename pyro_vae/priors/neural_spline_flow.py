"""The neural spline flow prior."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.distributions.rational_spline import rational_spline
from pyro_vae.nets import MLP, NetBuilder
from pyro_vae.priors.coupling import Coupling
from pyro_vae.priors.flow_prior import FlowPrior
from pyro_vae.scales import check_positive

__all__ = ["NeuralSplineFlow"]


class NeuralSplineFlow(FlowPrior):
    r"""A standard normal pushed through coupling layers of monotone splines.

    .. math:: u_a = z_a, \quad u_b = S(z_b; \mathrm{net}(z_a)), \qquad
              \log p(z) = \log \mathcal N(u; 0, I) + \sum_b \log S'(z_b)

    a and b are the two halves of the latents, whose order is reversed after each layer. S is a rational-quadratic
    spline on [-bound, bound] and the identity outside. Densities and samples take one pass each.

    References:
        Neural spline flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032

    Args:
        latent: number of latents, at least 2
        layers: number of layers
        num_bins: number of bins of a spline, 2 to 500
        bound: end of the splines; latents beyond it are not changed
        net: builds the network of each layer, ``net((half,), (rest, 3 * num_bins - 1))``
        context: width of the context (labels, covariates)

    Shape:
        no context, to batch shape ``()`` (or that of the context) and event shape ``(latent,)``.

    Raises:
        ValueError: ``latent`` is below 2, ``layers`` below 1, ``num_bins`` not 2 to 500, or ``bound`` not positive.

    Example:
        >>> NeuralSplineFlow(3)().event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        latent: int,
        *,
        layers: int = 4,
        num_bins: int = 8,
        bound: float = 6.0,
        net: NetBuilder = MLP,
        context: int = 0,
    ) -> None:
        check_int("num_bins", num_bins, 2)
        if num_bins > 500:
            raise ValueError(f"num_bins: expected at most 500, got {num_bins}")
        check_positive("bound", bound)
        super().__init__(
            latent,
            lambda: SplineCoupling(latent, net, context, num_bins, bound),
            layers=layers,
            context=context,
            min_latent=2,
        )

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> NeuralSplineFlow:
        """Build a small instance, with at least two latents."""
        return super().example(latent=max(latent, 2), shape=shape, **{"layers": 2, "num_bins": 4, **options})


class SplineCoupling(Coupling):
    """A coupling layer that maps each entry of the second half by a spline."""

    def __init__(self, latent: int, net: NetBuilder, context: int, num_bins: int, bound: float) -> None:
        super().__init__(latent, net, context, after=(3 * num_bins - 1,))
        self.bound = bound

    def transform(self, mapped: Tensor, raw: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Return the image of the second half and its log-slopes."""
        return rational_spline(mapped.expand(raw.shape[:-1]), raw, self.bound, inverse=inverse)
