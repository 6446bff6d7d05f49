"""The posterior of several categorical latents, as concatenated one-hot vectors."""

from __future__ import annotations

from collections.abc import Sequence

from pyro import distributions as dist
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import Flattened, StraightThroughOneHotCategorical
from pyro_vae.nets import MLP, NetBuilder, build

__all__ = ["ProductOfOneHotCategoricals"]


class ProductOfOneHotCategoricals(Conditional):
    r"""Independent categorical groups: one one-hot vector per group, concatenated to ``latent`` numbers.

    .. math:: q(z \mid x) = \prod_{g=1}^{G} \prod_{k=1}^{K} \pi_{gk}^{z_{gk}}, \qquad
              \pi_g = \operatorname{softmax}(\mathrm{net}(x)_g), \quad G K = \mathrm{latent}

    References:
        Categorical reparameterization with Gumbel-softmax (Jang et al., 2017), https://arxiv.org/abs/1611.01144

    Args:
        shape: shape of one example
        latent: length of the vector, groups times classes
        net: builds the encoder, ``net(shape, (groups, latent // groups))``
        context: width of the context in addition to x
        groups: number of groups G
        straight_through: whether samples pass their gradient on to the probabilities; without it, train with
            score-function estimators or enumeration

    Shape:
        x of ``(*batch, *shape)`` to batch shape ``batch`` and event shape ``(latent,)``.

    Raises:
        ValueError: ``latent`` is not a multiple of ``groups``.

    Example:
        >>> import torch
        >>> ProductOfOneHotCategoricals((28, 28), 3)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int,
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        groups: int = 1,
        straight_through: bool = False,
    ) -> None:
        super().__init__(latent=latent, context=context)
        check_int("groups", groups)
        if latent % groups:
            raise ValueError(f"groups: expected a divisor of latent = {latent}, got {groups}")
        self.straight_through = straight_through
        self.net = build(net, shape, (groups, latent // groups), context)

    def forward(self, x: Tensor, *context: Tensor) -> Flattened:
        """Return q(z given x)."""
        logits = self.net(x, *context)
        family = StraightThroughOneHotCategorical if self.straight_through else dist.OneHotCategorical
        return Flattened(family(logits=logits).to_event(1))
