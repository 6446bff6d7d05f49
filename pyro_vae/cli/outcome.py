"""What ``pyro-vae train`` prints and draws after the training."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch

from pyro_vae import plots, tasks
from pyro_vae._util.random_state import fork_rng
from pyro_vae.cli.choices import table
from pyro_vae.cli.shared import evenly_spaced
from pyro_vae.config.data import Source
from pyro_vae.programs import Program
from pyro_vae.programs.program import evaluating

__all__ = ["figures", "summary"]

#: More latent sites are counted together.
MANY = 8
#: Samples of the forecasts in a figure, and the probability of their intervals.
NUM_SAMPLES, LEVEL = 200, 0.9


def summary(found: dict[str, Any]) -> str:
    """Return results as a table."""
    names = {"bound": "bound (ELBO)", "kl": "KL", "log_likelihood": "log-likelihood"}
    lines = {f"test, n = {found['num_examples']:,}": f"{'nats/example':>12}  {'std. error':>10}"}
    for key in ("bound", "reconstruction", "kl", "log_likelihood"):
        mean, error = found[key]["mean"], found[key]["std_error"]
        lines[names.get(key, key)] = f"{mean:12.2f}  {'-' if error is None else f'{error:.2f}':>10}"
    likelihood = found["log_likelihood"]
    lines["log-likelihood"] += f"   importance sampling, {likelihood['num_particles']:,} particles"
    if likelihood["monte_carlo_error"] is not None:
        lines["log-likelihood"] += f", Monte Carlo error {likelihood['monte_carlo_error']:.3f}"
    if "accuracy" in found:
        share, error = (100 * (found["accuracy"][key] or 0.0) for key in ("mean", "std_error"))
        lines["accuracy"] = (
            f"{share:11.1f}%  {error:9.1f}%   of the classes of {found['accuracy']['num_examples']:,} rows"
        )
    sites = [*found["active_units"].values()]
    if len(sites) > MANY:  # such as one for each step of a sequence
        total = f"{sum(active for active, _ in sites):,} of {sum(units for _, units in sites):,}"
        lines["active units"] = f"{total} in {len(sites):,} latents"
    else:
        lines["active units"] = ", ".join(f"{active} of {units}" for active, units in sites)
    return table(lines)


def figures(vae: Program, source: Source, seed: int) -> dict[str, Any]:
    """Plot reconstructions of test data, new samples and the map of the latents."""
    if source.kind == "sequences":
        return figures_of_sequences(vae, source, seed)
    device, split = vae.device, source.dataset.test
    x, *context = [column.to(device) for column in source.batch("test", evenly_spaced(len(split), 32))]
    means = tasks.embed(vae, source.split("test"), seed=seed, progress=False).mean
    latent = {"latent": plots.latent_map(means, split.y)}
    if hasattr(vae.likelihood, "columns"):  # columns have units of their own
        return latent
    with evaluating(vae), fork_rng(device, seed):
        x_hat = vae.reconstruct(x, *context, seed=seed)
        found = {"reconstructions": plots.reconstructions(x, x_hat, title="Test data and reconstructions"), **latent}
        if "library" in inspect.signature(vae.sample).parameters:  # a size per sample, which only a user knows
            return found
        _, *context = [column.to(device) for column in source.batch("test", torch.arange(80) % len(split))]
        samples = vae.sample(80, *context, mean=True, seed=seed)
    draw = partial(plots.image_grid, rows=5) if plots.is_image(x.shape[1:]) else plots.vectors
    title = f"Samples: means of p(x|z), {type(vae.likelihood).__name__}, at samples z of the prior"
    return {**found, "samples": draw(samples, title=title)}


def figures_of_sequences(vae: Program, source: Source, seed: int) -> dict[str, Any]:
    """Plot reconstructions of test sequences, new ones, the map of the latents of all steps, and forecasts.

    The forecasts are those of the last steps of test sequences, a fifth of the longest, given the steps before.
    """
    device = vae.device
    x, lengths, *inputs = [column.to(device) for column in source.batch("test", slice(None))]
    step = torch.arange(x.shape[1], device=device).expand(len(x), -1)
    inside = step < lengths.unsqueeze(-1)
    z = vae.latents(x, lengths, *inputs)[inside]
    rows = {"test data": x, "reconstructions": vae.reconstruct(x, lengths, *inputs, seed=seed)}
    found = {
        "reconstructions": plots.sequences(rows, lengths, title="Test data and reconstructions"),
        "latent": plots.latent_map(
            z, step[inside] + 1, title="Latents of all steps: means of q(z|x), coloured by step"
        ),
    }
    length, given = int(lengths.max()), {}
    if inputs:  # of the sequences that have those of all steps
        given = {"inputs": inputs[0][~inputs[0][:, :length].isnan().flatten(1).any(1)]}
    samples = vae.sample(len(given["inputs"]) if given else len(x), length=length, seed=seed, **given)
    found["samples"] = plots.sequences({"samples": samples}, title="Samples of p(x)")
    ahead = max(1, x.shape[1] // 5)
    long = lengths > ahead
    if not long.any():
        return found
    before = lengths[long] - ahead
    truth = torch.take_along_dim(x[long], (before[:, None] + step[long, :ahead]).unsqueeze(-1), 1)
    past = torch.where((step < (lengths - ahead).unsqueeze(-1)).unsqueeze(-1), x, torch.nan)[long]
    data = (past, before, *(u[long] for u in inputs))
    ahead_of = tasks.forecast(vae, data, num_steps=ahead, num_samples=NUM_SAMPLES, seed=seed, progress=False)
    return {**found, "forecasts": plots.forecasts(past, ahead_of, before, truth=truth, level=LEVEL)}
