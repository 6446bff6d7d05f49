"""A program whose posterior is refined for each example at test time."""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae._util.lock import in_turn
from pyro_vae._util.random_state import fork_rng_unlocked
from pyro_vae._util.validation import check_int
from pyro_vae.estimators import ELBO
from pyro_vae.evaluation.posterior.local_guide import LocalGuide
from pyro_vae.programs.program import Program
from pyro_vae.scales import check_positive

__all__ = ["Refined"]


class Refined(Program):
    r"""A trained program with a guide that is refined for each example, by gradient steps on its ELBO.

    .. math:: q(z \mid x_n) = q(z; \lambda_n), \qquad
              \lambda_n = \arg\max_\lambda \mathbb E_{q(z; \lambda)}\left[\log \frac{p(x_n, z)}{q(z; \lambda)}\right]

    starting at the outputs of the encoders, all of which are refined together. It is for evaluation, of any program:
    each run of the guide refines its batch again, so that it takes any rows, and its cost is that of ``num_steps``
    steps. The weights are those of the program and do not change. To train with a refined posterior use
    ``posteriors.SemiAmortized``.

    References:
        Semi-amortized variational autoencoders (Kim et al., 2018), https://arxiv.org/abs/1802.02550

    Args:
        program: a Program with encoders that take the data alone, such as one of ``amortize`` with a mean field
        num_steps: number of steps of Adam, whose learning rate falls to zero
        learning_rate: its initial learning rate
        num_particles: samples of the ELBO in each step
        seed: seed of the refinement, which is a function of the batch

    Raises:
        ValueError: ``num_steps`` or ``num_particles`` is below 1, or ``learning_rate`` is not positive; in a run, the
            guide has no encoder, or one that takes samples of other latents.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.3)
        >>> x, elbo = toy.draw(5), pv.estimators.ELBO(num_particles=100)
        >>> refined = Refined(toy.program, num_steps=50)
        >>> before, after = (elbo.per_datum(p.model, p.guide, x).mean() for p in (toy.program, refined))
        >>> bool(after > before)
        True
    """

    @in_turn
    def __init__(
        self,
        program: Program,
        *,
        num_steps: int = 200,
        learning_rate: float = 0.05,
        num_particles: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.program = program
        self.num_steps = check_int("num_steps", num_steps)
        check_positive("learning_rate", learning_rate)
        self.learning_rate, self.seed = learning_rate, seed
        self.num_particles = check_int("num_particles", num_particles)

    def model(self, x: Tensor, *context: Tensor) -> Any:
        """Run the model of the program."""
        return self.program.model(x, *context)

    def guide(self, x: Tensor, *context: Tensor) -> Any:
        """Refine the outputs of the encoders for a batch, and run the guide of the program with them."""
        batch, elbo = (x, *context), ELBO()
        # a plate over particles would collide with one around this guide, so that rows are repeated instead
        copies = [column.repeat(self.num_particles, *[1] * (column.dim() - 1)) for column in batch]
        # the handlers around this guide do not see the refinement
        with poutine.block(), fork_rng_unlocked(batch, self.seed):
            local = LocalGuide(self.program, batch)
            local.optimize(
                lambda p: elbo.per_datum(p.model, p.guide, *copies) / self.num_particles,
                self.num_steps,
                self.learning_rate,
            )
        with torch.no_grad():
            return local.guide(x, *context)

    def check(self, x: Tensor, *context: Tensor) -> None:
        """Raise if the data do not fit the program."""
        self.program.check(x, *context)
