"""One datum on the stack of an entropy coder, and off it again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae.distributions.missing import factorized
from pyro_vae.programs import VAE
from pyro_vae.programs.checks import check_supports
from pyro_vae.programs.program import evaluating
from pyro_vae.tasks.alphabets import Alphabet, Buckets, Levels, grid_of

__all__ = ["BitsBack", "computing", "stack"]

#: Bits that are stirred for each latent; the coder has probabilities of 2^-24 and above, so that none takes more.
STIRRED = 32


class BitsBack:
    """How data are coded with a program.

    Args:
        program: in float64, on the CPU
        buckets: intervals for each real latent
        largest: the largest count, where the data are counts without a bound

    Raises:
        TypeError: the program has a part that cannot be coded; it is named.
    """

    def __init__(self, program: VAE, *, buckets: int, largest: int = 1) -> None:
        self.program, self.buckets = program, buckets
        self.family, self.bits = stack().model.Categorical(perfect=False), stack().model.Uniform(2**16)
        width = max(part.context for part in program.children())
        row = [torch.zeros(1, width, dtype=torch.float64)] if width else []
        with computing(program):
            prior = program.prior(*row)
            fn = program.decode(torch.zeros(1, *prior.event_shape, dtype=torch.float64), *row)
            values = grid_of(fn, largest)
            if values is None:
                raise TypeError(
                    f"likelihood: {type(program.likelihood).__name__} is not discrete, or no product over the entries "
                    "of a datum, so that it cannot be coded; use one that is, such as Bernoulli, Categorical or "
                    "DiscretizedLogistic"
                )
            self.levels, self.shape = Levels(values), tuple(fn.event_shape)
            try:
                q = program.encode(torch.zeros(1, *self.shape, dtype=torch.float64), *row)
                check_supports(q, prior, type(program.posterior).__name__, type(program.prior).__name__)
                if not (factorized(prior) and factorized(q)):
                    raise NotImplementedError
                alphabet, _ = self.latents(row)
                alphabet.weights(q)
            except NotImplementedError as error:
                raise TypeError(
                    f"prior {type(program.prior).__name__}, posterior {type(program.posterior).__name__}: latents can "
                    "be coded that are independent in both, real ones with distribution functions in closed form; use "
                    "StandardNormal with MeanFieldNormal, Laplace with Laplace, or Bernoulli with Bernoulli"
                ) from error
        self.stirred = STIRRED * prior.event_shape.numel()
        #: Bits that a datum asks of the coder, with those of its own state.
        self.needed = self.stirred + 96

    def push(self, coder: Any, place: int, letters: np.ndarray, row: Sequence[Tensor]) -> None:
        """Encode the datum at a place; its latents are drawn from what the coder holds, at least ``needed`` bits."""
        self.stir(coder, noise(place, self.stirred // 16))
        alphabet, prior = self.latents(row)
        z = coder.decode(self.family, alphabet.weights(self.posterior(letters, row)))
        fn = self.program.decode(alphabet.read(z).unsqueeze(0), *row)
        coder.encode_reverse(letters, self.family, self.levels.weights(fn))
        coder.encode_reverse(z, self.family, prior)

    def pop(self, coder: Any, place: int, row: Sequence[Tensor]) -> np.ndarray:
        """Decode the datum that was encoded last, at its place, and give back the bits of its latents."""
        alphabet, prior = self.latents(row)
        z = coder.decode(self.family, prior)
        fn = self.program.decode(alphabet.read(z).unsqueeze(0), *row)
        letters = coder.decode(self.family, self.levels.weights(fn))
        coder.encode_reverse(z, self.family, alphabet.weights(self.posterior(letters, row)))
        self.stir(coder, -noise(place, self.stirred // 16))
        return letters

    def stir(self, coder: Any, shift: np.ndarray) -> None:
        """Shift the bits on the top of the stack, at no cost.

        They tell of the datum before, so that latents would not be drawn independently, nor from q.
        """
        top = coder.decode(self.bits, len(shift))
        coder.encode_reverse(((top + shift) % 2**16).astype(np.int32), self.bits)

    def posterior(self, letters: np.ndarray, row: Sequence[Tensor]) -> Any:
        """Return q(z given x) of one datum."""
        return self.program.encode(self.levels.read(letters).view(1, *self.shape), *row)

    def latents(self, row: Sequence[Tensor]) -> tuple[Alphabet, np.ndarray]:
        """Return the alphabet of the latents and the weights of its letters under the prior."""
        prior = self.program.prior(*row)
        values = grid_of(prior, 0)
        alphabet = Buckets(prior, self.buckets) if values is None else Levels(values)
        return alphabet, alphabet.weights(prior)


@contextmanager
def computing(program: VAE) -> Iterator[None]:
    """Compute as it is always done: without gradients or noise from outside, and on one thread, whose sums agree."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with evaluating(program), fork_rng(seed=0):
            yield
    finally:
        torch.set_num_threads(threads)


def noise(place: int, number: int) -> np.ndarray:
    """Return pseudorandom numbers of 16 bits for the datum at a place, the same ones on every machine."""
    found = hashlib.shake_256(place.to_bytes(8, "little")).digest(2 * number)
    return np.frombuffer(found, "<u2").astype(np.int32)


def stack() -> ModuleType:
    """Import the coder."""
    try:
        import constriction
    except ImportError as error:
        raise ImportError("Compressor needs constriction: pip install pyro-vae[compress]") from error
    return constriction.stream
