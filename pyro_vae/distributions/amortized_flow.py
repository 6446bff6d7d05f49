"""A normal pushed through invertible steps of each datum, whose own draws are scored on the way."""

from __future__ import annotations

import copy
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import constraints
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["AmortizedFlow", "Step", "tanh_root"]


class Step(ABC):
    """An invertible map of R^D to itself, one for each datum.

    A subclass keeps its parameters as attributes, tensors of shape ``(*batch, ...)`` or modules, and maps z of shape
    ``(*sample, *batch, D)``.
    """

    @abstractmethod
    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and the log of the absolute determinant of the Jacobian, ``(*sample, *batch)`` or ()."""

    @abstractmethod
    def inverse(self, z: Tensor) -> Tensor:
        """Return what is mapped to ``z``; no gradient is asked of it."""

    def detached(self) -> Step:
        """Return the same map, its parameters constants."""
        new = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(new, name, value.detach())
            elif isinstance(value, nn.Module):
                setattr(new, name, frozen(value))
        return new


class Draw(NamedTuple):
    """What a flow remembers of a draw."""

    owner: weakref.ref
    start: Tensor
    log_det: Tensor
    graph: bool


class AmortizedFlow(dist.TorchDistribution):
    r"""The distribution of a normal vector after invertible steps, all parameters given for each datum.

    .. math:: z = f_L \circ \dots \circ f_1(z_0), \quad z_0 \sim \mathcal N(\mu, \operatorname{diag} \sigma^2), \qquad
              \log q(z) = \log \mathcal N(z_0; \mu, \sigma^2) - \sum_l \log \lvert \det J_{f_l} \rvert

    A draw carries its start :math:`z_0` and the log-determinant taken on the way: :meth:`log_prob` of the very tensor
    that ``rsample`` of this object returned costs nothing more, however many draws are about; what is remembered
    goes with the draw. Any other value is inverted step by step without a graph, and gets its gradient, by z as by
    all parameters, from the implicit function theorem: one Jacobian of size D x D for each value.

    For estimators that need :math:`\log q` at a draw with the parameters held fixed (sticking the landing, doubly
    reparameterized gradients), ``q.detached().log_prob(z)`` gives it, without an inversion.

    Args:
        loc: mean of the start, shape ``(*batch, D)``
        scale: standard deviation of the start, shape ``(*batch, D)``
        steps: the maps, the first one first

    References:
        Variational inference with normalizing flows (Rezende and Mohamed, 2015), https://arxiv.org/abs/1505.05770

    Shape:
        batch shape ``batch`` and event shape ``(D,)``.

    Raises:
        ValueError: there are no steps.

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
            raise ValueError("steps: expected at least one; without any the distribution is a Normal")
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.steps = tuple(steps)
        self._draws = WeakIdKeyDictionary()
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: AmortizedFlow | None = None) -> AmortizedFlow:
        """Return the distribution with another batch shape; the steps broadcast."""
        new = self._get_checked_instance(AmortizedFlow, _instance)
        shape = (*batch_shape, *self.event_shape)
        new.loc, new.scale, new.steps = self.loc.expand(shape), self.scale.expand(shape), self.steps
        new._draws = WeakIdKeyDictionary()
        super(AmortizedFlow, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def detached(self) -> AmortizedFlow:
        """Return the same distribution with constant parameters, which knows the draws of this one."""
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
        """Draw, and remember start and log-determinant as long as the draw lives."""
        noise = torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        start = self.loc + self.scale * noise
        z, log_det = self.push(start)
        self._draws[z] = Draw(weakref.ref(self), start, log_det, torch.is_grad_enabled())
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        draw = self._draws.get(value)
        # a draw made without a graph has none for the gradient by the parameters either
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
        r"""Give the start of ``value`` its gradient: :math:`z_0 + J^{-1} (z - f(z_0))`, whose value is :math:`z_0`."""
        with torch.enable_grad():
            leaf = start.detach().requires_grad_()
            image, _ = self.push(leaf)
            eye = torch.eye(leaf.shape[-1], dtype=leaf.dtype, device=leaf.device)
            eye = eye.reshape(-1, *[1] * (leaf.dim() - 1), leaf.shape[-1]).expand(-1, *leaf.shape)
            (rows,) = torch.autograd.grad(image, leaf, eye, is_grads_batched=True)
        residual = value - self.push(start.detach())[0]
        return start.detach() + torch.linalg.solve_ex(rows.movedim(0, -2), residual.unsqueeze(-1))[0].squeeze(-1)


def frozen(module: nn.Module) -> Callable[..., Tensor]:
    """Return a module as a function, its parameters constants."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    return lambda *args: torch.func.functional_call(module, parameters, args)


def tanh_root(r: Tensor, s: Tensor, c: Tensor, t: Tensor) -> Tensor:
    r"""Solve :math:`x + r \tanh(s x + c) = t` for x, where :math:`r s > -1` makes the left side increase.

    Bisection within :math:`t \pm |r|`, then Newton's method held inside what is left.
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
