"""Checks that a program can be trained on the data, before and during training."""

from __future__ import annotations

from collections.abc import Sized

import numpy as np

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae.programs.compatibility import vouches
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.trace import run
from pyro_vae.trace.layout import Layout
from pyro_vae.trace.weighted import Weighted, layout_of
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.data.lookahead import Batch
from pyro_vae.training.data.networks import warn_of_networks

__all__ = ["check_batch", "check_first", "check_rows", "weighted_layout"]


def check_rows(program: Program, batches: Batches, *, networks: bool = True, progress: bool = True) -> None:
    """Read all rows and raise if the program cannot be trained on them; nothing is read from a loader or stream.

    Args:
        program: the program
        batches: the rows
        networks: warn of networks that cannot learn from the first rows
        progress: show a progress bar

    Raises:
        ValueError: from ``program.check``, with the number of the row where the check started.
    """
    first = batches.ranks.share(0, len(batches))[0]
    # a transform may draw random numbers
    with fork_rng(batches.device, batches.seed):
        for chunk in progress_bar(batches.chunks(), desc="checking the data", delay=1, leave=False, progress=progress):
            try:
                program.check(*batches.examples(chunk))
                program.before_training(*batches.examples(chunk))
                if networks:
                    warn_of_networks(program, *batches.examples(chunk))
                    networks = False
            except ValueError as error:
                left_out = "" if batches.used is None else ", without those of weight 0"
                if first or left_out:
                    raise ValueError(f"{error} (counted from row {first:,} of the data{left_out})") from error
                raise
            first += len(chunk[0])


def weighted_layout(program: Program, batches: Batches) -> Layout | None:
    """Return where the plate of the data is, if the examples have weights, or raise if the program cannot have them.

    Raises:
        ValueError: it names what of the program does not fit.
    """
    if not batches.weighted:
        return None
    with evaluating(program), fork_rng(batches.device, batches.seed):
        *rows, weights = next(batches.take([batches.rows(np.arange(min(2, len(batches))))]))
        layout = layout_of(program, tuple(rows))
        with Weighted(weights, layout):
            run(program.model, program.guide, rows)
    return layout


def check_batch(program: Program, batches: Batches, batch: Batch | None, number: int, epoch: int) -> None:
    """Raise if the program cannot be trained on a batch that was not checked before, or if there is none.

    Args:
        program: the program
        batches: where the batch is from; stored rows have been checked before
        batch: the batch; None if there is none
        number: number of the batch in its epoch
        epoch: number of the epoch

    Raises:
        ValueError: from ``program.check``, with the number of the batch and the rows that are known.
    """
    if batches.stored:
        return
    if batch is None:
        raise ValueError(f"{batches.name}: expected at least one batch, got none from the data loader")
    rows = batches.examples(batch)
    try:
        if (number or epoch) and vouches(type(program)):  # the parts fit together, as the first batch has shown
            with evaluating(program), fork_rng(batches.device, 0):
                program.check_data(*rows)
        else:
            program.check(*rows)
            program.before_training(*rows)
    except ValueError as error:
        where = f"batch {number} of the data loader"
        if batches.columns:
            numbers = next(batches.blocks(epoch, range(number, number + 1)))[0].tolist()
            where = f"a batch of rows {', '.join(map(str, numbers[:5]))}{', ...' if len(numbers) > 5 else ''}"
        raise ValueError(f"{error} (in {where}, argument {batches.name})") from error


def check_first(program: Program, batches: Batches) -> None:
    """Check the first batch, and restore the random state; a stream cannot be restored, so it is not read.

    Raises:
        ValueError: from ``program.check``.
    """
    if batches.columns or isinstance(getattr(batches.loader, "dataset", None), Sized):
        generator = getattr(batches.loader, "generator", None)
        state = None if generator is None else generator.get_state()
        try:
            with fork_rng(batches.device):
                first = next(batches.epoch(0), None)
        finally:
            if generator is not None:
                generator.set_state(state)
        check_batch(program, batches, first, 0, 0)
