"""One function for each data set that reads its files into a `Dataset`.

Only `digits` has an example that runs: the others need files that do not come with the package.
"""

import gzip
import hashlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from pyro_vae.data.dataset import Dataset, Split
from pyro_vae.data.fetch import File, download, from_folder, local_root
from pyro_vae.data.formats import parse_amat, parse_idx

# Train images, train labels, test images, test labels.
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
# Of the bytes of the uint8 array (1965, 28, 20), whichever file it was read from.
FREY_SHA256 = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"


def digits() -> Dataset:
    """Read the 8x8 digits that come with the package.

    The test set of the "Optical Recognition of Handwritten Digits" data (E. Alpaydin and C.
    Kaynak 1998, UCI Machine Learning Repository, doi 10.24432/C50P49, licence CC BY 4.0), as
    scikit-learn's `load_digits` gives it: 17 grey levels, here k/16.

    Returns:
        1297 / 200 / 300 observations (8, 8) with labels, shuffled in a fixed way.

    Example:
        >>> digits()
        Dataset('digits': train 1297, valid 200, test 300; shape (8, 8); grey; labels)
    """
    packed = files("pyro_vae.data").joinpath("digits.npz")
    with packed.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    order = np.random.default_rng(0).permutation(len(images))
    x = torch.from_numpy(images[order].astype(np.float32) / 16)
    whole = Split(x, torch.from_numpy(labels[order].astype(np.int64)))
    return Dataset("digits", whole[:1297], whole[1297:1497], whole[1497:])


def mnist() -> Dataset:
    """Read MNIST (LeCun, Cortes and Burges 1998; licence commonly given as CC BY-SA 3.0).

    Returns:
        50,000 / 10,000 / 10,000 observations (28, 28), pixel/255, with labels; valid is the end
        of the published training file.

    Raises:
        OSError: If a file is missing or cannot be downloaded.
        ValueError: If a file is not the published one.
    """
    return _idx_dataset("mnist")


def fashion_mnist() -> Dataset:
    """Read Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747; MIT licence).

    Returns:
        As `mnist`: 50,000 / 10,000 / 10,000 observations (28, 28), pixel/255, with labels.

    Raises:
        OSError: If a file is missing or cannot be downloaded.
        ValueError: If a file is not the published one.
    """
    return _idx_dataset("fashion_mnist")


def mnist_static() -> Dataset:
    """Read the fixed binarization of MNIST on which log-likelihoods are published.

    Bits drawn once by Salakhutdinov and Murray (2008), in the files of Larochelle and Murray
    (2011). Their order is not that of MNIST, so there are no labels.

    Returns:
        50,000 / 10,000 / 10,000 observations (28, 28) of zeros and ones.

    Raises:
        OSError: If a file is missing or cannot be downloaded.
        ValueError: If a file is not the published one.
    """
    root = local_root()
    if root is None:
        bits = {part: parse_amat(download(file).read_bytes(), (28, 28)) for part, file in STATIC_TEXTS.items()}
    else:
        with np.load(from_folder(STATIC_PACKED, root), allow_pickle=False) as packed:
            bits = {part: np.unpackbits(packed[part], axis=1).reshape(-1, 28, 28) for part in STATIC_TEXTS}
    return Dataset(
        "mnist_static",
        **{part: Split(torch.from_numpy(array).float()) for part, array in bits.items()},
    )


def freyfaces() -> Dataset:
    """Read the Frey faces: one face in 1965 frames of a video (B. Frey and S. Roweis).

    There is no explicit licence; the data are for research.

    Returns:
        1565 / 200 / 200 observations (28, 20), (pixel + 0.5)/256, shuffled in a fixed way
        because frames that follow each other are nearly equal.

    Raises:
        OSError: If the file is missing or cannot be downloaded.
        ValueError: If the images are not the ones known.
        ImportError: If the file must be downloaded and SciPy, which reads it, is missing.
    """
    root = local_root()
    if root is None:
        images = _frey_by_download()
    else:
        with np.load(from_folder(FREY_PACKED, root), allow_pickle=False) as packed:
            images = packed["images"]
        _check_frey(images)
    order = np.random.default_rng(0).permutation(len(images))
    whole = Split(torch.from_numpy((images[order].astype(np.float32) + 0.5) / 256))
    return Dataset("freyfaces", whole[:1565], whole[1565:1765], whole[1765:])


LOADERS: dict[str, Callable[[], Dataset]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "mnist_static": mnist_static,
    "freyfaces": freyfaces,
}


def _idx_dataset(name: str) -> Dataset:
    """Read the four files of MNIST or of Fashion-MNIST."""
    root = local_root()
    wanted = [File(name, *pair) for pair in zip(IDX_NAMES, IDX_CHECKSUMS[name], strict=True)]
    paths = [download(file) if root is None else from_folder(file, root) for file in wanted]
    train, test = _idx_split(*paths[:2]), _idx_split(*paths[2:])
    return Dataset(name, train[:50000], train[50000:], test)


def _idx_split(images: Path, labels: Path) -> Split:
    x, y = (parse_idx(gzip.decompress(path.read_bytes())) for path in (images, labels))
    # Divided in place: the training images are the largest array of the package.
    return Split(torch.from_numpy(x.astype(np.float32)).div_(255), torch.from_numpy(y.astype(np.int64)))


def _frey_by_download() -> np.ndarray:
    try:  # before the download, which would be for nothing
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(
            "the Frey faces are published as a MATLAB file, and reading it needs SciPy: install "
            "it with `pip install scipy`"
        ) from error
    path = download(FREY_MATLAB)
    try:
        images = np.ascontiguousarray(loadmat(path)["ff"].T).reshape(-1, 28, 20)
        _check_frey(images)
    except Exception as error:  # whatever a file that is no MATLAB file makes the reader raise
        path.unlink()  # with no checksum of its own it would be taken from the cache for ever
        raise ValueError(
            f"what {FREY_MATLAB.url} sent is not the Frey faces; {path} was removed again ({error})"
        ) from error
    return images


def _check_frey(images: np.ndarray) -> None:
    got = hashlib.sha256(images.tobytes()).hexdigest()
    if images.dtype != np.uint8 or got != FREY_SHA256:
        raise ValueError(
            f"the sha256 of the decoded Frey faces should be {FREY_SHA256} "
            f"but is {got} ({images.dtype}, shape {images.shape})"
        )
