"""Features in which samples are compared with data: hidden layers of classifiers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pyro_vae._util.random_state import fork_rng

__all__ = ["STEPS", "Classifier", "Inception", "train_classifier"]

#: Number of features, training steps and examples per step.
WIDTH, STEPS, BATCH = 64, 800, 128

#: Mean and standard deviation of the colours of ImageNet, and the size of the network's images.
MEAN, STD, SIZE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 299


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


class Inception:
    r"""The last hidden layer of Inception v3, as ``features`` of :func:`samples`.

    Images are resized to 299 x 299, grey images get three equal channels, and colours are standardized for ImageNet.
    The default weights are those of torchvision, which it downloads. Published FID values use the weights of the
    TensorFlow port: pass these as ``network`` to reproduce them.

    References:
        Rethinking the Inception architecture for computer vision (Szegedy et al., 2016),
        https://arxiv.org/abs/1512.00567;
        GANs trained by a two time-scale update rule converge to a local Nash equilibrium (Heusel et al., 2017),
        https://arxiv.org/abs/1706.08500

    Args:
        network: from images ``(n, 3, 299, 299)`` to features ``(n, d)``; torchvision's Inception v3 with ImageNet
            weights (2,048 features; extra ``inception``) if None
        batch_size: images per call of the network

    Raises:
        ImportError: ``network`` is None and torchvision is not installed.

    Example:
        >>> colours = Inception(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        >>> colours(torch.rand(2, 28, 28)).shape
        torch.Size([2, 3])
    """

    def __init__(self, network: nn.Module | None = None, *, batch_size: int = 50) -> None:
        self.network = (pretrained() if network is None else network).eval().requires_grad_(False)
        self.batch_size = batch_size

    def __call__(self, x: Tensor) -> Tensor:
        """Return features of images.

        Args:
            x: ``(n, height, width)``, or ``(n, channels, height, width)`` with one or three channels, in [0, 1]

        Returns:
            Features of shape ``(n, d)``.

        Raises:
            ValueError: x has another shape.
        """
        images = x.unsqueeze(1) if x.dim() == 3 else x
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"x: expected images (n, height, width) or (n, 1 or 3, height, width), got shape {tuple(x.shape)}"
            )
        self.network.to(x.device)
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        found = []
        with torch.no_grad():
            for part in images.split(self.batch_size):
                large = interpolate(part, (SIZE, SIZE), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
                found.append(self.network((large - mean) / std))
        return torch.cat(found)


def pretrained() -> nn.Module:
    """Return torchvision's network without its last layer."""
    try:
        from torchvision.models import Inception_V3_Weights, inception_v3
    except ImportError as error:
        raise ImportError(
            "evaluation.Inception needs torchvision: pip install 'pyro-vae[inception]', or pass a network"
        ) from error
    network = inception_v3(weights=Inception_V3_Weights.IMAGENET1K_V1)
    network.fc = nn.Identity()
    return network
