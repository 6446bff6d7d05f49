"""Lossless compression with a VAE: bits-back coding."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.progress import progress_bar
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.inputs import one_batch
from pyro_vae.programs import VAE
from pyro_vae.programs.checks import check_context
from pyro_vae.tasks.alphabets import LARGEST
from pyro_vae.tasks.bits_back import BitsBack, computing, stack
from pyro_vae.tasks.container import Compressed, CompressionError, checksum
from pyro_vae.tasks.latents import as_context, one_latent
from pyro_vae.training.checkpoint.serialization import digest, unshared

__all__ = ["Compressor"]


class Compressor:
    r"""Data in as many bits as minus the bound, by bits-back coding with asymmetric numeral systems (ANS).

    .. math:: -\log_2 p(x \mid z) - \log_2 p(z) + \log_2 q(z \mid x), \qquad z \sim q(z \mid x)

    The latents of a datum are drawn by decoding bits that are there already, x and z are encoded, and when x is
    known again the bits come back. Before, they are shifted by pseudorandom numbers, so that z is a fair draw whatever
    they tell of the datum before. Real latents fall into intervals of equal prior probability. The first datum draws
    on bits that the file holds in addition, once. Order is kept, and data come back bit for bit.

    The program is copied as it is, and computes in float64 on one thread of the CPU, so that it finds the same
    probabilities (multiples of 2^-16) when it decodes; the file holds a checksum of the data, should another machine
    not do so. Needs the optional extra ``compress``.

    References:
        Practical lossless compression with latent variables using bits back coding (Townsend et al., 2019),
        https://arxiv.org/abs/1901.04866; Asymmetric numeral systems (Duda, 2013), https://arxiv.org/abs/1311.2540

    Args:
        program: a trained VAE with a discrete likelihood that is a product over the entries (Bernoulli, Binomial,
            BetaBinomial, Categorical, DiscretizedLogistic, Poisson, ...) and independent latents: normal or
            Laplace, or bits
        buckets: intervals for each real latent, up to 4096

    Raises:
        TypeError: the program is no VAE, or has a part that cannot be coded; it is named.
        ValueError: there are fewer than 2 buckets, or more than 4096.
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

    def __init__(self, program: VAE, *, buckets: int = 1024) -> None:
        check_int("buckets", buckets, 2)
        if buckets > 4096:
            raise ValueError(f"buckets: expected at most 4096, so that each has a probability, got {buckets}")
        self.program, self.buckets = one_latent(program), buckets
        self.exact = copy.deepcopy(program).cpu().double()
        self.checksum = identity(program)
        self.shape = BitsBack(self.exact, buckets=buckets).shape

    def compress(self, x: Any, *, progress: bool = False) -> bytes:
        """Return data as bytes, for a file.

        Args:
            x: rows of data, or a tuple ``(x, context)``
            progress: show a progress bar

        Returns:
            The bytes; ``print(Compressed.from_bytes(data))`` tells what they consist of.

        Raises:
            ValueError: the data do not fit the program, are not all observed, or would not come back exactly.
        """
        x, *context = (value.cpu() for value in one_batch(self.program, x))
        if torch.isnan(x).any():
            raise ValueError("x: has missing entries (NaN), which cannot be coded; fill them first, by `impute`")
        largest = max(1, int(x.max()))
        if largest > LARGEST:
            raise ValueError(f"x: expected counts up to {LARGEST:,}, got {largest:,}")
        coding = BitsBack(self.exact, buckets=self.buckets, largest=largest)
        letters = coding.levels.write(x.flatten(1))
        back = coding.levels.read(letters).to(x.dtype).view_as(x)
        if not torch.equal(back, x):
            index = (back != x).nonzero()[0].tolist()
            raise ValueError(
                f"x: x{index} is {float(x[tuple(index)])!r}, which would come back as {float(back[tuple(index)])!r}, "
                "the nearest value that the likelihood has; round the data first, such as (x * 255).round() / 255"
            )
        rows = list(zip(*(c.double().split(1) for c in context), strict=True)) or [()] * len(x)
        seed = -(-coding.needed // 32)
        while (words := encoded(coding, letters, rows, seed, progress=progress)) is None:
            seed *= 2
        own = digest_of(letters)
        return Compressed(words, seed, len(x), self.shape, self.buckets, largest, self.checksum, own).to_bytes()

    def decompress(self, data: bytes, *context: Tensor, progress: bool = False) -> Tensor:
        """Return the data of :meth:`compress`.

        Args:
            data: the bytes
            context: for a conditional VAE, the rows of context with which the data were compressed
            progress: show a progress bar

        Returns:
            The data, on the CPU, bit for bit as they were.

        Raises:
            ValueError: there is no context where the program needs one, or one of another shape.
            CompressionError: the bytes are damaged, of another kind or version, or of another program; or this machine
                computes other probabilities.
        """
        found = Compressed.from_bytes(data)
        if found.program != self.checksum or found.shape != self.shape:
            raise CompressionError(
                "data: compressed with another program; decompress with the same parts and the same weights"
            )
        rows = as_context(self.exact, context, found.count)
        check_context(rows, max(part.context for part in self.exact.children()), found.count, torch.float64)
        coding = BitsBack(self.exact, buckets=found.buckets, largest=found.largest)
        coder = stack().stack.AnsCoder(found.words)
        letters = []
        with computing(self.exact):
            for i in progress_bar(range(found.count), desc="decompress", unit="datum", progress=progress):
                # a stack: the last datum comes first
                place = found.count - 1 - i
                letters.append(coding.pop(coder, place, [c[place : place + 1] for c in rows]))
        codes = np.stack(letters[::-1])
        if digest_of(codes) != found.data:
            raise CompressionError(
                "data: what came out is not what was compressed: an activation, the context or the arithmetic of this "
                "machine is another one; decompress where it was compressed"
            )
        return coding.levels.read(codes).to(self.program.dtype).view(found.count, *self.shape)


def encoded(coding: BitsBack, letters: np.ndarray, rows: list[Any], seed: int, *, progress: bool) -> np.ndarray | None:
    """Return the words of the data, or None if so many words at the start were too few to draw latents from."""
    coder = stack().stack.AnsCoder(np.zeros(seed, np.uint32), seal=True)
    with computing(coding.program):
        for place in progress_bar(range(len(rows)), desc="compress", unit="datum", progress=progress):
            if coder.num_bits() < coding.needed:
                return None
            coding.push(coder, place, letters[place], rows[place])
    return coder.get_compressed()


def digest_of(letters: np.ndarray) -> bytes:
    """Return the checksum of data."""
    return checksum(letters.astype("<i4").tobytes())


def identity(program: VAE) -> bytes:
    """Return the checksum of a program: the kinds of its modules and its weights."""
    kinds = " ".join(f"{name} {type(module).__name__}" for name, module in program.named_modules())
    return checksum(f"{kinds} {digest(unshared(program.state_dict()))}".encode())
