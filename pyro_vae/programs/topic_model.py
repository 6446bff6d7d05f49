"""Topic models: documents as bags of words, whose latents are shares of topics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae._util.random_state import fork_rng
from pyro_vae.distributions import BagOfWords
from pyro_vae.programs.checks import base, describe
from pyro_vae.programs.count_vae import check_totals
from pyro_vae.programs.program import evaluating
from pyro_vae.programs.vae import VAE

__all__ = ["Perplexity", "TopicModel"]


@dataclass(frozen=True)
class Perplexity:
    r"""Perplexities of documents of :math:`N_d` words, in the two conventions of the literature.

    Both are of the words in their order, so that the multinomial coefficient, which counts the orders, is no part of
    them; a uniform distribution over V words has a perplexity of V. From a lower bound on the log-likelihood they are
    upper bounds.

    Attributes:
        per_token: :math:`\exp(-\sum_d \log p(x_d) / \sum_d N_d)`, where long documents weigh more
        per_document: :math:`\exp(-\frac1D \sum_d \log p(x_d) / N_d)`, as NVDM and ProdLDA report it

    References:
        Neural variational inference for text processing (Miao et al., 2016), https://arxiv.org/abs/1511.06038
    """

    per_token: float
    per_document: float

    @classmethod
    def of(cls, log_likelihood: Tensor, x: Tensor) -> Perplexity:
        """Return the perplexities of documents ``x``, given the log-likelihood of their counts (or bounds on it).

        Args:
            log_likelihood: of each document in nats, as ``evaluation.log_likelihood(program, x).per_example`` or
                ``ELBO().per_datum(program.model, program.guide, x)`` return it, of shape ``(n,)``
            x: the counts of words, ``(n, *shape)``
        """
        x = x.double().flatten(1)
        size = x.sum(-1)
        orders = torch.lgamma(size + 1) - torch.lgamma(x + 1).sum(-1)
        nats = orders - log_likelihood.to(orders)
        return cls(float((nats.sum() / size.sum()).exp()), float((nats / size).mean().exp()))


class TopicModel(VAE):
    r"""Documents as bags of words, each a mixture of topics in shares of its own (ProdLDA, neural LDA).

    .. math:: p(x) = \int p(z)\, \mathrm{Multinomial}(x \mid \pi(z))\, dz, \qquad z_k \ge 0, \quad \sum_k z_k = 1

    It is a VAE whose latents are the shares z of topics. The decoder's network says how topics mix:
    ``topic_nets.ProductOfTopics`` (ProdLDA) adds their logits, ``topic_nets.MixtureOfTopics`` (LDA) their
    probabilities.

    Training easily gets stuck where all topics are alike. What helps: batch normalization in encoder and decoder and
    Adam with ``betas=(0.99, 0.999)``, as in the paper (the networks of ``topic_nets`` have the normalization); for the
    mixture also a weight of the divergence that rises, ``ELBO(beta=lambda step: min(1.0, step / 700))``, say.

    References:
        Autoencoding variational inference for topic models (Srivastava and Sutton, 2017),
        https://arxiv.org/abs/1703.01488; Latent Dirichlet allocation (Blei et al., 2003),
        https://www.jmlr.org/papers/v3/blei03a.html

    Args:
        prior: p(z) over shares, such as ``priors.LogisticNormal`` or ``priors.Dirichlet``
        likelihood: p(x given z) over bags of words, ``likelihoods.Multinomial``
        posterior: q(z given x) over shares, ``posteriors.LogisticNormal`` or ``posteriors.Dirichlet``

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

    def topics(self, *context: Tensor) -> Tensor:
        """Return the probabilities of words in a document of one topic alone, of shape ``(topics, *shape)``.

        Args:
            context: one row of context, ``(1, width)``, for a model with covariates
        """
        with evaluating(self):
            z = self.prior(*context).sample()
            mean = self.likelihood(torch.eye(z.shape[-1]).to(z), *context).mean
            return mean / mean.flatten(1).sum(-1).reshape(-1, *[1] * (mean.dim() - 1))

    def top_words(self, vocabulary: Sequence[str], n: int = 10, *context: Tensor) -> list[list[str]]:
        """Return the ``n`` most probable words of each topic, the most probable first.

        Raises:
            ValueError: the vocabulary does not have one word for each entry of a bag, or fewer than ``n``.
        """
        probs = self.topics(*context).flatten(1)
        if len(vocabulary) != probs.shape[1]:
            raise ValueError(f"vocabulary: expected {probs.shape[1]} words, one for each count, got {len(vocabulary)}")
        if not 1 <= n <= len(vocabulary):
            raise ValueError(f"n: expected 1 to {len(vocabulary)} words, got {n}")
        return [[str(vocabulary[i]) for i in row] for row in probs.topk(n).indices.tolist()]

    def proportions(self, x: Tensor, *context: Tensor, num_particles: int = 100, seed: int = 0) -> Tensor:
        """Return the mean shares of topics under q(z given x), of shape ``(n, topics)``.

        Args:
            x: documents
            context: rows of context for a model with covariates
            num_particles: draws that are averaged where the mean has no closed form
            seed: of the draws
        """
        with evaluating(self), fork_rng(x.device, seed):
            q = self.encode(x, *context)
            try:
                return q.mean
            except NotImplementedError:
                return q.sample((num_particles,)).mean(0)

    def perplexity(
        self, x: Tensor, *context: Tensor, num_particles: int = 10, batch_size: int = 200, seed: int = 0
    ) -> Perplexity:
        """Return upper bounds on the perplexity of documents, from the ELBO of each.

        Tighter ones come from ``Perplexity.of(evaluation.log_likelihood(program, x).per_example, x)``.

        Args:
            x: documents, ``(n, *shape)``
            context: rows of context for a model with covariates
            num_particles: draws that the bound of each document is averaged over
            batch_size: documents at a time
            seed: of the draws

        Raises:
            ValueError: the documents do not fit the program, one without words among them.
        """
        self.check(x, *context)
        bounds = []
        with evaluating(self), fork_rng(x.device, seed):
            for rows in zip(*(column.split(batch_size) for column in (x, *context)), strict=True):
                p, q = self.prior(*rows[1:]), self.encode(*rows)
                z = q.sample((num_particles,))
                log_w = self.likelihood(z, *rows[1:]).log_prob(rows[0]) + p.log_prob(z) - q.log_prob(z)
                bounds.append(log_w.mean(0))
        return Perplexity.of(torch.cat(bounds), x)

    def check(self, x: Tensor, *context: Tensor) -> None:
        """Refuse what a VAE refuses, latents that are no shares, likelihoods of no bags, documents without words."""
        super().check(x, *context)
        with evaluating(self):
            row = [c[:1] for c in context]
            prior = self.prior(*row)
            fn = self.likelihood(prior.expand((1,)).sample(), *row)
        if base(prior.support) is not constraints.simplex:
            raise ValueError(
                f"prior: a topic model has shares of topics as latents, but {type(self.prior).__name__} has "
                f"{describe(base(prior.support))}: use LogisticNormal or Dirichlet, or a VAE"
            )
        if not isinstance(fn, BagOfWords):
            raise ValueError(
                f"likelihood: expected one of bags of words, Multinomial, got {type(self.likelihood).__name__}: "
                "perplexities would mean nothing; use it in a VAE"
            )
        check_totals(x, "document", "words")
