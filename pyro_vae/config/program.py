"""The program of a configuration: its parts are built from names, and the rest of its arguments from the data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.config.parts import build, required, resolve, revive, shelves, split
from pyro_vae.config.run import AXES, DEFAULT_PROGRAM, columns
from pyro_vae.data.covariates import entries
from pyro_vae.data.tables import Column, Count, Features, Positive, Real
from pyro_vae.data.tables.ranged import Ranged, moments
from pyro_vae.nets import MLP, LogCounts, ZeroImputed
from pyro_vae.priors import OneHotCategorical
from pyro_vae.programs import BackwardGRU, Program, SelfMasking, TopDown

__all__ = [
    "DEFAULTS",
    "MADE",
    "build_program",
    "can_build",
    "reals",
    "samples_missing",
    "takes_context",
    "takes_sequences",
    "unbounded",
]

#: Parts of the ``top`` of a program.
TOP = {
    "posterior": {"name": "MeanFieldNormal", "options": {}},
    "likelihood": {"name": "Normal", "options": {"scale": {"name": "PerExample", "options": {}}}},
}

#: Options of the ``top``.
OF_TOP = ("alpha", "weight_decay")

#: Required arguments of programs that are options: the numbers of latents of the layers below the top of a hierarchy,
#: from the top down, and the order of its guide; the number of features of the GRU that reads sequences backwards.
DEFAULTS: dict[str, Any] = {"layers": [16], "inference": TopDown, "summary": 64}

#: Distributions of a layer of a hierarchy given another layer.
LAYER = {"name": "MeanFieldNormal", "options": {}}


def build_program(config: Mapping[str, Any]) -> Program:
    """Build the program of a configuration, with weights initialized from ``config["seed"]``.

    Any exported program can be built whose other required arguments are plain values, or one of :data:`MADE`. The
    encoder of a table, or of an array with ``units``, sees the columns as :class:`Features`, that of other data with
    missing entries sees :class:`ZeroImputed` data, and that of counts their logarithms (:class:`LogCounts`).
    Covariates are the context of all parts. A likelihood with ``library=True`` has one more number of context. A
    program of sequences has this encoder in its summary, and the inputs of each step as context.

    Args:
        config: ``latent``, ``shape``, ``seed``, ``posterior``, ``likelihood`` and ``prior``; where they apply
            ``program``, ``columns`` of a table, ``units`` of an array with real columns, whether it has ``counts``,
            ``context``, the columns of the covariates, ``inputs``, the number of inputs of each step of sequences,
            ``num_examples``, and ``classes``, the labels in the order of their class numbers

    Returns:
        The untrained program, on the CPU.

    Raises:
        ValueError: a name is unknown, options do not fit, or the program needs a part that cannot be built.
    """
    spec = config.get("program", DEFAULT_PROGRAM)
    name, options = split("program", spec)
    cls = resolve("program", name, shelves()["program"])
    needed, inputs = required(cls), config.get("inputs", 0)
    given: dict[str, Any] = {"latent": config["latent"], "shape": tuple(config["shape"])}
    table = columns(config) or columns(config, "units")
    if table:
        given["columns"] = table
        mask = {"missing": True} if "summary" in needed and options.get("missing") else {}
        given["encoder"] = lambda net: partial(Features, given["columns"], net=net, **mask)
    elif options.get("missing") or "mask" in needed:
        given["encoder"] = lambda net: partial(ZeroImputed, net=net)
    elif config.get("counts") and not cls.default_parts():  # programs of counts take logarithms themselves
        given["encoder"] = lambda net: partial(LogCounts, net=net)
    context = inputs + width_of(config) + (len(config["classes"]) if "classifier" in needed else 0)
    sizes, skip = layers_of(config) if "layers" in needed else [config["latent"]], options.get("skip", False)
    with fork_rng(seed=config["seed"]):
        for part in AXES[:3]:
            decodes = part == "likelihood"
            width = context + (sum(sizes[1:]) if skip and decodes else 0)
            width += bool(split(part, config[part])[1].get("library"))
            sized = {**given, "latent": sizes[0 if decodes else -1], **({"context": width} if width else {})}
            if "summary" in needed and part == "posterior":  # of the latents of a step, given those before it
                sized = {"latent": config["latent"], "shape": (options["summary"],), "context": config["latent"]}
            given[part] = build(part, config[part], **sized)
        given |= {part: make(config, given) for part, make in MADE.items() if part in needed}
        if table:  # Features replaces NaN
            for part in {"posterior", "classifier"} & given.keys():
                given[part].takes_missing = True
        spec = {"name": name, "options": {key: value for key, value in options.items() if key not in MADE}}
        if inputs:
            spec["options"]["inputs"] = inputs
        if "top" in needed:  # which has them
            spec["options"] = {key: value for key, value in spec["options"].items() if key not in OF_TOP}
        return build("program", spec, **given)


def width_of(config: Mapping[str, Any]) -> int:
    """Return the number of context values per example of the covariates."""
    return len(entries(columns(config, "context")))


def can_build(cls: type[Program]) -> bool:
    """Return whether a program can be built from a configuration."""
    return {*required(cls)} <= {*AXES, *MADE}


def takes_context(config: Mapping[str, Any]) -> bool:
    """Return whether the program of a configuration takes covariates as context."""
    cls = resolve("program", config.get("program", DEFAULT_PROGRAM)["name"], shelves()["program"])
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(cls.model).parameters.values())


def takes_sequences(config: Mapping[str, Any]) -> bool:
    """Return whether the examples of the program of a configuration are sequences."""
    name = config.get("program", DEFAULT_PROGRAM)["name"]
    return "summary" in required(resolve("program", name, shelves()["program"]))


def samples_missing(config: Mapping[str, Any]) -> bool:
    """Return whether the program of a configuration samples missing values, given a model of which ones they are."""
    name = config.get("program", DEFAULT_PROGRAM)["name"]
    return "mask" in required(resolve("program", name, shelves()["program"]))


def unbounded(columns: Sequence[Column]) -> list[Column]:
    """Return columns without a range, as values may be missing because they are outside of it.

    Raises:
        ValueError: a column has no density.
    """
    others = [f"{c.name} ({type(c).__name__})" for c in columns if not isinstance(c, Real | Positive)]
    if others:
        raise ValueError(
            "columns: expected real numbers for a program that samples missing values, got "
            f"{', '.join(others)}. Pass --columns NAME=Real, or --leave-out NAME"
        )
    return [replace(c, low=None, high=None) for c in columns]


def reals(columns: Sequence[Column], x: Tensor) -> list[Column]:
    """Return columns, where those of numbers are real with the mean and the standard deviation of rows ``x``."""
    found = list(columns)
    for i, column in enumerate(columns):
        if isinstance(column, Ranged | Count):
            numbers = x[:, i][~x[:, i].isnan()].double().numpy()
            found[i] = Real(column.name, *moments(numbers), cells=column.cells) if len(numbers) else column
    return found


def layers_of(config: Mapping[str, Any]) -> list[int]:
    """Return the numbers of latents of the layers of a hierarchy, from z1 to the top."""
    return [*reversed(config["program"]["options"]["layers"]), config["latent"]]


def make_layer(other: int, latent: int) -> Any:
    """Return the distribution of a layer of a hierarchy given another layer."""
    return build("posterior", LAYER, shape=(other,), latent=latent)


def make_layers(config: Mapping[str, Any], given: Mapping[str, Any]) -> list[Any]:
    """Return p(z_l given z_(l+1)) of a hierarchy, from the top down."""
    sizes = layers_of(config)[::-1]
    return [*map(make_layer, sizes[:-1], sizes[1:])]


def make_inference(config: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Return the guide of a hierarchy."""
    name, _ = split("program.inference", config["program"]["options"]["inference"])

    def of_x(latent: int, context: int = 0) -> Any:
        more = {"context": context} if context else {}
        return build("posterior", config["posterior"], **{**given, "latent": latent}, **more)

    return resolve("program.inference", name, shelves()["inference"]).build(layers_of(config), of_x, make_layer)


