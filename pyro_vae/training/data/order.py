"""The order of the examples: a random permutation that is computed on demand instead of stored."""

from __future__ import annotations

from math import isqrt

import numpy as np

__all__ = ["BLOCK", "Shuffled"]

#: Positions computed at once: few enough for the cache of the CPU, and enough to amortise the calls.
BLOCK = 2**14

#: Rounds of the Feistel network; four are enough for a random permutation of many rows (Luby and Rackoff, 1988).
ROUNDS = 6

HALF = np.uint64(32)


class Shuffled:
    r"""A pseudo-random permutation of n rows as a function of (seed, epoch, position).

    Rows are the cells of a square with sides :math:`a = \lfloor\sqrt{n}\rfloor + 1`. Each round of a Feistel network
    maps a cell

    .. math:: (l, r) \mapsto (r, \; l + f_k(r) \bmod a),

    which is invertible for any function :math:`f_k`, here a hash of :math:`r` and the key of the round. A cell beyond
    n passes through the network again until it is below n ("cycle walking"), which keeps the map one-to-one.
    Any position of any epoch is computed at once, even with a billion rows. With few rows (one block) the rows are
    sorted by a hash of their positions instead, as a network on few cells cannot reach all permutations.

    References:
        How to construct pseudorandom permutations from pseudorandom functions. M. Luby, C. Rackoff, 1988.
        https://doi.org/10.1137/0217022
        Ciphers with arbitrary finite domains. J. Black, P. Rogaway, 2002. https://doi.org/10.1007/3-540-45760-7_9
        Fast splittable pseudorandom number generators. G. L. Steele, D. Lea, C. H. Flood, 2014 (the hash).
        https://doi.org/10.1145/2660193.2660195

    Args:
        n: number of rows, less than 2^62
        seed: any int
        epoch: at least 0; each epoch has an order of its own

    Example:
        >>> order = Shuffled(10, seed=0, epoch=3)
        >>> sorted(order.rows(np.arange(10)).tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        >>> Shuffled(10**9, seed=0, epoch=3).rows(np.arange(999_999_000, 999_999_128)).shape
        (128,)
    """

    def __init__(self, n: int, *, seed: int, epoch: int) -> None:
        self.n, self.side = n, np.uint64(isqrt(n) + 1)
        self.keys = np.random.SeedSequence([seed % 2**63, epoch]).generate_state(ROUNDS, np.uint64)

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return the rows at these positions of the order, int64 of the shape of ``positions``."""
        if self.n <= BLOCK:
            return np.argsort(scramble(np.arange(self.n, dtype=np.uint64) ^ self.keys[0]))[positions]
        rows = self.network(positions.astype(np.uint64))
        (outside,) = np.nonzero(rows >= self.n)
        while len(outside):
            rows[outside] = self.network(rows[outside])
            outside = outside[rows[outside] >= self.n]
        return rows.astype(np.int64)

    def network(self, cells: np.ndarray) -> np.ndarray:
        """Permute the cells of the square."""
        left = cells // self.side
        right = cells - left * self.side
        for key in self.keys:
            # the upper half of (32 bits of hash * side) is uniform below side, without a division
            moved = left + (((scramble(right ^ key) >> HALF) * self.side) >> HALF)
            # modulo side: in unsigned arithmetic a negative difference is huge
            left, right = right, np.minimum(moved, moved - self.side)
        return left * self.side + right


def scramble(x: np.ndarray) -> np.ndarray:
    """Hash 64-bit numbers one-to-one, with the finalizer of SplitMix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
