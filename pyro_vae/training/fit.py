"""The training loop."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from pyro_vae.estimators import ELBO, Estimator
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.rng import fork_rng
from pyro_vae.training.batches import Batches
from pyro_vae.training.callbacks import Callback, JSONLines
from pyro_vae.training.distributed import Ranks, in_process_group
from pyro_vae.training.history import History
from pyro_vae.training.svi import SVI, NonFiniteError

__all__ = ["fit"]

#: Seconds between two looks at the losses, the only times at which the device is waited for.
LOOK = 0.5

#: Steps between two looks where several ranks have to look at the same time.
LOOK_STEPS = 100


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
    run_dir: str | Path | None = None,
    callbacks: Iterable[Callback | Callable[[dict[str, Any], int], Any]] = (),
    progress: bool = True,
) -> History:
    r"""Train a program by stochastic variational inference.

    Each step follows the gradient of the mean over a batch of minus the estimated bound,

    .. math:: -\frac{1}{B} \sum_{n \in \text{batch}} \mathrm{bound}(x_n).

    Started by torchrun, the processes train together: see :mod:`pyro_vae.training.distributed`.

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
        run_dir: folder for ``metrics.jsonl`` and ``weights.safetensors``, written after each epoch
        callbacks: objects of :class:`Callback`, such as EarlyStopping; or functions ``(metrics, step)``, which
            with several processes the first one calls
        progress: show a progress bar

    Returns:
        The history, one row an epoch, in mean nats per datum.

    Raises:
        ValueError: the data do not fit the program; raised before the first step.
        NonFiniteError: a loss or gradient turned NaN; the weights are then the last ones kept (every epoch, and
            every half second in between) that are known to give a finite loss.
        LostRankError: of several processes another one has stopped.

    Example:
        >>> import torch, pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> history = pv.fit(toy.program, toy.draw(256), epochs=3, progress=False)
        >>> history.epochs
        3
    """
    if not isinstance(program, Program):
        raise TypeError(
            "program: expected a pyro_vae.Program such as VAE (wrap your own two functions by "
            f"pyro_vae.programs.Functions(model, guide, net=net)), got {type(program).__name__}"
        )
    if not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"epochs: expected an int of at least 1, got {epochs!r}")
    first = next(program.parameters(), torch.zeros(()))
    ranks = Ranks.current()
    if ranks.rank:  # the others leave files and terminal to rank 0
        run_dir, progress = None, False
    device = torch.device(ranks.local(first.device if device is None else device))
    program.to(device)
    load = partial(Batches, batch_size=batch_size, seed=seed, device=device, dtype=first.dtype, ranks=ranks)
    batches = load(data)
    held_out = None if valid is None else load(valid, shuffle=False)
    sources = [batches] if held_out is None else [batches, held_out]
    for source in sources:
        ranks.agree(partial(source.check, program, progress=progress))
    estimator = ELBO() if estimator is None else estimator
    optimizer = partial(torch.optim.Adam, lr=1e-3) if optimizer is None else optimizer
    svi = SVI(program, estimator, optimizer, clip_norm=clip_norm, ranks=ranks)
    modules = [module for module in (program, svi.beside) if module is not None]
    # a loader is the rank's own part of the data
    shared = (len(batches), batch_size) if batches.columns else "loader"
    ranks.begin(modules, {"seed": seed, "epochs": epochs, "number of data or batch_size": shared})
    callbacks = [hook for hook in callbacks if isinstance(hook, Callback) or ranks.rank == 0]
    hooks = [hook if isinstance(hook, Callback) else Log(hook) for hook in callbacks]
    if run_dir is not None:
        Path(run_dir).mkdir(parents=True, exist_ok=True)
        hooks.append(JSONLines(Path(run_dir) / "metrics.jsonl"))
    history, start, good = History(), time.perf_counter(), LastGood(program)
    total = None if batches.steps is None else batches.steps * epochs
    try:
        with (
            fork_rng(device, ranks.seed(seed)),
            training(program),
            tqdm(total=total, unit="step", disable=not progress) as bar,
        ):
            for epoch in range(epochs):
                bar.set_description(f"epoch {epoch + 1}/{epochs}")
                row = {"epoch": epoch, **run_epoch(svi, batches, epoch, bar, good)}
                ranks.compare(modules)
                if held_out is not None:
                    row["valid_bound"] = mean_bound(program, estimator, held_out, seed)
                row["seconds"] = time.perf_counter() - start
                history.append(row)
                if ranks.agree(partial(end_of_epoch, program, row, hooks, run_dir)):
                    break
    except NonFiniteError:
        good.restore()
        raise
    finally:
        for source in sources:
            source.close()
        for hook in hooks:
            hook.end(program)
        if run_dir is not None and history.rows:
            save_weights(program, Path(run_dir) / "weights.safetensors")
    return history


def end_of_epoch(program: Program, row: dict[str, Any], hooks: list[Callback], run_dir: str | Path | None) -> bool:
    """Save the weights, and return whether a hook wants to stop."""
    if run_dir is not None:
        save_weights(program, Path(run_dir) / "weights.safetensors")
    # every hook is asked, also when an earlier one wants to stop
    return any([hook.epoch(program, row) for hook in hooks])  # noqa: C419


def run_epoch(svi: SVI, batches: Batches, epoch: int, bar: tqdm, good: LastGood) -> dict[str, Any]:
    """Train on each batch once; return the means over the epoch."""
    totals: dict[str, Tensor] = {}
    count, looked = 0, time.perf_counter()
    batch: tuple[Tensor, ...] = ()

    def means() -> dict[str, float]:
        svi.settle(batch)
        return {name: float(value) / float(count) for name, value in totals.items()}

    for batch in batches.epoch(epoch):
        if batches.loader is not None:
            svi.program.check(*batch)
        metrics = svi.update(*batch, counts=batch.counts)
        count = count + metrics.pop("count", batch[0].shape[0])
        for name, value in metrics.items():
            totals[name] = totals[name] + value if name in totals else value
        bar.update()
        due = svi.steps % LOOK_STEPS == 0 if svi.ranks.size > 1 else time.perf_counter() - looked > LOOK
        if due:
            bar.set_postfix({k: f"{v:.2f}" for k, v in means().items()})
            good.keep(svi.steps)
            looked = time.perf_counter()
    if not count:
        raise ValueError("data: expected at least one batch, the data loader gave none")
    row = {"step": svi.steps, **means()}
    good.keep(svi.steps)
    if isinstance(svi.estimator, Estimator):
        row["beta"] = float(svi.estimator.beta_now())
    return row


def mean_bound(program: Program, estimator: PyroELBO, batches: Batches, seed: int) -> float:
    """Return the bound (beta 1) of held-out data in mean nats per datum, with noise that is the same each time."""
    total, count = 0.0, 0
    with evaluating(program), fork_rng(batches.device, batches.ranks.seed(seed)):
        for batch in batches.epoch(0):
            if not batch.counts:
                continue
            if isinstance(estimator, Estimator):
                total += float(estimator.per_datum(program.model, program.guide, *batch).double().sum())
            else:
                total -= float(estimator.loss(program.model, program.guide, *batch))
            count += batch[0].shape[0]
    total, count = batches.ranks.sum(total, count)
    return total / count


def save_weights(program: Program, path: Path) -> None:
    """Write all weights beside ``path`` and put them in its place by one rename, so that it is always whole."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        new = Path(folder) / path.name
        save_file(unshared(program.state_dict()), new, metadata={"format": "pt"})
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(path)


def unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory (a VampPrior holds the posterior), which the file format refuses."""
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


class LastGood:
    """Copies of the weights, to go back to those that are known to give a finite loss.

    A step that was finite can lead to weights that are not: a copy is good once a later step was finite.

    Args:
        program: whose weights
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.good = self.candidate = (0, unshared(program.state_dict()))

    def keep(self, step: int) -> None:
        """Copy the weights after ``step`` finite steps."""
        if step > self.candidate[0]:
            self.good, self.candidate = self.candidate, (step, unshared(self.program.state_dict()))

    def restore(self) -> None:
        """Go back to the last good weights."""
        self.program.load_state_dict(self.good[1])


@contextmanager
def training(program: Program) -> Iterator[None]:
    """Put the program in training mode, and leave it in evaluation mode as what was trained is to be used."""
    program.train()
    try:
        yield
    finally:
        program.eval()


class Log(Callback):
    """A function ``(metrics, step)`` as a callback."""

    def __init__(self, function: Callable[[dict[str, Any], int], Any]) -> None:
        self.function = function

    def epoch(self, program: Program, metrics: dict[str, Any]) -> bool:
        """Call the function."""
        return bool(self.function(dict(metrics), metrics["step"]))
