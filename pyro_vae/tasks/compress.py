"""Lossless compression with a VAE, by bits-back coding."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.progress import progress_bar
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.over import one_batch
from pyro_vae.programs import VAE
from pyro_vae.programs.checks import check_context
from pyro_vae.tasks.bits_back import MAX_COUNT, BitsBack, constriction_stream, reproducible
from pyro_vae.tasks.compressed import Compressed, CompressionError, checksum
from pyro_vae.tasks.decoding import context_rows, require_vae
from pyro_vae.training.checkpoint.serialization import digest, unshared

__all__ = ["Compressor"]


class Compressor:
    r"""Lossless compression by bits-back coding with asymmetric numeral systems (ANS).

    The length in bits is the negative evidence lower bound,

    .. math:: -\log_2 p(x \mid z) - \log_2 p(z) + \log_2 q(z \mid x), \qquad z \sim q(z \mid x)

    Latents are sampled by decoding bits of the previous examples, shifted by pseudorandom numbers. The decoder gets
    these bits back; the first example takes additional initial bits. Continuous latents are discretized into intervals
    of equal prior probability. A copy of the program computes in float64 on one thread of the CPU, so that the decoder
    finds the same probabilities (multiples of 2^-16); a checksum of the data detects a machine that does not. Needs
    the optional extra ``compress``.

    References:
        Practical lossless compression with latent variables using bits back coding (Townsend et al., 2019),
        https://arxiv.org/abs/1901.04866; Asymmetric numeral systems (Duda, 2013), https://arxiv.org/abs/1311.2540

    Args:
        program: a trained VAE with independent normal, Laplace or Bernoulli latents, and a discrete likelihood that is
            a product over entries (Bernoulli, Binomial, Categorical, DiscretizedLogistic, Poisson, ...)
        num_buckets: intervals per continuous latent, 2 to 4096

    Raises:
        TypeError: the program is not a VAE, or has a part that cannot be coded; the part is named.
        ValueError: ``num_buckets`` is out of range.
        ImportError: constriction is not installed.

    Example:
        >>> import pyro_vae as pv
        >>> vae = pv.VAE(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli(2, (8, 8)),
        ...     posterior=pv.posteriors.MeanFieldNormal((8, 8), 2),
        ... )
        >>> x = pv.data.load("digits", binarize="static").test.x[:10]
        >>> compressor = Compressor(vae)
        >>> data = compressor.compress(x)
        >>> torch.equal(compressor.decompress(data), x)
        True
        >>> Compressed.from_bytes(data).bits_per_dimension < 1.2
        True
    """

    @in_turn
    def __init__(self, program: VAE, *, num_buckets: int = 1024) -> None:
        # with more buckets some would have a rounded probability of 0
        self.program, self.num_buckets = require_vae(program), check_int("num_buckets", num_buckets, 2, 4096)
        self.exact = copy.deepcopy(program).cpu().double()
        self.checksum = program_checksum(program)
        self.shape = BitsBack(self.exact, num_buckets=self.num_buckets).shape

    def compress(self, x: Any, *, progress: bool = True) -> bytes:
        """Compress rows of data, or a tuple ``(x, context)``, to bytes.

        ``print(Compressed.from_bytes(data))`` shows their cost.

        Raises:
            ValueError: the data do not fit the program, have missing entries, or cannot be restored exactly.
        """
        x, *context = (value.cpu() for value in one_batch(self.program, x))
        if torch.isnan(x).any():
            raise ValueError("x: expected complete data, got missing entries (NaN). Fill them with `impute`.")
        max_count = max(1, int(x.max()))
        if max_count > MAX_COUNT:
            raise ValueError(f"x: expected counts up to {MAX_COUNT:,}, got {max_count:,}")
        coding = BitsBack(self.exact, num_buckets=self.num_buckets, max_count=max_count)
        symbols = coding.levels.symbols_of(x.flatten(1))
        back = coding.levels.values_of(symbols).to(x.dtype).view_as(x)
        if not torch.equal(back, x):
            index = (back != x).nonzero()[0].tolist()
            raise ValueError(
                f"x: expected values of the likelihood, such as {float(back[tuple(index)])!r}, got "
                f"{float(x[tuple(index)])!r} at x{index}. Round the data first, such as (x * 255).round() / 255."
            )
        rows = list(zip(*(c.double().split(1) for c in context), strict=True)) or [()] * len(x)
        initial = -(-coding.min_bits // 32)
        while (words := encode(coding, symbols, rows, initial, progress=progress)) is None:
            initial *= 2
        numbers = (initial, len(x), self.shape, self.num_buckets, max_count)
        return Compressed(words, *numbers, self.checksum, data_checksum(symbols)).to_bytes()

    def decompress(self, data: bytes, *context: Tensor, progress: bool = True) -> Tensor:
        """Restore the data bit for bit, for a conditional VAE with the context with which they were compressed.

        Raises:
            ValueError: the context does not fit the program.
            CompressionError: the bytes are damaged, of another kind or version, or of another program; or this machine
                computes other probabilities.
        """
        found = Compressed.from_bytes(data)
        n = found.num_examples
        if found.program_checksum != self.checksum or found.shape != self.shape:
            raise CompressionError(
                "data: compressed with another program. Decompress with the same parts and the same weights."
            )
        rows = context_rows(self.exact, context, n)
        check_context(rows, max(part.context for part in self.exact.children()), n, torch.float64)
        coding = BitsBack(self.exact, num_buckets=found.num_buckets, max_count=found.max_count)
        coder = constriction_stream().stack.AnsCoder(found.words)
        symbols = []
        with reproducible(self.exact):
            # a stack: the last example comes first
            backwards = range(n - 1, -1, -1)
            for i in progress_bar(backwards, desc="decompress", unit="example", progress=progress):
                symbols.append(coding.pop(coder, i, [c[i : i + 1] for c in rows]))
        symbols = np.stack(symbols[::-1])
        if data_checksum(symbols) != found.data_checksum:
            raise CompressionError(
                "data: decompressed to other data than were compressed: an activation, the context or the arithmetic "
                "of this machine differs. Decompress on the machine that compressed them."
            )
        return coding.levels.values_of(symbols).to(self.program.dtype).view(n, *self.shape)


def encode(
    coding: BitsBack, symbols: np.ndarray, rows: list[Any], num_initial_words: int, *, progress: bool
) -> np.ndarray | None:
    """Return the words of the data, or None if the initial words are too few to decode latents from."""
    coder = constriction_stream().stack.AnsCoder(np.zeros(num_initial_words, np.uint32), seal=True)
    with reproducible(coding.program):
        for i in progress_bar(range(len(rows)), desc="compress", unit="example", progress=progress):
            if coder.num_bits() < coding.min_bits:
                return None
            coding.push(coder, i, symbols[i], rows[i])
    return coder.get_compressed()


def data_checksum(symbols: np.ndarray) -> bytes:
    """Return a checksum of data."""
    return checksum(symbols.astype("<i4").tobytes())


def program_checksum(program: VAE) -> bytes:
    """Return a checksum of a program: the types of its modules and its weights."""
    kinds = " ".join(f"{name} {type(module).__name__}" for name, module in program.named_modules())
    return checksum(f"{kinds} {digest(unshared(program.state_dict()))}".encode())
