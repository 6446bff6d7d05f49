"""The base class of programs: a Pyro model and guide in one module."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn.module import PyroModule
from torch import Tensor, nn

from pyro_vae._util.abstract import Abstract
from pyro_vae._util.describe import Described
from pyro_vae._util.lock import LOCK
from pyro_vae._util.memory import enough_memory
from pyro_vae._util.parameters import PartContext, isolate
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.nets import MLP
from pyro_vae.programs.calls import Calls
from pyro_vae.programs.checks import check_context, check_entries, invalid_parameters
from pyro_vae.programs.compatibility import check_parts
from pyro_vae.programs.primitives import announce

__all__ = ["SMALL", "Program", "eval_mode", "evaluating", "keep_buffers", "mean_or_sample"]

#: The networks of `example()`.
SMALL = partial(MLP, hidden=(8,))


class Program(Described, Abstract, PyroModule):
    """A Pyro model and guide in one ``nn.Module``, for estimators, ``fit`` and evaluation.

    Both are called with one batch, ``model(x, *context)`` and ``guide(x, *context)``, and open the plate ``"data"``
    at ``dim=-1`` with size ``len(x)`` (:class:`DataPlate`). They begin with :func:`announce`, so that stock
    ``pyro.infer.SVI`` finds the parameters without the global parameter store. That holds inside a PyroModule and for
    parts and networks that are PyroModules, too.

    A program that also defines :meth:`decode_prior` and :meth:`decode_posterior` can :meth:`sample` and
    :meth:`reconstruct`. Both fork torch's random state: a seed always returns the same samples, and the global random
    state does not change.

    Example:
        >>> import pyro, torch, pyro_vae as pv
        >>> class Coins(pv.Program):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.raw = torch.nn.Parameter(torch.zeros(()))
        ...     def model(self, x):
        ...         pv.programs.announce(coins=self)
        ...         with pv.programs.DataPlate(x):
        ...             return pv.programs.observe("x", pyro.distributions.Bernoulli(logits=self.raw), x)
        ...     def guide(self, x):
        ...         pass
        >>> len(pv.fit(Coins(), torch.ones(8), epochs=1, progress=False))
        1
    """

    #: Number of context values (labels, covariates) per example.
    context: int = 0

    def __init__(self) -> None:
        super().__init__()
        self._pyro_context = PartContext()
        self._outer_context: Any = None

    @classmethod
    def example(cls) -> Program:
        """Build a small instance for tests; override it if the constructor has required arguments."""
        return cls()

    @classmethod
    def default_parts(cls) -> dict[str, Callable[..., Any]]:
        """Return the parts that suit this program where those of a VAE do not, by argument; the command uses them.

        A part is a class, or a :class:`functools.partial` of one with options.
        """
        return {}

    @abstractmethod
    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        """Run the generative model on a batch ``x``, which it observes."""

    @abstractmethod
    def guide(self, x: Tensor, *context: Tensor) -> Any:
        """Run the amortized posterior on a batch ``x``."""

    def decode_prior(self, num_samples: int, *context: Tensor, **options: Any) -> TorchDistributionMixin:
        """Sample ``num_samples`` latents from the prior and return p(x given z)."""
        raise NotImplementedError(f"{type(self).__name__} does not define decode_prior, which sample() needs")

    def decode_posterior(self, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Sample latents from the posterior of ``x`` and return p(x given z)."""
        raise NotImplementedError(f"{type(self).__name__} does not define decode_posterior, which reconstruct() needs")

    def missing_entries(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return which entries of ``x`` are missing, of the shape of ``x``."""
        return torch.isnan(x)

    @property
    def device(self) -> torch.device:
        """Device of the parameters, the CPU if there are none."""
        return next(self.parameters(), torch.zeros(())).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters, which the data must have too."""
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        outer = own.get("_outer_context")
        inside = outer is not None and outer.active
        part = own.get("_modules", {}).get(name)
        if part is not None and not inside and not own["_pyro_context"].active and not isinstance(part, PyroModule):
            return part  # for speed: a PyroModule would return it as well
        found = super().__getattr__(name)
        # a PyroModule that contains this program may use a part of it outside of `model` and `guide`
        if inside and isinstance(found, (nn.Module, nn.Parameter)):
            announce(**{name: found})
        return found

    def _pyro_set_supermodule(self, name: str, context: Any) -> None:
        # called by a PyroModule that contains this program: it must not put the parameters into the global store
        self._pyro_name, self._outer_context = name, context

    def sample(self, num_samples: int, *context: Tensor, mean: bool = False, seed: int = 0) -> Tensor:
        """Sample new data from the model.

        Args:
            num_samples: number of samples
            context: ``num_samples`` rows of context, for a conditional program
            mean: return the mean of p(x given z) instead of a sample, which is what most papers show for images
            seed: seed of all random numbers; the same seed returns the same samples

        Returns:
            Data of shape ``(num_samples, *shape)``.

        Raises:
            ValueError: ``num_samples`` is not a positive integer, or the context does not fit.
        """
        return self._sample(num_samples, *context, mean=mean, seed=seed)

    def _sample(self, num_samples: int, *context: Tensor, mean: bool, seed: int, **options: Any) -> Tensor:
        num_samples = check_int("num_samples", num_samples)
        check_context(context, self.context, num_samples, self.dtype)
        memory = enough_memory("num_samples", "Sample fewer at once, each time with another seed")
        with evaluating(self), fork_rng(self.device, seed), memory:
            fn = self.decode_prior(num_samples, *context, **options)
            return mean_or_sample(fn) if mean else fn.sample()

    def reconstruct(self, x: Tensor, *context: Tensor, seed: int = 0) -> Tensor:
        """Sample latents from the posterior of ``x`` and return the mean of p(x given z).

        Args:
            x: a batch
            context: the other columns of the data, as in ``model(x, *context)``
            seed: seed of all random numbers

        Returns:
            Means of the shape of ``x``; samples where the mean has no closed form.

        Raises:
            ValueError: the data do not fit the program.
        """
        self.check(x, *context)
        with evaluating(self), fork_rng(self.device, seed):
            return mean_or_sample(self.decode_posterior(x, *context))

    def check(self, x: Tensor, *context: Tensor) -> None:
        """Raise if the data do not fit the program, or its parts do not fit together.

        Random state, weights and buffers do not change.

        Raises:
            TypeError: ``x`` is not a tensor.
            ValueError: it names the argument or the parts, what was expected, what was given and the first bad index.
        """
        if not isinstance(x, Tensor):
            raise TypeError(f"x: expected a tensor, got {type(x).__name__}")
        with evaluating(self), fork_rng(self.device, 0), invalid_parameters(self):
            with Calls(self):
                self.check_data(x, *context)
            check_parts(self, x, *context)

    def check_data(self, x: Tensor, *context: Tensor) -> None:
        """Raise if shape, type, values or context of the data do not fit (those that :meth:`decode_prior` needs)."""
        if type(self).decode_prior is Program.decode_prior:
            return
        check_context(context, self.context, len(x) if x.dim() else 0, self.dtype)
        fn = self.decode_prior(1, *(c[:1] for c in context))
        missing = getattr(self, "missing", False)
        optional = missing or "missing" in inspect.signature(type(self)).parameters
        likelihood = getattr(self, "likelihood", fn)
        check_entries(x, fn, likelihood, self.dtype, missing=missing if optional else None)

    def before_training(self, x: Tensor, *context: Tensor) -> None:
        """Warn about settings under which these data cannot train the program as a user would expect."""


def mean_or_sample(fn: TorchDistributionMixin) -> Tensor:
    """Return the mean, or a sample of a distribution without a closed-form mean (such as an autoregressive one)."""
    try:
        return fn.mean
    except NotImplementedError:
        return fn.sample()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Run in evaluation mode and without gradients, then restore the mode of every submodule.

    Modes and Pyro's handlers are shared by all threads: others that call the library wait until the exit.
    """
    with LOCK:
        isolate(module)  # a PyroModule that runs here must not write into the global parameter store
        with eval_mode(module), torch.no_grad():
            yield


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode, then restore the mode of every submodule."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode


@contextmanager
def keep_buffers(module: nn.Module) -> Iterator[None]:
    """Restore the buffers (such as the statistics of a BatchNorm) that a run in training mode changes."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.data.copy_(value)  # a buffer that the run did not change may be part of a graph
