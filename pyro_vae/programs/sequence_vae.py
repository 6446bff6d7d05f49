"""Sequences: a chain of latents, one a step, inferred from the data backwards in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.programs.checks import check_supports, check_tensor, check_values
from pyro_vae.programs.program import DataPlate, Program, announce, evaluating, mean_or_draw, observe
from pyro_vae.programs.steps import chain, check_lengths, inside, pad, steps_inside

__all__ = ["BackwardGRU", "SequenceVAE"]


class BackwardGRU(nn.Module):
    r"""A recurrent network that reads a sequence from its end: :math:`h_t` is made from :math:`x_t, \ldots, x_L`.

    Given :math:`z_{t-1}`, the posterior of :math:`z_t` depends on the data from t on alone, so that nothing is lost
    by not reading forwards. Each row starts at its own last step: what stands beyond it does not count.

    Args:
        shape: shape of one step of x
        features: numbers that stand for the rest of a sequence

    Shape:
        x of ``(n, T, *shape)`` and lengths of ``(n,)`` to ``(n, T, features)``.

    Example:
        >>> import torch
        >>> BackwardGRU((4,), 16)(torch.zeros(5, 9, 4), torch.full((5,), 9)).shape
        torch.Size([5, 9, 16])
    """

    def __init__(self, shape: Sequence[int], features: int) -> None:
        super().__init__()
        self.gru = nn.GRU(math.prod(shape), features, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return h for each step."""
        steps = torch.arange(x.shape[1], device=x.device)
        # turns the steps of a sequence round among themselves, and those of its padding: it is its own inverse
        order = ((lengths.long().unsqueeze(-1) - 1 - steps) % x.shape[1]).unsqueeze(-1)
        turned = torch.take_along_dim(x.reshape(*x.shape[:2], -1), order, 1)
        return torch.take_along_dim(self.gru(turned)[0], order, 1)


