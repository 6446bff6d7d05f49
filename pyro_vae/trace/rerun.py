"""Run a guide again with its parameters or its draws held constant."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.distributions.util import detach
from pyro.poutine import block
from torch import Tensor, nn

from pyro_vae._util.substitute import functional_call
from pyro_vae.trace.call import Call, buffers_kept, module_of
from pyro_vae.trace.handlers import Recorder

__all__ = ["rerun_guide"]


def rerun_guide(call: Call, drawn: Recorder, what: str) -> dict[str, Any]:
    """Return the messages of the guide with its parameters (``"params"``) or its draws (``"draws"``) held constant.

    With a single site its distribution, or its value, is detached. With several, the distribution of one may depend on
    the draw of another: the guide runs again at the same values.
    """
    if what == "draws":
        sites = {name: {**m, "value": m["value"].detach()} for name, m in drawn.sites.items()}
        if len(sites) == 1:
            return sites
        with same_run(call):
            return call.trace(call.guide, Recorder({**sites, **drawn.subsamples})).sites
    if len(drawn.sites) == 1:
        return {
            name: {**m, "fn": m["fn"].detached() if hasattr(m["fn"], "detached") else detach(m["fn"])}
            for name, m in drawn.sites.items()
        }
    program = module_of(call.guide)
    if program is None:
        raise ValueError(
            f"guide: parameters must be known by name to hold them constant, and the guide of the "
            f"sites {sorted(drawn.sites)} is a plain function: wrap it by "
            "pyro_vae.programs.FunctionProgram(model, guide, net=net)"
        )
    method = MethodModule(program, call.guide)
    constants = {name: p.detach() for name, p in method.named_parameters()}
    recorder = Recorder({**drawn.sites, **drawn.subsamples})
    # the constants are not parameters: handlers must not see them, and `pyro.module` must not warn about them
    hidden = block(hide_fn=lambda msg: msg["type"] == "param")
    with same_run(call), hidden, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* was not registered in the param store")
        call.trace(lambda *args, **kwargs: functional_call(method, constants, args, kwargs), recorder)
    return recorder.sites


@contextmanager
def same_run(call: Call) -> Iterator[None]:
    """Raise if a guide that runs again draws random numbers besides those of its sites, such as those of a Dropout."""
    readable = all(type(x) is Tensor and x.device.type == "cpu" for x in call.tensors)
    before = torch.get_rng_state() if readable else None
    with buffers_kept(call):
        yield
    if before is not None and not torch.equal(before, torch.get_rng_state()):
        raise ValueError(
            "guide: it draws random numbers besides those of its sites (a Dropout, say), so that gradients of its "
            "parameters and of its draws cannot be separated: leave them out, or use ELBO or IWAE"
        )


class MethodModule(nn.Module):
    """A function of a module as the ``forward`` of one, so that ``functional_call`` can replace its parameters."""

    def __init__(self, module: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.function = module, [function]  # in a list: no submodule

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function[0](*args, **kwargs)
