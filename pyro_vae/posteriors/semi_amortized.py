"""The semi-amortized posterior."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae._util.cache import cached_tensors
from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional, UnitNormal
from pyro_vae.distributions.missing import factorized, hide_missing, readable
from pyro_vae.posteriors.mean_field_normal import MeanFieldNormal
from pyro_vae.scales import check_positive

__all__ = ["SemiAmortized"]


class SemiAmortized(Conditional):
    r"""A posterior whose parameters are refined for each example by gradient steps on its ELBO.

    .. math:: \lambda_0 = \mathrm{net}(x), \quad \lambda_{t+1} = \lambda_t + \eta_t \nabla_\lambda
              \frac 1 S \sum_s \log \frac{p(x \mid z_s)\, p(z_s)}{q(z_s; \lambda_t)}, \qquad
              z_s = F_{\lambda_t}^{-1}(u_s)

    The points u are the same for all examples and steps (scrambled Sobol points and their mirror images), so that the
    posterior is a function of x. Each example has its own learning rate: a step that does not increase its ELBO is
    undone and the rate lowered. The refinement is a constant in the gradient: encoder and decoder learn at the refined
    parameters. With ``through`` the gradient goes through the steps, with second derivatives of prior, likelihood and
    posterior; only which steps are undone, and the rates, are constants. It works wherever the posterior does, in
    training and on new data; to refine a trained VAE, wrap its posterior. Missing entries (NaN) are left out of the
    ELBO.

    Prior and likelihood must be the objects of the program, which trains and saves them. They are referenced here, not
    registered as submodules.

    References:
        Semi-amortized variational autoencoders (Kim et al., 2018), https://arxiv.org/abs/1802.02550

    Args:
        posterior: q(z given x) with its encoder in the attribute ``net``: independent latents with an inverse
            cumulative distribution function (``MeanFieldNormal``, ``Laplace``) or ``FullRankNormal``
        prior: p(z) of the program
        likelihood: p(x given z) of the program
        num_steps: number of gradient steps
        learning_rate: initial learning rate
        num_samples: number S of samples per step, even
        through: whether the gradient goes through the steps; the value is the same, and a training step costs about
            twice as many passes

    Raises:
        TypeError: the posterior has no attribute ``net``, or its family has no inverse distribution function.
        ValueError: ``num_steps`` is below 1, ``learning_rate`` not positive, or ``num_samples`` not even.

    Example:
        >>> SemiAmortized.example()(torch.zeros(5, 2, 2)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        posterior: Conditional,
        *,
        prior: Conditional,
        likelihood: Conditional,
        num_steps: int = 10,
        learning_rate: float = 0.1,
        num_samples: int = 8,
        through: bool = False,
    ) -> None:
        super().__init__(context=getattr(posterior, "context", 0))
        if not isinstance(getattr(posterior, "net", None), nn.Module):
            raise TypeError(f"posterior: expected an encoder in its attribute `net` ({type(posterior).__name__})")
        check_int("num_steps", num_steps)
        check_int("num_samples", num_samples, 2)
        if num_samples % 2:
            raise ValueError(f"num_samples: expected an even number, got {num_samples}")
        check_positive("learning_rate", learning_rate)
        self.posterior: Any = posterior
        self.net = Refinement(posterior, prior, likelihood, num_steps, learning_rate, num_samples, through)

    @property
    def prior(self) -> Conditional:
        """The prior of the program."""
        return self.net._parts[1]

    @property
    def likelihood(self) -> Conditional:
        """The likelihood of the program."""
        return self.net._parts[2]

    @property
    def takes_missing(self) -> bool:
        """Whether NaN may mark missing entries of ``x``: always. Assigning it sets that of the wrapped posterior."""
        return True

    @takes_missing.setter
    def takes_missing(self, value: bool) -> None:
        self.posterior.takes_missing = value

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> SemiAmortized:
        """Build a small instance with its own model."""
        posterior = MeanFieldNormal.example(latent=latent, shape=shape)
        model = {"prior": StandardNormal(latent), "likelihood": UnitNormal((latent,), shape)}
        return cls(posterior, **{**model, "num_steps": 3, **options})

    def forward(self, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return q(z given x)."""
        return given(self.posterior, self.net(x, *context), readable(self.posterior, x), *context)


class Refinement(nn.Module):
    """The network of :class:`SemiAmortized`: the encoder of a posterior, followed by gradient steps on the ELBO.

    It refers to the parts of the program and owns none: a second owner would save and count their weights twice.
    """

    #: Missing entries are left out of the ELBO, and are 0 in the input of an encoder that does not take them.
    takes_missing = True

    def __init__(
        self,
        posterior: Conditional,
        prior: Conditional,
        likelihood: Conditional,
        num_steps: int,
        learning_rate: float,
        num_samples: int,
        through: bool,
    ) -> None:
        super().__init__()
        # in a tuple they are not submodules
        self._parts: Any = (posterior, prior, likelihood)
        self.num_steps, self.learning_rate, self.num_samples = num_steps, learning_rate, num_samples
        self.through = through

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the refined parameters of q(z given x), with the gradient that ``through`` decides."""
        posterior = self._parts[0]
        raw = posterior.net(readable(posterior, x), *context)
        refined, rates = self.refine(raw.detach(), x, *context)
        if not self.through or not torch.is_grad_enabled():
            return raw + (refined - raw.detach())
        # the same steps again with a graph, without those that were undone, whose slopes may be infinite
        for rate in rates:
            raw = raw + rate * self.elbo(raw, x, *context, create_graph=True)[1]
        return raw

    def refine(self, raw: Tensor, x: Tensor, *context: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return refined parameters, and the rate of each step, 0 for one that is undone; without a graph."""
        value, slope = self.elbo(raw, x, *context)
        rate, rates = torch.full_like(value, self.learning_rate), []
        for _ in range(self.num_steps):
            new = raw + rate * slope
            new_value, new_slope = self.elbo(new, x, *context)
            better = new_value > value
            raw, slope = torch.where(better, new, raw), torch.where(better, new_slope, slope)
            value = torch.where(better, new_value, value)
            rates.append(torch.where(better, rate, 0.0))
            rate = torch.where(better, 1.5 * rate, 0.3 * rate)
        return raw, rates

    def elbo(self, raw: Tensor, x: Tensor, *context: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Return the ELBO of each example, without a graph, and its gradient; of equally many dimensions."""
        posterior, prior, likelihood = self._parts
        with torch.enable_grad():
            raw = raw if create_graph and raw.requires_grad else raw.detach().requires_grad_()
            q = given(posterior, raw, readable(posterior, x), *context)
            z = quantiles(q, self.num_samples)
            p = likelihood(z, *context)
            if factorized(p):
                p, x = hide_missing(p, x)
            value = (p.log_prob(x) + prior(*context).log_prob(z) - q.log_prob(z)).mean(0)
            (slope,) = torch.autograd.grad(value.sum(), raw, create_graph=create_graph)
        return value.detach().reshape(*value.shape, *[1] * (raw.dim() - value.dim())), slope


def given(posterior: Conditional, raw: Tensor, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
    """Return the posterior for ``raw`` in place of the outputs of its encoder."""
    with replaced(posterior, raw):
        return posterior(x, *context)


@contextmanager
def replaced(posterior: Conditional, raw: Tensor) -> Iterator[None]:
    """Let the encoder return ``raw``."""
    net = posterior.net
    posterior.net = Constant(raw)
    try:
        yield
    finally:
        posterior.net = net


def quantiles(q: TorchDistributionMixin, num_samples: int) -> Tensor:
    """Return samples of q at fixed points, ``(num_samples, *batch, latent)``, differentiable by its parameters."""
    like = q.mean
    u = uniform(num_samples, q.event_shape.numel(), like.device).to(like.dtype)
    u = u.reshape(num_samples, *[1] * len(q.batch_shape), -1)
    if isinstance(q, torch.distributions.MultivariateNormal):
        return q.loc + (q.scale_tril @ torch.special.ndtri(u).unsqueeze(-1)).squeeze(-1)
    if isinstance(q, dist.Independent) and q.reinterpreted_batch_ndims == 1:
        try:
            return q.base_dist.icdf(u.expand(num_samples, *q.batch_shape, -1))
        except NotImplementedError:
            pass
    raise TypeError(
        "posterior: expected a family with an inverse cumulative distribution function, got "
        f"{type(getattr(q, 'base_dist', q)).__name__}. Use MeanFieldNormal, Laplace or FullRankNormal."
    )


@cached_tensors
def uniform(num_samples: int, latent: int, device: torch.device) -> Tensor:
    """Return points of the unit cube, half of them the mirror images of the other half."""
    with torch.random.fork_rng(devices=[]):
        half = torch.quasirandom.SobolEngine(latent, scramble=True, seed=0).draw(num_samples // 2)
    half = half.clamp(1e-4, 1 - 1e-4)
    return torch.cat([half, 1 - half]).to(device)


class Constant(nn.Module):
    """An encoder that returns a given tensor."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, *args: Tensor) -> Tensor:
        """Return the tensor."""
        return self.value


class StandardNormal(Conditional):
    """A prior for the example: shelves do not import each other."""

    def __init__(self, latent: int) -> None:
        super().__init__(latent=latent)
        self.loc = nn.Buffer(torch.zeros(latent))

    def forward(self, *context: Tensor) -> dist.Independent:
        """Return p(z)."""
        return dist.Normal(self.loc, 1.0).to_event(1)
