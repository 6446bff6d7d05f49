"""The configuration of a run, completed by what its data are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pyro_vae.config import run
from pyro_vae.config.data import Source, to_fit
from pyro_vae.config.parts import resolve, shelves
from pyro_vae.config.program import reals, samples_missing, takes_sequences, unbounded
from pyro_vae.likelihoods import Heterogeneous, StudentTTable

__all__ = ["complete"]

#: Weight of the classification times the share of rows with a label.
ALPHA, ALPHA_TABLE = 0.1, 100.0


def complete(config: Mapping[str, Any], source: Source, *, given: Collection[str] = ()) -> dict[str, Any]:
    """Return the configuration of a new run with the facts of its data.

    The weight ``alpha`` of the classification is 0.1 times the number of examples over that of labels, as in Kingma et
    al. (2014). For a table it is 100 times that ratio, as its classifier would otherwise follow groups of rows that
    differ from the classes, and the weights of the classifier have a standard normal prior, as those of logistic
    regression. Options of the program that are ``given`` stay.

    Raises:
        ValueError: the program needs labels that the data do not have, or sequences, or the data are sequences.
    """
    facts, spec, sequences = dict(source.facts), config["program"], source.kind == "sequences"
    if takes_sequences(config) != sequences:
        array = "--layout=hw for an array of images" if sequences else "an array (n, steps, channels) with --layout=tc"
        what = f"one of sequences, or {array}" if sequences else f"a VAE, or sequences: {array}"
        raise ValueError(f"program: expected {what}, got {spec['name']} for {source.dataset.name} ({source.kind})")
    likelihood = resolve("likelihood", config["likelihood"]["name"], shelves()["likelihood"])
    if not issubclass(likelihood, Heterogeneous):
        facts.pop("units", None)  # other likelihoods model the array as it is
    if issubclass(likelihood, StudentTTable) and "columns" in facts:
        facts["columns"] = run.describe(reals(run.columns(facts), source.dataset.train[:].x))
    facts |= {"num_examples": len(source.dataset.train), "counts": "counts" in source.kind}
    if samples_missing(config) and "columns" in facts:
        facts["columns"] = run.describe(unbounded(run.columns(facts)))
    if not run.takes_labels(config):
        return {**config, **{key: value for key, value in facts.items() if key != "classes"}}
    if "classes" not in facts:
        raise ValueError(
            f"program: {spec['name']} needs labels. Name the column of a table by --label, or save them in an .npz as "
            "the array y"
        )
    config = {**config, **facts}
    *_, y = to_fit(source, config)
    labels, table = int((~y.isnan()).all(1).sum()), {"columns", "units"} & facts.keys()
    chosen = {"alpha": ALPHA_TABLE * len(y) / labels, "weight_decay": 1 / labels}
    chosen = chosen if table else {"alpha": ALPHA * len(y) / labels}
    options = spec["options"] | {key: value for key, value in chosen.items() if key not in given}
    return {**config, "program": {**spec, "options": options}}
