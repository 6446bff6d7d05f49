"""New data: from the prior or another density of latents, given a context, at a temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.programs.program import Program, device_of, evaluating
from pyro_vae.tasks.latents import as_context, decoded, one_latent

__all__ = ["generate", "tempered"]

#: Draws of the prior among which one of a lower temperature is chosen.
CANDIDATES = 256


def generate(
    program: Program,
    n: int,
    *,
    context: Sequence[Any] = (),
    prior: Conditional | None = None,
    temperature: float = 1.0,
    mean: bool = False,
    seed: int = 0,
) -> Tensor:
    r"""Draw new data.

    .. math:: z \sim \frac{p(z)^{1/T}}{\int p(z)^{1/T}\, dz}, \qquad x \sim p(x \mid z)

    Args:
        program: a VAE; any Program with ``sample(n, *context, mean=)`` at temperature 1 and with its own prior
        n: how many
        context: for a conditional program, its rows of context, such as ``[one_hot_labels]``
        prior: in place of the program's own, such as an :class:`AggregatePosterior`
        temperature: T; below 1 data are more typical and less varied (see :func:`tempered`)
        mean: return the means of p(x given z) in place of draws, as most papers show for images
        seed: of all noise

    Returns:
        Data of shape ``(n, *shape)``.

    Raises:
        ValueError: ``n`` or the context does not fit, or the temperature is none that the prior can have.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> generate(toy.program, 7, temperature=0.5, mean=True).shape
        torch.Size([7, 5])
    """
    check_int("n", n)
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature: expected a number above 0, got {temperature}")
    rows = as_context(program, context, n)
    with evaluating(program), fork_rng(device_of(program), seed):
        if prior is None and temperature == 1:
            return program.sample(n, *rows, mean=mean)
        vae = one_latent(program)
        fn = (prior or vae.prior)(*rows).expand((n,))
        return decoded(vae, tempered(fn, temperature), rows, mean=mean)


def tempered(fn: TorchDistributionMixin, temperature: float) -> Tensor:
    r"""Draw from :math:`p(z)^{1/T}`, normalized.

    Exact for normal distributions, whose covariance is multiplied by T. For others each draw is one of 256 of the
    distribution itself, chosen by its weight :math:`p(z)^{1/T - 1}`: close for T below 1 and few dimensions, and not
    offered above 1, where the weights have no bound.

    Args:
        fn: p(z), of batch shape ``(n,)``
        temperature: T

    Returns:
        One draw for each of the n.

    Raises:
        ValueError: T is above 1 and the distribution is not normal.

    Example:
        >>> tempered(dist.Normal(torch.zeros(4, 2), 1.0).to_event(1), 0.25).shape
        torch.Size([4, 2])
    """
    if temperature == 1:
        return fn.sample()
    base = getattr(fn, "base_dist", None)
    if isinstance(base, dist.Normal):
        return dist.Normal(base.loc, base.scale * temperature**0.5).to_event(fn.event_dim).sample()
    if isinstance(fn, dist.MultivariateNormal):
        return dist.MultivariateNormal(fn.loc, scale_tril=fn.scale_tril * temperature**0.5).sample()
    if temperature > 1:
        raise ValueError(
            f"temperature: {temperature} is above 1, which only normal priors can have; this one is "
            f"{type(fn).__name__}"
        )
    drawn = fn.sample((CANDIDATES,))
    log_w = (1 / temperature - 1) * fn.log_prob(drawn)
    chosen = torch.distributions.Categorical(logits=log_w.T).sample()
    return drawn[chosen, torch.arange(len(chosen), device=chosen.device)]
