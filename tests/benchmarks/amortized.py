"""An amortized guide against one set of parameters per row (AutoNormal): bound, new rows, parameters, time.

Run `python tests/benchmarks/amortized.py`; it takes about three minutes of CPU time. The model is a dose-response
curve per patient: binary answers at eight doses, whose logits are a line with a normal prior on both coefficients, and
data are drawn from it. Both guides have a normal of independent latents for each row, the same number of steps of Adam
and one sample per row and step. AutoNormal takes all rows in each step; the amortized guide takes at most 500, and has
an MLP with two hidden layers of 64. The bounds are means over the rows of the ELBO with 200 samples, in nats per row.
The amortization gap is the difference of the two bounds; AutoNormal has no bound for new rows without training again.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.infer.autoguide import AutoNormal, init_to_median
from reporting import Results, cell
from torch import Tensor

import pyro_vae as pv

DOSES, SIZES, NEW = torch.linspace(-2, 2, 8), (100, 1000, 10_000), 1000


def model(x: Tensor) -> None:
    """A line of each patient, and binary answers."""
    with pyro.plate("data", len(x), dim=-1):
        line = pyro.sample("line", dist.Normal(torch.tensor([0.0, 1.0]), 1.5).to_event(1))
        logits = line[..., :1] + line[..., 1:] * DOSES
        pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def draw(rows: int, seed: int) -> Tensor:
    """Return data of the model."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.tensor([0.0, 1.0]) + 1.5 * torch.randn(rows, 2, generator=generator)
    return torch.bernoulli((line[:, :1] + line[:, 1:] * DOSES).sigmoid(), generator=generator)


def bound(guided: Any, guide: Any, x: Tensor) -> float:
    """Return the ELBO in nats per row."""
    torch.manual_seed(0)
    return -pv.estimators.ELBO(num_particles=200, particles_per_pass=20).loss(guided, guide, x) / len(x)


def per_row(x: Tensor, steps: int) -> dict[str, Any]:
    """Train one normal per row."""
    guide = AutoNormal(model, init_loc_fn=init_to_median, init_scale=0.5)
    start = time.process_time()
    guide(x)
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    estimator = pv.estimators.ELBO()
    for _ in range(steps):
        optimizer.zero_grad()
        (estimator.differentiable_loss(model, guide, x) / len(x)).backward()
        optimizer.step()
        schedule.step()
    seconds = time.process_time() - start
    parameters = sum(p.numel() for p in guide.parameters())
    found = {"bound": bound(model, guide, x), "parameters": parameters, "seconds": round(seconds, 1)}
    pyro.clear_param_store()
    return found


def amortized(x: Tensor, new: Tensor, steps: int) -> dict[str, Any]:
    """Train one network for all rows."""
    program = pv.amortize(model, x, net=functools.partial(pv.nets.MLP, hidden=(64, 64)))
    size = min(500, len(x))
    start = time.process_time()
    pv.fit(
        program,
        x,
        optimizer=functools.partial(torch.optim.Adam, lr=3e-3),
        lr_schedule=pv.training.Cosine(steps),
        epochs=-(-steps * size // len(x)),
        batch_size=size,
        progress=False,
    )
    seconds = time.process_time() - start
    return {
        "bound": bound(program.model, program.guide, x),
        "new": bound(program.model, program.guide, new),
        "parameters": sum(p.numel() for p in program.parameters()),
        "seconds": round(seconds, 1),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown: mean and standard error over seeds."""
    names = [
        "rows",
        "AutoNormal, nats per row",
        "amortized",
        "amortization gap",
        "amortized, new rows",
        "parameters of AutoNormal",
        "of the network",
        "CPU seconds of AutoNormal",
        "of the network",
    ]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for size in SIZES:
        if mine := [row for row in rows if row["size"] == size]:
            auto, ours = [row["auto"] for row in mine], [row["amortized"] for row in mine]
            gap = [a["bound"] - b["bound"] for a, b in zip(auto, ours, strict=True)]
            cells = [
                f"{size:,}",
                cell([a["bound"] for a in auto], 3),
                cell([b["bound"] for b in ours], 3),
                cell(gap, 3),
                cell([b["new"] for b in ours], 3),
                f"{auto[0]['parameters']:,}",
                f"{ours[0]['parameters']:,}",
                cell([a["seconds"] for a in auto], 1),
                cell([b["seconds"] for b in ours], 1),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000, help="number of optimizer steps")
    parser.add_argument("--results", type=Path, default=Path("runs/amortized.jsonl"))
    options = parser.parse_args()
    results = Results(options.results, steps=options.steps)
    for size in SIZES:
        for seed in range(options.seeds):
            if not results.has(size=size, seed=seed):
                pyro.set_rng_seed(seed)
                x, new = draw(size, seed), draw(NEW, 1000 + seed)
                found = {"auto": per_row(x, options.steps), "amortized": amortized(x, new, options.steps)}
                results.add({"size": size, "seed": seed, **results.settings, **found})
    print(table(results.rows))


if __name__ == "__main__":
    main()
