"""The command ``pyro-vae compress``."""

from __future__ import annotations

from pathlib import Path

from pyro_vae.cli.choices import UsageError
from pyro_vae.cli.shared import Job
from pyro_vae.data import files
from pyro_vae.tasks import Compressed, Compressor


def compress(argv: list[str]) -> int:
    """Compress data losslessly with a run; --decompress restores them."""
    choices = Job.options("compress", argv)
    choices.option("--decompress", action="store_true", help="restore the data from INPUT, a .bin of this command")
    job = Job.start(choices, endings=files.ENDINGS if "--decompress" in argv else (".bin",))
    settings, progress = job.settings, not job.settings.quiet
    if settings.output is None:
        raise UsageError("output: expected a new file .bin, or .npy, .npz or .csv with --decompress, got none")
    compressor = Compressor(job.program)
    if settings.decompress:
        x = compressor.decompress(Path(settings.input).read_bytes(), progress=progress)
        job.target.write(x.numpy())
        return 0
    content = compressor.compress(job.rows(each=False).x, progress=progress)
    job.target.write_bytes(content)
    print(f"{settings.output}: {Compressed.from_bytes(content)}")
    return 0
