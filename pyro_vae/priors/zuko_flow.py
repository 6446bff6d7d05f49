"""Any flow of the library zuko as a prior."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import torch
from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from pyro_vae.conditional import Conditional
from pyro_vae.nets.contract import join_context

__all__ = ["ZukoFlow"]


class ZukoFlow(Conditional):
    r"""A normalizing flow of the library zuko as the distribution of the latents.

    .. math:: \log p(z) = \log p_{\mathrm{base}}(f(z)) + \log \lvert \det \partial f / \partial z \rvert

    Needs the optional extra ``zuko``, which is imported when the part is built. Importing zuko turns off torch's
    validation of arguments for the whole process; this class restores the previous setting. If you import zuko
    yourself, do so after a ``ZukoFlow`` was built, or restore the setting.

    References:
        Zuko: normalizing flows in PyTorch (Rozet et al., 2022), https://doi.org/10.5281/zenodo.7625672

    Args:
        latent: number of latents
        flow: builds the flow, ``flow(latent, context)``: a class of ``zuko.flows`` or
            ``functools.partial(zuko.flows.MAF, transforms=5)``; ``zuko.flows.NSF`` if None
        context: width of the context (labels, covariates)

    Raises:
        ImportError: zuko is not installed.
        ValueError: ``flow`` does not build a normalized density of ``latent`` real numbers. Those of ``zuko.flows``
            do, except ``NCSF`` (a density of angles, periodic outside of their interval) and ``GF`` (its map saturates
            before it reaches the tails of its base). ``NAF``, ``UNAF`` and ``SOSPF`` lose up to a
            few percent of the mass in the tails, as they clip values beyond 10 softly.

    Example:
        >>> ZukoFlow(3)().event_shape  # doctest: +SKIP
        torch.Size([3])
    """

    def __init__(self, latent: int, *, flow: Callable[[int, int], nn.Module] | None = None, context: int = 0) -> None:
        super().__init__(latent=latent, context=context)
        self.flow = (flow or flows().NSF)(latent, context)
        check_density(self.flow(torch.zeros(context)) if context else self.flow(), latent)

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> ZukoFlow:
        """Build a small instance with smooth layers: splines start with steep pieces, which a grid misses."""
        small = partial(flows().MAF, transforms=2, hidden_features=(16,))
        return super().example(latent=latent, shape=shape, **{"flow": small, **options})

    def forward(self, *context: Tensor) -> ZukoDistribution:
        """Return p(z), or p(z given c)."""
        return ZukoDistribution(self.flow(join_context(context)) if self.context else self.flow())


class ZukoDistribution(ZukoToPyro):
    """Pyro's adaptor of zuko distributions, with the methods that it lacks and without its cache of samples."""

    support = constraints.real_vector
    arg_constraints = {}

    def __init__(self, dist: Distribution) -> None:
        super().__init__(dist)
        self._validate_args = False

    def __call__(self, shape: Sequence[int] = ()) -> Tensor:
        return self.rsample(shape) if self.has_rsample else self.sample(shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample with a gradient."""
        return self.dist.rsample(torch.Size(sample_shape))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample."""
        return self.dist.sample(torch.Size(sample_shape))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density; zuko requires values with the batch shape of the context."""
        return self.dist.log_prob(x.expand(torch.broadcast_shapes(x.shape, self.batch_shape + self.event_shape)))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> ZukoDistribution:
        """Return the distribution with another batch shape."""
        return ZukoDistribution(self.dist.expand(torch.Size(batch_shape)))


def check_density(fn: Any, latent: int) -> None:
    """Raise unless a distribution of zuko has a normalized density on vectors of ``latent`` real numbers."""
    if not isinstance(fn, Distribution) or fn.event_shape != (latent,):
        found = f"event shape {tuple(fn.event_shape)}" if isinstance(fn, Distribution) else type(fn).__name__
        raise ValueError(f"flow: expected a distribution of {latent} real numbers, got {found}. Use zuko.flows.NSF")
    if not hasattr(fn, "transform"):
        return
    transform, base = fn.transform, fn.base
    if not is_real(transform.domain) or is_real(transform.codomain) > is_real(base.support):
        problem = f"its map is from {transform.domain} to {transform.codomain}, and its base is on {base.support}"
    elif any(type(step).__name__ == "GaussianizationTransform" for step in steps_of(transform)):
        problem = "a GaussianizationTransform saturates before it reaches the tails of the base"
    else:
        return
    raise ValueError(
        f"flow: expected a normalized density on {latent} real numbers, but {problem}. Use zuko.flows.NSF or MAF"
    )


def steps_of(transform: Any) -> Iterator[Any]:
    """Yield a transform and the transforms that it is made of."""
    yield transform
    for inner in [*getattr(transform, "transforms", ()), *([transform.base] if hasattr(transform, "base") else ())]:
        yield from steps_of(inner)


def is_real(support: constraints.Constraint) -> bool:
    """Return whether a support consists of all real numbers or vectors."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real


def flows() -> ModuleType:
    """Import ``zuko.flows`` without changing torch's validation of arguments."""
    before = Distribution._validate_args
    try:
        import zuko.flows
    except ImportError as error:
        raise ImportError("ZukoFlow needs zuko. Run `pip install pyro-vae[zuko]`.") from error
    finally:
        Distribution.set_default_validate_args(before)
    return zuko.flows
