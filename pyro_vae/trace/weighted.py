"""Weights of examples: a handler that scales all sites in the plate of the data."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vae.trace.call import Call, outline
from pyro_vae.trace.layout import Layout

__all__ = ["Weighted", "layout_of"]


class Weighted(Messenger):
    """Multiply the scale of each site in the plate of the data by one weight per example.

    Sites that all examples share, such as the weights of a Bayesian decoder, keep their scale.

    Args:
        weights: one number per example, ``(batch,)``
        layout: where the plate of the data is

    Attributes:
        scales: the scales of observed sites without the weights, in the order of the runs

    Example:
        >>> import torch, pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> x = toy.draw(3)
        >>> with Weighted(torch.tensor([2.0, 1.0, 0.0]), layout_of(toy.program, (x,))):
        ...     terms = pv.trace.run(toy.program.model, toy.program.guide, (x,))
        >>> terms.observed[0].scale
        tensor([2., 1., 0.])
    """

    def __init__(self, weights: Tensor, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.weights = weights if layout.dim == -1 else weights.reshape(-1, *[1] * (-layout.dim - 1))
        self.scales: list[float | Tensor] = []

    def _pyro_sample(self, msg: Any) -> None:
        scale = msg["scale"]
        if msg["is_observed"]:
            self.scales.append(scale)
        if self.layout.contains(msg):
            self.check_size(msg)
            # one object at all sites is seen to be one scale without a comparison of its values
            msg["scale"] = self.weights if isinstance(scale, float) and scale == 1.0 else self.weights * scale
            msg["weights"] = self.weights

    def check_size(self, msg: Any) -> None:
        """Raise if the plate of the data has another size than the batch, and so other rows."""
        n = len(self.weights)
        for frame in msg["cond_indep_stack"]:
            if frame.dim == self.layout.dim and frame.size != n:
                raise ValueError(
                    f"weights: expected the {n} rows of the batch in plate {frame.name!r}, got {frame.size} (at site "
                    f"{msg['name']!r}). Leave subsampling to fit, by batch_size"
                )


def layout_of(program: Any, batch: tuple[Tensor, ...]) -> Layout:
    """Return where the plate of the data is in a program whose examples can be weighted.

    Args:
        program: a Program
        batch: x and context of a few examples

    Raises:
        ValueError: some observed site is not in one plate with a row per example.
    """
    layout = outline(Call(program.model, program.guide, batch, {})).layout
    if layout.name is None or layout.second is not None:
        site = "no site" if layout.second is None else f"site {layout.second!r} outside of it"
        raise ValueError(
            f"weights: expected a program with one plate over the examples around all observed sites, got {site}. "
            "Observe the data in one pyro_vae.programs.DataPlate"
        )
    return layout
