"""Bits-back coding of one example: push it onto the stack of an entropy coder, and pop it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from pyro_vae._util.random_state import fork_rng
from pyro_vae.distributions.missing import factorized
from pyro_vae.distributions.supports import Grid
from pyro_vae.programs import VAE
from pyro_vae.programs.compatibility import check_parts
from pyro_vae.programs.program import evaluating

__all__ = ["MAX_COUNT", "BitsBack", "constriction_stream", "reproducible"]

#: Probabilities are rounded to multiples of this. Arithmetic that differs by 1e-16 changes one in 1e11 of them.
UNIT = 2**-16

#: Largest count that can be coded: each entry takes a table with the probabilities of all counts.
MAX_COUNT = 2**16 - 1

#: Bits that are randomized per latent. Probabilities are at least 2^-24, so that no latent takes more.
RANDOM_BITS = 32


class Levels:
    """Alphabet of discrete entries, given their values in increasing order."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def weights(self, fn: dist.Independent) -> np.ndarray:
        """Return the rounded probabilities of all symbols, (entries, symbols), without those of larger counts."""
        base = fn.base_dist
        values = self.values.view(-1, *[1] * len(base.batch_shape)).expand(-1, *base.batch_shape)
        return rounded(base.log_prob(values).softmax(0))

    def values_of(self, symbols: np.ndarray) -> Tensor:
        """Return the values of symbols."""
        return self.values[torch.from_numpy(symbols).long()]

    def symbols_of(self, x: Tensor) -> np.ndarray:
        """Return the symbol of the value nearest to each entry."""
        step = float(self.values[1] - self.values[0])
        return (x.double() / step).round().to(torch.int32).numpy()


class Buckets:
    r"""Alphabet of continuous latents: intervals of equal prior probability.

    .. math:: P(k) = \frac1K, \qquad q(k \mid x) = Q(e_{k+1} \mid x) - Q(e_k \mid x), \qquad
              e_k = P^{-1}\left(\frac kK\right)

    Args:
        prior: a product over the latents, with an inverse distribution function
        num_buckets: K
    """

    def __init__(self, prior: dist.Independent, num_buckets: int) -> None:
        base = prior.base_dist
        levels = torch.arange(2 * num_buckets + 1, dtype=torch.float64) / (2 * num_buckets)
        quantiles = base.icdf(levels.view(-1, *[1] * len(base.batch_shape)).expand(-1, *base.batch_shape))
        self.edges, self.centres = quantiles[::2], quantiles[1::2].flatten(1)

    def weights(self, fn: dist.Independent) -> np.ndarray:
        """Return the rounded probabilities of all intervals, (entries, symbols)."""
        return rounded(fn.base_dist.cdf(self.edges).diff(dim=0).clamp(min=0))

    def values_of(self, symbols: np.ndarray) -> Tensor:
        """Return the prior median of each interval."""
        return self.centres.gather(0, torch.from_numpy(symbols).long().unsqueeze(0)).squeeze(0)


