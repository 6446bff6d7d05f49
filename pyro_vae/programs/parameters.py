"""Parameters told to Pyro's handlers, without the global parameter store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pyro.poutine.runtime import am_i_wrapped, effectful
from torch import nn
from torch.distributions import constraints

__all__ = ["announce", "announcements_off"]

_SILENT: ContextVar[bool] = ContextVar("pyro_vae_announcements_off", default=False)


def announce(**modules: nn.Module) -> None:
    """Tell Pyro's handlers which parameters a program is about to use, those that are frozen aside.

    Pyro learns parameters from messages of type ``"param"``. ``pyro.module`` sends them by way of the global
    parameter store, where a second model of the same names is silently not trained. This sends the same
    messages with the module's own parameters, and only while a handler is there to hear them.
    """
    if _SILENT.get() or not am_i_wrapped():
        return
    for root, module in modules.items():
        for name, parameter in module.named_parameters():
            # a frozen one may hold the gradient of an earlier training, which `SVI.step` would follow
            if not parameter.requires_grad:
                continue
            # `SVI.step` asks the value of the message for `.unconstrained()`: put on a detached alias, as an
            # attribute of the Parameter itself would go along into copies and pickles
            value = parameter.detach()
            value.unconstrained = lambda parameter=parameter: parameter
            send = effectful(lambda *args, value=value, **kwargs: value, type="param")
            send(name=f"{root}.{name}", constraint=constraints.real)


@contextmanager
def announcements_off() -> Iterator[None]:
    """Leave out :func:`announce` within: an engine that holds the parameters already saves the time."""
    token = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(token)