class SequenceVAE(Program):
    r"""A chain of latents, one for each step of a sequence (deep Markov model).

    .. math:: p(x_{1:L}) = \int p(z_1) \prod_{t=2}^L p(z_t \mid z_{t-1}) \prod_{t=1}^L p(x_t \mid z_t)\, dz_{1:L},
              \qquad q(z_{1:L} \mid x) = \prod_{t=1}^L q(z_t \mid h_t(x), z_{t-1})

    The latents are sites ``"z_1"``, ``"z_2"``, ..., all steps of x one site. A sequence may end before the last column
    of x: the steps beyond leave the bound and its gradient exactly, whatever stands there, NaN also.

    References:
        Deep Kalman filters (Krishnan et al., 2015), https://arxiv.org/abs/1511.05121; Structured inference networks
        for nonlinear state space models (Krishnan et al., 2017), https://arxiv.org/abs/1609.09869

    Args:
        prior: p(z_1)
        transition: p(z_t given z_(t-1)), such as ``priors.ConditionalNormal(latent, context=latent)``
        likelihood: p(x_t given z_t)
        posterior: q(z_t given h_t, z_(t-1)), such as ``posteriors.MeanFieldNormal((features,), latent,
            context=latent)``; a learned vector takes the place of z_0
        summary: a module that makes h of ``(n, T, features)`` from x and lengths, such as :class:`BackwardGRU`

    Shape:
        data as a tuple ``(x, lengths)``: x of ``(n, T, *shape)``, lengths of ``(n,)`` with whole numbers from 1 to T;
        or x alone, where all sequences are T steps long.

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
        >>> program.forecast(x, lengths, steps=3).shape
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
    ) -> None:
        super().__init__()
        self.prior, self.transition, self.likelihood = prior, transition, likelihood
        self.posterior, self.summary = posterior, summary
        # a module, which `announce` takes
        self.start = nn.ParameterList([torch.zeros(prior().event_shape)])

    def model(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Draw the chain of latents and observe ``x``."""
        announce(prior=self.prior, transition=self.transition, likelihood=self.likelihood)
        within = inside(x, lengths)
        with DataPlate(x):
            fn = self.likelihood(self._chain(within))
            return observe("x", steps_inside(fn, within), pad(x, within))

    def guide(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Draw the chain of latents from the posterior of ``x``."""
        announce(posterior=self.posterior, summary=self.summary, start=self.start)
        with DataPlate(x):
            return self._infer(x, lengths)

    def _chain(self, within: Tensor, start: Tensor | None = None) -> Tensor:
        # from the prior, or onwards from latents `start`
        def step(t: int, before: Tensor | None) -> TorchDistributionMixin:
            before = start if before is None else before
            return self.prior() if before is None else self.transition(before)

        return chain(step, within)

    def _infer(
        self, x: Tensor, lengths: Tensor | None, draw: Callable[[str, TorchDistributionMixin], Tensor] = pyro.sample
    ) -> Tensor:
        within = inside(x, lengths)
        h = self.summary(pad(x, within), within.sum(-1))

        def step(t: int, before: Tensor | None) -> TorchDistributionMixin:
            return self.posterior(h[:, t], self.start[0] if before is None else before)

        return chain(step, within, draw)

    def latents(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the mean of each z_t given x and the mean before it, of shape ``(n, T, latent)``.

        Beyond its end a row repeats its last step.
        """
        with evaluating(self):
            return self._infer(x, lengths, lambda name, fn: mean_or_draw(fn))

    def reconstruct(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Draw the latents given ``x`` and return the means of p(x_t given z_t), of the shape of ``x``.

        Beyond its end a row repeats its last step.
        """
        with evaluating(self), DataPlate(x):
            return mean_or_draw(self.likelihood(self._infer(x, lengths)))

    def sample(self, n: int, length: int, *, mean: bool = False) -> Tensor:
        """Draw ``n`` new sequences, or the means of p(x_t given z_t), of shape ``(n, length, *shape)``."""
        within = torch.ones(n, length, dtype=torch.bool, device=self.start[0].device)
        with evaluating(self), DataPlate(within):
            fn = self.likelihood(self._chain(within))
            return mean_or_draw(fn) if mean else fn.sample()

    def forecast(self, x: Tensor, lengths: Tensor | None = None, *, steps: int, mean: bool = False) -> Tensor:
        """Draw how each sequence goes on.

        Args:
            x: sequences, of shape ``(n, T, *shape)``
            lengths: of the sequences, of shape ``(n,)``
            steps: how many steps to go on
            mean: return the means of p(x_t given z_t) in place of draws

        Returns:
            The steps after the end of each sequence, of shape ``(n, steps, *shape)``: one future a call.
        """
        with evaluating(self), DataPlate(x):
            last = self._infer(x, lengths)[..., -1, :]
            ahead = torch.ones(len(x), steps, dtype=torch.bool, device=x.device)
            fn = self.likelihood(self._chain(ahead, last))
            return mean_or_draw(fn) if mean else fn.sample()

    def check(self, x: Tensor, *context: Tensor) -> None:
        """Refuse sequences and lengths that do not fit the parts, and parts that do not fit each other."""
        dtype = self.dtype
        if len(context) > 1:
            raise ValueError(f"data: expected x, or (x, lengths), got {1 + len(context)} columns")
        start = self.start[0].detach().unsqueeze(0)
        with evaluating(self):
            p, prior, transition = self.likelihood(start), self.prior(), self.transition(start)
        shape = tuple(p.event_shape)
        if not isinstance(x, Tensor):
            raise TypeError(f"x: expected a tensor, got {type(x).__name__}")
        if x.dim() < 2 or not x.shape[1] or tuple(x.shape[2:]) != shape:
            raise ValueError(
                f"x: expected shape (n, T{''.join(f', {size}' for size in shape)}), one sequence a row with shorter "
                f"ones padded, got {tuple(x.shape)}"
            )
        for lengths in context:
            check_lengths(lengths, x)
        within = inside(x, *context)
        seen = pad(x, within)
        check_tensor("x", seen, x.shape[1:], dtype)
        check_values("x", seen, p.support, self.likelihood)
        with evaluating(self):
            q = self.posterior(self.summary(seen[:1], within[:1].sum(-1))[:, 0], start)
        for name, fn in (("transition", transition), ("posterior", q)):
            if fn.event_shape != prior.event_shape:
                raise ValueError(
                    f"{name} {type(getattr(self, name)).__name__} makes latents of shape {tuple(fn.event_shape)}, "
                    f"prior {type(self.prior).__name__} has {tuple(prior.event_shape)}: build both with the same "
                    "`latent`"
                )
        for part, fn in ((self.prior, prior), (self.transition, transition)):
            check_supports(q, fn, type(self.posterior).__name__, type(part).__name__)
