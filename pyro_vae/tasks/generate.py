"""New examples, from the prior or another density of latents, and reconstructions."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int, check_number
from pyro_vae.conditional import Conditional
from pyro_vae.evaluation.over import over, require_order
from pyro_vae.programs.program import Program, evaluating, mean_or_sample
from pyro_vae.tasks.decoding import context_rows, decode, require_vae, sample_takes_context

__all__ = ["generate", "reconstruct", "tempered"]


@in_turn
def generate(
    program: Program,
    num_samples: int,
    *,
    context: Sequence[Any] = (),
    prior: Conditional | None = None,
    temperature: float = 1.0,
    mean: bool = False,
    seed: int = 0,
    **options: float | Tensor,
) -> Tensor:
    r"""Generate new examples.

    .. math:: z \sim \frac{p(z)^{1/T}}{\int p(z)^{1/T}\, dz}, \qquad x \sim p(x \mid z)

    Args:
        program: a VAE; at temperature 1 and with its own prior, any other Program
        num_samples: number of examples
        context: for a conditional program, the context of each example, such as ``[one_hot_labels]``
        prior: replaces the prior of the program, such as an :class:`pyro_vae.tasks.AggregatePosterior`
        temperature: T; below 1, examples are more typical and less varied (see :func:`tempered`)
        mean: return means of p(x given z) instead of samples, as most papers show for images
        seed: random seed
        options: further arguments of ``program.sample``, such as ``library=`` (CountVAE) or ``length=`` (SequenceVAE)

    Returns:
        Examples of shape ``(num_samples, *shape)``.

    Raises:
        TypeError: the program has no prior, or is not a VAE and ``prior`` or ``temperature`` is given.
        ValueError: an argument is invalid, or the prior does not support the temperature.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> generate(toy.program, 7, temperature=0.5, mean=True).shape
        torch.Size([7, 5])
    """
    num_samples, temperature = check_int("num_samples", num_samples), check_number("temperature", temperature, above=0)
    rows = context_rows(program, context, num_samples)
    with evaluating(program), fork_rng(program.device, seed):
        if prior is None and temperature == 1:
            given = sample_options(program, rows, options)
            return program.sample(
                num_samples, *(rows if sample_takes_context(program) else ()), mean=mean, seed=seed, **given
            )
        vae = require_vae(program)
        if options:
            raise ValueError(f"{', '.join(options)}: expected none with prior or temperature. Leave it out")
        fn = (prior or vae.prior)(*rows).expand((num_samples,))
        return decode(vae, tempered(fn, temperature).sample(), rows, mean=mean)


def sample_options(program: Program, context: Sequence[Tensor], options: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of ``program.sample``, or raise if it cannot be called with them."""
    name = type(program).__name__
    if type(program).sample is Program.sample and type(program).decode_prior is Program.decode_prior:
        raise TypeError(
            f"program: expected one with a prior to sample from, got {name}. Use a VAE, or reconstruct data with it"
        )
    parameters = inspect.signature(program.sample).parameters
    own = {key: p for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY and key not in ("mean", "seed")}
    if context and not sample_takes_context(program):
        if len(context) > 1 or "y" not in own or "y" in options:
            raise ValueError(f"context: expected {'the class y alone' if 'y' in own else 'none'} for {name}")
        options = {"y": context[0], **options}
    for key in options.keys() - own.keys():
        known = " or ".join(sorted(own)) or "no further argument"
        raise ValueError(f"{key}: expected {known} for {name}.sample, got {key}")
    for key, p in own.items():
        if p.default is p.empty and key not in options:
            raise ValueError(f"{key}: expected a value, which {name} needs. Pass {key}")
    return options


def tempered(fn: TorchDistributionMixin, temperature: float) -> TorchDistributionMixin:
    r"""Return the distribution proportional to :math:`p(z)^{1/T}`.

    Exact for normal distributions, whose covariance is multiplied by T. Other distributions are supported for T below
    1, by importance resampling: each sample is one of 256 samples of p, chosen with weights :math:`p(z)^{1/T - 1}`.
    This is accurate in few dimensions. For T above 1 these weights are unbounded.

    Args:
        fn: p(z)
        temperature: T

    Returns:
        A distribution to sample from, with the batch shape of ``fn``.

    Raises:
        ValueError: T is above 1 and the distribution is not normal.

    Example:
        >>> tempered(dist.Normal(torch.zeros(4, 2), 1.0).to_event(1), 0.25).stddev[0]
        tensor([0.5000, 0.5000])
    """
    if temperature == 1:
        return fn
    base = getattr(fn, "base_dist", None)
    if isinstance(base, dist.Normal):
        return dist.Normal(base.loc, base.scale * temperature**0.5).to_event(fn.event_dim)
    if isinstance(fn, dist.MultivariateNormal):
        return dist.MultivariateNormal(fn.loc, scale_tril=fn.scale_tril * temperature**0.5)
    if temperature > 1:
        raise ValueError(
            f"temperature: expected at most 1 for the prior {type(fn).__name__}, got {temperature}. Only normal "
            "priors support temperatures above 1."
        )
    return Resampled(fn, 1 / temperature - 1)


class Resampled(dist.TorchDistribution):
    """Samples of p chosen with weights p(z)^power among a number of candidates each."""

    NUM_CANDIDATES = 256  # for each sample

    def __init__(self, fn: TorchDistributionMixin, power: float) -> None:
        self.fn, self.power = fn, power
        super().__init__(fn.batch_shape, fn.event_shape, validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples of shape ``(*sample_shape, *batch, *event)``."""
        candidates = self.fn.sample((self.NUM_CANDIDATES, *sample_shape))
        log_w = self.power * self.fn.log_prob(candidates)
        chosen = torch.distributions.Categorical(logits=log_w.movedim(0, -1)).sample()
        index = chosen.reshape(1, *chosen.shape, *[1] * self.fn.event_dim).expand(1, *candidates.shape[1:])
        return candidates.gather(0, index).squeeze(0)


@in_turn
def reconstruct(program: Program, x: Any, *, seed: int = 0, progress: bool = True) -> Tensor:
    r"""Sample :math:`z \sim q(z \mid x)` and return :math:`E[x \mid z]`.

    A likelihood without a mean in closed form returns a sample. A categorical column returns the most probable label.

    Args:
        program: a Program with ``decode_posterior``
        x: rows of data, or a tuple ``(x, context)``
        seed: random seed
        progress: show a progress bar

    Returns:
        Reconstructions of the shape of ``x``, on the CPU.

    Raises:
        TypeError: the program does not define ``decode_posterior``.
        ValueError: the data do not fit the program.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> reconstruct(toy.program, toy.draw(4)).shape
        torch.Size([4, 5])
    """
    if type(program).decode_posterior is Program.decode_posterior:
        raise TypeError(f"program: expected one with decode_posterior, such as a VAE, got {type(program).__name__}")

    def mean(*batch: Tensor) -> Tensor:
        return mean_or_sample(program.decode_posterior(*batch))

    require_order(x)
    return over(program, x, mean, seed=seed, desc="reconstruct", progress=progress)