def make_classifier(config: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Return q(y given x), with the network of the posterior."""
    net = {key: value for key, value in config["posterior"]["options"].items() if key == "net"}
    spec = {"name": "OneHotCategorical", "options": net}
    return build("posterior", spec, **{**given, "latent": len(config["classes"])})


def make_top(config: Mapping[str, Any], given: Mapping[str, Any]) -> Program:
    """Return a ``SemiSupervised`` over the latents, with the prior and its own options."""
    options = {key: value for key, value in config["program"]["options"].items() if key in OF_TOP}
    top = {"shape": [config["latent"]], "seed": config["seed"] + 1, **TOP}
    top["program"] = {"name": "SemiSupervised", "options": options}
    return build_program({key: config[key] for key in ("latent", "classes", "prior")} | top)


def make_transition(config: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Return p(z_t given z_(t-1) and the inputs of step t), with the network of the likelihood."""
    net = {key: value for key, value in config["likelihood"]["options"].items() if key == "net"}
    spec = {"name": "ConditionalNormal", "options": net}
    return build("prior", spec, latent=config["latent"], context=config["latent"] + config.get("inputs", 0))


def make_summary(config: Mapping[str, Any], given: Mapping[str, Any]) -> BackwardGRU:
    """Return the GRU that reads sequences backwards; each step passes the network of the posterior first."""
    net = revive("posterior.net", config["posterior"]["options"].get("net"), shelves()) or MLP
    net = given["encoder"](net) if "encoder" in given else net
    features, inputs = config["program"]["options"]["summary"], config.get("inputs", 0)
    return BackwardGRU(given["shape"], features, context=inputs, net=net)


#: Functions that make arguments of programs from a configuration and the arguments so far.
MADE: dict[str, Callable[[Mapping[str, Any], dict[str, Any]], Any]] = {
    "classes": lambda config, given: OneHotCategorical(len(config["classes"])),
    "classifier": make_classifier,
    "top": make_top,
    "mask": lambda config, given: SelfMasking(given["shape"], columns=given.get("columns", ())),
    "layers": make_layers,
    "transition": make_transition,
    "summary": make_summary,
    "inference": make_inference,
    "num_examples": lambda config, given: config["num_examples"],
}
