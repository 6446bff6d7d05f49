"""A small classifier with a last hidden layer in which samples are compared with data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyro_vae._util.random_state import fork_rng

__all__ = ["STEPS", "Classifier", "train_classifier"]

#: Number of features, training steps and examples per step.
WIDTH, STEPS, BATCH = 64, 800, 128


class Classifier(nn.Module):
    """A classifier with two convolutions for images and one hidden layer for vectors.

    Args:
        shape: shape of one example; ``(h, w)`` and ``(channels, h, w)`` are images
        classes: number of classes
    """

    def __init__(self, shape: torch.Size, classes: int) -> None:
        super().__init__()
        if len(shape) in (2, 3) and min(shape[-2:]) >= 8:
            channels = 1 if len(shape) == 2 else shape[0]
            body = [
                nn.Unflatten(1, (channels, *shape[-2:])),
                nn.Conv2d(channels, 16, 3, 2, 1),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, 2, 1),
                nn.ReLU(),
                nn.Flatten(),
            ]
            size = 32 * (-(-shape[-2] // 4)) * (-(-shape[-1] // 4))
        else:
            body, size = [nn.Linear(shape.numel(), 128), nn.ReLU()], 128
        self.body = nn.Sequential(nn.Flatten(), *body, nn.Linear(size, WIDTH), nn.ReLU())
        self.head = nn.Linear(WIDTH, classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the last hidden layer, of shape ``(n, 64)``."""
        with torch.no_grad():
            return torch.cat([self.body(part) for part in x.split(1000)])

    def accuracy(self, x: Tensor, y: Tensor) -> float:
        """Return the share of correctly classified examples."""
        with torch.no_grad():
            return float((self.head(self.features(x)).argmax(1) == y).double().mean())


def train_classifier(x: Tensor, y: Tensor, *, seed: int, tick: Callable[[], object]) -> Classifier:
    """Train a classifier on x of shape ``(n, *shape)`` and class numbers y of shape ``(n,)``."""
    with fork_rng(x.device, seed), torch.enable_grad():
        net = Classifier(x.shape[1:], int(y.max()) + 1).to(x)
        adam = torch.optim.Adam(net.parameters(), lr=1e-3)
        for _ in range(STEPS):
            rows = torch.randint(len(x), (BATCH,), device=x.device)
            adam.zero_grad()
            nn.functional.cross_entropy(net.head(net.body(x[rows])), y[rows]).backward()
            adam.step()
            tick()
    return net.requires_grad_(False)
