"""File format of compressed data."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass

import numpy as np

__all__ = ["Compressed", "CompressionError", "checksum"]

MAGIC = b"PYROVAE\n"
VERSION = 1

#: After the magic: version, dimensions of an example, buckets, largest count, initial words, examples, two checksums.
HEADER = struct.Struct("<HHIIIQ16s16s")
CHECKSUM_BYTES = 16


class CompressionError(ValueError):
    """Bytes that cannot be decompressed; the message gives the reason."""


@dataclass(frozen=True)
class Compressed:
    """Contents of a file of compressed data; prints its cost in bits.

    Attributes:
        words: the compressed data, uint32
        num_initial_words: number of words with which the coder was started
        num_examples: number of examples
        shape: shape of one example
        num_buckets: intervals per continuous latent
        max_count: the largest count
        program_checksum: checksum of the program
        data_checksum: checksum of the data
    """

    words: np.ndarray
    num_initial_words: int
    num_examples: int
    shape: tuple[int, ...]
    num_buckets: int
    max_count: int
    program_checksum: bytes
    data_checksum: bytes

    @property
    def bits(self) -> int:
        """Bits of the data, without initial bits and header."""
        return 32 * (len(self.words) - self.num_initial_words)

    @property
    def initial_bits(self) -> int:
        """Bits from which the latents of the first example are decoded, once per file."""
        return 32 * self.num_initial_words

    @property
    def header_bits(self) -> int:
        """Bits of header and checksum."""
        return 8 * (len(MAGIC) + HEADER.size + 4 * len(self.shape) + CHECKSUM_BYTES)

    @property
    def bits_per_dimension(self) -> float:
        """Bits of the data per entry of an example."""
        return self.bits / (self.num_examples * math.prod(self.shape))

    def __str__(self) -> str:
        return (
            f"{self.num_examples:,} examples in {len(self.to_bytes()):,} bytes: {self.bits_per_dimension:.4f} bits "
            f"per dimension ({self.bits:,} in total), {self.initial_bits:,} initial, {self.header_bits:,} header bits"
        )

    def to_bytes(self) -> bytes:
        """Return the contents of the file."""
        numbers = (VERSION, len(self.shape), self.num_buckets, self.max_count, self.num_initial_words)
        header = HEADER.pack(*numbers, self.num_examples, self.program_checksum, self.data_checksum)
        shape = struct.pack(f"<{len(self.shape)}I", *self.shape)
        body = MAGIC + header + shape + self.words.astype("<u4").tobytes()
        return body + checksum(body)

    @classmethod
    def from_bytes(cls, data: bytes) -> Compressed:
        """Read the contents of a file and verify its checksum.

        Raises:
            TypeError: ``data`` is not bytes.
            CompressionError: the data are of another kind or a newer version, truncated or damaged.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data: expected bytes, got {type(data).__name__}")
        data = bytes(data)
        if data[: len(MAGIC)] != MAGIC:
            raise CompressionError(
                f"data: expected the output of Compressor.compress, got {len(data):,} bytes without its signature"
            )
        body, start = data[:-CHECKSUM_BYTES], len(MAGIC) + HEADER.size
        if len(body) < start or checksum(body) != data[-CHECKSUM_BYTES:]:
            raise CompressionError(f"data: damaged or truncated, the checksum of the {len(data):,} bytes is wrong")
        version, dims, buckets, max_count, initial, n, program, own = HEADER.unpack_from(body, len(MAGIC))
        if version > VERSION:
            raise CompressionError(
                f"data: expected format version {VERSION} or older, got {version}. Update pyro_vae."
            )
        shape = struct.unpack_from(f"<{dims}I", body, start)
        words = np.frombuffer(body, "<u4", offset=start + 4 * dims).astype(np.uint32)
        return cls(words, initial, n, shape, buckets, max_count, program, own)


def checksum(data: bytes) -> bytes:
    """Return a checksum of bytes."""
    return hashlib.blake2b(data, digest_size=CHECKSUM_BYTES).digest()
