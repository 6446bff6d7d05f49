"""The contract of ``pyro.infer.ELBO``: losses for stock SVI, and for PyTorch optimizers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO
from pyro.infer.elbo import ELBOModule
from torch import Tensor, nn

from pyro_vae.programs.primitives import announce
from pyro_vae.trace import Terms

__all__ = ["PyroContract"]


class PyroContract(PyroELBO):
    """What ``pyro.infer`` calls, given the terms of a run and their loss.

    Attributes:
        step: number of training steps so far
        module: what the estimator itself learns, None in most estimators
    """

    step: int
    module: nn.Module | None

    @abstractmethod
    def terms(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Terms:
        """Run guide and model and return the log-densities of their sites."""

    @abstractmethod
    def evaluate(self, terms: Terms) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and metrics of one run."""

    @abstractmethod
    def update(self, terms: Terms) -> None:
        """Update what the estimator keeps between training steps."""

    def training_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Tensor], Terms]:
        """Return loss, metrics and terms of a training step, and update what the estimator keeps between steps."""
        terms = self.terms(model, guide, *args, **kwargs)
        loss, metrics = self.evaluate(terms)
        self.update(terms)
        return loss, metrics, terms

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the loss of a training step as a tensor of shape ``()``, without synchronizing the device."""
        if self.module is not None:
            announce(estimator=self.module)
        return self.training_loss(model, guide, *args, **kwargs)[0]

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """Return the loss as a number; nothing is changed."""
        with torch.no_grad():
            return self.evaluate(self.terms(model, guide, *args, **kwargs))[0].item()

    def loss_and_grads(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """Return the loss of a training step as a number and add its gradient to the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        self.step += 1
        return loss.item()

    def __call__(self, model: Callable[..., Any], guide: Callable[..., Any]) -> nn.Module:
        """Return a module from the arguments of model and guide to the loss, for PyTorch optimizers.

        A call in training mode with gradients is a training step; :attr:`step` counts it.
        """
        return LossModule(model, guide, self)

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        # the abstract method of pyro.infer.ELBO, which `terms` replaces
        raise NotImplementedError(f"{type(self).__name__} collects its terms by `terms`")


class LossModule(ELBOModule):
    """The loss of a model and a guide as a module."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss, and count a training step."""
        loss = super().forward(*args, **kwargs)
        if self.training and torch.is_grad_enabled():
            self.elbo.step += 1
        return loss
