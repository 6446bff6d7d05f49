"""Normalizing flows with parameters of their own for each example."""

from __future__ import annotations

import copy
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import constraints
from torch.utils.weak import WeakIdKeyDictionary

from pyro_vae._util.substitute import functional_call
from pyro_vae.distributions.base import Distribution

__all__ = ["AmortizedFlow", "Step", "tanh_root"]


class Step(ABC):
    """An invertible map of R^D to itself, one per example.

    A subclass stores its parameters as attributes (tensors of shape ``(*batch, ...)``, or modules) and maps z of
    shape ``(*sample, *batch, D)``.
    """

    @abstractmethod
    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and the log of the absolute determinant of the Jacobian, ``(*sample, *batch)`` or ()."""

    @abstractmethod
    def inverse(self, z: Tensor) -> Tensor:
        """Return the point that is mapped to ``z``; it needs no gradient."""

    def detached(self) -> Step:
        """Return the same map with constant parameters."""
        new = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(new, name, value.detach())
            elif isinstance(value, nn.Module):
                setattr(new, name, frozen(value))
        return new


class Draw(NamedTuple):
    """The start and log-determinant that a flow remembers for a sample."""

    owner: weakref.ref
    start: Tensor
    log_det: Tensor
    graph: bool


class AmortizedFlow(Distribution):
    r"""A normal vector pushed through invertible steps, with all parameters given per example.

    .. math:: z = f_L \circ \dots \circ f_1(z_0), \quad z_0 \sim \mathcal N(\mu, \operatorname{diag} \sigma^2), \qquad
              \log q(z) = \log \mathcal N(z_0; \mu, \sigma^2) - \sum_l \log \lvert \det J_{f_l} \rvert

    A sample remembers its start :math:`z_0` and its log-determinant as long as it lives, so that :meth:`log_prob` of
    the tensor that ``rsample`` of this object returned costs nothing more. Any other value is inverted step by step
    without a graph; the implicit function theorem gives its gradient with respect to z and all parameters, with one
    D x D Jacobian per value.

    ``q.detached().log_prob(z)`` returns :math:`\log q` at a sample with constant parameters and without an inversion,
    for estimators that need it (sticking the landing, doubly reparameterized gradients).

    Args:
        loc: mean of the start, shape ``(*batch, D)``
        scale: standard deviation of the start, shape ``(*batch, D)``
        steps: the maps, in the order in which they are applied

    References:
        Variational inference with normalizing flows (Rezende and Mohamed, 2015), https://arxiv.org/abs/1505.05770

    Shape:
        batch shape ``batch`` and event shape ``(D,)``.

    Raises:
        ValueError: ``steps`` is empty.

    Example:
        >>> import pyro_vae as pv
        >>> q = pv.posteriors.PlanarFlow((2, 2), 3)(torch.zeros(5, 2, 2))
        >>> type(q).__name__, q.batch_shape, q.event_shape
        ('AmortizedFlow', torch.Size([5]), torch.Size([3]))
    """

    arg_constraints = {"loc": constraints.real_vector, "scale": constraints.independent(constraints.positive, 1)}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, loc: Tensor, scale: Tensor, steps: Sequence[Step], *, validate_args: bool | None = None
    ) -> None:
        if not steps:
            raise ValueError("steps: expected at least one map, got none. Use a Normal instead")
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.steps = tuple(steps)
        self._draws = WeakIdKeyDictionary()
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> AmortizedFlow:
        """Return the distribution expanded to ``batch_shape``; the steps broadcast."""
        new = super().expand(batch_shape)
        new._draws = WeakIdKeyDictionary()
        return new

    def detached(self) -> AmortizedFlow:
        """Return the same distribution with constant parameters; it remembers the samples of this one."""
        new = self.expand(self.batch_shape)
        new.loc, new.scale = new.loc.detach(), new.scale.detach()
        new.steps = tuple(step.detached() for step in self.steps)
        new._draws = self._draws
        return new

    def push(self, start: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image of ``start`` and the log-determinant."""
        z, total = start, start.new_zeros(start.shape[:-1])
        for step in self.steps:
            z, log_det = step(z)
            total = total + log_det
        return z, total

    def pull(self, z: Tensor) -> Tensor:
        """Return the start of ``z``, without a gradient."""
        with torch.no_grad():
            for step in reversed(self.steps):
                z = step.inverse(z)
        return z

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Sample with a gradient, and remember the start and log-determinant of the sample."""
        noise = torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        start = self.loc + self.scale * noise
        z, log_det = self.push(start)
        self._draws[z] = Draw(weakref.ref(self), start, log_det, torch.is_grad_enabled())
        return z

    def _log_prob(self, value: Tensor) -> Tensor:
        draw = self._draws.get(value)
        # a sample made without a graph has no gradient with respect to the parameters either
        if draw is not None and draw.owner() is self and (draw.graph or not torch.is_grad_enabled()):
            start, log_det = draw.start, draw.log_det
        else:
            value = value.expand(*torch.broadcast_shapes(value.shape[:-1], self.batch_shape), *self.event_shape)
            start = self.pull(value) if draw is None else draw.start.detach()
            if torch.is_grad_enabled():
                start = self.implicit(start, value)
            log_det = self.push(start)[1]
        return dist.Normal(self.loc, self.scale, validate_args=False).log_prob(start).sum(-1) - log_det

    def implicit(self, start: Tensor, value: Tensor) -> Tensor:
        r"""Return :math:`z_0 + J^{-1} (z - f(z_0))`: the start of ``value``, with its gradient."""
        with torch.enable_grad():
            leaf = start.detach().requires_grad_()
            image, _ = self.push(leaf)
            eye = torch.eye(leaf.shape[-1], dtype=leaf.dtype, device=leaf.device)
            eye = eye.reshape(-1, *[1] * (leaf.dim() - 1), leaf.shape[-1]).expand(-1, *leaf.shape)
            (rows,) = torch.autograd.grad(image, leaf, eye, is_grads_batched=True)
        residual = value - self.push(start.detach())[0]
        return start.detach() + torch.linalg.solve_ex(rows.movedim(0, -2), residual.unsqueeze(-1))[0].squeeze(-1)


def frozen(module: nn.Module) -> Callable[..., Tensor]:
    """Return a module as a function with constant parameters."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    return lambda *args: functional_call(module, parameters, args)


def tanh_root(r: Tensor, s: Tensor, c: Tensor, t: Tensor) -> Tensor:
    r"""Solve :math:`x + r \tanh(s x + c) = t` for x, where :math:`r s > -1` makes the left side increasing.

    Bisection within :math:`t \pm |r|`, followed by Newton's method inside the last bracket.
    """
    r, s, c, t = torch.broadcast_tensors(r, s, c, t)
    low, high = t - r.abs(), t + r.abs()
    for _ in range(32):
        x = (low + high) / 2
        above = x + r * torch.tanh(s * x + c) > t
        low, high = torch.where(above, low, x), torch.where(above, x, high)
    x = (low + high) / 2
    for _ in range(3):
        h = torch.tanh(s * x + c)
        x = torch.clamp(x - (x + r * h - t) / (1 + r * s * (1 - h * h)), low, high)
    return x
