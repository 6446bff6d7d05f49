"""Small Pyro programs in every situation that an estimator may meet, each with an exact answer.

A program is a model and a guide whose parameters are attributes of their first argument, so that the exact answer
(``small_programs_answers``) can give each role of a parameter a copy of its own. Normal sites are linear in earlier
ones: an average over a few rows of noise with the right moments is exact.
"""

import functools
from dataclasses import dataclass, field

import torch
from torch import nn

#: Every program, by name.
PROGRAMS = {}


@dataclass(frozen=True)
class SmallProgram:
    """A model and a guide, and what is known of them.

    Attributes:
        name: what the situation is
        model: ``model(p, *args, **kwargs)`` with parameters ``p.w``
        guide: likewise
        parameters: start values, by name
        args: arguments of both
        kwargs: keyword arguments of both
        data: name of the plate of the data; None where the whole run is one example
        nesting: number of plate dimensions
        valid: whether the program is a model and a guide in the sense of Pyro; all estimators refuse others
        entangled: whether the guide of a latent of one example depends on a draw that all examples share
        exact: returns the exact ELBO or None, by other means than the common answer
        evidence: likewise for the exact log evidence
        random: returns log-densities on a grid of the one latent, where draws cannot be scripted
        file: name of the module that registers it, whose programs share a heading of the page
    """

    name: str
    model: object
    guide: object
    parameters: dict = field(default_factory=dict)
    args: tuple = ()
    kwargs: dict = field(default_factory=dict)
    data: str | None = "data"
    nesting: int = 1
    valid: bool = True
    entangled: bool = False
    exact: object = None
    evidence: object = None
    random: object = None
    file: str = ""

    def build(self):
        """Return a module with the methods ``model`` and ``guide``."""
        return Runs(self)


class Runs(nn.Module):
    """A small program as a user writes it: a module with two methods."""

    def __init__(self, program):
        super().__init__()
        self.functions = [program.model, program.guide]
        for name, value in program.parameters.items():
            self.register_parameter(name, nn.Parameter(torch.as_tensor(value).double()))

    def model(self, *args, **kwargs):
        return self.functions[0](self, *args, **kwargs)

    def guide(self, *args, **kwargs):
        return self.functions[1](self, *args, **kwargs)


def small_program(name, **facts):
    """Register the program that a function returns: ``model, guide, parameters, args``."""

    def register(make):
        model, guide, parameters, *args = make()
        file = make.__module__.split(".")[-1]
        PROGRAMS[name] = SmallProgram(name, model, guide, parameters, tuple(args), file=file, **facts)
        return make

    return register


@functools.cache
def programs():
    """Return every program, by name."""
    from helpers import (  # noqa: F401
        small_programs_discrete,
        small_programs_enumeration,
        small_programs_masks,
        small_programs_plates,
        small_programs_random,
        small_programs_shared,
        small_programs_sites,
    )

    return PROGRAMS
