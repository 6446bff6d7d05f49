"""The posterior of the VQ-VAE: the nearest code of a codebook."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions import NearestCode as Family
from pyro_vae.nets import MLP, NetBuilder, Shape, build
from pyro_vae.nets.codebook import Codebook

__all__ = ["NearestCode"]


class NearestCode(Conditional):
    r"""A point mass at the codes nearest to the encoder outputs, as one one-hot vector per group.

    .. math:: q(z \mid x) = \prod_{g=1}^{G} \mathbb 1\big[z_g = \operatorname{onehot}(
              \operatorname{argmin}_k \lVert \mathrm{net}(x)_g - e_k \rVert^2)\big]

    Its entropy is 0, and the gradient of its samples is straight-through, which is biased. In training mode a codebook
    with a ``decay`` follows the encoder outputs of each batch, unless the encoder is frozen. Weights of examples do
    not apply to that update.

    References:
        Neural discrete representation learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937

    Args:
        shape: shape of one example
        latent: length of z, groups times codes
        net: builds the encoder, ``net(shape, (groups, code_dim))``
        context: width of the context in addition to x
        groups: number of groups G, such as the positions of a grid
        code_dim: length of a code vector; that of a one-hot vector if None
        decay: of the running means that are the codes; None for codes that are parameters (see :class:`Codebook`)

    Raises:
        ValueError: ``latent`` is not a multiple of ``groups``, or an argument is out of range.

    Example:
        >>> import torch
        >>> NearestCode((28, 28), 12, groups=4, code_dim=2)(torch.zeros(5, 28, 28)).event_shape
        torch.Size([12])
    """

    def __init__(
        self,
        shape: Shape,
        latent: int,
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        groups: int = 1,
        code_dim: int | None = None,
        decay: float | None = 0.99,
    ) -> None:
        super().__init__(latent=latent, context=context)
        if latent % check_int("groups", groups):
            raise ValueError(f"groups: expected a divisor of latent = {latent}, got {groups}")
        num_codes = latent // groups
        self.codebook = Codebook(num_codes, num_codes if code_dim is None else code_dim, decay=decay)
        self.net = build(net, shape, (groups, self.codebook.codes.shape[1]), context)

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> NearestCode:
        """Build a small instance whose codes are parameters."""
        return super().example(latent=latent, shape=shape, **{"decay": None, **options})

    def forward(self, x: Tensor, *context: Tensor) -> Family:
        """Return q(z given x)."""
        outputs = self.net(x, *context).to(self.codebook.codes.dtype)
        if self.codebook.decay is None:
            return Family(outputs, self.codebook.codes)
        fn = Family(outputs, self.codebook.codes.clone())
        if self.training and outputs.requires_grad:
            self.codebook.update(outputs, fn.one_hot.unflatten(-1, (-1, len(self.codebook.codes))))
            fn = Family(outputs, self.codebook.codes.clone())
        return fn
