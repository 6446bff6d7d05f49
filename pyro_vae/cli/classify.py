"""The command ``pyro-vae classify``."""

from __future__ import annotations

import numpy as np

from pyro_vae import tasks
from pyro_vae.cli.shared import Job


def classify(argv: list[str]) -> int:
    """Return the probability of each class and the most likely one, with a run that has classes."""
    job = Job.start(Job.options("classify", argv))
    if not hasattr(job.program, "classify"):
        raise ValueError(
            f"run: expected a program with classes in {job.settings.run}, got a {type(job.program).__name__}. Train "
            "one with `pyro-vae train --program SemiSupervised`"
        )
    rows = job.rows()
    found = tasks.classify(job.program, rows.data(), **job.noise)
    values = rows.spread(found.probabilities).numpy()
    names = [str(c) for c in job.config["classes"]]
    if job.target.kind == ".npy":
        job.target.write(values)
    else:
        column = next(name for name in ("class", "predicted class", "most likely class") if name not in names)
        likely = np.array(names)[np.nan_to_num(values).argmax(1)]
        likely[np.isnan(values).any(1)] = ""  # a row without a result
        job.target.write(rows.labelled({**dict(zip(names, values.T, strict=True)), column: likely}))
    return 0
