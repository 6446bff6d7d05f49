"""The published data sets by name, each read from its files by one function."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch

from pyro_vae.data.binarize import Binarization, resolve
from pyro_vae.data.dataset import Dataset, Split
from pyro_vae.data.embedded import digits, image_split, mnist_small
from pyro_vae.data.fetch import File, download, from_folder, local_root, parse_amat, parse_idx

__all__ = ["LOADERS", "load", "names"]

#: Train images, train labels, test images, test labels.
IDX_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
IDX_CHECKSUMS = {
    "mnist": (
        "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    "fashion_mnist": (
        "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}
STATIC_PACKED = File(
    "binarized_mnist_static",
    "binarized_mnist.npz",
    "sha256:50de2c8299a5a297789293ab2c30f6fc3cb8c359a15e5e88d5501aa18ebb8fa5",
)
STATIC_TEXTS = {
    part: File("binarized_mnist_static", f"binarized_mnist_{part}.amat", f"md5:{md5}")
    for part, md5 in (
        ("train", "db28b1a6ae0fe70cbd3da91acf46e477"),
        ("valid", "bf37822a04e94123630de6a7dfd9c9ef"),
        ("test", "14e41ae11040adba6ab8cb291eda0dd8"),
    )
}
FREY_PACKED = File(
    "freyfaces",
    "freyfaces.npz",
    "sha256:3c70375e0a9c4751ad49ad5f1f692bd094c46f133cf4aa8ea77d1cb14e1efcd1",
)
FREY_MATLAB = File("freyfaces", "frey_rawface.mat", None)
#: Of the bytes of the decoded uint8 array (1965, 28, 20).
FREY_SHA256 = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"


def names() -> tuple[str, ...]:
    """Return the names that :func:`load` accepts.

    Returns:
        The names.

    Example:
        >>> names()
        ('digits', 'mnist_small', 'mnist', 'fashion_mnist', 'mnist_static', 'freyfaces')
    """
    return tuple(LOADERS)


def load(name: str, *, binarize: str | Binarization | None = None) -> Dataset:
    """Load a data set by name.

    ``"digits"`` (8x8) and ``"mnist_small"`` (6,000 images of MNIST) are in the package; ``"mnist"`` and
    ``"fashion_mnist"`` are 28x28 too; all have labels. ``"mnist_static"`` (28x28, the published binarization) and
    ``"freyfaces"`` (28x20) have none. Splits and fixed samples are the same in every run, and the global random state
    is neither used nor changed.

    Args:
        name: one of :func:`names`
        binarize: how grey levels become binary values: None keeps them, ``"dynamic"`` samples new ones for each
            training batch and fixed ones for valid and test, ``"static"`` samples all of them once, ``"threshold"``
            compares with 0.5. Or a function from Dataset to Dataset, such as ``Threshold(0.3)``

    Returns:
        The data set; x is float32 in [0, 1] of shape ``(n, *shape)``, y int64 of shape ``(n,)`` or None.

    Raises:
        ValueError: the name or the binarization is unknown, the data are binary already, or a file is not the
            published one.
        FileNotFoundError: PYRO_VAE_DATA is set and a file is missing there.
        OSError: a download failed.
        ImportError: the Frey faces have to be downloaded and SciPy is missing.

    Example:
        >>> load("digits")
        Dataset('digits': train 1297, valid 200, test 300; shape (8, 8); grey; labels)
        >>> binary = load("digits", binarize="static")
        >>> binary.kind, tuple(binary.test.x.shape), tuple(binary.test.y.shape)
        ('binary', (300, 8, 8), (300,))
    """
    if name not in LOADERS:
        near = get_close_matches(str(name).lower(), LOADERS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"name: expected one of {', '.join(LOADERS)}, got {name!r}{hint}")
    rule = resolve(binarize)
    dataset = LOADERS[name]()
    if rule is None:
        return dataset
    if dataset.kind == "binary":
        raise ValueError(f"binarize: expected None for {name}, which is binary already, got {binarize!r}")
    return rule(dataset)


def mnist() -> Dataset:
    """28x28 handwritten digits (LeCun, Cortes and Burges 1998), grey, with labels.

    The licence is commonly given as CC BY-SA 3.0. Values are pixel/255; valid is the end of the published training
    file: 50,000 / 10,000 / 10,000 examples.
    """
    return idx_dataset("mnist")


def fashion_mnist() -> Dataset:
    """28x28 pictures of clothes (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747), grey, with labels.

    MIT licence; values and splits as for MNIST.
    """
    return idx_dataset("fashion_mnist")


def mnist_static() -> Dataset:
    """28x28 digits in the fixed binarization on which log-likelihoods are published, without labels.

    Sampled once by Salakhutdinov and Murray (2008), in the files of Larochelle and Murray (2011). Their order is not
    that of MNIST: 50,000 / 10,000 / 10,000 examples. The test images are sorted by class: take all, or evenly spaced
    ones, as the first of them are all zeros.
    """
    root = local_root()
    if root is None:
        bits = {part: parse_amat(download(file).read_bytes(), (28, 28)) for part, file in STATIC_TEXTS.items()}
    else:
        with np.load(from_folder(STATIC_PACKED, root), allow_pickle=False) as packed:
            bits = {part: np.unpackbits(packed[part], axis=1).reshape(-1, 28, 28) for part in STATIC_TEXTS}
    return Dataset("mnist_static", **{part: Split(torch.from_numpy(a).float()) for part, a in bits.items()})


def freyfaces() -> Dataset:
    """28x20 frames of a video of one face (B. Frey and S. Roweis), grey, without labels.

    There is no explicit licence; the data are for research. Values are (pixel + 0.5)/256. The frames are shuffled,
    as successive ones are nearly equal: 1565 / 200 / 200 examples.
    """
    root = local_root()
    if root is None:
        images = download_frey()
    else:
        with np.load(from_folder(FREY_PACKED, root), allow_pickle=False) as packed:
            images = packed["images"]
        check_frey(images)
    order = np.random.default_rng(0).permutation(len(images))
    whole = Split(torch.from_numpy((images[order].astype(np.float32) + 0.5) / 256))
    return Dataset("freyfaces", whole[:1565], whole[1565:1765], whole[1765:])


LOADERS: dict[str, Callable[[], Dataset]] = {
    "digits": digits,
    "mnist_small": mnist_small,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "mnist_static": mnist_static,
    "freyfaces": freyfaces,
}


def idx_dataset(name: str) -> Dataset:
    """Read the four files of MNIST or of Fashion-MNIST."""
    root = local_root()
    wanted = [File(name, *pair) for pair in zip(IDX_NAMES, IDX_CHECKSUMS[name], strict=True)]
    paths = [download(file) if root is None else from_folder(file, root) for file in wanted]
    train, test = idx_split(*paths[:2]), idx_split(*paths[2:])
    return Dataset(name, train[:50000], train[50000:], test)


def idx_split(images: Path, labels: Path) -> Split:
    """Read images and labels."""
    return image_split(*(parse_idx(gzip.decompress(path.read_bytes())) for path in (images, labels)))


def download_frey() -> np.ndarray:
    """Download the Frey faces, which are published as a MATLAB file without a known checksum."""
    try:  # before the download
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError("the Frey faces are a MATLAB file, which needs SciPy: pip install scipy") from error
    path = download(FREY_MATLAB)
    try:
        images = np.ascontiguousarray(loadmat(path)["ff"].T).reshape(-1, 28, 20)
        check_frey(images)
    except Exception as error:  # loadmat raises errors of many types
        path.unlink()  # otherwise the cache would return it for ever
        raise ValueError(
            f"{FREY_MATLAB.url}: expected the Frey faces, got another file, now removed from {path} ({error})"
        ) from error
    return images


def check_frey(images: np.ndarray) -> None:
    """Verify the checksum of the decoded Frey faces."""
    got = hashlib.sha256(images.tobytes()).hexdigest()
    if images.dtype != np.uint8 or got != FREY_SHA256:
        raise ValueError(
            f"the Frey faces: expected sha256 {FREY_SHA256}, got {got} ({images.dtype}, shape {images.shape})"
        )