class BitsBack:
    """Coder of single examples under a VAE.

    Args:
        program: in float64, on the CPU
        num_buckets: intervals per continuous latent
        max_count: the largest count, for likelihoods of counts without an upper bound

    Raises:
        TypeError: a part of the program cannot be coded; the part is named.
    """

    def __init__(self, program: VAE, *, num_buckets: int, max_count: int = 1) -> None:
        self.program, self.num_buckets = program, num_buckets
        model = constriction_stream().model
        self.family, self.bits = model.Categorical(perfect=False), model.Uniform(2**16)
        width = max(part.context for part in program.children())
        row = [torch.zeros(1, width, dtype=torch.float64)] if width else []
        with reproducible(program):
            prior = program.prior(*row)
            fn = program.decode(torch.zeros(1, *prior.event_shape, dtype=torch.float64), *row)
            values = support_values(fn, max_count)
            if values is None:
                raise TypeError(
                    f"likelihood: expected a discrete one that is a product over entries, such as Bernoulli, "
                    f"Categorical or DiscretizedLogistic, got {type(program.likelihood).__name__}"
                )
            self.levels, self.shape = Levels(values), tuple(fn.event_shape)
            try:
                q = program.encode(torch.zeros(1, *self.shape, dtype=torch.float64), *row)
                check_parts(program, torch.zeros(1, *self.shape, dtype=torch.float64), *row)
                if not (factorized(prior) and factorized(q)):
                    raise NotImplementedError
                alphabet, _ = self.latents(row)
                alphabet.weights(q)
            except NotImplementedError as error:
                raise TypeError(
                    "program: expected a prior and a posterior with independent latents, continuous ones with "
                    f"distribution functions in closed form, got {type(program.prior).__name__} and "
                    f"{type(program.posterior).__name__}. Use StandardNormal with MeanFieldNormal, Laplace with "
                    "Laplace, or Bernoulli with Bernoulli"
                ) from error
        self.random_bits = RANDOM_BITS * prior.event_shape.numel()
        #: Bits that the coder must hold before an example is pushed, with those of its own state.
        self.min_bits = self.random_bits + 96

    def push(self, coder: Any, index: int, symbols: np.ndarray, row: Sequence[Tensor]) -> None:
        """Encode the example at an index; its latents are decoded from the coder, which holds ``min_bits`` or more."""
        self.randomize(coder, pseudorandom(index, self.random_bits // 16))
        alphabet, prior = self.latents(row)
        z = coder.decode(self.family, alphabet.weights(self.posterior(symbols, row)))
        fn = self.program.decode(alphabet.values_of(z).unsqueeze(0), *row)
        coder.encode_reverse(symbols, self.family, self.levels.weights(fn))
        coder.encode_reverse(z, self.family, prior)

    def pop(self, coder: Any, index: int, row: Sequence[Tensor]) -> np.ndarray:
        """Decode the example that was encoded last, and return the bits of its latents to the coder."""
        alphabet, prior = self.latents(row)
        z = coder.decode(self.family, prior)
        fn = self.program.decode(alphabet.values_of(z).unsqueeze(0), *row)
        symbols = coder.decode(self.family, self.levels.weights(fn))
        coder.encode_reverse(z, self.family, alphabet.weights(self.posterior(symbols, row)))
        self.randomize(coder, -pseudorandom(index, self.random_bits // 16))
        return symbols

    def randomize(self, coder: Any, shift: np.ndarray) -> None:
        """Shift the bits on the top of the stack, at no cost.

        They depend on the previous example: without the shift, latents would be neither independent nor distributed as
        q(z given x).
        """
        top = coder.decode(self.bits, len(shift))
        coder.encode_reverse(((top + shift) % 2**16).astype(np.int32), self.bits)

    def posterior(self, symbols: np.ndarray, row: Sequence[Tensor]) -> Any:
        """Return q(z given x) of one example."""
        return self.program.encode(self.levels.values_of(symbols).view(1, *self.shape), *row)

    def latents(self, row: Sequence[Tensor]) -> tuple[Levels | Buckets, np.ndarray]:
        """Return the alphabet of the latents and the rounded prior probabilities of its symbols."""
        prior = self.program.prior(*row)
        values = support_values(prior, 0)
        alphabet = Buckets(prior, self.num_buckets) if values is None else Levels(values)
        return alphabet, alphabet.weights(prior)


def support_values(fn: dist.TorchDistribution, max_count: int) -> Tensor | None:
    """Return all values of an entry, or None if entries are continuous or dependent.

    Counts without an upper bound end at ``max_count``, or have no values if it is 0.
    """
    if not factorized(fn):
        return None
    support = fn.base_dist.support
    if support is constraints.boolean:
        return torch.arange(2, dtype=torch.float64)
    if support is constraints.nonnegative_integer and max_count:
        return torch.arange(max_count + 1, dtype=torch.float64)
    if isinstance(support, Grid):
        values = torch.arange(support.levels, dtype=torch.float64)
        # k / 255, as data are scaled, can differ from k * (1 / 255)
        steps = round(1 / support.step) if support.step < 1 else 1
        return values / steps if abs(steps * support.step - 1) < 1e-12 else values * support.step
    return None


def rounded(probabilities: Tensor) -> np.ndarray:
    """Return probabilities (symbols, *entries) as multiples of the unit, (entries, symbols)."""
    if not torch.isfinite(probabilities).all():
        raise ValueError("program: expected finite probabilities of an example, got NaN or infinite ones")
    return (probabilities / UNIT).round().flatten(1).T.contiguous().numpy()


@contextmanager
def reproducible(program: VAE) -> Iterator[None]:
    """Compute in evaluation mode with fixed random state, and on one thread, as the order of sums matters."""
    with evaluating(program), fork_rng(seed=0):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def pseudorandom(index: int, n: int) -> np.ndarray:
    """Return n pseudorandom numbers of 16 bits for the example at an index, the same on every machine."""
    digest = hashlib.shake_256(index.to_bytes(8, "little")).digest(2 * n)
    return np.frombuffer(digest, "<u2").astype(np.int32)


def constriction_stream() -> ModuleType:
    """Return the module ``constriction.stream``, or raise if constriction is not installed."""
    try:
        import constriction
    except ImportError as error:
        raise ImportError("Compressor needs constriction: pip install 'pyro-vae[compress]'") from error
    return constriction.stream
