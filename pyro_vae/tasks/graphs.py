"""The functions of a program that can be exported: encoder, decoder and score, with fixed noise."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyro_vae._util.abstract import Abstract
from pyro_vae._util.fixed_noise import FixedNoise
from pyro_vae.estimators.iwae import log_mean_exp
from pyro_vae.programs.primitives import announcements_off
from pyro_vae.programs.program import Program
from pyro_vae.trace import run

__all__ = ["GRAPHS", "Graph", "more_inputs"]


class Graph(Abstract, nn.Module):
    """A function of a program whose random numbers are buffers, the same for each row and in each call.

    Args:
        program: a program in evaluation mode
        inputs: what the function takes, for a few examples; its first row is used to draw the numbers
        num_particles: samples of the latents per example, where the function needs some
        seed: random seed of these samples
    """

    #: Names of the results.
    outputs: ClassVar[tuple[str, ...]]

    def __init__(self, program: Program, inputs: tuple[Tensor, ...], num_particles: int, seed: int) -> None:
        super().__init__()
        self.program, self.num_particles = program, num_particles
        first = [column[:1] for column in inputs]
        with announcements_off():
            for _ in range(2):  # the first run of a program also finds out its structure
                with FixedNoise(seed=seed) as noise:
                    self.compute(*first)
        self.noise = [f"noise_{i}" for i in range(len(noise.values))]
        for name, value in zip(self.noise, noise.values, strict=True):
            self.register_buffer(name, value)

    @abstractmethod
    def compute(self, *inputs: Tensor) -> Any:
        """Return the results, with torch's random numbers."""

    def forward(self, *inputs: Tensor) -> Any:
        """Return the results, with fixed numbers in place of random ones."""
        with announcements_off(), FixedNoise([self.get_buffer(name) for name in self.noise]):
            return self.compute(*inputs)

    @staticmethod
    def names(program: Program, context: int) -> list[str]:
        """Return the names of the inputs, given the number of columns of context."""
        return ["x", *(f"context_{i}" for i in range(context))]


class EncoderGraph(Graph):
    """Mean and standard deviation of q(z given x), as ``tasks.embed`` returns them."""

    outputs = ("mean", "std")

    def compute(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the moments; those of samples where there is no closed form."""
        fn = self.program.encode(*inputs)
        if isinstance(fn, Tensor):
            return fn, torch.zeros_like(fn)
        drawn = fn.sample((self.num_particles,))
        try:
            mean = fn.mean
        except NotImplementedError:
            mean = drawn.mean(0)
        try:
            return mean, fn.variance.sqrt()
        except NotImplementedError:
            return mean, drawn.std(0)


class DecoderGraph(Graph):
    """Mean of p(x given z)."""

    outputs = ("mean",)

    def compute(self, *inputs: Tensor) -> Tensor:
        """Return the mean, given z, context and what else ``decode`` takes."""
        names = more_inputs(self.program)
        cut = len(inputs) - len(names)
        return self.program.decode(*inputs[:cut], **dict(zip(names, inputs[cut:], strict=True))).mean

    @staticmethod
    def names(program: Program, context: int) -> list[str]:
        """Return the names of the inputs, given the number of columns of context."""
        return ["z", *(f"context_{i}" for i in range(context)), *more_inputs(program)]


class ScoreGraph(Graph):
    r"""The anomaly score :math:`-\log \frac1K \sum_k w_k` of each example."""

    outputs = ("scores",)

    def compute(self, *inputs: Tensor) -> Tensor:
        """Return the score, from one run of guide and model."""
        terms = run(self.program.model, self.program.guide, inputs, {}, num_particles=self.num_particles).split()[0]
        return -log_mean_exp(terms.log_w())


GRAPHS: dict[str, type[Graph]] = {"encoder": EncoderGraph, "decoder": DecoderGraph, "score": ScoreGraph}


def more_inputs(program: Program) -> list[str]:
    """Return the keyword arguments of ``decode`` without a default, such as library sizes: one number per example."""
    parameters = inspect.signature(program.decode).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
