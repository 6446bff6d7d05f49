"""Imputation of missing entries, by importance sampling or a Markov chain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.row_noise import apply_by_row, independent_noise
from pyro_vae._util.validation import check_int
from pyro_vae.data.tables import Categorical, Column
from pyro_vae.distributions.missing import hide_missing
from pyro_vae.evaluation.cost import check_memory
from pyro_vae.evaluation.over import any_order, at_once, one_batch, over
from pyro_vae.programs import MissingNotAtRandom
from pyro_vae.programs.program import Program, evaluating, mean_or_sample
from pyro_vae.tasks.decoding import require_vae
from pyro_vae.tasks.imputation import Imputation
from pyro_vae.trace import Call, Sampled, Terms, run
from pyro_vae.trace.simulate import SampleObserved

__all__ = ["impute", "pseudo_gibbs"]


@in_turn
def impute(
    program: Program,
    x: Any,
    *,
    num_particles: int = 1000,
    num_samples: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> Imputation:
    r"""Impute missing entries by conditional means and samples given the observed entries.

    .. math:: E[x_m \mid x_o] \approx \sum_k \bar w_k\, E[x_m \mid z_k], \qquad
              \bar w_k \propto \frac{p(x_o \mid z_k)\, p(z_k)}{q(z_k \mid x_o)}, \qquad z_k \sim q(z \mid x_o)

    (self-normalized importance sampling). Samples come from sampling-importance-resampling: choose one of the
    particles by its weight, then sample the missing entries from p(x given z). Under ``MissingNotAtRandom`` the
    weights include the probability of the mask, and means are weighted averages of sampled entries.

    References:
        MIWAE: deep generative modelling and imputation of incomplete data sets (Mattei and Frellsen, 2019),
        https://arxiv.org/abs/1812.02633; not-MIWAE: deep generative modelling with missing not at random data
        (Ipsen et al., 2021), https://arxiv.org/abs/2006.12871

    Args:
        program: built with ``missing=True``, or a ``MissingNotAtRandom``
        x: rows of data with NaN for missing entries, such as ``Table(...).x``, or a tuple ``(x, context)``
        num_particles: K, particles per example
        num_samples: samples of each missing entry; a 90% interval takes hundreds
        seed: random seed
        progress: show a progress bar

    Returns:
        The imputed data; :func:`fill` puts them back into a table with its own columns and types.

    Raises:
        ValueError: the program does not allow missing entries, the data do not fit it, an example has no observed
            entry, or the particles do not fit into memory.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> toy.program.missing = True
        >>> x = toy.draw(6)
        >>> x[:, 2] = torch.nan
        >>> found = impute(toy.program, x, num_particles=100)
        >>> found.x.shape, found.samples.shape
        (torch.Size([6, 5]), torch.Size([20, 6, 5]))
    """
    num_particles, num_samples = check_int("num_particles", num_particles), check_int("num_samples", num_samples, 0)
    most, fits = max(num_particles, num_samples), False

    def function(*batch: Tensor) -> tuple[Tensor, ...]:
        nonlocal fits
        if not fits and most > at_once(batch[0]):  # particles of a single example exceed the memory of one pass
            first, share = tuple(column[:1] for column in batch), num_samples / most
            with fork_rng(batch):
                check_memory(
                    "num_particles, num_samples",
                    most,
                    lambda k: apply_by_row(lambda *x: impute_batch(program, x, k, int(k * share)), first, seed),
                    program.device,
                )
        fits = True
        return impute_batch(program, batch, num_particles, num_samples)

    options = {"seed": seed, "by_row": True, "check": check_observed, "desc": "impute", "progress": progress}
    single, samples, missing, ess = over(program, any_order(x), function, num_particles=most, **options)
    return Imputation(single, samples.transpose(0, 1), missing, ess)


@in_turn
def pseudo_gibbs(
    program: Program,
    x: Any,
    *,
    num_samples: int = 100,
    burn_in: int = 100,
    thin: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> Imputation:
    r"""Impute missing entries by a Markov chain that alternates between encoder and decoder.

    .. math:: z \sim q(z \mid x_o, x_m), \qquad x_m \sim p(x_m \mid z)

    A Gibbs sampler of :math:`p(x_m \mid x_o)` if the posterior is exact. Otherwise its bias does not vanish in longer
    chains: use it as a baseline for :func:`impute`.

    References:
        Stochastic backpropagation and approximate inference in deep generative models (Rezende et al., 2014),
        https://arxiv.org/abs/1401.4082; Leveraging the exact likelihood of deep latent variable models (Mattei and
        Frellsen, 2018), https://arxiv.org/abs/1802.04826

    Args:
        program: a VAE built with ``missing=True``
        x: rows of data with NaN for missing entries, or a tuple ``(x, context)``
        num_samples: states of the chain that are returned; their mean is the single imputation
        burn_in: steps before the first of them
        thin: steps from one of them to the next
        seed: random seed
        progress: show a progress bar

    Returns:
        The imputed data; ``ess`` is ``num_samples``, although the samples are correlated.

    Raises:
        TypeError: the program is not a VAE.
        ValueError: the program does not allow missing entries, the data do not fit it, or an example has no observed
            entry.

    Example:
        >>> import pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.StandardNormal(1),
        ...     likelihood=pv.likelihoods.Normal(1, (2,)),
        ...     posterior=pv.posteriors.MeanFieldNormal((2,), 1),
        ...     missing=True,
        ... )
        >>> pseudo_gibbs(vae, torch.tensor([[0.5, torch.nan]]), num_samples=10).samples.shape
        torch.Size([10, 1, 2])
    """
    num_samples, burn_in = check_int("num_samples", num_samples), check_int("burn_in", burn_in, 0)
    thin, vae = check_int("thin", thin), require_vae(program)
    x, *context = one_batch(vae, x)
    check_observed(x)
    missing, states = torch.isnan(x), []
    with evaluating(vae), fork_rng((x,), seed):
        z = vae.encode(x, *context).sample()
        steps = range(1, burn_in + num_samples * thin + 1)
        for step in progress_bar(steps, desc="pseudo-Gibbs", unit="step", progress=progress):
            fn, _ = hide_missing(vae.decode(z, *context), x)
            state = torch.where(missing, fn.sample().to(x), x)
            z = vae.encode(state, *context).sample()
            if step > burn_in and (step - burn_in) % thin == 0:
                states.append(state.cpu())
    samples, missing = torch.stack(states), missing.cpu()
    single = nearest(vae, samples.mean(0), samples, torch.full(samples.shape[:2], 1 / num_samples))
    # rounding may separate the mean of equal numbers from these numbers
    single = torch.where(missing, single, samples[0])
    return Imputation(single, samples, missing, torch.full((len(single),), float(num_samples)))


def impute_batch(
    program: Program, batch: tuple[Tensor, ...], num_particles: int, num_samples: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return means, samples (batch, num_samples, *shape), mask and effective sample size of a batch."""
    x = batch[0]
    terms = run(program.model, program.guide, batch, {}, num_particles=num_particles, draws=Sampled)
    weights, missing = terms.log_w().softmax(0).expand(num_particles, -1), program.missing_entries(*batch)
    means, sampled = entries(terms, x)
    single = nearest(program, torch.einsum("kn,kn...->n...", weights, means), sampled, weights)
    samples = x.new_empty(0, *x.shape)
    if num_samples:
        with independent_noise():  # samples, unlike means, differ between equal rows
            chosen = torch.multinomial(weights.T, num_samples, replacement=True).T
            samples = resample(program, batch, terms, chosen)
    samples = torch.where(missing, samples, x).transpose(0, 1)
    return torch.where(missing, single, x), samples, missing, 1 / weights.square().sum(0)


