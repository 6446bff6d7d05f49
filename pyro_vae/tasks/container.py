"""The file of compressed data: what it holds, for which program, and whether it is whole."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass

import numpy as np

__all__ = ["Compressed", "CompressionError"]

MAGIC = b"PYROVAE\n"
VERSION = 1

#: Behind the magic: version, dimensions of a datum, buckets, largest count, words of seed, data, two checksums.
HEAD = struct.Struct("<HHIIIQ16s16s")
CHECKSUM = 16


class CompressionError(ValueError):
    """Bytes that cannot be given back as data; the message says why."""


@dataclass(frozen=True)
class Compressed:
    """Compressed data as they stand in a file, which prints what they cost.

    Attributes:
        words: the compressed data, uint32
        seed: how many of the words the coder was started with: its initial bits
        count: number of data
        shape: of one datum
        buckets: letters of a real latent
        largest: the largest count
        program: checksum of the program
        data: checksum of the data
    """

    words: np.ndarray
    seed: int
    count: int
    shape: tuple[int, ...]
    buckets: int
    largest: int
    program: bytes
    data: bytes

    @property
    def bits(self) -> int:
        """Bits of the data themselves, without initial bits and header."""
        return 32 * (len(self.words) - self.seed)

    @property
    def initial_bits(self) -> int:
        """Bits that the first latents are drawn from; once for all data."""
        return 32 * self.seed

    @property
    def header_bits(self) -> int:
        """Bits of everything beside the words."""
        return 8 * (len(MAGIC) + HEAD.size + 4 * len(self.shape) + CHECKSUM)

    @property
    def bits_per_dimension(self) -> float:
        """Bits of the data themselves for each entry of a datum."""
        return self.bits / (self.count * math.prod(self.shape))

    def __str__(self) -> str:
        return (
            f"{self.count:,} data in {len(self.to_bytes()):,} bytes: {self.bits_per_dimension:.4f} bits per dimension "
            f"({self.bits:,} in all), {self.initial_bits:,} initial bits and {self.header_bits:,} of header"
        )

    def to_bytes(self) -> bytes:
        """Return the file."""
        numbers = (VERSION, len(self.shape), self.buckets, self.largest, self.seed, self.count)
        head = MAGIC + HEAD.pack(*numbers, self.program, self.data)
        body = head + struct.pack(f"<{len(self.shape)}I", *self.shape) + self.words.astype("<u4").tobytes()
        return body + checksum(body)

    @classmethod
    def from_bytes(cls, data: bytes) -> Compressed:
        """Read a file, checked as a whole.

        Raises:
            TypeError: no bytes.
            CompressionError: these are other data, of a newer version, cut off or changed.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data: expected bytes, got {type(data).__name__}")
        data = bytes(data)
        if data[: len(MAGIC)] != MAGIC:
            raise CompressionError(f"data: these {len(data):,} bytes were not written by Compressor.compress")
        body, told = data[:-CHECKSUM], data[-CHECKSUM:]
        start = len(MAGIC) + HEAD.size
        if len(body) < start or checksum(body) != told:
            raise CompressionError(
                f"data: damaged or cut off: the checksum at the end of {len(data):,} bytes is wrong"
            )
        version, dims, buckets, largest, seed, count, program, own = HEAD.unpack_from(body, len(MAGIC))
        if version > VERSION:
            raise CompressionError(
                f"data: written in version {version} of the format, newer than {VERSION}: update pyro_vae"
            )
        shape = struct.unpack_from(f"<{dims}I", body, start)
        words = np.frombuffer(body, "<u4", offset=start + 4 * dims).astype(np.uint32)
        return cls(words, seed, count, shape, buckets, largest, program, own)


def checksum(data: bytes) -> bytes:
    """Return the 16 bytes that tell whether data are the same."""
    return hashlib.blake2b(data, digest_size=CHECKSUM).digest()
