"""TensorBoard logging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyro_vae.programs.program import Program
from pyro_vae.training.callbacks import Callback

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Log the metrics of each epoch as scalars against the training step, for ``tensorboard --logdir FOLDER``.

    In a resumed run TensorBoard hides the points after the checkpoint, as they are logged again.

    Args:
        folder: folder of the event files

    Raises:
        ImportError: tensorboard is not installed.

    Example:
        >>> import tempfile, pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     board = pv.training.TensorBoard(folder)
        ...     history = pv.fit(toy.program, toy.draw(64), epochs=2, callbacks=[board], progress=False)
        ...     len(list(Path(folder).iterdir()))
        1
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("TensorBoard needs tensorboard: pip install 'pyro-vae[tensorboard]'") from error
        super().__init__()
        self.folder, self.make, self.writer = Path(folder), SummaryWriter, None
        self.step: int | None = None

    def on_train_start(self, program: Program, *, has_valid: bool) -> None:
        """Forget the points of an earlier run."""
        self.step = None

    def on_epoch_end(self, program: Program, metrics: dict[str, Any]) -> bool:
        """Log one point of each curve."""
        if self.writer is None:
            self.writer = self.make(str(self.folder), purge_step=None if self.step is None else self.step + 1)
        self.step = metrics["step"]
        for name, value in metrics.items():
            if name not in ("epoch", "step"):
                self.writer.add_scalar(name, value, self.step)
        self.writer.flush()
        return False

    def on_train_end(self, program: Program) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def settings(self) -> dict[str, Any]:
        """Return nothing: the folder does not change the result of a run."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the step of the last point."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the step of the last point."""
        self.step = state["step"]
