"""Any flow of the library zuko as a prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from pyro_vae.conditional import Conditional

__all__ = ["ZukoFlow"]


class ZukoFlow(Conditional):
    r"""A flow made by the library zuko, as the distribution of the latents.

    .. math:: \log p(z) = \log p_{\mathrm{base}}(f(z)) + \log \lvert \det \partial f / \partial z \rvert

    Needs the optional extra ``zuko``, which is imported when the part is built. That import switches the argument
    validation of torch off for the whole process; here it is put back as it was. Where you import zuko yourself,
    do so after a ``ZukoFlow`` was built, or put the flag back.

    References:
        Zuko: normalizing flows in PyTorch (Rozet et al., 2022), https://doi.org/10.5281/zenodo.7625672

    Args:
        latent: number of latents
        flow: makes the flow, ``flow(latent, context)``: a class of ``zuko.flows`` or
            ``functools.partial(zuko.flows.MAF, transforms=5)``; ``zuko.flows.NSF`` if None
        context: how many numbers of context (labels) one datum brings

    Shape:
        no context, to batch shape ``()`` (or that of the context) and event shape ``(latent,)``.

    Raises:
        ImportError: zuko is not installed.

    Example:
        >>> ZukoFlow(3)().event_shape  # doctest: +SKIP
        torch.Size([3])
    """

    def __init__(
        self,
        latent: int,
        *,
        flow: Callable[[int, int], nn.Module] | None = None,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.context = context
        self.flow = (flow or flows().NSF)(latent, context)

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2)) -> ZukoFlow:
        """Return a small instance with smooth layers: splines start with steep pieces, which a grid misses."""
        return cls(latent, flow=flows().MAF)

    def forward(self, *context: Tensor) -> ZukoDistribution:
        """Return p(z), or p(z given c)."""
        if not self.context:
            return ZukoDistribution(self.flow())
        batch = torch.broadcast_shapes(*(c.shape[:-1] for c in context))
        return ZukoDistribution(self.flow(torch.cat([c.expand(*batch, -1) for c in context], -1)))


class ZukoDistribution(ZukoToPyro):
    """The adaptor of Pyro with the methods that it leaves out, and without its memory of draws."""

    support = constraints.real_vector
    arg_constraints = {}

    def __init__(self, dist: Distribution) -> None:
        super().__init__(dist)
        self._validate_args = False

    def __call__(self, shape: Sequence[int] = ()) -> Tensor:
        return self.rsample(shape) if self.has_rsample else self.sample(shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw with a gradient."""
        return self.dist.rsample(torch.Size(sample_shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw."""
        return self.dist.sample(torch.Size(sample_shape))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density."""
        return self.dist.log_prob(x)

    def expand(self, *args: Any, **kwargs: Any) -> ZukoDistribution:
        """Return the distribution with another batch shape."""
        return ZukoDistribution(self.dist.expand(*args, **kwargs))


def flows() -> ModuleType:
    """Import ``zuko.flows`` and give torch's argument validation back as it was."""
    before = Distribution._validate_args
    try:
        import zuko.flows
    except ImportError as error:
        raise ImportError("ZukoFlow needs zuko: pip install pyro-vae[zuko]") from error
    finally:
        Distribution.set_default_validate_args(before)
    return zuko.flows
