"""A VAE with a latent per group in addition to one per example."""

from __future__ import annotations

import copy
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions.missing import hide_missing
from pyro_vae.likelihoods import Normal
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import StandardNormal
from pyro_vae.programs.checks import check_context, check_entries, first
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.program import SMALL, mean_or_sample
from pyro_vae.programs.vae import VAE

__all__ = ["Multilevel"]


class Multilevel(VAE):
    r"""A VAE with group-level effects: latents u per group, in addition to latents z per example.

    .. math:: \prod_{g=1}^{G} p(u_g) \prod_{n=1}^{N} p(z_n \mid u_{g(n)})\, p(x_n \mid z_n, u_{g(n)}), \qquad
              q = \prod_g q(u_g \mid e_g) \prod_n q(z_n \mid x_n, u_{g(n)})

    The posterior of a group reads a learned embedding :math:`e_g`, not the rows of the minibatch: with an encoder of
    just the rows that the likelihood then scores, the scaled loss would not bound the evidence of all rows.

    The site ``"u"`` holds the latents of all groups, outside the plate of the data. A minibatch of B rows, from any
    groups, is scaled by N / B, so that the KL divergence of each group counts once per data set. The losses of the
    minibatches of an epoch, each weighted by B / N, have the mean of the full loss exactly. Their gradients are
    unbiased if the minibatches have equal sizes; minibatches of whole groups of unequal sizes weight large and small
    groups slightly differently. With several particles, ``ELBO`` and others that average over particles sample u once
    per particle. All others, such as ``IWAE``, sample u once per step and weight the draws of z of each example given
    u: a bound on the joint evidence of all rows.

    References:
        Data analysis using regression and multilevel/hierarchical models (Gelman and Hill, 2006);
        Multi-level variational autoencoder (Bouchacourt et al., 2018), https://arxiv.org/abs/1705.08841, whose
        encoder of a group sees the rows in the minibatch

    Args:
        prior: p(z), or p(z given u)
        likelihood: p(x given z, u), built with ``context=`` the number of latents of a group
        posterior: q(z given x, u), or q(z given x)
        group_prior: p(u)
        group_posterior: q(u given e), a posterior with embeddings as its data, such as
            ``posteriors.MeanFieldNormal((embedding,), latent)``. Without hidden layers, and with an embedding at least
            twice as long as u, each group has a mean and a scale of its own
        num_groups: G, the number of groups
        num_examples: N, the number of training examples in all groups
        embedding: length of the embedding of a group
        missing: whether entries of x may be missing (NaN), as in ``VAE``

    Shape:
        data as a tuple ``(x, group)``, or ``(x, group, covariates)``: group numbers 0, ..., G - 1 of any type, of
        shape ``(n,)`` or ``(n, 1)``. With covariates of width W, the context of a part is that wide in addition to u.

    Raises:
        TypeError: a part is not an instance of a Conditional.
        ValueError: a number is not a positive int.

    Example:
        >>> import torch, pyro_vae as pv
        >>> program = pv.programs.Multilevel(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Normal(2, (4,), context=1),
        ...     posterior=pv.posteriors.MeanFieldNormal((4,), 2, context=1),
        ...     group_prior=pv.priors.StandardNormal(1),
        ...     group_posterior=pv.posteriors.MeanFieldNormal((8,), 1),
        ...     num_groups=3,
        ...     num_examples=60,
        ...     embedding=8,
        ... )
        >>> x, group = torch.randn(60, 4), torch.arange(60) % 3
        >>> history = pv.fit(program, (x, group), epochs=1, batch_size=20, progress=False)
        >>> program.sample(2, torch.tensor([0, 2])).shape  # of two of the groups
        torch.Size([2, 4])
        >>> program.sample(3, torch.tensor([0, 0, 1]), new_groups=True).shape  # of two new groups
        torch.Size([3, 4])
    """

    def __init__(
        self,
        *,
        prior: Conditional,
        likelihood: Conditional,
        posterior: Conditional,
        group_prior: Conditional,
        group_posterior: Conditional,
        num_groups: int,
        num_examples: int,
        embedding: int = 16,
        missing: bool = False,
    ) -> None:
        super().__init__(prior=prior, likelihood=likelihood, posterior=posterior, missing=missing)
        for name, part in (("group_prior", group_prior), ("group_posterior", group_posterior)):
            if not isinstance(part, Conditional):
                raise TypeError(f"{name}: expected a Conditional built with its arguments, got {part!r}")
        self.group_prior, self.group_posterior = group_prior, group_posterior
        self.num_examples = check_int("num_examples", num_examples)
        self.num_groups = check_int("num_groups", num_groups)
        self.embeddings = nn.Embedding(self.num_groups, check_int("embedding", embedding))
        nn.init.normal_(self.embeddings.weight, std=0.1)

    @classmethod
    def example(cls, **options: Any) -> Multilevel:
        """Build a small instance, with further ``options`` of the constructor."""
        parts = {
            "prior": StandardNormal(2),
            "likelihood": Normal(2, (4,), context=1, net=SMALL),
            "posterior": MeanFieldNormal((4,), 2, context=1, net=SMALL),
            "group_prior": StandardNormal(1),
            "group_posterior": MeanFieldNormal((2,), 1, net=SMALL),
        }
        return cls(**{**parts, "num_groups": 3, "num_examples": 1, "embedding": 2, **options})

    @property
    def context(self) -> int:
        """Number of context values per example: the group and covariates."""
        parts = (self.prior, self.likelihood, self.posterior)
        return 1 + max(0, max(part.context for part in parts) - self.group_prior().event_shape[0])

    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        """Sample u for each group, then z for each example, and observe ``x``."""
        announce(group_prior=self.group_prior, prior=self.prior, likelihood=self.likelihood)
        u = pyro.sample("u", self.group_prior().expand((self.num_groups,)).to_event(1))
        with DataPlate(x, self.num_examples):
            context = rows_of(u, *context)
            z = pyro.sample("z", self.prior(*context))
            fn = self.likelihood(z, *context)
            if self.missing:
                fn, x = hide_missing(fn, x)
            return observe("x", fn, x)

    def guide(self, x: Tensor, *context: Tensor) -> Tensor:
        """Sample u for each group, then z from the posterior of ``x`` and u."""
        announce(group_posterior=self.group_posterior, embeddings=self.embeddings, posterior=self.posterior)
        u = pyro.sample("u", self.infer_groups().to_event(1))
        with DataPlate(x, self.num_examples):
            return pyro.sample("z", super().encode(x, *rows_of(u, *context)))

    def infer_groups(self) -> TorchDistributionMixin:
        """Return q(u) for all groups, of batch shape ``(num_groups,)``."""
        return self.group_posterior(self.embeddings.weight)

    def encode(self, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return q(z given x, u) at the posterior mean of u."""
        return super().encode(x, *rows_of(mean_or_sample(self.infer_groups()), *context))

    def decode(self, z: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return p(x given z, u) at the posterior mean of u."""
        return self.likelihood(z, *rows_of(mean_or_sample(self.infer_groups()), *context))

    def sample(
        self, num_samples: int, *context: Tensor, new_groups: bool = False, mean: bool = False, seed: int = 0
    ) -> Tensor:
        """Sample new examples. All samples of a group share one draw of its u.

        Args:
            num_samples: number of samples
            context: the group number of each sample, and covariates
            new_groups: the numbers are those of new groups, with u from the prior; any numbers
            mean: return the mean of p(x given z, u) instead of a sample
            seed: seed of all random numbers

        Returns:
            Data of shape ``(num_samples, *shape)``.

        Raises:
            ValueError: an argument is invalid.
        """
        num_samples, num_groups = check_int("num_samples", num_samples), self.num_groups
        if new_groups and context:
            numbers, group = torch.unique(context[0], return_inverse=True)
            num_groups, context = len(numbers), (group, *context[1:])
        self.check_groups(num_groups, num_samples, *context)
        group = context[0].reshape(-1, 1).to(self.dtype)
        return self._sample(num_samples, group, *context[1:], mean=mean, seed=seed, new=new_groups)

    def decode_prior(self, num_samples: int, *context: Tensor, new: bool = False) -> TorchDistributionMixin:
        """Sample u of the groups (from the prior if they are ``new``) and z, and return p(x given z, u)."""
        fn = self.group_prior().expand((num_samples,)) if new else self.infer_groups()
        context = rows_of(fn.sample(), *context)
        return self.likelihood(self.prior(*context).expand((num_samples,)).sample(), *context)

    def decode_posterior(self, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Sample u and z from their posteriors and return p(x given z, u)."""
        context = rows_of(self.infer_groups().sample(), *context)
        return self.likelihood(super().encode(x, *context).sample(), *context)

    def for_new_groups(self, num_groups: int, num_examples: int) -> Multilevel:
        """Return a copy for other groups, whose embeddings ``fit`` learns from their rows; all else is frozen.

        Args:
            num_groups: number of new groups
            num_examples: number of their examples

        Example:
            >>> import pyro_vae as pv
            >>> new = Multilevel.example().for_new_groups(2, 10)
            >>> x, group = torch.randn(10, 4), torch.arange(10) % 2
            >>> history = pv.fit(new, (x, group), epochs=1, batch_size=5, progress=False)
            >>> new.infer_groups().mean.shape
            torch.Size([2, 1])
        """
        new = copy.deepcopy(self).requires_grad_(False)
        new.num_examples = check_int("num_examples", num_examples)
        new.num_groups, mean = check_int("num_groups", num_groups), self.embeddings.weight.detach().mean(0)
        new.embeddings = nn.Embedding.from_pretrained(mean.repeat(new.num_groups, 1), freeze=False)
        return new

    def check_data(self, x: Tensor, *context: Tensor) -> None:
        """Raise if shape, type or values of the data, the groups or the covariates do not fit."""
        self.check_groups(self.num_groups, len(x) if x.dim() else 0, *context)
        fn = self.decode_prior(1, *(c[:1] for c in context))
        check_entries(x, fn, self.likelihood, self.dtype, missing=self.missing)

    def check_groups(self, num_groups: int, n: int, *context: Tensor) -> None:
        """Raise unless the context is one of ``num_groups`` groups for each of ``n`` examples, and covariates."""
        if not context:
            raise ValueError("group: expected the group of each example, got none. Pass the data as (x, group)")
        group = context[0]
        if tuple(group.shape) not in ((n,), (n, 1)):
            raise ValueError(f"group: expected shape ({n},), one number per example, got {tuple(group.shape)}")
        bad = ~((group >= 0) & (group < num_groups) & (group == group.floor())).reshape(-1)
        if bad.any():
            row = int(first(bad))
            raise ValueError(
                f"group: expected integers from 0 to {num_groups - 1}, got group[{row}] = "
                f"{group.reshape(-1)[row].item():g}. Number the groups from 0, and use for_new_groups for others"
            )
        check_context(context[1:], self.context - 1, n, self.dtype)


def rows_of(u: Tensor, group: Tensor, *covariates: Tensor) -> tuple[Tensor, ...]:
    """Return the context of the parts: u of the group of each row, and the covariates.

    ``u`` is ``(groups, latent)``, or ``(*particles, 1, groups, latent)`` under a plate over particles.
    """
    rows = u.index_select(-2, group.reshape(-1).long())
    return (rows if u.dim() == 2 else rows.squeeze(-3), *covariates)
