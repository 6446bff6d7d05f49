"""``fit``: train a program."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO

from pyro_vae._util.denormals import flush_denormals
from pyro_vae._util.devices import resolve_device
from pyro_vae._util.lock import in_turn
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int, check_number
from pyro_vae.estimators import ELBO
from pyro_vae.programs.program import Program
from pyro_vae.training.callbacks import Callback, as_callbacks
from pyro_vae.training.checkpoint.checkpointer import Checkpointer, Observer, Resumer
from pyro_vae.training.checkpoint.run_folder import RunFolder
from pyro_vae.training.compile.compilers import Compiler, inductor
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.data.check import check_rows, weighted_layout
from pyro_vae.training.data.fingerprint import weights_of
from pyro_vae.training.data.loader import check_batch_size
from pyro_vae.training.errors import check_engine
from pyro_vae.training.estimator_checks import check_loss, check_weightable
from pyro_vae.training.history import History
from pyro_vae.training.loop import Loop
from pyro_vae.training.ranks.distributed import Ranks, in_process_group
from pyro_vae.training.schedules import last_step
from pyro_vae.training.svi import SVI

__all__ = ["fit"]


@in_turn
@in_process_group
def fit(
    program: Program,
    data: Any,
    *,
    estimator: PyroELBO | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    epochs: int = 10,
    batch_size: int | None = None,
    valid: Any = None,
    weights: Any = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    clip_norm: float | None = None,
    lr_schedule: Callable[[int], float] | None = None,
    compile: bool | Compiler = False,
    precision: AbstractContextManager[Any] | None = None,
    skip_nonfinite: bool = False,
    run_dir: str | Path | None = None,
    resume: bool = False,
    keep: int = 3,
    checkpoint_every: float = 300.0,
    callbacks: Iterable[Callback | Callable[[dict[str, Any], int], Any]] = (),
    progress: bool = True,
) -> History:
    r"""Train a program by stochastic variational inference.

    Each step follows the gradient of the mean over a batch of minus the estimated bound,

    .. math:: -\frac{1}{B} \sum_{n \in \text{batch}} \mathrm{bound}(x_n).

    The program is moved to ``device`` and stays there. It is trained in training mode, and is in evaluation mode when
    the training has ended, also by an error.

    Pyro's handlers and torch's random state belong to the process, so that calls of the library from several threads
    run one after the other: another fit, evaluation or sample waits until this training has ended. A callback must not
    wait for a thread that calls the library. Use processes to train at the same time.

    Processes started by torchrun train together: see :mod:`pyro_vae.training.ranks.distributed`.

    Args:
        program: a Program, such as ``pyro_vae.VAE``
        data: rows of data: any source of ``pyro_vae.data.read``, such as a tensor, numpy array, path or torch
            DataLoader; what it returns; a split of ``pyro_vae.data.load``; or a tuple ``(x, context)`` of these
        estimator: estimator of ``pyro_vae.estimators`` (ELBO by default) or of ``pyro.infer``
        optimizer: makes the optimizer from the list of parameters, ``functools.partial(torch.optim.Adam, lr=1e-3)``
            by default; or options by parameter name (``pyro_vae.training.ParameterGroups``), a torch optimizer of the
            program's parameters, or a plain optimizer of ``pyro.optim``
        epochs: passes over the data
        batch_size: rows per step, of all processes together; 128 by default. A DataLoader has its own
        valid: held-out data, whose bound (beta 1) is estimated after each epoch, without weights
        weights: one weight per row of ``data``, an array or tensor of shape ``(n,)`` with numbers of at least 0, such
            as frequencies or importance weights, or a series with the index of the data frame. Only their ratios
            matter, and rows of weight 0 are left out. The loss becomes

            .. math:: -\frac{1}{B} \sum_{n \in \text{batch}} \frac{w_n}{\bar w} \, \mathrm{bound}(x_n),

            with :math:`\bar w` their mean, which is unbiased for :math:`-\sum_n w_n \, \mathrm{bound}(x_n) / \sum_n
            w_n`, and the history has weighted means. Terms that all examples share, such as the divergence of the
            weights of a Bayesian decoder, are not weighted
        seed: seed of the order of the data and of all noise; the global random state is restored afterwards
        device: where to train; where the program is by default
        clip_norm: largest global norm of the gradient; None for no clipping
        lr_schedule: factor of the optimizer's learning rates in each step: a schedule of ``pyro_vae.training`` such
            as ``MultiStep``, ``Cosine`` or, to warm up, ``Linear``; or any function of the step number
        compile: compile the step for batches of one size; other batches run uncompiled. The losses are those of the
            uncompiled step up to rounding. A warning says why a step cannot be compiled. True means
            ``pyro_vae.training.inductor``; ``pyro_vae.training.eager_graph`` needs no compiler
        precision: context manager for bound and gradient, such as ``pyro_vae.training.Autocast(torch.bfloat16)`` or
            ``pyro_vae.training.TF32()``; by default all is computed in the program's type
        skip_nonfinite: skip a step with a NaN or infinite loss or gradient instead of ending the training; the
            history counts the skipped rows as ``skipped``
        run_dir: folder for ``config.json``, which describes the run for ``pyro_vae.load``, and for ``checkpoints/``,
            ``metrics.jsonl`` and ``weights.safetensors``, written after each epoch.
            In the main thread the first SIGINT or SIGTERM finishes the step and saves, a second one ends at once
        resume: resume from the newest checkpoint in ``run_dir``, or start if there is none. Weights, optimizer,
            metrics and random state end bit for bit as without the interruption. For a Dataset or DataLoader this
            holds if its order and noise come from torch's generators, not from those of numpy or Python; for several
            processes, if there are as many as before
        keep: number of checkpoints to keep, in addition to the one with the best bound on ``valid``
        checkpoint_every: seconds between two checkpoints within an epoch
        callbacks: objects of :class:`Callback`, such as EarlyStopping; or functions ``(metrics, step)``, which
            are called after each epoch on the first of several processes; :class:`Log` calls one after steps
        progress: show a progress bar

    Returns:
        The history, one row per epoch; see :class:`History` for units and signs.

    Raises:
        ValueError: the data or weights do not fit the program, the estimator cannot weight examples, or the checkpoint
            does not fit the settings; raised before the first step, and before anything is written.
        NonFiniteError: a loss or gradient is NaN or infinite, and ``skip_nonfinite`` is False. The program has the
            last weights that are known to give a finite loss; they are copied after every epoch and every half second.
        CheckpointError: the newest checkpoint is damaged.
        SaveError: a file could not be written; earlier checkpoints are intact.
        RunInUseError: another process is training in ``run_dir``.
        Interrupted: there was a SIGINT or SIGTERM, and everything is saved; this is a KeyboardInterrupt.
        LostRankError: another one of several processes has stopped.
        TypeError: ``program`` is not a Program, the estimator not an ELBO, or another option has the wrong type.

    Example:
        >>> import torch, pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> history = pv.fit(toy.program, toy.draw(256), epochs=3, progress=False)
        >>> len(history)
        3
    """
    if not isinstance(program, Program):
        raise TypeError(
            "program: expected a pyro_vae.Program such as VAE (wrap your own two functions by "
            f"pyro_vae.programs.FunctionProgram(model, guide, net=net)), got {type(program).__name__}"
        )
    check_options(seed, checkpoint_every, epochs=epochs, keep=keep)
    check_engine(compile, precision)
    if resume and run_dir is None:
        raise ValueError("resume: expected the run_dir of the run to resume, got run_dir=None")
    ranks = Ranks.current()
    progress = progress and ranks.rank == 0  # only rank 0 uses files and terminal
    with ExitStack() as stack:
        observer, folder, checkpoint = Observer(), None, None
        if run_dir is not None:
            folder = RunFolder(Path(run_dir), keep=keep)
            writer = partial(Checkpointer, folder, every=checkpoint_every, epochs=epochs)
            observer = Resumer(folder.checkpoints) if ranks.rank else writer()
        device = resolve_device(ranks.local_device(program.device if device is None else device))
        program.to(device)
        batch_size = check_batch_size(batch_size, data)
        load = partial(Batches.of, program, batch_size=batch_size, seed=seed, ranks=ranks)
        sources = [load(data, weights=weights), *([] if valid is None else [load(valid, shuffle=False, name="valid")])]
        for source in sources:
            stack.callback(source.close)
            if source.stored:
                ranks.all_agree(partial(check_rows, program, source, networks=source is sources[0], progress=progress))
        check_loss(estimator)
        if weights is not None:
            check_weightable(ELBO() if estimator is None else estimator)
        svi = SVI(
            program,
            ELBO() if estimator is None else estimator,
            partial(torch.optim.Adam, lr=1e-3) if optimizer is None else optimizer,
            clip_norm=clip_norm,
            lr_schedule=lr_schedule,
            skip_nonfinite=skip_nonfinite,
            compiler=inductor if compile is True else compile or None,
            precision=precision,
            ranks=ranks,
            data=sources[0].on_device,
            weighted_layout=weighted_layout(program, sources[0]),
        )
        warn_of_long_schedules(svi, epochs, sources[0].steps)
        called, started = as_callbacks(callbacks, first_rank=ranks.rank == 0), []
        # the error about such a loss says more; not in each step, as Python then shows all other warnings again
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "Encountered (NaN|inf)")
        loop = Loop(svi, sources[0], held_out=(*sources, None)[1], callbacks=called, observer=observer)
        shared, hashed = sources[0].shared, weights_of(sources[0])
        settings = {"seed": seed, "epochs": epochs, "amount of data or batch_size": shared, "weights": hashed}
        ranks.broadcast_weights(loop.modules, settings)
        try:
            for callback in called:
                callback.on_train_start(program, has_valid=valid is not None)
                started.append(callback)
            with flush_denormals(), fork_rng(device, ranks.seed(seed)):
                # a resumed run has passed this check, and its random state is not restored yet
                if not ranks.all_reduce_max(int(folder is not None and ranks.rank == 0 and folder.holds_run)):
                    loop.open()
                if folder is not None:
                    checkpoint = ranks.broadcast(lambda: stack.enter_context(folder).start(resume=resume))
                with training(program), observer.recording(loop, checkpoint):
                    loop.train(epochs, progress=progress)
        finally:
            svi.release()
            for callback in started:
                callback.on_train_end(program)
            observer.end(loop)
    return loop.history


def check_options(seed: Any, checkpoint_every: Any, **counts: Any) -> None:
    """Raise if an option is invalid."""
    for name, value in counts.items():
        check_int(name, value)
    check_int("seed", seed, -(2**63), 2**63 - 1)
    if checkpoint_every != math.inf:  # which saves after epochs only
        check_number("checkpoint_every", checkpoint_every)


def warn_of_long_schedules(svi: SVI, epochs: int, steps: int | None) -> None:
    """Warn if the training ends before a schedule does; not for a stream, whose number of steps is unknown."""
    schedules = {name: getattr(svi.estimator, name, None) for name in ("beta", "capacity")}
    for name, schedule in {**schedules, "lr_schedule": svi.optim.lr_schedule}.items():
        if steps is not None and last_step(schedule) > epochs * steps:
            warnings.warn(
                f"{name}: expected a schedule that ends within the training, which has {epochs * steps} steps "
                f"({epochs} epochs of {steps}), got {schedule}, which ends at step {last_step(schedule):.0f}. Set the "
                "length of the schedule, or epochs",
                stacklevel=4,
            )


@contextmanager
def training(program: Program) -> Iterator[None]:
    """Train in training mode, and leave the program in evaluation mode, in which it will be used."""
    program.train()
    try:
        yield
    finally:
        program.eval()
