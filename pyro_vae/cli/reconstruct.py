"""The command ``pyro-vae reconstruct``."""

from __future__ import annotations

from pyro_vae import tasks
from pyro_vae.cli.shared import Job


def reconstruct(argv: list[str]) -> int:
    """Encode and decode data: E[x given z] at a sample of z given x."""
    job = Job.start(Job.options("reconstruct", argv))
    rows = job.rows()
    found = tasks.reconstruct(job.program, rows.data(), **job.noise)
    job.target.write(rows.like(rows.spread(found), job.target.kind))
    return 0
