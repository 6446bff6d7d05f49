"""The semi-amortized posterior."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae._util.cache import cached_tensors
from pyro_vae.conditional import Conditional
from pyro_vae.nets import MLP, build
from pyro_vae.scales import check_scale, positive

__all__ = ["SemiAmortized"]


class SemiAmortized(Conditional):
    r"""A posterior whose parameters are improved for each datum by a few steps on its own bound.

    .. math:: \lambda_0 = \mathrm{net}(x), \quad \lambda_{t+1} = \lambda_t + \eta_t \nabla_\lambda
              \frac 1 S \sum_s \log \frac{p(x \mid z_s)\, p(z_s)}{q(z_s; \lambda_t)}, \qquad
              z_s = F_{\lambda_t}^{-1}(u_s)

    The points u are the same for all data and steps (scrambled Sobol points and their mirror images), so that
    the posterior is a function of x. Each datum has a rate of its own: a step that does not improve its bound is
    taken back and the rate lowered. The improvement counts as a constant in the gradient: encoder and decoder
    learn at the improved parameters. It works wherever the posterior does, in training and on new data; to refine
    a trained VAE, wrap its posterior.

    Prior and likelihood are referred to and not owned: they are trained and saved by the program that they are in,
    and must be the very objects of that program.

    References:
        Semi-amortized variational autoencoders (Kim et al., 2018), https://arxiv.org/abs/1802.02550

    Args:
        posterior: q(z given x) with its encoder in the attribute ``net``: independent latents with an inverse
            distribution function (``MeanFieldNormal``, ``Laplace``) or ``FullRankNormal``
        prior: p(z) of the program
        likelihood: p(x given z) of the program
        steps: number of steps
        rate: of the first step
        points: number S of points, even

    Shape:
        as the posterior.

    Raises:
        TypeError: the posterior has no attribute ``net``, or its family has no inverse distribution function.
        ValueError: there are no steps, the rate is not positive, or the number of points is not even.

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
        steps: int = 10,
        rate: float = 0.1,
        points: int = 8,
    ) -> None:
        super().__init__()
        if not isinstance(getattr(posterior, "net", None), nn.Module):
            raise TypeError(f"posterior: {type(posterior).__name__} has no encoder in an attribute `net`")
        if steps < 1:
            raise ValueError(f"steps: expected at least 1, got {steps}")
        if points < 2 or points % 2:
            raise ValueError(f"points: expected an even number of at least 2, got {points}")
        check_scale("rate", rate)
        self.context = getattr(posterior, "context", 0)
        self.posterior, self.steps, self.rate, self.points = posterior, steps, rate, points
        # in a tuple they are no submodules: a second owner would save and count their weights twice
        self._model = (prior, likelihood)

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2)) -> SemiAmortized:
        """Return a small instance with a model of its own."""
        return cls(_Encoder(shape, latent), prior=_Prior(latent), likelihood=_Decoder(latent, shape), steps=3)

    def forward(self, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return q(z given x)."""
        raw = self.posterior.net(x, *context)
        improved = self.refine(raw.detach(), x, *context)
        return self.given(raw + (improved - raw.detach()), x, *context)

    def given(self, raw: Tensor, x: Tensor, *context: Tensor) -> TorchDistributionMixin:
        """Return the posterior at parameters in place of those that its encoder makes."""
        with replaced(self.posterior, raw):
            return self.posterior(x, *context)

    def refine(self, raw: Tensor, x: Tensor, *context: Tensor) -> Tensor:
        """Return improved parameters, without a graph."""
        width = len(self.posterior.net.out_shape)
        value, slope = self.ascent(raw, x, *context)
        rate = torch.full_like(value, self.rate)
        for _ in range(self.steps):
            new = raw + unsqueezed(rate, width) * slope
            new_value, new_slope = self.ascent(new, x, *context)
            better = new_value > value
            wide = unsqueezed(better, width)
            raw, slope = torch.where(wide, new, raw), torch.where(wide, new_slope, slope)
            value = torch.where(better, new_value, value)
            rate = torch.where(better, 1.5 * rate, 0.3 * rate)
        return raw

    def ascent(self, raw: Tensor, x: Tensor, *context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bound of each datum and its gradient by the parameters."""
        prior, likelihood = self._model
        with torch.enable_grad():
            raw = raw.detach().requires_grad_()
            q = self.given(raw, x, *context)
            z = quantiles(q, self.points)
            bound = likelihood(z, *context).log_prob(x) + prior(*context).log_prob(z) - q.log_prob(z)
            value = bound.mean(0)
            (slope,) = torch.autograd.grad(value.sum(), raw)
        return value.detach(), slope


@contextmanager
def replaced(posterior: Conditional, raw: Tensor) -> Iterator[None]:
    """Let the encoder return ``raw``."""
    net = posterior.net
    posterior.net = _Constant(raw)
    try:
        yield
    finally:
        posterior.net = net


def quantiles(q: TorchDistributionMixin, points: int) -> Tensor:
    """Return draws at fixed points, ``(points, *batch, latent)``, differentiable by the parameters of q."""
    like = q.mean
    u = uniform(points, q.event_shape.numel(), like.device).to(like.dtype)
    u = u.reshape(points, *[1] * len(q.batch_shape), -1)
    if isinstance(q, torch.distributions.MultivariateNormal):
        return q.loc + (q.scale_tril @ torch.special.ndtri(u).unsqueeze(-1)).squeeze(-1)
    if isinstance(q, dist.Independent) and q.reinterpreted_batch_ndims == 1:
        try:
            return q.base_dist.icdf(u.expand(points, *q.batch_shape, -1))
        except NotImplementedError:
            pass
    raise TypeError(
        f"a posterior of the family {type(getattr(q, 'base_dist', q)).__name__} has no inverse distribution function "
        "to refine it at fixed points: use MeanFieldNormal, Laplace or FullRankNormal"
    )


@cached_tensors
def uniform(points: int, latent: int, device: torch.device) -> Tensor:
    """Return points of the unit cube, half of them the mirror images of the others."""
    with torch.random.fork_rng(devices=[]):
        half = torch.quasirandom.SobolEngine(latent, scramble=True, seed=0).draw(points // 2).clamp(1e-4, 1 - 1e-4)
    return torch.cat([half, 1 - half]).to(device)


def unsqueezed(x: Tensor, dims: int) -> Tensor:
    """Append dimensions of size 1."""
    return x.reshape(*x.shape, *[1] * dims)


class _Constant(nn.Module):
    """What stands in for an encoder."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, *args: Tensor) -> Tensor:
        return self.value


class _Prior(Conditional):
    """A prior for the example: this shelf knows nothing of the other ones."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(latent))

    def forward(self, *context: Tensor) -> dist.Independent:
        return dist.Normal(self.loc, 1.0).to_event(1)


class _Decoder(Conditional):
    """A likelihood for the example."""

    def __init__(self, latent: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.net = build(functools.partial(MLP, hidden=()), (latent,), shape)

    def forward(self, z: Tensor, *context: Tensor) -> dist.Independent:
        loc = self.net(z)
        return dist.Normal(loc, torch.ones_like(loc)).to_event(len(self.net.out_shape))


class _Encoder(Conditional):
    """A posterior for the example."""

    def __init__(self, shape: Sequence[int], latent: int) -> None:
        super().__init__()
        self.net = build(functools.partial(MLP, hidden=(16,)), shape, (2, latent))

    def forward(self, x: Tensor, *context: Tensor) -> dist.Independent:
        loc, raw = self.net(x).unbind(-2)
        return dist.Normal(loc, positive(raw)).to_event(1)
