"""The one idea of the library: a module whose ``forward`` returns a Pyro distribution."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Integral
from typing import Any, ClassVar

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

__all__ = ["Conditional"]


class Conditional(nn.Module, ABC):
    r"""A distribution that depends on a context: :math:`p(y \mid c)`.

    Bayes' three words are all of this kind. A prior :math:`p(z)` has no context (or labels), a
    likelihood :math:`p(x \mid z)` has a latent, a posterior :math:`q(z \mid x)` has a datum.

    The contract of ``forward(*context)``:

    * It returns a Pyro distribution whose ``batch_shape`` is exactly the leading dimensions of its
      context, whatever their number (``()`` for a prior without context): what belongs to one datum
      is declared by ``.to_event``. Particles and enumeration only add dimensions on the left.
    * It contains no ``pyro.sample`` and no ``pyro.plate``: those live in the program.
    * What it learns is an ``nn.Parameter``, what it holds fixed a buffer: so it moves with ``.to``.

    The first arguments of every part on a shelf are the same (``Prior(latent)``,
    ``Likelihood(latent, shape)``, ``Posterior(shape, latent)``), all others are keywords with
    defaults. A part that needs more overrides :meth:`example`.

    Example:
        >>> import torch, pyro_vae as pv
        >>> class Wide(pv.Conditional):
        ...     def forward(self, *context):
        ...         return pyro.distributions.Normal(torch.zeros(3), 10.0).to_event(1)
        >>> import pyro
        >>> Wide()().event_shape
        torch.Size([3])
    """

    #: Said after an error about data outside the support: which part or option to use instead.
    hint: ClassVar[str] = ""

    #: How many numbers of context (labels, covariates) one datum brings beside z or x.
    context: int = 0

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = counted(cls.__init__)

    @abstractmethod
    def forward(self, *context: Tensor) -> TorchDistributionMixin:
        """Return the distribution given ``context``."""

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2)) -> Conditional:
        """Build a small instance, so that a test can check a part it has never heard of.

        Args:
            latent: passed on if the constructor asks for it
            shape: passed on if the constructor asks for it

        Returns:
            An instance with default options.

        Raises:
            TypeError: the constructor needs something else: override this method.
        """
        known = {"latent": latent, "shape": shape}
        required = [
            name
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        ]
        unknown = [name for name in required if name not in known]
        if unknown:
            raise TypeError(
                f"{cls.__name__}.example() does not know what to pass for {unknown}: "
                f"override the classmethod `example` of {cls.__name__}"
            )
        return cls(**{name: known[name] for name in required})


#: Arguments that every part has under the same name, and the least that each may be.
COUNTS = {"latent": 1, "context": 0}


def counted(make: Callable[..., None]) -> Callable[..., None]:
    """Have the constructor of a part refuse numbers of latents or of context that are none, before torch does."""
    signature = inspect.signature(make)
    counts = COUNTS.keys() & signature.parameters.keys()

    @functools.wraps(make)
    def init(self: Conditional, *args: Any, **options: Any) -> None:
        try:
            given = signature.bind(self, *args, **options).arguments
        except TypeError:  # which the constructor explains better
            given = {}
        for name in counts & given.keys():
            value = given[name]
            if not isinstance(value, Integral) or isinstance(value, bool) or value < COUNTS[name]:
                raise ValueError(
                    f"{name}: {type(self).__name__} takes an int of at least {COUNTS[name]}, got {value!r}"
                )
        make(self, *args, **options)

    return init if counts else make
