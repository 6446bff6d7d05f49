"""The perplexity of documents: how many equally probable words a model chooses between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.validation import check_int
from pyro_vae.estimators import ELBO
from pyro_vae.evaluation.over import over
from pyro_vae.evaluation.result import Result
from pyro_vae.programs.count_program import check_totals
from pyro_vae.programs.program import Program

__all__ = ["Perplexity", "perplexity"]


@dataclass(frozen=True)
class Perplexity(Result, plot="perplexities"):
    r"""Perplexities of documents with :math:`N_d` words, in the two conventions of the literature.

    Both refer to the words in their order, without the multinomial coefficient: a uniform distribution over V words
    has a perplexity of V. A lower bound on the log-likelihood gives upper bounds on the perplexities.

    Attributes:
        per_token: :math:`\exp(-\sum_d \log p(x_d) / \sum_d N_d)`, which weights documents by their length
        per_document: :math:`\exp(-\frac1D \sum_d \log p(x_d) / N_d)`, as NVDM and ProdLDA report it

    References:
        Neural variational inference for text processing (Miao et al., 2016), https://arxiv.org/abs/1511.06038
    """

    per_token: float
    per_document: float

    def rows(self) -> list[dict[str, Any]]:
        """Return both perplexities."""
        return [
            {"average": "per token", "perplexity": self.per_token},
            {"average": "per document", "perplexity": self.per_document},
        ]

    @classmethod
    def of(cls, log_likelihood: Tensor, x: Tensor) -> Perplexity:
        """Return the perplexities of documents ``x``, given the log-likelihood of their counts or a bound on it.

        Args:
            log_likelihood: nats per document, of shape ``(n,)``, from
                ``evaluation.log_likelihood(program, x).per_example`` or
                ``ELBO().per_datum(program.model, program.guide, x)``
            x: word counts, ``(n, *shape)``
        """
        x = x.double().flatten(1)
        size = x.sum(-1)
        orders = torch.lgamma(size + 1) - torch.lgamma(x + 1).sum(-1)
        nats = orders - log_likelihood.to(orders)
        return cls(float((nats.sum() / size.sum()).exp()), float((nats / size).mean().exp()))


@in_turn
def perplexity(
    program: Program,
    x: Any,
    *,
    num_particles: int = 10,
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Perplexity:
    """Return upper bounds on the perplexity of documents, from their ELBO.

    ``Perplexity.of(evaluation.log_likelihood(program, x).per_example, x)`` returns tighter bounds.

    References:
        Neural variational inference for text processing (Miao et al., 2016), https://arxiv.org/abs/1511.06038

    Args:
        program: a Program of word counts, such as ``programs.TopicModel``
        x: documents, ``(n, *shape)``, or a tuple ``(x, context)``, as in ``fit``
        num_particles: number of samples over which the ELBO of each document is averaged
        batch_size: documents at a time; by default as many as keep memory small
        seed: random seed
        progress: show a progress bar

    Returns:
        The perplexities in both conventions.

    Raises:
        ValueError: the documents do not fit the program, or one has no words.

    Example:
        >>> import torch, pyro_vae as pv
        >>> program = pv.programs.TopicModel.example()
        >>> found = pv.evaluation.perplexity(program, torch.ones(8, 6), progress=False)
        >>> found.per_token > 1
        True
    """
    elbo = ELBO(num_particles=check_int("num_particles", num_particles), analytic_kl=False)

    def bound(x: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        return elbo.per_datum(program.model, program.guide, x, *context), x

    def check(x: Tensor, *context: Tensor) -> None:
        check_totals(x, "document", "words")

    options: dict[str, Any] = {"num_particles": num_particles, "batch_size": batch_size, "seed": seed}
    return Perplexity.of(*over(program, x, bound, check=check, desc="perplexity", progress=progress, **options))
