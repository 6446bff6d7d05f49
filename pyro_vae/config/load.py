"""``load``: the trained program of a run folder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_vae._util.describe import describe
from pyro_vae._util.differences import differences
from pyro_vae.config import run
from pyro_vae.config.bounded import Bounded
from pyro_vae.config.program import build_program
from pyro_vae.config.rebuild import rebuild
from pyro_vae.programs import Program
from pyro_vae.training.checkpoint import checkpoint
from pyro_vae.training.checkpoint.run_folder import CONFIG, RunFolder
from pyro_vae.training.checkpoint.serialization import read_weights
from pyro_vae.training.checkpoint.state import check_weights

__all__ = ["load"]

#: Largest number of differences that a message names.
SHOWN = 8


def load(run_dir: str | Path, program: Program | None = None) -> Program:
    """Build the program of a run of ``fit(run_dir=)`` or ``pyro-vae train``, and load its weights.

    The parts are built by name, with the options that they had; no code is read from the folder. A part that this
    library does not have, such as a network of your own, cannot be built from a name: build the program in code and
    pass it.

    The weights are those that ``fit`` left in the program. If the training was interrupted, they are those of the
    last checkpoint, and a warning says so.

    Args:
        run_dir: the folder of the run
        program: a program with the parts of the run, which gets the weights; by default it is built from the folder

    Returns:
        The program in evaluation mode: ``program``, or a new one on the CPU.

    Raises:
        ValueError: configuration or weights are missing, damaged, of a newer version or of another program, or a part
            cannot be built from a name; the message says which.
        TypeError: ``program`` is not a Program.

    Example:
        >>> import tempfile, torch, pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli(2, (8, 8)),
        ...     posterior=pv.posteriors.MeanFieldNormal((8, 8), 2),
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     history = pv.fit(vae, torch.ones(20, 8, 8), epochs=1, run_dir=folder, progress=False)
        ...     again = pv.load(folder)
        >>> torch.equal(again.sample(3), vae.sample(3))
        True
    """
    if program is not None and not isinstance(program, Program):
        raise TypeError(
            f"program: expected a pyro_vae.Program with the parts of the run, got {type(program).__name__}"
        )
    folder = Path(run_dir)
    config = run.read_any(folder)
    path, weights = last_weights(folder, config)
    if program is not None:
        check_weights(program, weights, path, argument="program")
        if "fit" in config:
            warn_of_differences(config["fit"].get("program"), program, folder)
        program.load_state_dict(weights)
    elif "fit" in config:
        program = rebuild(config["fit"], weights, folder / CONFIG)
    else:
        try:
            with Bounded(weights):
                program = build_program(config)
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG}: {error}") from error
        check_weights(program, weights, path, argument="run_dir")
        program.load_state_dict(weights)
    return program.eval()


def last_weights(folder: Path, config: Mapping[str, Any]) -> tuple[Path, dict[str, Tensor]]:
    """Return the weights with which a training ended, or those of its last checkpoint with a warning; and their file.

    Raises:
        ValueError: there are none, or they are damaged.
    """
    path, files = folder / "weights.safetensors", RunFolder(folder, keep=1)
    saved = checkpoint.complete(files.checkpoints) if files.holds_run else []
    if saved:
        step, epoch = map(int, checkpoint.NAME.fullmatch(saved[-1].name).groups())
        epochs = config.get("epochs")
        if isinstance(epochs, int) and epoch < epochs:
            found = checkpoint.newest(files.checkpoints)
            if not found.state.get("stopped"):
                warnings.warn(
                    f"run_dir: expected a finished training in {folder}, got one that was interrupted after step "
                    f"{step:,}, with {epoch:,} of {epochs:,} epochs complete; these are the weights of that time. "
                    "Finish it by fit(..., resume=True)",
                    stacklevel=3,
                )
                return saved[-1], found.weights
    if not path.is_file():
        raise ValueError(
            f"run_dir: expected weights.safetensors in {folder}, but it is missing. It is written after the first "
            "epoch: finish the training by fit(..., resume=True), or name another folder"
        )
    return path, read_weights(path)


def warn_of_differences(saved: Any, program: Program, folder: Path) -> None:
    """Warn if a program has other parts or options than the one that was trained."""
    found = [text for text in differences({"": saved}, {"": describe(program)}) if not text.startswith("other values")]
    if found:
        warnings.warn(
            f"program: expected that of the run in {folder}, got one that differs: {', '.join(found[:SHOWN])}. The "
            "weights fit and are loaded. Build the program as for training, unless you changed it on purpose",
            stacklevel=3,
        )
