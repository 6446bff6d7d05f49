"""Where the files of the data sets are, and the check that they are the right ones.

A file comes from the folder named by the environment variable PYRO_VAE_DATA if that is set, else
from its public address, through a cache. Either way its checksum is compared before it is used.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import pooch

VARIABLE = "PYRO_VAE_DATA"

# The public address of each folder of files. Plain http does no harm where the checksum is known.
ADDRESSES: dict[str, str] = {
    "binarized_mnist_static": "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "freyfaces": "https://cs.nyu.edu/~roweis/data/",
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
}


@dataclass(frozen=True)
class File:
    """A file of a data set.

    Attributes:
        folder: The folder it lies in, below PYRO_VAE_DATA or the cache; a key of `ADDRESSES`.
        name: Its name there and at its public address.
        checksum: "sha256:..." or "md5:..." of its bytes; None where none is known, and whoever
            decodes the file checks the content.

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
    """The folder named by PYRO_VAE_DATA, or None if the variable is not set or empty.

    Example:
        >>> local_root() is None or isinstance(local_root(), Path)
        True
    """
    value = os.environ.get(VARIABLE)
    return Path(value).expanduser() if value else None


def from_folder(file: File, root: Path) -> Path:
    """Find a file below a folder and check it.

    Args:
        file: The file looked for.
        root: The folder, laid out as `root / file.folder / file.name`.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If its checksum is not the one known.

    Example:
        >>> from_folder(File("mnist", "none.gz", None), Path("nowhere"))
        Traceback (most recent call last):
        ...
        FileNotFoundError: PYRO_VAE_DATA is set to 'nowhere', but there is no mnist/none.gz in it
    """
    path = root / file.folder / file.name
    if not path.is_file():
        raise FileNotFoundError(f"{VARIABLE} is set to '{root}', but there is no {file.folder}/{file.name} in it")
    if file.checksum is not None:
        algorithm, expected = file.checksum.split(":")
        got = pooch.file_hash(str(path), alg=algorithm)
        if got != expected:
            raise ValueError(f"{path} is not the file it should be: its {algorithm} should be {expected} but is {got}")
    return path


def download(file: File) -> Path:
    """Download a file into the cache, or find it there, and check it.

    Args:
        file: The file to get; its folder must be a key of `ADDRESSES`.

    Returns:
        The path of the file in the cache, the folder `pooch.os_cache("pyro_vae")`.

    Raises:
        OSError: If it cannot be downloaded; the message says what else to do.
        ValueError: If what was downloaded has another checksum (it is not kept).

    Example:
        >>> File("mnist", "t10k-labels-idx1-ubyte.gz", None).url  # what would be downloaded
        'https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz'
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
            f"could not download {file.url} ({error}); try again, or set {VARIABLE} to a folder "
            f"that holds the data in a folder {file.folder}"
        ) from error
    return Path(path)
