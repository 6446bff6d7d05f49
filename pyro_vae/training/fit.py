"""``fit``: everything that training needs, put together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO

from pyro_vae._util.denormals import flush_denormals
from pyro_vae._util.devices import resolve_device
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.estimators import ELBO
from pyro_vae.programs.program import Program
from pyro_vae.training.callbacks import Callback, Log
from pyro_vae.training.checkpoint.checkpointer import Checkpointer, Observer, Resumer
from pyro_vae.training.checkpoint.run_folder import RunFolder
from pyro_vae.training.compile.compilers import Compiler, inductor
from pyro_vae.training.data.batches import Batches
from pyro_vae.training.data.check import check_rows
from pyro_vae.training.history import History
from pyro_vae.training.loop import Loop
from pyro_vae.training.ranks.distributed import Ranks, in_process_group
from pyro_vae.training.svi import SVI

__all__ = ["fit"]


@in_process_group
def fit(
    program: Program,
    data: Any,
    *,
    estimator: PyroELBO | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    epochs: int = 10,
    batch_size: int = 128,
    valid: Any = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    clip_norm: float | None = None,
    lr_factor: Callable[[int], float] | None = None,
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

    Started by torchrun, the processes train together: see :mod:`pyro_vae.training.ranks.distributed`.

    Args:
        program: a Program, such as ``pyro_vae.VAE``
        data: rows of data: a tensor, numpy array or memmap, a split of ``pyro_vae.data.load``, a tuple
            ``(x, context)`` of these, a torch Dataset or DataLoader
        estimator: of ``pyro_vae.estimators`` (ELBO by default) or of ``pyro.infer``
        optimizer: makes the optimizer from the list of parameters; ``functools.partial(torch.optim.Adam, lr=1e-3)``
            by default
        epochs: passes over the data
        batch_size: data a step, of all processes together
        valid: held-out data, whose bound (beta 1) is taken after each epoch
        seed: of the order of the data and of all noise; the global random state is left as it was
        device: where to train; where the program is, by default
        clip_norm: largest global norm of the gradient
        lr_factor: by what the optimizer's learning rate is multiplied in each step: a schedule of
            ``pyro_vae.training`` such as ``MultiStep``, ``Cosine`` or, to warm up, ``Linear``; or any function of the
            number of the step
        compile: whether to compile the step, once and for batches of one size (others run as they are); the losses
            are those of the uncompiled step up to rounding. Where it cannot be compiled a warning says why.
            True means ``pyro_vae.training.inductor``; ``pyro_vae.training.recorded`` needs no compiler
        precision: within what bound and gradient are computed, such as ``pyro_vae.training.Autocast(torch.bfloat16)``
            or ``pyro_vae.training.TF32()``; all in the program's type by default
        skip_nonfinite: whether a step whose loss or gradient is NaN or infinite is left out instead of ending the
            training; the history tells the data of such steps as ``skipped``
        run_dir: folder for ``checkpoints/``, ``metrics.jsonl`` and ``weights.safetensors``, written after each epoch;
            in the main thread the first SIGINT or SIGTERM lets the step finish and saves, a second ends at once
        resume: go on from the newest checkpoint in ``run_dir``, anew where there is none: weights, optimizer, metrics
            and random streams end bit for bit as if nothing had happened. Order and noise of a Dataset or DataLoader
            are followed if they come from torch's generators, not from those of numpy or Python. Several processes
            go on exactly as well, if there are as many as before
        keep: checkpoints to keep, beside the one with the best bound on ``valid``
        checkpoint_every: seconds between two checkpoints within an epoch
        callbacks: objects of :class:`Callback`, such as EarlyStopping; or functions ``(metrics, step)``, which
            with several processes the first one calls
        progress: show a progress bar

    Returns:
        The history, one row an epoch, in mean nats per datum.

    Raises:
        ValueError: the data do not fit the program, or the checkpoint not the settings; raised before the first
            step, and before anything is written.
        NonFiniteError: a loss or gradient turned NaN (and ``skip_nonfinite`` is False); the weights are then the
            last ones kept (every epoch, and every half second in between) that are known to give a finite loss.
        CheckpointError: the newest checkpoint is damaged.
        SaveError: something could not be written; the checkpoints before it are whole.
        RunInUseError: another process is training in ``run_dir``.
        Interrupted: SIGINT or SIGTERM has come and all is saved; it is a KeyboardInterrupt.
        LostRankError: of several processes another one has stopped.
        TypeError: ``program`` is no Program, the estimator no ELBO, or ``lr_factor`` no function.

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
    if resume and run_dir is None:
        raise ValueError("resume: expected the run_dir of the run to go on with, got None")
    ranks = Ranks.current()
    progress = progress and ranks.rank == 0  # the others leave files and terminal to rank 0
    with ExitStack() as stack:
        watch, folder, checkpoint = Observer(), None, None
        if run_dir is not None:
            folder = RunFolder(Path(run_dir), keep=keep)
            watch = Resumer(folder.checkpoints) if ranks.rank else Checkpointer(folder, every=checkpoint_every)
        device = resolve_device(ranks.local_device(program.device if device is None else device))
        program.to(device)
        load = partial(Batches, batch_size=batch_size, seed=seed, device=device, dtype=program.dtype, ranks=ranks)
        sources = [load(data), *([] if valid is None else [load(valid, shuffle=False, name="valid")])]
        for source in sources:
            stack.callback(source.close)
            ranks.all_agree(partial(check_rows, program, source, progress=progress))
        svi = SVI(
            program,
            ELBO() if estimator is None else estimator,
            partial(torch.optim.Adam, lr=1e-3) if optimizer is None else optimizer,
            clip_norm=clip_norm,
            lr_factor=lr_factor,
            skip_nonfinite=skip_nonfinite,
            compiler=inductor if compile is True else compile or None,
            precision=precision,
            ranks=ranks,
            data=sources[0].on_device,
        )
        hooks = [hook for hook in hooks_of(callbacks, valid) if not isinstance(hook, Log) or ranks.rank == 0]
        loop = Loop(svi, sources[0], held_out=(*sources, None)[1], hooks=hooks, watch=watch)
        settings = {"seed": seed, "epochs": epochs, "amount of data or batch_size": sources[0].shared}
        ranks.broadcast_weights(loop.modules, settings)
        try:
            with flush_denormals(), fork_rng(device, ranks.seed(seed)):
                # where a run goes on, its folder is there and its streams are not yet what they were
                if not ranks.all_reduce_max(int(folder is not None and ranks.rank == 0 and folder.holds_run)):
                    loop.open()
                if folder is not None:
                    checkpoint = ranks.broadcast(lambda: stack.enter_context(folder).start(resume=resume))
                with training(program), watch.recording(loop, checkpoint):
                    loop.train(epochs, progress=progress)
        finally:
            svi.release()
            for hook in hooks:
                hook.on_train_end(program)
            watch.end(loop)
    return loop.history


def check_options(seed: Any, checkpoint_every: Any, **counts: Any) -> None:
    """Refuse options that no training can go by."""
    for name, value in counts.items():
        check_int(name, value)
    if not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed: expected an int of at most 64 bits, got {seed!r}")
    if not isinstance(checkpoint_every, (int, float)) or math.isnan(checkpoint_every):
        raise ValueError(f"checkpoint_every: expected a number of seconds, got {checkpoint_every!r}")


def hooks_of(callbacks: Any, valid: Any) -> list[Callback]:
    """Return callbacks in their one form, functions too, or refuse what is none.

    Plain functions write or print: of several ranks they are called on the first one, callbacks on all.
    """
    wrong = [] if isinstance(callbacks, Iterable) else [callbacks]
    hooks = list(callbacks) if not wrong else []
    wrong += [hook for hook in hooks if isinstance(hook, type) or not (isinstance(hook, Callback) or callable(hook))]
    if wrong:
        raise TypeError(
            "callbacks: expected a list of functions (metrics, step) and of objects such as "
            f"pyro_vae.training.EarlyStopping(), got {wrong[0]!r}"
        )
    for hook in hooks:
        if valid is None and getattr(hook, "needs_valid", False):
            raise ValueError(f"callbacks: {type(hook).__name__} needs a validation bound: pass `valid=` to fit")
    return [hook if isinstance(hook, Callback) else Log(hook) for hook in hooks]


@contextmanager
def training(program: Program) -> Iterator[None]:
    """Put the program in training mode, and leave it in evaluation mode as what was trained is to be used."""
    program.train()
    try:
        yield
    finally:
        program.eval()
