"""Missing entries, from the observed ones by importance sampling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.inputs import at_once, batches_of
from pyro_vae.evaluation.laboratory.memory import refuse_too_many
from pyro_vae.evaluation.posterior.simulate import Drawn
from pyro_vae.evaluation.representation.codes import Sampled
from pyro_vae.programs import MissingNotAtRandom
from pyro_vae.programs.program import Program, device_of, evaluating, mean_or_draw
from pyro_vae.tasks.imputation import Imputation
from pyro_vae.tasks.latents import labels_of
from pyro_vae.trace import Call, Terms, run

__all__ = ["impute", "refuse_empty"]


def impute(
    program: Program,
    x: Any,
    *,
    num_particles: int = 1000,
    draws: int = 20,
    seed: int = 0,
    progress: bool = False,
) -> Imputation:
    r"""Fill missing entries with conditional means, and with draws, given the observed ones.

    .. math:: E[x_m \mid x_o] \approx \sum_k \bar w_k\, E[x_m \mid z_k], \qquad
              \bar w_k \propto \frac{p(x_o \mid z_k)\, p(z_k)}{q(z_k \mid x_o)}, \qquad z_k \sim q(z \mid x_o)

    (self-normalized importance sampling). The draws come by sampling-importance-resampling: one of the particles by
    its weight, then the missing entries from p(x given z) at it. Where entries are missing because of what stands
    in them (``MissingNotAtRandom``), the weights know of it, and the drawn entries themselves are averaged.

    References:
        MIWAE: deep generative modelling and imputation of incomplete data sets (Mattei and Frellsen, 2019),
        https://arxiv.org/abs/1812.02633; not-MIWAE: deep generative modelling with missing not at random data
        (Ipsen et al., 2021), https://arxiv.org/abs/2006.12871

    Args:
        program: built with ``missing=True`` (or a ``MissingNotAtRandom``)
        x: rows of data with NaN in the holes, such as ``Table(...).x``, or a tuple ``(x, context)``
        num_particles: K, draws of the posterior for each datum
        draws: imputations of each hole; the ends of a 90% interval take some hundreds
        seed: of all noise
        progress: show a progress bar

    Returns:
        The filled data; see :func:`fill` for a table with its own columns and types.

    Raises:
        ValueError: the program takes no missing entries, the data do not fit it, nothing of a datum was observed, or
            the particles do not fit into memory.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> toy.program.missing = True
        >>> x = toy.draw(6)
        >>> x[:, 2] = torch.nan
        >>> found = impute(toy.program, x, num_particles=100)
        >>> found.x.shape, found.draws.shape
        (torch.Size([6, 5]), torch.Size([20, 6, 5]))
    """
    check_int("num_particles", num_particles)
    check_int("draws", draws, 0)
    batches = batches_of(program, x)
    most, several = at_once(batches), max(num_particles, draws)
    batches.batch_size = max(1, most // several)
    # before any work: a datum without observed entries may stand at the end
    for start, batch in enumerate(batches.epoch(0)):
        refuse_empty(batch[0], start * batches.batch_size)
    parts = []
    with evaluating(program), fork_rng(device_of(program), seed):
        if several > most:  # even those of a single datum are many
            first = tuple(column[:1] for column in next(iter(batches.epoch(0))))
            share = draws / several
            refuse_too_many(
                "num_particles, draws",
                several,
                lambda k: filled(program, first, k, int(k * share)),
                device_of(program),
            )
        bar = progress_bar(batches.epoch(0), total=batches.steps, desc="impute", unit="batch", progress=progress)
        for batch in bar:
            parts.append([value.cpu() for value in filled(program, batch, num_particles, draws)])
    single, several, ess = zip(*parts, strict=True)
    missing = torch.cat([torch.isnan(batch[0]).cpu() for batch in batches.epoch(0)])
    return Imputation(torch.cat(single), torch.cat(several, 1), missing, torch.cat(ess))


def filled(
    program: Program, batch: tuple[Tensor, ...], num_particles: int, draws: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the single imputation, several, and the effective sample size of a batch."""
    terms = run(program.model, program.guide, batch, {}, num_particles=num_particles, draws=Sampled)
    share = terms.log_w().softmax(0).expand(num_particles, -1)
    missing = torch.isnan(batch[0])
    means, drawn = entries(terms, batch[0])
    single = torch.einsum("kn,kn...->n...", share, means)
    for j, codes in labels_of(program):
        votes = torch.nn.functional.one_hot(drawn[..., j].long().clamp(0, codes - 1), codes).to(share)
        single[:, j] = torch.einsum("kn,knc->nc", share, votes).argmax(-1).to(single)
    chosen = (
        torch.multinomial(share.T, draws, replacement=True).T if draws else share.new_empty(0, len(missing)).long()
    )
    several = resampled(program, batch, terms, chosen) if draws else batch[0].new_empty(0, *missing.shape)
    return (
        torch.where(missing, single, batch[0]),
        torch.where(missing, several, batch[0]),
        1 / share.square().sum(0),
    )


def entries(terms: Terms, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and a draw of all entries at each particle, (particles, *shape of x)."""
    shape = (terms.num_particles, *x.shape)
    for site in terms.latent:
        if site.name == "missing":  # what weights of a MissingNotAtRandom belong to
            return (site.model["value"].reshape(shape),) * 2
    (observed,) = terms.observed
    fn = observed.model["fn"]
    return mean_or_draw(fn).expand(shape), fn.sample().expand(shape)


def resampled(program: Program, batch: tuple[Tensor, ...], terms: Terms, chosen: Tensor) -> Tensor:
    """Return draws of x from the model at the latents of the chosen particles, (draws, *shape of x)."""
    draws, rows = chosen.shape[0], torch.arange(chosen.shape[1], device=chosen.device)
    given = {}
    for site in terms.latent:
        value = site.model["value"]
        if not site.local:
            given[site.name] = {"value": value}
            continue
        if terms.num_particles == 1:  # without a plate over particles
            value = value.unsqueeze(0)
        data = value.dim() - site.model["fn"].event_dim - 1
        picked = value.movedim(data, 1)[chosen, rows].movedim(1, data)
        given[site.name] = {"value": picked if draws > 1 else picked[0]}
    if isinstance(program, MissingNotAtRandom):
        return given["missing"]["value"].reshape(draws, *batch[0].shape)
    call = Call(program.model, program.guide, batch, {}, draws)
    record = call.trace(program.model, Drawn(given))
    (observed,) = [site for site in record.sites.values() if site["is_observed"]]
    return observed["value"].reshape(draws, *batch[0].shape)


def refuse_empty(x: Tensor, start: int) -> None:
    """Refuse a datum of which nothing was observed."""
    empty = torch.isnan(x).flatten(1).all(1)
    if empty.any():
        row = start + int(empty.nonzero()[0])
        raise ValueError(
            f"x: x[{row}] has no observed entry, so that there is nothing to impute it from ({int(empty.sum())} such "
            "rows); leave it out, or draw new data by generate"
        )
