"""The data sets in the package."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch

from pyro_vae.data.dataset import Dataset, Split

__all__ = ["digits", "image_split", "mnist_small"]


def digits() -> Dataset:
    """8x8 handwritten digits in 17 grey levels, with labels; in the package.

    The test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak 1998, UCI Machine Learning
    Repository, doi 10.24432/C50P49, licence CC BY 4.0), as scikit-learn's ``load_digits`` returns it, shuffled.
    """
    arrays = embedded("digits.npz")
    images, labels = arrays["images"], arrays["labels"]
    order = np.random.default_rng(0).permutation(len(images))
    x = torch.from_numpy(images[order].astype(np.float32) / 16)
    whole = Split(x, torch.from_numpy(labels[order].astype(np.int64)))
    return Dataset("digits", whole[:1297], whole[1297:1497], whole[1497:])


def mnist_small() -> Dataset:
    """6,000 of the 70,000 images of MNIST, with labels: 5,000 / 500 / 500 examples; in the package.

    Drawn without replacement from the three splits of ``"mnist"`` (LeCun, Cortes and Burges 1998), as many of each
    class. The licence of MNIST, commonly given as CC BY-SA 3.0, holds for them too.
    """
    arrays = embedded("mnist_small.npz")
    parts = ("train", "valid", "test")
    return Dataset("mnist_small", *(image_split(arrays[f"{part}_x"], arrays[f"{part}_y"]) for part in parts))


def embedded(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file of this package."""
    with files("pyro_vae.data").joinpath(name).open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)


def image_split(x: np.ndarray, y: np.ndarray) -> Split:
    """Return images in bytes as values in [0, 1], with their labels."""
    # divided in place: the training images are the largest array of the package
    return Split(torch.from_numpy(x.astype(np.float32)).div_(255), torch.from_numpy(y.astype(np.int64)))
