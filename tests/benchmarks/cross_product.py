"""Every prior with every likelihood and every posterior, under the ELBO and an importance-weighted bound.

Run `python tests/benchmarks/cross_product.py`; it prints counts. Each compatible triple takes ten steps of Adam under
both estimators; the loss must then be finite and lower than before. An incompatible triple must be refused before the
first step by an error that names both parts. `tests/testing/test_cross_product.py` runs a part of it: every pair of
prior and posterior, with the likelihoods in turn.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import time
from collections import Counter
from typing import Any

import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae.testing import parts

ADAM = functools.partial(torch.optim.Adam, lr=1e-4)
PARTICLES, STEPS, ROWS = 5, 10, 16
#: Samples per row over which the loss is averaged; the larger number is used if the loss is too noisy.
COPIES, MORE_COPIES = 32, 1000


class Refused(Exception):
    """The parts are incompatible, and the error names them."""


def data_for(likelihood: pv.Conditional, latent: int) -> Tensor:
    """Sample data from the likelihood."""
    with torch.no_grad():
        return likelihood(torch.rand(ROWS, latent)).sample()


def build(prior: type, likelihood: type, posterior: type) -> tuple[pv.VAE, tuple[Tensor, ...]]:
    """Return a small program of three parts, and data for it."""
    torch.manual_seed(0)
    p = prior.example()
    context = [torch.rand(ROWS, p.context)] if getattr(p, "context", 0) else []
    latent = p(*context).event_shape.numel()
    decoder = likelihood.example(latent=latent)
    x = data_for(decoder, latent)
    program = pv.VAE(prior=p, likelihood=decoder, posterior=posterior.example(latent=latent, shape=tuple(x.shape[1:])))
    return program, (x, *context)


def estimators_for(posterior: pv.Conditional, x: Tensor) -> dict[str, pv.estimators.Estimator]:
    """Return the ELBO and an importance-weighted bound that can train this posterior."""
    if posterior(x[:1]).has_rsample:
        return {
            "ELBO": pv.estimators.ELBO(num_particles=PARTICLES),
            "IWAE": pv.estimators.IWAE(num_particles=PARTICLES),
        }
    return {"ELBO": pv.estimators.Enumeration(), "IWAE": pv.estimators.VIMCO(num_particles=PARTICLES)}


def loss_of(program: pv.VAE, estimator: Any, data: tuple[Tensor, ...], copies: int) -> float:
    """Return the mean loss over many samples, with the same random numbers in each call."""
    torch.manual_seed(1)
    rows = [t.repeat(copies, *[1] * (t.dim() - 1)) for t in data]
    with torch.no_grad():
        return float(estimator.differentiable_loss(program.model, program.guide, *rows)) / len(rows[0])


def fall(program: pv.VAE, estimator: Any, data: tuple[Tensor, ...], copies: int) -> tuple[float, float, int]:
    """Train until the loss is lower than before; return the loss before and after, and the number of steps."""
    before = after = loss_of(program, estimator, data, copies)
    svi = pv.training.SVI(program, estimator, ADAM)
    while svi.steps < 5 * STEPS and not after < before:
        for _ in range(STEPS):
            svi.update(*data)
        after = loss_of(program, estimator, data, copies)
    return before, after, svi.steps


def attempt(prior: type, likelihood: type, posterior: type) -> int:
    """Train one triple, and return the number of steps after which the loss had decreased under both estimators.

    The loss is measured after ten steps, and again with more samples if a heavy-tailed posterior makes it too noisy.

    Raises:
        Refused: the parts are incompatible.
        AssertionError: the loss is not finite or does not decrease.
    """
    program, data = build(prior, likelihood, posterior)
    try:
        program.check(*data)
    except ValueError as error:
        named = "posterior " in str(error) and "prior " in str(error)
        raise (
            Refused() if named else AssertionError(f"refused by an error that does not name both: {error}")
        ) from error
    weights = {name: value.clone() for name, value in program.state_dict().items()}
    needed = STEPS
    for name, estimator in estimators_for(program.posterior, data[0]).items():
        for copies in (COPIES, MORE_COPIES):
            program.load_state_dict(weights)
            before, after, steps = fall(program, estimator, data, copies)
            if steps == STEPS and after < before:
                break
        assert abs(after) < float("inf"), f"{name}: the loss is {after}"
        assert after < before, f"{name}: the loss went from {before:.4f} to {after:.4f}"
        needed = max(needed, steps)
    return needed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shard", type=int, default=0, help="number of the shard to run")
    parser.add_argument("--shards", type=int, default=1, help="number of shards")
    parser.add_argument("--only", nargs="*", default=[], help="run the triples that contain one of these parts")
    options = parser.parse_args()
    shelves = [list(parts(shelf)) for shelf in (pv.priors, pv.likelihoods, pv.posteriors)]
    product = itertools.product(*shelves)
    if options.only:
        product = (triple for triple in product if {part.__name__ for part in triple} & set(options.only))
    product = list(product)[options.shard :: options.shards]
    counts, start = Counter(), time.perf_counter()
    for done, triple in enumerate(product, 1):
        names = " x ".join(part.__name__ for part in triple)
        try:
            needed = attempt(*triple)
            counts["trained under both estimators"] += 1
            counts["of these, in more than ten steps"] += needed > STEPS
            if needed > STEPS:
                print(f"{needed} steps: {names}", flush=True)
        except Refused:
            counts["refused by name before the first step"] += 1
        except Exception as error:  # report all failures
            counts["failed"] += 1
            print(f"FAILED {names}: {type(error).__name__}: {error}", flush=True)
        if done % 500 == 0:
            print(f"# {done} of {len(product)}, {time.perf_counter() - start:.0f} s: {dict(counts)}", flush=True)
    print(f"{' x '.join(str(len(shelf)) for shelf in shelves)} parts, {len(product)} triples: {dict(counts)}")
    sys.exit(counts["failed"] > 0)


if __name__ == "__main__":
    main()
