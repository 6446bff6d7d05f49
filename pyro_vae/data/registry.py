"""Data sets by name."""

from difflib import get_close_matches

from pyro_vae.data.binarize import Binarization, resolve
from pyro_vae.data.dataset import Dataset
from pyro_vae.data.sources import LOADERS


def names() -> tuple[str, ...]:
    """The names that `load` knows.

    Returns:
        The names, as a tuple.

    Example:
        >>> names()
        ('digits', 'mnist', 'fashion_mnist', 'mnist_static', 'freyfaces')
    """
    return tuple(LOADERS)


def load(name: str, *, binarize: str | Binarization | None = None) -> Dataset:
    """Load a data set by name.

    "digits" (8x8, in the package), "mnist" and "fashion_mnist" (28x28) have labels,
    "mnist_static" (28x28, the published fixed bits) and "freyfaces" (28x20) have none. All but
    "digits" are read from the folder named by the environment variable PYRO_VAE_DATA, or
    downloaded into a cache where it is not set. Splits and fixed draws are the same in every
    run, and no global random state is used or changed.

    Args:
        name: One of `names()`.
        binarize: How grey levels become bits. None leaves them; "dynamic" draws new bits at each
            presentation of a training batch and fixed ones for valid and test; "static" draws
            all of them once; "threshold" compares with 0.5. Or a function from `Dataset` to
            `Dataset`, such as `Threshold(0.3)`.

    Returns:
        The data set; x is float32 in [0, 1] of shape ``(n, *shape)``, y int64 of shape ``(n,)`` or None.

    Raises:
        ValueError: If the name or the binarization is unknown, if bits are asked of a data set
            that is already binary, or if a file is not the published one.
        FileNotFoundError: If PYRO_VAE_DATA is set and a file is missing there.
        OSError: If a file must be downloaded and cannot be.
        ImportError: If the Frey faces must be downloaded and SciPy is missing.

    Example:
        >>> load("digits")
        Dataset('digits': train 1297, valid 200, test 300; shape (8, 8); grey; labels)
        >>> bits = load("digits", binarize="static")
        >>> bits.kind, tuple(bits.test.x.shape), tuple(bits.test.y.shape)
        ('binary', (300, 8, 8), (300,))
    """
    if name not in LOADERS:
        near = get_close_matches(str(name).lower(), LOADERS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"no data set {name!r}{hint}; known are {', '.join(LOADERS)}")
    rule = resolve(binarize)
    dataset = LOADERS[name]()
    if rule is None:
        return dataset
    if dataset.kind == "binary":
        raise ValueError(f"{name} is already binary: binarize must be None, not {binarize!r}")
    return rule(dataset)
