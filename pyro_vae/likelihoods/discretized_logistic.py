"""The discretized logistic likelihood, for pixels with levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import DiscretizedLogistic as Family
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import Net, as_shape, build
from pyro_vae.scales import PerExample, Scale, as_scale

__all__ = ["DiscretizedLogistic"]


class DiscretizedLogistic(Conditional):
    r"""Independent logistic entries rounded to levels k / (L - 1), the outermost bins open-ended.

    .. math:: p(x \mid z) = \prod_i \operatorname{sigmoid} \frac{x_i + h - \mu_i}{s_i}
              - \operatorname{sigmoid} \frac{x_i - h - \mu_i}{s_i}, \qquad h = \frac{1}{2 (L - 1)}, \quad
              \mu = \tfrac{1}{2} + \mathrm{net}(z)

    References:
        Improved variational inference with inverse autoregressive flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934

    Args:
        latent: number of latents
        shape: shape of one datum
        net: makes the decoder network, ``net((latent,), (rows, *shape))`` with a row for the location
            and one for a scale that is an output
        context: how many numbers of context one datum brings beside z
        levels: number L of levels, from 2 on; data are exactly ``k / (levels - 1)`` (within 1e-4)
        scale: s in units where the data run from 0 to 1, as for Normal; None for an output of the network

    Shape:
        z of ``(*batch, latent)`` to batch shape ``batch`` and event shape ``shape``.

    Raises:
        ValueError: fewer than 2 levels.

    Example:
        >>> import torch
        >>> DiscretizedLogistic(3, (28, 28))(torch.zeros(5, 3)).event_shape
        torch.Size([28, 28])
    """

    hint = (
        "Round pixels to k / (levels - 1) first, for instance (x * 255).round() / 255; for grey values of any "
        "size use ContinuousBernoulli or Normal."
    )

    def __init__(
        self,
        latent: int,
        shape: Sequence[int],
        *,
        net: Callable[[Sequence[int], Sequence[int]], Net | nn.Module] = MLP,
        context: int = 0,
        levels: int = 256,
        scale: Scale | float | None = None,
    ) -> None:
        super().__init__()
        self.context, self.shape = context, as_shape(shape)
        check_int("levels", levels, 2)
        self.levels, self.scale = levels, PerExample() if scale is None else as_scale(scale)
        self.net = build(net, (latent,), (1 + self.scale.outputs, *self.shape), context)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        """Return p(x given z)."""
        loc, *raw = self.net(z, *context).unbind(-1 - len(self.shape))
        return Family(loc + 0.5, self.scale(*raw), self.levels).to_event(len(self.shape))
