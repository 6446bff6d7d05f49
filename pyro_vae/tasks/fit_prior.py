"""A prior fitted to the latents of data after training."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae.conditional import Conditional
from pyro_vae.programs import VAE, DataPlate, Program, announce, observe
from pyro_vae.tasks.decoding import require_vae
from pyro_vae.training import fit

__all__ = ["fit_prior"]

Prior = TypeVar("Prior", bound=Conditional)


@in_turn
def fit_prior(
    program: Program,
    x: Any,
    prior: Prior,
    *,
    epochs: int = 10,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Prior:
    r"""Fit a prior to the latents of data by maximum likelihood, with all other parts as they are.

    .. math:: \max_\theta \frac1N \sum_n \mathbb E_{q(z \mid x_n)}[\log p_\theta(z)]

    It is the part of the ELBO that depends on the prior. Sample from the result by ``generate(vae, num_samples,
    prior=...)``, or build the program again with it as the prior: the ELBO of that program is a bound on log p(x), and
    higher than before where the prior is better.

    References:
        Neural discrete representation learning (van den Oord et al., 2017), https://arxiv.org/abs/1711.00937

    Args:
        program: a trained VAE
        x: its training data: rows, or a tuple ``(x, context)``, as in ``fit``
        prior: the prior to start from, such as ``priors.PixelCNN`` or ``priors.MaskedAutoregressiveFlow``; it is
            copied. A prior with a context is fitted as p(z given the context)
        epochs: number of passes over the data
        seed: random seed
        progress: show a progress bar
        options: further arguments of ``fit``, such as ``optimizer``, ``batch_size``, ``valid`` or ``callbacks``. The
            loss is minus the mean of log p(z) in nats per example

    Returns:
        The fitted copy of the prior.

    Raises:
        TypeError: the program is not a VAE.
        ValueError: the data do not fit the program, or the prior not its latents.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> flow = pv.priors.MaskedAutoregressiveFlow(2, hidden=(8,)).to(toy.program.dtype)
        >>> fitted = fit_prior(toy.program, toy.draw(200), flow, epochs=2, progress=False)
        >>> generate = pv.tasks.generate(toy.program, 7, prior=fitted)
    """
    fitted = copy.deepcopy(prior)
    density = LatentDensity(require_vae(program), fitted)
    fit(density, x, epochs=epochs, seed=seed, progress=progress, **options)
    return fitted


class LatentDensity(Program):
    """The prior as a density of the latents that a frozen copy of a VAE infers."""

    def __init__(self, vae: VAE, prior: Conditional) -> None:
        super().__init__()
        self.vae, self.prior = copy.deepcopy(vae).requires_grad_(False).eval(), prior
        self.missing = vae.missing

    @property
    def context(self) -> int:
        """Number of context values per example."""
        return max(self.vae.context, self.prior.context)

    def train(self, mode: bool = True) -> LatentDensity:
        """Set the mode of the prior; the VAE stays in evaluation mode."""
        super().train(mode)
        self.vae.eval()
        return self

    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        """Observe latents sampled from the posterior of ``x`` under the prior."""
        announce(prior=self.prior)
        with torch.no_grad():
            z = self.vae.encode(x, *context).sample()
        with DataPlate(x):
            return observe("z", self.prior(*context), z)

    def guide(self, x: Tensor, *context: Tensor) -> None:
        """Do nothing, as there are no latent sites."""

    def check_data(self, x: Tensor, *context: Tensor) -> None:
        """Raise if the data do not fit the VAE."""
        self.vae.check_data(x, *context)
