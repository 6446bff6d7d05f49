"""A check that a program takes each value of an enumerated site by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng_unlocked
from pyro_vae.programs.program import eval_mode
from pyro_vae.trace.call import Call, buffers_kept, code_of, known_of, modules_of
from pyro_vae.trace.handlers import Recorder
from pyro_vae.trace.masks import masked
from pyro_vae.trace.plates import VALUES_DIM, batch_shape, frames
from pyro_vae.trace.values import check_inside

__all__ = ["check_values"]

#: Whether each row of an enumerated site gets the last of its values, not the first, by the dimension of the values.
Last = Mapping[int, Tensor]

#: Log-densities of a run by part (guide or model) and name of the site, None where a flow cannot compute one.
Densities = Mapping[tuple[str, str], Tensor | None]


def check_values(call: Call, drawn: Recorder, scored: Recorder) -> None:
    """Raise if a program combines the values of enumerated sites, over rows or with each other.

    All values of a site are given at once, so that ``z.mean()`` is the mean of the list of values and not of the rows.
    The check needs no shapes. In a dry run each row has one value, at all entries of the dimension of the values.
    Where that value was before, a density stays as it was if it depends on the value of its own row alone. What does
    not matter at the present parameters is not seen, unless they are zeros of a module (:func:`gates_open`).

    Args:
        call: model, guide and arguments
        drawn: a run of the guide
        scored: a run of the model at its values

    Raises:
        ValueError: a density depends on the values of other rows, or on all values of its own.
    """
    names = [*drawn.enumerated, *scored.enumerated]
    sites = {name: drawn.sites[name] if name in drawn.enumerated else scored.sites[name] for name in names}
    several = all(frame.size != 1 for message in sites.values() for frame in frames(message))
    key = (code_of(call.model), code_of(call.guide), *names, None, *drawn.sites, None, *scored.sites, several)
    known = known_of(call)
    # values on "meta" and those of torch's tracers are no numbers
    unknown = any(m["value"].is_meta or type(m["value"]) is not Tensor for m in sites.values())
    if unknown or key in known:
        return
    dims = {VALUES_DIM - number: name for number, name in enumerate(names)}
    for message in (*drawn.sites.values(), *scored.sites.values()):
        shape = batch_shape(message)
        for dim, name in dims.items():
            if len(shape) >= -dim and shape[dim] > 1:
                check_inside(message, name, sites[name], scored.sites.get(name, sites[name]))
    values = {name: {**message, "value": on_all_rows(message)} for name, message in sites.items()}
    latents, rows = {**drawn.sites, **values}, {**scored.subsamples, **drawn.subsamples}
    replay = {**latents, **rows}
    with gates_open(call):
        before = densities(call, replay)
        for pattern in (torch.zeros_like, torch.ones_like, torch.clone):
            last = {dim: pattern(odd_rows(sites[name])) for dim, name in dims.items()}
            chosen = {name: {**message, "value": choose(message, last)} for name, message in latents.items()}
            after = densities(call, {**chosen, **rows})
            for site in changes(before, after, last):
                # a program that is another one at each call shows nothing
                if site not in changes(before, densities(call, replay), last):
                    raise combined(*site, names)
    known[key] = None


def combined(where: str, site: str, names: list[str]) -> ValueError:
    """Return the error about a site of the guide or model that combines values."""
    return ValueError(
        f"{where}: site {site!r} combines values of sites {names}, which are all given at once to be summed over: "
        "expected a density that depends on one value, that of its own row, got one that depends on others, as "
        'z.mean() does. Leave out infer={"enumerate": "parallel"} and draw the values, such as by ReinforceLOO'
    )


@contextmanager
def gates_open(call: Call) -> Iterator[None]:
    """Give parameters that are all 0, such as a weight that starts at 0 and hides a term, other values for a while."""
    modules = {*modules_of(call.model), *modules_of(call.guide)}
    zeros = [p for module in modules for p in module.parameters() if p.numel() and not p.any()]
    try:
        for p in zeros:
            p.data.copy_(torch.linspace(0.1, 0.2, p.numel()).view_as(p))
        yield
    finally:
        for p in zeros:
            p.data.zero_()


def on_all_rows(message: Any) -> Tensor:
    """Return the values of an enumerated site, given to each row of its plates."""
    value, event_dim = message["value"], message["fn"].event_dim
    batch = value.shape[: value.dim() - event_dim]
    batch = torch.broadcast_shapes(batch, odd_rows(message).shape)
    return value.expand(batch + value.shape[value.dim() - event_dim :]).contiguous()


def odd_rows(message: Any) -> Tensor:
    """Return a mask of every other row of the plates of a site."""
    device, shape = message["value"].device, message["fn"].batch_shape
    number = torch.zeros((), dtype=torch.long, device=device)
    for frame in frames(message):  # a plate may have no size
        number = number + torch.arange(shape[frame.dim], device=device).reshape(-1, *[1] * (-frame.dim - 1))
    return number % 2 == 1


def choose(message: Any, last: Last) -> Tensor:
    """Return the draws of a site where enumerated sites have the chosen values, in the shape of all draws."""
    value = message["value"]
    return at(value, last, message["fn"].event_dim).expand_as(value).contiguous()


def at(x: Tensor, last: Last, event_dim: int = 0) -> Tensor:
    """Select the chosen values in each dimension of values, and keep the dimension with one entry."""
    for dim, is_last in last.items():
        dim -= event_dim
        if x.dim() >= -dim and x.shape[dim] > 1:
            x = torch.where(is_last[(..., *[None] * event_dim)], x.narrow(dim, -1, 1), x.narrow(dim, 0, 1))
    return x


def densities(call: Call, replay: Mapping[str, Any]) -> Densities:
    """Return the scaled log-densities of guide and model at given values, in evaluation mode."""
    found: dict[tuple[str, str], Tensor | None] = {}
    with ExitStack() as stack:
        stack.enter_context(fork_rng_unlocked(call.tensors))
        stack.enter_context(buffers_kept(call))
        for module in {*modules_of(call.model), *modules_of(call.guide)}:
            stack.enter_context(eval_mode(module))  # layers such as BatchNorm combine rows while they train
        for where, function in (("guide", call.guide), ("model", call.model)):
            for name, message in call.trace(function, Recorder(dict(replay))).sites.items():
                try:
                    log_p = masked(message["mask"], message["fn"].log_prob(message["value"])) * message["scale"]
                except (KeyError, NotImplementedError):  # a flow without an inverse scores its own draws only
                    log_p = None
                found[where, name] = None if log_p is None else log_p.detach()
    return found


def changes(before: Densities, after: Densities, last: Last) -> list[tuple[str, str]]:
    """Return the sites whose densities at the chosen values differ, and those that only one of the runs has."""
    found = sorted(before.keys() ^ after.keys())
    for site in before.keys() & after.keys():
        a, b = before[site], after[site]
        if a is not None and b is not None:
            a, b, tolerance = at(a, last), at(b, last), torch.finfo(a.dtype).eps ** 0.5
            if a.shape != b.shape or not torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True):
                found.append(site)
    return found
