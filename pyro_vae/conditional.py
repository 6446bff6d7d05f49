"""The base class of priors, likelihoods and posteriors: a module whose ``forward`` returns a Pyro distribution."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from functools import partial
from typing import Any, ClassVar, TypeVar

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae._util.abstract import Abstract
from pyro_vae._util.describe import Described
from pyro_vae._util.validation import check_int
from pyro_vae.nets import MLP, Shape, build
from pyro_vae.nets.contract import NetError

__all__ = ["Conditional"]

Part = TypeVar("Part", bound="Conditional")

#: The networks of the parts that ``example`` builds.
SMALL_HIDDEN = (16,)
SMALL = partial(MLP, hidden=SMALL_HIDDEN)


class Conditional(Described, Abstract, nn.Module):
    r"""A distribution that depends on a context: :math:`p(y \mid c)`.

    A prior :math:`p(z)` has no context (or labels), the context of a likelihood :math:`p(x \mid z)` is a latent, and
    that of a posterior :math:`q(z \mid x)` is an example.

    The contract of ``forward(*context)``:

    * It returns a Pyro distribution whose ``batch_shape`` is exactly the leading dimensions of its context, however
      many they are (``()`` for a prior without context). The dimensions of one example are declared by ``.to_event``.
      Particles and enumeration only add dimensions on the left.
    * It contains no ``pyro.sample`` and no ``pyro.plate``: those are in the program.
    * What it learns is an ``nn.Parameter``, what it holds fixed is a buffer, so that it moves with ``.to``.

    The first arguments of every part of a kind are the same (``Prior(latent)``, ``Likelihood(latent, shape)``,
    ``Posterior(shape, latent)``); all others are keyword arguments with defaults. A part that needs more overrides
    :meth:`example`. A subclass calls this constructor with the arguments that it wants checked.

    Args:
        latent: number of latents
        context: width of the context in addition to z or x (labels, covariates)
        min_latent: smallest valid number of latents

    Raises:
        ValueError: ``latent`` is not an int of at least ``min_latent``, or ``context`` not one of at least 0.

    Example:
        >>> import pyro, torch, pyro_vae as pv
        >>> class Wide(pv.Conditional):
        ...     def forward(self, *context):
        ...         return pyro.distributions.Normal(torch.zeros(3), 10.0).to_event(1)
        >>> Wide()().event_shape
        torch.Size([3])
    """

    #: What to use instead when data lie outside the support; the end of the error about such data.
    hint: ClassVar[str] = ""

    #: Width of the context (labels, covariates) of an example, in addition to z or x.
    context: int = 0

    def __init__(self, *, latent: int = 1, context: int = 0, min_latent: int = 1) -> None:
        super().__init__()
        for name, value, minimum in (("latent", latent, min_latent), ("context", context, 0)):
            try:
                check_int(name, value, minimum)
            except ValueError as error:
                raise ValueError(f"{error} ({type(self).__name__})") from None
        if context:
            self.context = context

    def __call__(self, *context: Any, **options: Any) -> Any:
        """Call ``forward``; an error of its network gets the name of the part."""
        try:
            return super().__call__(*context, **options)
        except NetError as error:
            if error.part:
                raise
            raise error.of(type(self).__name__) from None

    @property
    def takes_missing(self) -> bool:
        """Whether NaN may mark missing entries of ``x``: by default, whether the network ``net`` takes them.

        A part that wraps another one returns the value of that part. Assign to it for a network that does not say.
        """
        default = getattr(getattr(self, "net", None), "takes_missing", False)
        return self.__dict__.get("takes_missing", default)

    @takes_missing.setter
    def takes_missing(self, value: bool) -> None:
        self.__dict__["takes_missing"] = value

    @abstractmethod
    def forward(self, *context: Any, **options: Any) -> TorchDistributionMixin:
        """Return the distribution given ``context``."""

    @classmethod
    def example(cls: type[Part], *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> Part:
        """Build a small instance, for tests that run over every part.

        Args:
            latent: number of latents, if the constructor requires it
            shape: shape of one example, if the constructor requires it
            options: further arguments of the constructor

        Returns:
            An instance with default options, except for hidden layers: one of width 16 in place of those of ``hidden``
            and of any default ``MLP``.

        Raises:
            TypeError: the constructor requires another argument; override this method.
        """
        parameters = inspect.signature(cls).parameters.items()
        variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        required = {n for n, p in parameters if p.default is p.empty and p.kind not in variable}
        known: dict[str, Any] = {"latent": latent, "shape": shape}
        if unknown := sorted(required - known.keys() - options.keys()):
            raise TypeError(f"{cls.__name__}.example: no values for {unknown}. Override `example` in {cls.__name__}.")
        small: dict[str, Any] = {n: SMALL for n, p in parameters if getattr(p.default, "func", p.default) is MLP}
        small |= {n: SMALL_HIDDEN for n, p in parameters if n == "hidden" and isinstance(p.default, tuple)}
        return cls(**{n: known[n] for n in required & known.keys()}, **{**small, **options})


class UnitNormal(Conditional):
    """A normal of std 1 around the output of a small network, for the examples of parts that contain other parts."""

    def __init__(self, in_shape: Shape, out_shape: Shape) -> None:
        super().__init__()
        self.net = build(SMALL, in_shape, out_shape)

    def forward(self, x: Tensor, *context: Tensor) -> dist.Independent:
        """Return the distribution given ``x``."""
        loc = self.net(x)
        return dist.Normal(loc, torch.ones_like(loc)).to_event(len(self.net.out_shape))