def entries(terms: Terms, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and a sample of all entries at each particle, (particles, *shape of x)."""
    shape = (terms.num_particles, *x.shape)
    for site in terms.latent:
        if site.name == "missing":  # the values to which the weights of a MissingNotAtRandom belong
            return (site.model["value"].reshape(shape),) * 2
    (observed,) = terms.observed
    fn = observed.model["fn"]
    return mean_or_sample(fn).expand(shape), fn.sample().expand(shape)


def nearest(program: Program, x: Tensor, samples: Tensor, weights: Tensor) -> Tensor:
    """Return means as values that the columns of a table can have; means of other data stay what they are.

    The mean of a Categorical column is the label with the largest weight among the samples.
    """
    columns: tuple[Column, ...] = getattr(getattr(program, "likelihood", None), "columns", ())
    found = [column.nearest(mean) for column, mean in zip(columns, x.unbind(-1), strict=True)] if columns else []
    for j, column in enumerate(columns):
        if isinstance(column, Categorical):
            count = len(column.values)
            one_hot = torch.nn.functional.one_hot(samples[..., j].long().clamp(0, count - 1), count).to(weights)
            found[j] = torch.einsum("kn,kn...->n...", weights, one_hot).argmax(-1).to(x)
    return torch.stack(found, -1) if columns else x


def resample(program: Program, batch: tuple[Tensor, ...], terms: Terms, chosen: Tensor) -> Tensor:
    """Return samples of x from the model at the latents of the chosen particles, (num_samples, *shape of x)."""
    num_samples, rows = chosen.shape[0], torch.arange(chosen.shape[1], device=chosen.device)
    latents = {}
    for site in terms.latent:
        value = site.model["value"]
        if site.local:
            if terms.num_particles == 1:  # without a plate over particles
                value = value.unsqueeze(0)
            data = value.dim() - site.model["fn"].event_dim + site.layout.dim
            value = value.movedim(data, 1)[chosen, rows].movedim(1, data)
            value = value if num_samples > 1 else value[0]
        latents[site.name] = {"value": value}
    shape = (num_samples, *batch[0].shape)
    if isinstance(program, MissingNotAtRandom):
        return latents["missing"]["value"].reshape(shape)
    record = Call(program.model, program.guide, batch, {}, num_samples).trace(program.model, SampleObserved(latents))
    (observed,) = [site for site in record.sites.values() if site["is_observed"]]
    return observed["value"].reshape(shape)


def check_observed(x: Tensor, *context: Tensor) -> None:
    """Raise if an example has no observed entry."""
    empty = torch.isnan(x).flatten(1).all(1)
    if empty.any():
        raise ValueError(
            f"x: x[{int(empty.nonzero()[0])}] has no observed entry to impute it from ({int(empty.sum())} such rows). "
            "Leave it out, or generate new examples with `generate`."
        )
