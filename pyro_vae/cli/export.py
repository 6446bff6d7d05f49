"""The command ``pyro-vae export``."""

from __future__ import annotations

from pathlib import Path

from jsonargparse.typing import PositiveInt

from pyro_vae import tasks
from pyro_vae._util.devices import resolve_device
from pyro_vae.cli.choices import table
from pyro_vae.cli.shared import add_noise, for_run, names_of
from pyro_vae.config import data as run_data
from pyro_vae.config import run
from pyro_vae.config.load import load
from pyro_vae.tasks.export import ROWS
from pyro_vae.tasks.graphs import GRAPHS

FORMATS = {"torch": tasks.TorchExport, "onnx": tasks.Onnx}
#: How a file is used in a program that does not have this library.
USE = {
    "torch": "import torch\n{part} = torch.export.load({path!r}).module()\n{results} = {part}({inputs})",
    "onnx": "import onnxruntime\n{part} = onnxruntime.InferenceSession({path!r})\n"
    "{results} = {part}.run(None, {{{values}}})",
}


def export(argv: list[str]) -> int:
    """Write encoder, decoder and score of a run to files that need only torch or onnxruntime."""
    choices = for_run("export", argv)
    add = choices.option
    add("--format", choices=tuple(FORMATS), default="torch", help="torch: .pt2 of torch.export; onnx: .onnx")
    add("--parts", type=str | None, help=f"some of {','.join(GRAPHS)}; by default all that the program has")
    add("--num-particles", type=PositiveInt, default=100, help="samples of the latents per example, at least 2")
    add("--output", type=str | None, help="new folder; by default RUN/torch or RUN/onnx")
    add_noise(choices)
    settings = choices.parse()
    config, name = run.read(settings.run), settings.format
    folder = Path(settings.output or Path(settings.run) / name)
    program = load(settings.run).to(resolve_device(settings.device))
    x = run_data.load(config).split("test", slice(ROWS))
    parts = names_of("parts", settings.parts)
    how = {"parts": parts, "num_particles": settings.num_particles, "seed": settings.seed}
    files = tasks.export(program, folder, x, format=FORMATS[name](), **how)
    print(table({str(path): f"{path.stat().st_size / 1e6:.2f} MB" for path in files.values()}))
    for part, path in files.items():
        inputs = GRAPHS[part].names(program, int(isinstance(x, tuple)))
        values = ", ".join(f"{i!r}: {i}.numpy()" for i in inputs)
        results = ", ".join(GRAPHS[part].outputs) + ("," if name == "onnx" and len(GRAPHS[part].outputs) == 1 else "")
        use = USE[name].format(part=part, path=str(path), results=results, inputs=", ".join(inputs), values=values)
        print(f"\n{use}")
    return 0
