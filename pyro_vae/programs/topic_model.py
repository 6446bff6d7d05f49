"""Topic models: a VAE for bags of words, with topic proportions as latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.distributions import BagOfWords
from pyro_vae.likelihoods import Multinomial
from pyro_vae.posteriors import LogisticNormal as LogisticNormalPosterior
from pyro_vae.priors import LogisticNormal
from pyro_vae.programs.checks import describe, entry_support
from pyro_vae.programs.count_program import check_totals
from pyro_vae.programs.program import SMALL, evaluating
from pyro_vae.programs.vae import VAE

__all__ = ["Perplexity", "TopicModel"]


@dataclass(frozen=True)
class Perplexity:
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


class TopicModel(VAE):
    r"""A topic model: documents are bags of words with topic proportions as latents (ProdLDA, neural LDA).

    .. math:: p(x) = \int p(z)\, \mathrm{Multinomial}(x \mid \pi(z))\, dz, \qquad z_k \ge 0, \quad \sum_k z_k = 1

    The network of the decoder mixes the topics: ``nets.ProductOfTopics`` (ProdLDA) adds their logits,
    ``nets.MixtureOfTopics`` (LDA) their probabilities.

    Training often collapses to identical topics. Batch normalization in encoder and decoder (``nets.BagEncoder`` and
    the two decoders above have it) and Adam with ``betas=(0.99, 0.999)`` help, as in the paper; for the mixture also
    KL warm-up, such as ``ELBO(beta=lambda step: min(1.0, step / 700))``.

    References:
        Autoencoding variational inference for topic models (Srivastava and Sutton, 2017),
        https://arxiv.org/abs/1703.01488; Latent Dirichlet allocation (Blei et al., 2003),
        https://www.jmlr.org/papers/v3/blei03a.html

    Args:
        prior: p(z) over proportions, such as ``priors.LogisticNormal`` or ``priors.Dirichlet``
        likelihood: p(x given z) over bags of words, ``likelihoods.Multinomial``
        posterior: q(z given x) over proportions, ``posteriors.LogisticNormal`` or ``posteriors.Dirichlet``

    Example:
        >>> import torch, pyro_vae as pv
        >>> from pyro_vae.nets import BagEncoder, ProductOfTopics
        >>> program = pv.programs.TopicModel(
        ...     prior=pv.priors.LogisticNormal.like_dirichlet(3),
        ...     likelihood=pv.likelihoods.Multinomial(3, (20,), net=ProductOfTopics),
        ...     posterior=pv.posteriors.LogisticNormal((20,), 3, net=BagEncoder),
        ... )
        >>> x = torch.ones(8, 20)
        >>> history = pv.fit(program, x, epochs=1, progress=False)
        >>> program.topics().shape, program.proportions(x).shape
        (torch.Size([3, 20]), torch.Size([8, 3]))
    """

    @classmethod
    def example(cls, **options: Any) -> TopicModel:
        """Build a small instance, with further ``options`` of the constructor."""
        likelihood, posterior = Multinomial(3, (6,), net=SMALL), LogisticNormalPosterior((6,), 3, net=SMALL)
        return cls(prior=LogisticNormal(3), likelihood=likelihood, posterior=posterior, **options)

    def topics(self, *context: Tensor) -> Tensor:
        """Return the word probabilities of each topic, of shape ``(topics, *shape)``.

        Args:
            context: one row of context, ``(1, width)``, for a model with covariates
        """
        with evaluating(self):
            topics = self.prior(*context).event_shape[-1]
            one_each = torch.eye(topics, dtype=self.dtype, device=self.device)
            mean = self.likelihood(one_each, *context).mean
            return mean / mean.flatten(1).sum(-1).reshape(-1, *[1] * (mean.dim() - 1))

    def top_words(self, vocabulary: Sequence[str], num_words: int = 10, *context: Tensor) -> list[list[str]]:
        """Return the ``num_words`` most probable words of each topic, the most probable first.

        Raises:
            ValueError: the vocabulary does not have one word per entry of a bag, or has fewer than ``num_words``.
        """
        probs = self.topics(*context).flatten(1)
        if len(vocabulary) != probs.shape[1]:
            raise ValueError(f"vocabulary: expected {probs.shape[1]} words, one per count, got {len(vocabulary)}")
        num_words = check_int("num_words", num_words, 1, len(vocabulary))
        return [[str(vocabulary[i]) for i in row] for row in probs.topk(num_words).indices.tolist()]

    def proportions(self, x: Tensor, *context: Tensor, num_samples: int = 100, seed: int = 0) -> Tensor:
        """Return the mean topic proportions under q(z given x), of shape ``(n, topics)``.

        Args:
            x: documents, ``(n, *shape)``
            context: rows of context, for a model with covariates
            num_samples: number of samples that are averaged where the mean has no closed form
            seed: seed of the samples
        """
        num_samples = check_int("num_samples", num_samples)
        with evaluating(self), fork_rng(x.device, seed):
            q = self.encode(x, *context)
            try:
                return q.mean
            except NotImplementedError:
                return q.sample((num_samples,)).mean(0)

    def perplexity(
        self, x: Tensor, *context: Tensor, num_particles: int = 10, batch_size: int = 200, seed: int = 0
    ) -> Perplexity:
        """Return upper bounds on the perplexity of documents, from their ELBO.

        ``Perplexity.of(evaluation.log_likelihood(program, x).per_example, x)`` returns tighter bounds.

        Args:
            x: documents, ``(n, *shape)``
            context: rows of context, for a model with covariates
            num_particles: number of samples over which the ELBO of each document is averaged
            batch_size: documents at a time
            seed: seed of the samples

        Raises:
            ValueError: the documents do not fit the program, or one has no words.
        """
        num_particles, batch_size = check_int("num_particles", num_particles), check_int("batch_size", batch_size)
        self.check(x, *context)
        bounds = []
        with evaluating(self), fork_rng(x.device, seed):
            for rows in zip(*(column.split(batch_size) for column in (x, *context)), strict=True):
                p, q = self.prior(*rows[1:]), self.encode(*rows)
                z = q.sample((num_particles,))
                log_w = self.likelihood(z, *rows[1:]).log_prob(rows[0]) + p.log_prob(z) - q.log_prob(z)
                bounds.append(log_w.mean(0))
        return Perplexity.of(torch.cat(bounds), x)

    def check_data(self, x: Tensor, *context: Tensor) -> None:
        """Raise if the data do not fit, the latents are not proportions, or a document has no words."""
        super().check_data(x, *context)
        rows = [c[:1] for c in context]
        support = entry_support(self.prior(*rows).support)
        if support is not constraints.simplex:
            raise ValueError(
                f"prior: expected topic proportions as latents, got {describe(support)} from "
                f"{type(self.prior).__name__}. Use LogisticNormal or Dirichlet, or a VAE"
            )
        if not isinstance(self.decode_prior(1, *rows), BagOfWords):
            raise ValueError(
                f"likelihood: expected Multinomial, over bags of words, got {type(self.likelihood).__name__}. Use "
                "Multinomial, or a VAE"
            )
        check_totals(x, "document", "words")
