"""Which entries make a datum unusual."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.distributions.missing import factorized, hide_missing
from pyro_vae.programs import VAE
from pyro_vae.programs.program import Program
from pyro_vae.tasks.latents import each_batch

__all__ = ["attribution"]


def attribution(program: Program, x: Any, *, num_particles: int = 64, seed: int = 0) -> Tensor:
    r"""Return what each entry adds to the reconstruction score of its datum.

    .. math:: a_i = -E_{q(z \mid x)}[\log p(x_i \mid z)], \qquad \sum_i a_i = -E_q[\log p(x \mid z)]

    Subtract the mean over normal data to leave out entries that are noisy in all of them.

    Args:
        program: a VAE whose likelihood is a product over entries
        x: rows of data, or a tuple ``(x, context)``
        num_particles: draws over which it is averaged
        seed: of the draws

    Returns:
        Nats of the shape of ``x``, 0 for a missing entry; on the CPU.

    Raises:
        ValueError: the data do not fit the program, or its likelihood is no product over entries.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> x = toy.draw(3)
        >>> x[1, 2] += 20.0
        >>> attribution(toy.program, x)[1].argmax()
        tensor(2)
    """
    check_int("num_particles", num_particles)
    return each_batch(program, x, shares, draws=num_particles, seed=seed)


def shares(vae: VAE, z: Tensor, x: Tensor, *context: Tensor) -> Tensor:
    """Return minus log p of each entry, averaged over draws of z, on the CPU."""
    fn = vae.decode(z, *context)
    if not factorized(fn):
        raise ValueError(
            f"program: the likelihood {type(vae.likelihood).__name__} is no product over the entries of a datum, so "
            "that none of them has a share of its own"
        )
    _, safe = hide_missing(fn, x)
    return torch.where(torch.isnan(x), 0.0, -fn.base_dist.log_prob(safe).mean(0)).cpu()
