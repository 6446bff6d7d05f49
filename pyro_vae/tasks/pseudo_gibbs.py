"""Missing entries by alternating between encoder and decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.distributions.missing import hide_missing
from pyro_vae.evaluation.inputs import one_batch
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.tasks.imputation import Imputation
from pyro_vae.tasks.impute import refuse_empty
from pyro_vae.tasks.latents import labels_of, one_latent

__all__ = ["pseudo_gibbs"]


def pseudo_gibbs(
    program: Program,
    x: Any,
    *,
    draws: int = 100,
    burn_in: int = 100,
    every: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> Imputation:
    r"""Fill missing entries by a chain that encodes the filled datum and decodes the holes anew.

    .. math:: z \sim q(z \mid x_o, x_m), \qquad x_m \sim p(x_m \mid z)

    A Gibbs sampler of :math:`p(x_m \mid x_o)` if the posterior is exact, and biased otherwise, which no length of the
    chain mends: a baseline beside :func:`impute`.

    References:
        Stochastic backpropagation and approximate inference in deep generative models (Rezende et al., 2014),
        https://arxiv.org/abs/1401.4082; Leveraging the exact likelihood of deep latent variable models (Mattei and
        Frellsen, 2018), https://arxiv.org/abs/1802.04826

    Args:
        program: a VAE that takes missing entries
        x: what :func:`impute` takes
        draws: states of the chain that are kept; their mean is the single imputation
        burn_in: steps before the first of them
        every: steps from one to the next
        seed: of the chain
        progress: show a progress bar

    Returns:
        The filled data; ``ess`` is the number of draws, which are not independent.

    Raises:
        TypeError: the program is no VAE.
        ValueError: for the data of which :func:`impute` raises it.

    Example:
        >>> import pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.StandardNormal(1),
        ...     likelihood=pv.likelihoods.Normal(1, (2,)),
        ...     posterior=pv.posteriors.MeanFieldNormal((2,), 1),
        ...     missing=True,
        ... )
        >>> pseudo_gibbs(vae, torch.tensor([[0.5, torch.nan]]), draws=10).draws.shape
        torch.Size([10, 1, 2])
    """
    for name, value, least in (("draws", draws, 1), ("burn_in", burn_in, 0), ("every", every, 1)):
        check_int(name, value, least)
    vae = one_latent(program)
    batch = one_batch(vae, x)
    refuse_empty(batch[0], 0)
    holes, context = torch.isnan(batch[0]), batch[1:]
    kept = []
    with evaluating(vae), fork_rng(batch, seed):
        z = vae.encode(*batch).sample()
        for step in progress_bar(range(burn_in + draws * every), desc="pseudo-Gibbs", unit="step", progress=progress):
            state = refilled(vae, z, batch, holes)
            z = vae.encode(state, *context).sample()
            if step >= burn_in and (step - burn_in + 1) % every == 0:
                kept.append(state.cpu())
    several = torch.stack(kept)
    single = several.mean(0)
    for j, codes in labels_of(vae):
        votes = torch.nn.functional.one_hot(several[..., j].long().clamp(0, codes - 1), codes)
        single[:, j] = votes.sum(0).argmax(-1).to(single)
    # the mean of equal numbers is not always that number
    single = torch.where(holes.cpu(), single, several[0])
    return Imputation(single, several, holes.cpu(), torch.full((len(single),), float(draws)))


def refilled(vae: Any, z: Tensor, batch: tuple[Tensor, ...], holes: Tensor) -> Tensor:
    """Return the data with holes drawn from p(x given z)."""
    fn, _ = hide_missing(vae.decode(z, *batch[1:]), batch[0])
    return torch.where(holes, fn.sample().to(batch[0]), batch[0])
