"""A VAE for sequences: a Markov chain of latents, inferred backwards in time (deep Markov model)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.data.sequences import check_lengths, check_observed
from pyro_vae.distributions.missing import readable
from pyro_vae.likelihoods import Normal
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import ConditionalNormal, StandardNormal
from pyro_vae.programs import steps
from pyro_vae.programs.backward_gru import BackwardGRU
from pyro_vae.programs.checks import check_entries
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.program import SMALL, Program, evaluating, keep_buffers, mean_or_sample

__all__ = ["SequenceVAE"]

Inputs = Sequence[Tensor]


class SequenceVAE(Program):
    r"""A Markov chain of latents, one for each step of a sequence (deep Markov model).

    .. math:: p(x_{1:L} \mid u) = \int p(z_1 \mid u_1) \prod_{t=2}^L p(z_t \mid z_{t-1}, u_t)
              \prod_{t=1}^L p(x_t \mid z_t, u_t)\, dz_{1:L}, \qquad
              q(z_{1:L} \mid x, u) = \prod_{t=1}^L q(z_t \mid h_t(x, u), z_{t-1})

    The latents are the sites ``"z_1"``, ``"z_2"``, ..., and all steps of x are one site. Steps after the end of a
    sequence do not contribute to the bound or its gradient, whatever their value, including NaN. Inputs u are known
    numbers of each step, such as a control, the hour of the day or a holiday.

    The exact posterior has this form, with latents of a step that depend on each other: ``FullRankNormal`` closes the
    gap that ``MeanFieldNormal`` leaves in every step. Linear networks need a learning rate of about 1e-2.

    References:
        Deep Kalman filters (Krishnan et al., 2015), https://arxiv.org/abs/1511.05121; Structured inference networks
        for nonlinear state space models (Krishnan et al., 2017), https://arxiv.org/abs/1609.09869

    Args:
        prior: p(z_1), with ``context=inputs`` if it depends on the inputs
        transition: p(z_t given z_(t-1), u_t), such as ``priors.ConditionalNormal(latent, context=latent + inputs)``
        likelihood: p(x_t given z_t), with ``context=inputs`` if it depends on the inputs
        posterior: q(z_t given h_t, z_(t-1)), such as ``posteriors.MeanFieldNormal((features,), latent,
            context=latent)``; z_0 is a learned vector
        summary: a module from x, lengths and, if there are some, inputs to h of ``(n, T, features)``, such as
            :class:`BackwardGRU` with ``context=inputs``
        inputs: number of inputs of each step
        missing: whether entries of x may be missing (NaN). They do not contribute to the bound or its gradient, and
            are 0 in the input of a ``summary`` without the attribute ``takes_missing``

    Shape:
        data as a tuple ``(x, lengths)``: x of ``(n, T, *shape)``, lengths of ``(n,)`` with integers from 1 to T; or x
        alone, where all sequences have T steps. With inputs ``(x, lengths, inputs)``, the inputs of
        ``(n, T or more, inputs)``: those after the end of a sequence are for forecasts.

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
        inputs: int = 0,
        missing: bool = False,
    ) -> None:
        super().__init__()
        self.prior, self.transition, self.likelihood = prior, transition, likelihood
        self.posterior, self.summary, self.missing = posterior, summary, missing
        self.inputs = check_int("inputs", inputs, 0)
        like = next(prior.parameters(), torch.zeros(()))
        latents = prior(*([like.new_zeros(1, inputs)] if inputs else [])).event_shape
        steps.check_transition(transition, latents.numel(), inputs)
        # in a list because `announce` takes modules
        self.start = nn.ParameterList([torch.zeros(latents)])

    @classmethod
    def example(cls, *, inputs: int = 0, **options: Any) -> SequenceVAE:
        """Build a small instance, with further ``options`` of the constructor."""
        return cls(
            prior=StandardNormal(2),
            transition=ConditionalNormal(2, context=2 + inputs, net=SMALL),
            likelihood=Normal(2, (4,), net=SMALL, context=inputs),
            posterior=MeanFieldNormal((6,), 2, context=2, net=SMALL),
            summary=BackwardGRU((4,), 6, context=inputs),
            inputs=inputs,
            **options,
        )

    def model(self, x: Tensor, lengths: Tensor | None = None, inputs: Tensor | None = None) -> Tensor:
        """Sample the chain of latents and observe ``x``."""
        announce(prior=self.prior, transition=self.transition, likelihood=self.likelihood)
        mask = steps.step_mask(x, lengths)
        with DataPlate(x):
            fn = self._decode(mask, steps.past(inputs, mask))
            return observe("x", *steps.whole(fn, x, mask, missing=self.missing))

    def guide(self, x: Tensor, lengths: Tensor | None = None, inputs: Tensor | None = None) -> Tensor:
        """Sample the chain of latents from the posterior of ``x``."""
        announce(posterior=self.posterior, summary=self.summary, start=self.start)
        with DataPlate(x):
            return self._infer_chain(x, lengths, inputs)

    def _decode(self, mask: Tensor, inputs: Inputs, start: Tensor | None = None) -> TorchDistributionMixin:
        # p(x_t given z_t) for latents of the prior, or of the transition from those at the step before
        return self.likelihood(steps.sample_chain(partial(self._step, inputs), mask, start), *inputs)

    def _step(self, inputs: Inputs, t: int, z: Tensor | None) -> TorchDistributionMixin:
        now = [u[:, t] for u in inputs]
        return self.prior(*now) if z is None else self.transition(z, *now)

    def _infer_chain(
        self, x: Tensor, lengths: Tensor | None, inputs: Tensor | None, sample: steps.Sampler = pyro.sample
    ) -> Tensor:
        mask = steps.step_mask(x, lengths)
        padded, past = steps.pad(x, mask), steps.past(inputs, mask)
        h = self.summary(readable(self.summary, padded) if self.missing else padded, mask.sum(-1), *past)
        steps.check_summary(self.summary, h, mask)

        def log_joint(t: int, before: Tensor | None, z: Tensor) -> Tensor:
            now = slice(t, t + 1)
            with keep_buffers(self):
                fn = self.likelihood(z.unsqueeze(-2), *[u[:, now] for u in past])
                fn, seen = steps.whole(fn, padded[:, now], mask[:, now], missing=self.missing)
                return self._step(past, t, before).log_prob(z) + fn.log_prob(seen)

        return steps.sample_chain(lambda t, z: self.posterior(h[:, t], z), mask, self.start[0], sample, log_joint)

    def latents(self, x: Tensor, lengths: Tensor | None = None, inputs: Tensor | None = None) -> Tensor:
        """Return the mean of each z_t given x and the mean of z_(t-1), ``(n, T, latent)``, repeated after the end."""
        with evaluating(self):
            return self._infer_chain(x, lengths, inputs, lambda name, fn: mean_or_sample(fn))

    def sample(
        self, num_samples: int, *, length: int, inputs: Tensor | None = None, mean: bool = False, seed: int = 0
    ) -> Tensor:
        """Sample new sequences ``(num_samples, length, *shape)``, given inputs of at least ``length`` steps."""
        num_samples, length = check_int("num_samples", num_samples), check_int("length", length)
        steps.check_inputs(inputs, self.inputs, torch.ones(num_samples, length, dtype=torch.bool), self.dtype)
        return self._sample(num_samples, mean=mean, seed=seed, length=length, inputs=inputs)

    def decode_prior(
        self, num_samples: int, *, length: int = 1, inputs: Tensor | None = None
    ) -> TorchDistributionMixin:
        """Sample a chain of latents from the prior and return p(x_t given z_t), of batch shape ``(n, length)``."""
        mask = torch.ones(num_samples, length, dtype=torch.bool, device=self.device)
        with DataPlate(mask):
            return self._decode(mask, steps.past(inputs, mask))

    def decode_posterior(
        self, x: Tensor, lengths: Tensor | None = None, inputs: Tensor | None = None
    ) -> TorchDistributionMixin:
        """Sample the latents given ``x`` and return p(x_t given z_t); the last step is repeated after the end."""
        with DataPlate(x):
            z = self._infer_chain(x, lengths, inputs)
            return self.likelihood(z, *steps.past(inputs, steps.step_mask(x, lengths)))

    def decode_ahead(
        self, x: Tensor, lengths: Tensor | None = None, inputs: Tensor | None = None, *, num_steps: int
    ) -> TorchDistributionMixin:
        """Sample the latents after the end of each sequence and return p(x_t given z_t) of these ``num_steps``."""
        ahead = torch.ones(len(x), num_steps, dtype=torch.bool, device=x.device)
        with DataPlate(x):
            last = self._infer_chain(x, lengths, inputs)[..., -1, :]
            return self._decode(ahead, steps.future(inputs, steps.step_mask(x, lengths).sum(-1), num_steps), last)

    def forecast(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        inputs: Tensor | None = None,
        *,
        num_steps: int,
        mean: bool = False,
        seed: int = 0,
    ) -> Tensor:
        """Sample one continuation of each sequence; :func:`pyro_vae.tasks.forecast` returns intervals.

        Args:
            x, lengths, inputs: sequences, with inputs also of the steps after the end of each sequence
            num_steps: number of further steps
            mean: return the means of p(x_t given z_t) instead of samples
            seed: seed of all random numbers

        Returns:
            The steps after the end of each sequence, of shape ``(n, num_steps, *shape)``.

        Raises:
            ValueError: ``num_steps`` is not a positive integer, or the data do not fit the program.
        """
        with evaluating(self), fork_rng(self.device, seed):
            self.check_data(x, lengths, inputs)
        self.check_ahead(x, lengths, inputs, num_steps=check_int("num_steps", num_steps))
        with evaluating(self), fork_rng(self.device, seed):
            fn = self.decode_ahead(x, lengths, inputs, num_steps=num_steps)
            return mean_or_sample(fn) if mean else fn.sample()

    def missing_entries(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return which entries are missing; after the end of a sequence nothing is."""
        return torch.isnan(x) & steps.entry_mask(steps.step_mask(x, *context[:1]), x.dim())

    def check_data(self, x: Tensor, *context: Tensor | None) -> None:
        """Raise if shape, type, values, lengths or inputs of the sequences do not fit."""
        if sum(column is not None for column in context) > 1 + bool(self.inputs):
            what = "(x, lengths, inputs)" if self.inputs else "x, or (x, lengths), without inputs=WIDTH"
            raise ValueError(f"data: expected {what}, got {1 + len(context)} columns")
        lengths, inputs = [*context, None, None][:2]
        fn = self.decode_prior(1, inputs=self.start[0].new_zeros(1, 1, self.inputs) if self.inputs else None)
        steps.check_shape(x, fn.event_shape)
        check_lengths(lengths, x)
        mask = steps.step_mask(x, lengths)
        steps.check_inputs(inputs, self.inputs, mask, self.dtype)
        whole, padded = fn.expand((1, x.shape[1])).to_event(1), steps.pad(x, mask)
        check_entries(padded, whole, self.likelihood, self.dtype, missing=self.missing)
        check_observed(padded)

    def check_ahead(self, x: Tensor, *context: Tensor | None, num_steps: int) -> None:
        """Raise unless there are inputs of the ``num_steps`` after the end of each sequence."""
        lengths, inputs = [*context, None, None][:2]
        steps.check_future(inputs, self.inputs, steps.step_mask(x, lengths).sum(-1), num_steps, self.dtype)
