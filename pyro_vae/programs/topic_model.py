"""Topic models: a VAE for bags of words, with topic proportions as latents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.distributions import BagOfWords
from pyro_vae.likelihoods import Multinomial
from pyro_vae.nets import BagEncoder, ProductOfTopics
from pyro_vae.posteriors import LogisticNormal as LogisticNormalPosterior
from pyro_vae.priors import LogisticNormal
from pyro_vae.programs.checks import describe, entry_support
from pyro_vae.programs.count_program import check_totals
from pyro_vae.programs.program import SMALL, evaluating
from pyro_vae.programs.vae import VAE

__all__ = ["TopicModel"]


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

    @classmethod
    def default_parts(cls) -> dict[str, Callable[..., Any]]:
        """Return the parts of ProdLDA."""
        likelihood, posterior = (
            partial(Multinomial, net=ProductOfTopics),
            partial(LogisticNormalPosterior, net=BagEncoder),
        )
        return {"prior": LogisticNormal, "likelihood": likelihood, "posterior": posterior}

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
