"""A VAE for sequences: a Markov chain of latents, inferred backwards in time (deep Markov model)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions.missing import factorized, hide_missing, readable
from pyro_vae.likelihoods import Normal
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import ConditionalNormal, StandardNormal
from pyro_vae.programs.backward_gru import BackwardGRU
from pyro_vae.programs.checks import check_entries, first
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.program import SMALL, Program, evaluating, mean_or_sample

__all__ = ["SequenceVAE"]

Step = Callable[[int, Any], TorchDistributionMixin]
Sampler = Callable[[str, TorchDistributionMixin], Tensor]


class SequenceVAE(Program):
    r"""A Markov chain of latents, one for each step of a sequence (deep Markov model).

    .. math:: p(x_{1:L}) = \int p(z_1) \prod_{t=2}^L p(z_t \mid z_{t-1}) \prod_{t=1}^L p(x_t \mid z_t)\, dz_{1:L},
              \qquad q(z_{1:L} \mid x) = \prod_{t=1}^L q(z_t \mid h_t(x), z_{t-1})

    The latents are the sites ``"z_1"``, ``"z_2"``, ..., and all steps of x are one site. Steps after the end of a
    sequence do not contribute to the bound or its gradient, whatever their value, including NaN.

    References:
        Deep Kalman filters (Krishnan et al., 2015), https://arxiv.org/abs/1511.05121; Structured inference networks
        for nonlinear state space models (Krishnan et al., 2017), https://arxiv.org/abs/1609.09869

    Args:
        prior: p(z_1)
        transition: p(z_t given z_(t-1)), such as ``priors.ConditionalNormal(latent, context=latent)``
        likelihood: p(x_t given z_t)
        posterior: q(z_t given h_t, z_(t-1)), such as ``posteriors.MeanFieldNormal((features,), latent,
            context=latent)``; z_0 is a learned vector
        summary: a module from x and lengths to h of ``(n, T, features)``, such as :class:`BackwardGRU`
        missing: whether entries of x may be missing (NaN). They do not contribute to the bound or its gradient, and
            are 0 in the input of a ``summary`` without the attribute ``takes_missing``

    Shape:
        data as a tuple ``(x, lengths)``: x of ``(n, T, *shape)``, lengths of ``(n,)`` with integers from 1 to T; or x
        alone, where all sequences have T steps.

    Example:
        >>> import torch, pyro_vae as pv
        >>> program = pv.programs.SequenceVAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     transition=pv.priors.ConditionalNormal(2, context=2),
        ...     likelihood=pv.likelihoods.Normal(2, (4,)),
        ...     posterior=pv.posteriors.MeanFieldNormal((16,), 2, context=2),
        ...     summary=pv.programs.BackwardGRU((4,), 16),
        ... )
        >>> x, lengths = torch.randn(8, 5, 4), torch.tensor([5, 5, 4, 3, 3, 2, 1, 1])
        >>> history = pv.fit(program, (x, lengths), epochs=1, progress=False)
        >>> program.forecast(x, lengths, num_steps=3).shape
        torch.Size([8, 3, 4])
    """

    def __init__(
        self,
        *,
        prior: Conditional,
        transition: Conditional,
        likelihood: Conditional,
        posterior: Conditional,
        summary: nn.Module,
        missing: bool = False,
    ) -> None:
        super().__init__()
        self.prior, self.transition, self.likelihood = prior, transition, likelihood
        self.posterior, self.summary, self.missing = posterior, summary, missing
        # in a list because `announce` takes modules
        self.start = nn.ParameterList([torch.zeros(prior().event_shape)])

    @classmethod
    def example(cls, **options: Any) -> SequenceVAE:
        """Build a small instance, with further ``options`` of the constructor."""
        return cls(
            prior=StandardNormal(2),
            transition=ConditionalNormal(2, context=2, net=SMALL),
            likelihood=Normal(2, (4,), net=SMALL),
            posterior=MeanFieldNormal((6,), 2, context=2, net=SMALL),
            summary=BackwardGRU((4,), 6),
            **options,
        )

    def model(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Sample the chain of latents and observe ``x``."""
        announce(prior=self.prior, transition=self.transition, likelihood=self.likelihood)
        mask = step_mask(x, lengths)
        with DataPlate(x):
            fn = self.likelihood(self._sample_chain(mask))
            if not self.missing:
                return observe("x", joint(fn, mask), pad(x, mask))
            fn, x = hide_missing(fn, torch.where(entry_mask(mask, x.dim()), x, math.nan))
            return observe("x", fn.to_event(1), x)

    def guide(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Sample the chain of latents from the posterior of ``x``."""
        announce(posterior=self.posterior, summary=self.summary, start=self.start)
        with DataPlate(x):
            return self._infer_chain(x, lengths)

    def _sample_chain(self, mask: Tensor, start: Tensor | None = None) -> Tensor:
        return self._chain(lambda t, z: self.prior() if z is None else self.transition(z), mask, start)

    def _infer_chain(self, x: Tensor, lengths: Tensor | None, sample: Sampler = pyro.sample) -> Tensor:
        mask = step_mask(x, lengths)
        padded = pad(x, mask)
        h = self.summary(readable(self.summary, padded) if self.missing else padded, mask.sum(-1))
        if not isinstance(h, Tensor) or h.dim() < 3 or h.shape[:2] != mask.shape:
            found = tuple(h.shape) if isinstance(h, Tensor) else type(h).__name__
            raise ValueError(
                f"summary: expected one tensor of shape ({len(x)}, {x.shape[1]}, features), one row per sequence and "
                f"step, got {found} from {type(self.summary).__name__}. "
                "For a torch.nn.GRU, use batch_first=True and return the first of its results"
            )
        return self._chain(lambda t, z: self.posterior(h[:, t], z), mask, self.start[0], sample)

    @staticmethod
    def _chain(step: Step, mask: Any, z: Any, sample: Sampler = pyro.sample) -> Tensor:
        # the latents of each step given those before it (`z` before the first), of shape (*batch, n, T, latent)
        chain: list[Tensor] = []
        for t, inside in enumerate(mask.unbind(-1)):
            with poutine.mask(mask=inside):
                new = sample(f"z_{t + 1}", step(t, z))
            # padding repeats the last latents: a chain that continued could overflow, and a masked NaN has a gradient
            z = torch.where(inside.unsqueeze(-1), new, z) if chain else new
            chain.append(z)
        return torch.stack(chain, -2)

    def latents(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the mean of each z_t given x and the mean of z_(t-1), ``(n, T, latent)``, repeated after the end."""
        with evaluating(self):
            return self._infer_chain(x, lengths, lambda name, fn: mean_or_sample(fn))

    def sample(self, num_samples: int, *, length: int, mean: bool = False, seed: int = 0) -> Tensor:
        """Sample new sequences as :meth:`Program.sample`, of shape ``(num_samples, length, *shape)``."""
        return self._sample(num_samples, mean=mean, seed=seed, length=check_int("length", length))

    def decode_prior(self, num_samples: int, *, length: int = 1) -> TorchDistributionMixin:
        """Sample a chain of latents from the prior and return p(x_t given z_t), of batch shape ``(n, length)``."""
        mask = torch.ones(num_samples, length, dtype=torch.bool, device=self.device)
        with DataPlate(mask):
            return self.likelihood(self._sample_chain(mask))

    def decode_posterior(self, x: Tensor, lengths: Tensor | None = None) -> TorchDistributionMixin:
        """Sample the latents given ``x`` and return p(x_t given z_t); the last step is repeated after the end."""
        with DataPlate(x):
            return self.likelihood(self._infer_chain(x, lengths))

    def forecast(
        self, x: Tensor, lengths: Tensor | None = None, *, num_steps: int, mean: bool = False, seed: int = 0
    ) -> Tensor:
        """Sample a continuation of each sequence.

        Args:
            x: sequences, of shape ``(n, T, *shape)``
            lengths: lengths of the sequences, of shape ``(n,)``
            num_steps: number of further steps
            mean: return the means of p(x_t given z_t) instead of samples
            seed: seed of all random numbers

        Returns:
            The steps after the end of each sequence, of shape ``(n, num_steps, *shape)``.
        """
        num_steps = check_int("num_steps", num_steps)
        with evaluating(self), fork_rng(self.device, seed), DataPlate(x):
            last = self._infer_chain(x, lengths)[..., -1, :]
            ahead = torch.ones(len(x), num_steps, dtype=torch.bool, device=x.device)
            fn = self.likelihood(self._sample_chain(ahead, last))
            return mean_or_sample(fn) if mean else fn.sample()

    def check_data(self, x: Tensor, *context: Tensor) -> None:
        """Raise if shape, type, values or lengths of the sequences do not fit."""
        if len(context) > 1:
            raise ValueError(f"data: expected x, or (x, lengths), got {1 + len(context)} columns")
        fn = self.decode_prior(1)
        if x.dim() < 2 or not x.shape[1] or x.shape[2:] != fn.event_shape:
            shape = ", ".join(["n", "T", *map(str, fn.event_shape)])
            raise ValueError(f"x: expected shape ({shape}) with shorter sequences padded, got {tuple(x.shape)}")
        for lengths in context:
            if lengths.shape != (len(x),):
                raise ValueError(f"lengths: expected shape ({len(x)},), one per sequence, got {tuple(lengths.shape)}")
            bad = ~((lengths >= 1) & (lengths <= x.shape[1]) & (lengths == lengths.long()))
            if bad.any():
                raise ValueError(
                    f"lengths: expected integers from 1 to {x.shape[1]}, the number of steps in x, but "
                    f"lengths[{first(bad)}] is {lengths[bad][0].item():g}. Remove empty sequences"
                )
        steps = fn.expand((1, x.shape[1])).to_event(1)
        check_entries(pad(x, step_mask(x, *context)), steps, self.likelihood, self.dtype, missing=self.missing)


def step_mask(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return which steps belong to each sequence, of shape ``(n, T)``."""
    steps = torch.arange(x.shape[1], device=x.device)
    return (steps < x.shape[1]).expand(x.shape[0], -1) if lengths is None else steps < lengths.unsqueeze(-1)


def entry_mask(mask: Tensor, dim: int) -> Tensor:
    """Return a mask over steps with trailing dimensions of size 1, ``dim`` dimensions in total."""
    return mask.reshape(*mask.shape, *[1] * (dim - mask.dim()))


def pad(x: Tensor, mask: Tensor) -> Tensor:
    """Fill the padding with the first step, which is finite and inside the support of any likelihood."""
    return torch.where(entry_mask(mask, x.dim()), x, x[:, :1])


def joint(fn: TorchDistributionMixin, mask: Tensor) -> TorchDistributionMixin:
    """Return p(x given z) of whole sequences from p(x_t given z_t), without the padding."""
    if not factorized(fn):
        return fn.mask(mask).to_event(1)
    # mask entry by entry, so that a scale that is fitted to the batch ignores the padding as well
    k = fn.reinterpreted_batch_ndims
    return fn.base_dist.mask(entry_mask(mask, 2 + k).expand(fn.base_dist.batch_shape)).to_event(1 + k)
