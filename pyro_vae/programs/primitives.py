"""Statements for writing models and guides: parameters, the plate of the data, and checked observations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.runtime import am_i_wrapped, effectful
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch import Tensor, nn

from pyro_vae._util.parameters import isolate, send
from pyro_vae.programs.checks import batch_of

__all__ = ["DataPlate", "announce", "announcements_off", "observe", "resample"]

_SILENT: ContextVar[bool] = ContextVar("pyro_vae_announcements_off", default=False)


def announce(**modules: nn.Module | nn.Parameter) -> None:
    """Send the trainable parameters of modules to Pyro's handlers, without the global parameter store.

    ``pyro.module`` sends parameters through the global parameter store, where a second model with the same names
    silently shares (and stops training) its parameters. This function sends the same ``"param"`` messages with the
    module's own parameters. Call it at the start of a model or guide.

    Optimizers of Pyro save their state, and choose options, by these names. Where one model contains two programs, the
    names of the second are ``likelihood__1.weight``, ... Use one optimizer for each model.

    Args:
        modules: modules by name; the parameters of ``likelihood=net`` are named ``likelihood.weight``, ... A single
            parameter has the name of its argument

    Raises:
        TypeError: an argument is neither a module nor a parameter; or ``torch.jit`` traces the program, as under
            ``JitTrace_ELBO``, which needs the global parameter store.
        ValueError: a handler replaces a parameter (``poutine.lift``, ``poutine.substitute``).

    Example:
        >>> import torch
        >>> with pyro.poutine.trace() as tracer:
        ...     announce(net=torch.nn.Linear(2, 1))
        >>> list(tracer.trace.nodes)
        ['net.weight', 'net.bias']
    """
    if _SILENT.get() or not am_i_wrapped():
        return
    for root, module in modules.items():
        if not isinstance(module, (nn.Module, nn.Parameter)):
            raise TypeError(f"announce: expected modules or parameters by name, got {root}={type(module).__name__}")
        named = {"": module} if isinstance(module, nn.Parameter) else dict(module.named_parameters())
        if isinstance(module, nn.Module):
            isolate(module)
        # a frozen parameter may hold the gradient of an earlier training, which `SVI.step` would apply
        send(root, {name: p for name, p in named.items() if p.requires_grad})


@contextmanager
def announcements_off() -> Iterator[None]:
    """Turn :func:`announce` off, to save time where the parameters are already known."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)


class DataPlate(pyro.plate):
    """The plate ``"data"`` over the rows of a batch, at ``dim=-1``.

    Args:
        x: the batch
        num_examples: size of the plate, of which the rows of ``x`` are a subsample; by default their number

    Example:
        >>> import torch
        >>> with DataPlate(torch.zeros(5, 2)):
        ...     pyro.sample("z", pyro.distributions.Normal(0.0, 1.0)).shape
        torch.Size([5])
    """

    def __init__(self, x: Tensor, num_examples: int = 0) -> None:
        device: Any = x.device
        size, rows = x.shape[0], None
        if num_examples and num_examples > size:
            size, rows = num_examples, torch.arange(size, device=device)
        super().__init__("data", size, subsample=rows, dim=-1, device=device)

    def _process_message(self, msg: Any) -> None:
        # pyro.plate also expands distributions that already have its size, which adds two views per parameter and
        # their nodes in the backward pass
        if getattr(msg["fn"], "batch_shape", None) == (self.subsample_size,):
            SubsampleMessenger._process_message(self, msg)
        else:
            super()._process_message(msg)


def observe(name: str, fn: TorchDistributionMixin, x: Tensor) -> Tensor:
    """Observe a batch, after a check that Pyro does not do: that ``x`` is not broadcast inside the event.

    Args:
        name: name of the site
        fn: p(x given z), of batch shape ``(n,)`` (with further dimensions on the left for particles)
        x: the batch, of shape ``(n, *event_shape)``

    Returns:
        The batch.

    Raises:
        ValueError: the shape of ``x`` is not that of a batch of events of ``fn``.

    Example:
        >>> import torch
        >>> with DataPlate(x := torch.zeros(5, 2)):
        ...     observe("x", pyro.distributions.Normal(torch.zeros(5, 2), 1.0).to_event(1), x).shape
        torch.Size([5, 2])
    """
    # enumerated latents are the same for all rows: one row, with their values on the left
    sizes = (x.shape[0], 1) if len(fn.batch_shape) > 1 else (x.shape[0],)
    if x.shape[1:] != fn.event_shape or (fn.batch_shape and fn.batch_shape[-1] not in sizes):
        raise ValueError(
            f"{name}: expected shape {batch_of(fn.event_shape)}, got {tuple(x.shape)} (the likelihood has batch shape "
            f"{tuple(fn.batch_shape)}, one event per row). Check the `shape` of the likelihood, and declare the "
            "dimensions of one example by `.to_event`"
        )
    return pyro.sample(name, fn, obs=x)


def resample(name: str, state: Any, log_weight: Callable[[], Tensor] | None = None) -> Any:
    r"""Return the state before a step of a sequence: that of resampled particles under ``estimators.FIVO``.

    Call it in model and guide before the sample statement of each step, the first one included. All later statements
    use the returned state in place of the earlier one. Without an estimator that resamples, nothing changes; examples
    that ``poutine.mask`` leaves out, as their sequence has ended, are not resampled.

    Args:
        name: name of the latent site of the step that begins
        state: the latents that this step depends on, ``(particles, batch, ...)``; anything at the first step
        log_weight: in the guide, computes the log-weight of the step before,
            :math:`\log p(z_t, x_t \mid z_{t-1}) - \log q(z_t \mid z_{t-1}, x)`, of shape ``(particles, batch)``; None
            at the first step and in the model

    Returns:
        The state.

    Example:
        >>> import torch
        >>> resample("z_2", torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """
    return _resample(state, log_weight, name=name)


@effectful(type="resample")
def _resample(state: Any, log_weight: Callable[[], Tensor] | None) -> Any:
    return state
