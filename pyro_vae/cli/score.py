"""The command ``pyro-vae score``."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from jsonargparse.typing import OpenUnitInterval

from pyro_vae import tasks
from pyro_vae.cli.choices import UsageError
from pyro_vae.cli.shared import Job
from pyro_vae.config import data as run_data
from pyro_vae.config import parts

#: Most rows of the training data with which a correction compares.
ROWS = 1000


def score(argv: list[str]) -> int:
    """Score how anomalous each example is, in nats: higher is more unusual."""
    choices = Job.options("score", argv)
    shelf = parts.shelf(tasks, tasks.Score)
    corrections = {name: cls for name, cls in shelf.items() if "score" in parts.required(cls)}
    choices.add("score", {name: cls for name, cls in shelf.items() if name not in corrections}, "ImportanceWeighted")
    add = choices.option
    if choices.take("correction")[0] is None:
        add("--correction", help=f"correction of the score: one of {', '.join(corrections)}; none by default")
    else:
        choices.add("correction", corrections, None)
    share = "share of the validation rows of the run above the threshold; adds a column `anomalous`, yes or no"
    add("--contamination", type=OpenUnitInterval | None, help=share)
    job = Job.start(choices)
    settings = job.settings
    how = choices.chosen["score"](**vars(settings.score))
    if job.target.kind == ".npy" and settings.contamination:
        raise UsageError("output: expected .csv or .npz for the column of --contamination, got .npy")
    rows, correction = job.rows(), choices.chosen.get("correction")
    if job.config.get("purpose") not in (None, "anomalies"):
        print(
            f"pyro-vae score: this run was trained for {job.config['purpose']}, and such runs rank anomalies worse. "
            "Train one with --purpose anomalies to find more of them",
            file=sys.stderr,
        )
    source = run_data.load(job.config) if settings.contamination or correction else None
    if correction:
        given: dict[str, Any] = {"score": how, "train": source.split("train", slice(ROWS))}
        own = {name: value for name, value in given.items() if name in parts.required(correction)}
        how = correction(**own, **choices.describe("correction", settings)["options"])
    detector = detector_of(job, how, source.split("valid")) if settings.contamination else None
    found = [how(job.program, rows.data(slice(i, i + n)), seed=settings.seed) for i, n in job.chunks(len(rows))]
    scores = rows.spread(torch.cat(found))
    if rows.impossible is not None:
        scores[rows.impossible] = torch.inf
    values = scores.numpy()
    columns: dict[str, Any] = {"score": values}
    if detector is not None:
        alarms = np.where(values > detector.threshold, "yes", "no").astype(object)
        columns["anomalous"] = np.where(np.isnan(values), None, alarms)
    job.target.write(values if job.target.kind == ".npy" else rows.labelled(columns))
    return 0


def detector_of(job: Job, score: tasks.Score, normal: Any) -> tasks.Detector:
    """Return the threshold of a score on validation rows, or raise if they are too few."""
    rate = {"false_alarm_rate": job.settings.contamination, "seed": job.settings.seed}
    try:
        return tasks.Detector(job.program, score, normal, **rate)
    except ValueError as error:
        text = str(error).replace("normal: expected", "contamination: expected, in the validation rows of the run,")
        raise ValueError(text) from error
