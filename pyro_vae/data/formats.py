"""Readers of the two file formats in which the MNIST family is published."""

import numpy as np


def parse_idx(raw: bytes) -> np.ndarray:
    """Read an array of bytes in the idx format of MNIST.

    Args:
        raw: The content of the (unpacked) file.

    Returns:
        A read-only uint8 array of the shape that the file's head gives.

    Raises:
        ValueError: If `raw` is not an idx file of unsigned bytes, or is cut short.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6))).shape
        (2, 3)
    """
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"not an idx file of unsigned bytes: it begins with {raw[:4]!r}")
    head = 4 + 4 * raw[3]
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, head, 4))
    if len(raw) != head + int(np.prod(shape)):
        raise ValueError(f"an idx file of shape {shape} cannot have {len(raw)} bytes")
    return np.frombuffer(raw, np.uint8, offset=head).reshape(shape)


def parse_amat(raw: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Read zeros and ones written as text, one observation to a line.

    Args:
        raw: The content of the file: the characters 0 and 1 with white space between.
        shape: The shape of one observation.

    Returns:
        A uint8 array of shape (n, *shape), each entry 0 or 1.

    Raises:
        ValueError: If there is anything else in the text, or not a whole number of observations.

    Example:
        >>> parse_amat(b"0 1 0 1\\n1 1 0 0\\n0 0 0 1\\n", (2, 2)).shape
        (3, 2, 2)
    """
    # Each number is one character, so that dropping the white space is all the parsing there is;
    # numpy.loadtxt would take a minute for the training file.
    characters = np.frombuffer(raw, np.uint8)
    bits = characters[characters > ord(" ")] - ord("0")
    if bits.size and bits.max() > 1:
        raise ValueError("an amat file of bits must hold nothing but 0, 1 and white space")
    return bits.reshape(-1, *shape)
