"""Find, verify and parse the files of the published data sets.

A file comes from the folder that the environment variable PYRO_VAE_DATA names, or from its public address through a
cache where the variable is not set. Its checksum is verified either way.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch

__all__ = ["ADDRESSES", "File", "download", "from_folder", "local_root", "parse_amat", "parse_idx"]

VARIABLE = "PYRO_VAE_DATA"

#: The public address of each folder. Plain http is safe where the checksum is known.
ADDRESSES: dict[str, str] = {
    "binarized_mnist_static": "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "freyfaces": "https://cs.nyu.edu/~roweis/data/",
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
}


@dataclass(frozen=True)
class File:
    """A file of a data set.

    Args:
        folder: its folder below PYRO_VAE_DATA or the cache; a key of ``ADDRESSES``
        name: its name in the folder and at the public address
        checksum: ``"sha256:..."`` or ``"md5:..."`` of its bytes; None if the decoded content is verified instead

    Example:
        >>> File("mnist", "train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432").url
        'https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz'
    """

    folder: str
    name: str
    checksum: str | None

    @property
    def url(self) -> str:
        """The public address of the file."""
        return ADDRESSES[self.folder] + self.name


def local_root() -> Path | None:
    """Return the folder that PYRO_VAE_DATA names, or None if the variable is not set or empty."""
    value = os.environ.get(VARIABLE)
    return Path(value).expanduser() if value else None


def from_folder(file: File, root: Path) -> Path:
    """Return the path ``root / file.folder / file.name`` after its checksum is verified.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the checksum is wrong.

    Example:
        >>> from_folder(File("mnist", "none.gz", None), Path("nowhere"))
        Traceback (most recent call last):
        ...
        FileNotFoundError: PYRO_VAE_DATA is set to 'nowhere', but mnist/none.gz is not in it
    """
    path = root / file.folder / file.name
    if not path.is_file():
        raise FileNotFoundError(f"{VARIABLE} is set to '{root}', but {file.folder}/{file.name} is not in it")
    if file.checksum is not None:
        algorithm, expected = file.checksum.split(":")
        got = pooch.file_hash(str(path), alg=algorithm)
        if got != expected:
            raise ValueError(f"{path}: expected {algorithm} {expected}, got {got}. Download the file again")
    return path


def download(file: File) -> Path:
    """Download a file into the cache ``pooch.os_cache("pyro_vae")``, or find it there, and verify it.

    Raises:
        OSError: the download failed.
        ValueError: the downloaded file has another checksum; it is not kept.
    """
    try:
        path = pooch.retrieve(
            file.url,
            known_hash=file.checksum,
            fname=file.name,
            path=pooch.os_cache("pyro_vae") / file.folder,
            progressbar=True,
        )
    except OSError as error:
        raise OSError(
            f"could not download {file.url} ({error}). Try again, or set {VARIABLE} to a folder that holds the data "
            f"in a folder {file.folder}"
        ) from error
    return Path(path)


def parse_idx(raw: bytes) -> np.ndarray:
    """Parse an idx file, the format of MNIST, into a read-only uint8 array of the shape that its header gives.

    Raises:
        ValueError: ``raw`` is not an idx file of unsigned bytes, or is truncated.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6))).shape
        (2, 3)
    """
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"expected an idx file of unsigned bytes, got one that begins with {raw[:4]!r}")
    head = 4 + 4 * raw[3]
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, head, 4))
    size = head + int(np.prod(shape))
    if len(raw) != size:
        raise ValueError(f"expected {size} bytes in an idx file of shape {shape}, got {len(raw)}")
    return np.frombuffer(raw, np.uint8, offset=head).reshape(shape)


def parse_amat(raw: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Parse zeros and ones written as text, one example of this shape per line, into uint8 of ``(n, *shape)``.

    Raises:
        ValueError: the text holds anything but 0, 1 and white space, or not a whole number of examples.

    Example:
        >>> parse_amat(b"0 1 0 1\\n1 1 0 0\\n0 0 0 1\\n", (2, 2)).shape
        (3, 2, 2)
    """
    # each number is one character; numpy.loadtxt would take a minute for the training file
    characters = np.frombuffer(raw, np.uint8)
    bits = characters[characters > ord(" ")] - ord("0")
    if bits.size and bits.max() > 1:
        raise ValueError("expected an amat file of 0, 1 and white space, got other characters")
    return bits.reshape(-1, *shape)
