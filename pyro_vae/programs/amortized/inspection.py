"""What a model consists of: the plate of its data, the latents inside and outside of it, and their supports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro import poutine
from pyro.infer.inspect import get_dependencies
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.programs.amortized.dependent import check_alike
from pyro_vae.programs.amortized.unobserved import Unobserved
from pyro_vae.programs.program import Program, evaluating, keep_buffers

__all__ = ["ROWS", "Frame", "Inspection", "Latent", "dependencies_of", "inspect_model"]

#: Most rows of a run, few enough to be fast.
ROWS = 11

#: Number of runs whose latents differ, which shows sites and plates that depend on them.
RUNS = 8


@dataclass(frozen=True)
class Frame:
    """A vectorized plate.

    Attributes:
        name: its name
        dim: its dimension
        size: its size in the run
        full_size: number of all rows, of which these may be a subsample
    """

    name: str
    dim: int
    size: int
    full_size: int


@dataclass(frozen=True)
class Latent:
    """A latent site.

    Attributes:
        name: its name
        fn: its distribution in the run
        frames: the plates around it, from the outside in
        masked: whether it has a mask
        scale: that of ``poutine.scale``, without the scales of subsampled plates; 1 where it differs between rows
    """

    name: str
    fn: Any = field(repr=False)
    frames: tuple[Frame, ...]
    masked: bool
    scale: float

    def inner(self, plate: Frame) -> list[Frame]:
        """Return the other plates of a latent in the plate of the data."""
        return [frame for frame in self.frames if frame.name != plate.name]

    @property
    def discrete(self) -> bool:
        """Whether its values are discrete."""
        return bool(self.fn.support.is_discrete)


@dataclass(frozen=True)
class Inspection:
    """What a model consists of.

    Attributes:
        plate: the plate of the data; its ``full_size`` is 0 where it is the number of rows of the batch
        local: the latents in that plate that the guide draws, in the order of the model
        shared: the latents outside of it
    """

    plate: Frame
    local: tuple[Latent, ...]
    shared: tuple[Latent, ...]


def inspect_model(program: Program, batch: Sequence[Tensor]) -> Inspection:
    """Find the plate of the data of a model, and its latents, from a few runs.

    Random state, weights, buffers and the parameter store do not change.

    Raises:
        ValueError: the model observes nothing, has no plate of the data, or its sites or plates differ between runs.
    """
    rows = min(len(batch[0]), ROWS)
    many = [column[:rows] for column in batch]
    other = [column[: rows - 1] if rows > 1 else torch.cat([column, column]) for column in batch]
    with evaluating(program), keep_buffers(program):
        try:
            runs = [sites_of(program, many, seed) for seed in range(RUNS)]
            fewer = sites_of(program, other, 0)
        except (IndexError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"model: expected one that runs on any number of rows of the example arguments, got an error with "
                f"{rows} or {len(other[0])} rows: {error}"
            ) from error
        check_alike(runs)
        check_alike([runs[0], fewer], rows=(rows, len(other[0])))
        sites = runs[0]
        plate = data_plate(sites, fewer, rows, len(other[0]))
        local: list[Latent] = []
        shared: list[Latent] = []
        for name, message in sites.items():
            if message["is_observed"] or is_summed(message):
                continue
            latent = latent_of(name, message)
            (local if any(frame.name == plate.name for frame in latent.frames) else shared).append(latent)
    return Inspection(plate, tuple(local), tuple(shared))


def dependencies_of(program: Program, batch: Sequence[Tensor], plate: str) -> dict[str, set[str]]:
    """Return the latents in a plate that the density of each site depends on, its own included.

    Those that examples share are left out, as if they were known.
    """
    with evaluating(program), keep_buffers(program), fork_rng(batch, 0):
        model = poutine.block(Unobserved()(program.model), hide_fn=lambda message: message["type"] == "param")
        found: Any = get_dependencies(model, tuple(column[:ROWS] for column in batch))["prior_dependencies"]
        sites = sites_of(program, [column[:ROWS] for column in batch], 0)
    inside = {name for name, m in sites.items() if not m["is_observed"] and plate in names_of(m)}
    return {name: found[name].keys() & inside for name in sites if name in found}


def sites_of(program: Program, batch: Sequence[Tensor], seed: int) -> dict[str, Any]:
    """Run the model and return the messages of its sites, without plates and named values."""
    with fork_rng(batch, seed), poutine.trace() as tracer, Unobserved():
        program.model(*batch)
    nodes: dict[str, Any] = tracer.trace.nodes
    found = {name: n for name, n in nodes.items() if n["type"] == "sample" and not isinstance(n["fn"], _Subsample)}
    return {name: node for name, node in found.items() if not node["infer"].get("_deterministic")}


def latent_of(name: str, message: Any) -> Latent:
    """Return the latent of a site."""
    frames, mask, scale = frames_of(message), message["mask"], message["scale"]
    plates = math.prod(frame.full_size / frame.size for frame in frames)
    own = 1.0 if isinstance(scale, Tensor) and scale.numel() > 1 else round(float(scale) / plates, 12)
    return Latent(name, message["fn"], frames, mask is not None and mask is not True, own)


def frames_of(message: Any) -> tuple[Frame, ...]:
    """Return the vectorized plates around a site from the outside in."""
    stack = [f for f in message["cond_indep_stack"] if f.dim is not None]
    return tuple(Frame(f.name, f.dim, int(f.size), int(f.full_size or f.size)) for f in stack)


def names_of(message: Any) -> list[str]:
    """Return the names of the plates around a site."""
    return [frame.name for frame in message["cond_indep_stack"] if frame.dim is not None]


def is_summed(message: Any) -> bool:
    """Whether estimators sum over the values of a site that the guide leaves out."""
    return bool(message["infer"].get("enumerate") == "parallel" and message["fn"].has_enumerate_support)


def data_plate(sites: dict[str, Any], fewer: dict[str, Any], rows: int, fewer_rows: int) -> Frame:
    """Return the outermost plate that all observed sites share, which has a row for each row of the data.

    Args:
        sites: a run with ``rows`` rows of data
        fewer: a run with ``fewer_rows`` rows

    Raises:
        ValueError: there is no such plate.
    """
    observed = [name for name, message in sites.items() if message["is_observed"]]
    if not observed:
        raise ValueError("model: expected an observed site, got none: observe the data, pyro.sample('x', ..., obs=x)")
    common = set.intersection(*(set(names_of(sites[name])) for name in observed))
    first, second = (
        {frame.name: frame for frame in frames_of(run[observed[0]]) if frame.name in common} for run in (sites, fewer)
    )
    for name, frame in first.items():
        if (frame.size, second[name].size) == (rows, fewer_rows):
            constant = frame.full_size == second[name].full_size
            if not constant and (frame.full_size, second[name].full_size) != (rows, fewer_rows):
                raise ValueError(
                    f"model: expected plate {name!r} to have the rows of the batch, or a constant size of which they "
                    f"are a subsample, got sizes {frame.full_size} and {second[name].full_size} for {rows} and "
                    f"{fewer_rows} rows"
                )
            return Frame(name, frame.dim, rows, frame.full_size if constant else 0)
    sizes = {name: f"{first[name].size} and {second[name].size}" for name in first}
    raise ValueError(
        f"model: expected a plate of the data, with a row for each row of x around all observed sites {observed}, got "
        f"{f'plates of sizes {sizes}' if sizes else 'none'} for {rows} and {fewer_rows} rows. Write "
        "`with pyro.plate('data', len(x), dim=-1):` around them, or pyro.plate('data', N, subsample=torch.arange("
        "len(x))) for minibatches of N rows"
    )
