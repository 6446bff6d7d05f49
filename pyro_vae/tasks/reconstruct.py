"""Data as they look to their own latents."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae.evaluation.inputs import at_once, batches_of
from pyro_vae.programs import SemiSupervised
from pyro_vae.programs.program import Program, device_of, evaluating, mean_or_draw
from pyro_vae.tasks.latents import one_latent

__all__ = ["reconstruct"]


def reconstruct(program: Program, x: Any, *, seed: int = 0, progress: bool = False) -> Tensor:
    r"""Draw :math:`z \sim q(z \mid x)` and return :math:`E[x \mid z]`.

    In a column of labels without an order the most probable one at z takes the place of a mean.

    Args:
        program: a VAE or SemiSupervised
        x: rows of data, or a tuple ``(x, context)``
        seed: of the draws
        progress: show a progress bar

    Returns:
        Data of the shape of ``x``, on the CPU.

    Raises:
        TypeError: the program has other latents.
        ValueError: the data do not fit the program.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> reconstruct(toy.program, toy.draw(4)).shape
        torch.Size([4, 5])
    """
    batches = batches_of(program, x)
    batches.batch_size = at_once(batches)
    parts = []
    with evaluating(program), fork_rng(device_of(program), seed):
        for batch in progress_bar(
            batches.epoch(0), total=batches.steps, desc="reconstruct", unit="batch", progress=progress
        ):
            parts.append(mean_or_draw(seen_again(program, *batch)).cpu())
    return torch.cat(parts)


def seen_again(program: Program, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
    """Return p(x given z) at a draw of the latents of each datum."""
    if isinstance(program, SemiSupervised):
        y = program.classifier(x).sample()
        return program.likelihood(program.posterior(x, y).sample(), y)
    vae = one_latent(program)
    return vae.decode(vae.encode(x, *context).sample(), *context)
