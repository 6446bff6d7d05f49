"""Compiled and uncompiled training compared, once for every part, program, estimator and kind of shared parameter.

Run `python tests/benchmarks/compile_everything.py`; it prints one row per case and exits with status 1 if one differs.
In each case a program is trained, validated, saved, loaded, sampled and trained again. With inductor this takes about
half a minute per case. `tests/training/test_shared_parameters.py` runs the cases of shared parameters.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import sys
import tempfile
import time
from pathlib import Path

import torch

import pyro_vae as pv
from pyro_vae import estimators as E
from pyro_vae.testing import parts
from pyro_vae.trace import Resampled
from pyro_vae.training import Linear, eager_graph, inductor

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.cross_product import build, estimators_for  # noqa: E402
from helpers.compiled import Case, compare  # noqa: E402
from helpers.programs import discrete, small, triples  # noqa: E402
from helpers.sharing import ROWS, binary, sharing_cases  # noqa: E402
from helpers.shelf import needs_discrete  # noqa: E402


def part_cases() -> dict[str, Case]:
    """Return programs in which every prior, likelihood and posterior occurs."""

    def case(triple: tuple[type, ...]) -> Case:
        program, data = build(*triple)
        kind = type(next(iter(estimators_for(program.posterior, data[0]).values())))
        return Case(lambda: build(*triple)[0], data, kind)

    return {" x ".join(part.__name__ for part in triple): case(triple) for triple in dict.fromkeys(triples())}


def program_case(kind: type[pv.Program]) -> Case:
    """Return the example of a program, with data that it can be trained on."""
    torch.manual_seed(0)
    program, data = kind.example(), (torch.randn(ROWS, 4),)
    if kind is pv.programs.Multilevel:
        data = (*data, torch.arange(ROWS) % 3)
    elif kind.decode_prior is not pv.Program.decode_prior:
        required = {"library": 50.0, "length": 4}
        options = {name: required[name] for name in inspect.signature(program.sample).parameters.keys() & required}
        data = (program.sample(ROWS, **options),)
    if kind is pv.programs.MissingNotAtRandom:
        data[0][::2, 1] = torch.nan
    if kind in (pv.programs.SemiSupervised, pv.programs.SemiSupervisedCountVAE):
        data = (*data, torch.eye(3).repeat(6, 1)[:ROWS])
    return Case(kind.example, data)


def estimator_case(kind: type[E.Estimator]) -> Case:
    """Return an estimator with a schedule of beta, on discrete latents or a sequence if it is made for them."""
    options = {} if kind is E.ForwardKL else {"beta": Linear(3, start=0.5)}  # on simulations there is none
    estimator = functools.partial(kind.example, **options)
    if issubclass(kind.draws, Resampled):
        return dataclasses.replace(program_case(pv.programs.SequenceVAE), estimator=estimator)
    return Case(discrete if needs_discrete(kind) else small, (binary(),), estimator)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiler", choices=("inductor", "eager_graph"), default="inductor")
    parser.add_argument("--only", default="", help="run only cases whose name contains this")
    options = parser.parse_args()
    compiler = {"inductor": inductor, "eager_graph": eager_graph}[options.compiler]
    cases = {f"sharing: {name}": case for name, case in sharing_cases().items()}
    cases |= {f"program: {kind.__name__}": program_case(kind) for kind in parts(pv.programs, pv.Program)}
    cases |= {f"estimator: {kind.__name__}": estimator_case(kind) for kind in parts(E, E.Estimator)}
    cases |= {f"parts: {name}": case for name, case in part_cases().items()}
    cases = {name: case for name, case in cases.items() if options.only in name}
    failed = []
    print(f"| case | largest difference with {options.compiler} | seconds |\n|---|---|---|", flush=True)
    for name, case in cases.items():
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = f"{compare(case, compiler, Path(folder)):.1e}"
            except Exception as error:  # the other cases still run
                failed.append(name)
                result = f"FAILED: {type(error).__name__}: {str(error)[:300]!r}"
        print(f"| {name} | {result} | {time.perf_counter() - start:.0f} |", flush=True)
    print(
        f"\n{len(cases) - len(failed)} of {len(cases)} cases agree" + "".join(f"\nfailed: {name}" for name in failed)
    )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
