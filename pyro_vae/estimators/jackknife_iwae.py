"""The jackknife of the importance-weighted bound."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from pyro_vae._util.cache import cached_tensors
from pyro_vae._util.validation import check_int
from pyro_vae.estimators.base import Estimator
from pyro_vae.estimators.gradients import refuse_dependent
from pyro_vae.trace import Recorder, Terms

__all__ = ["JackknifeIWAE"]


class JackknifeIWAE(Estimator):
    r"""The importance-weighted bound with the leading orders of its bias removed.

    .. math:: \sum_{j=0}^{m} c_j \, \bar L_{K - j}, \qquad
              c_j = \frac{(-1)^j (K - j)^m}{(m - j)!\, j!}

    where :math:`\bar L_{K - j}` is the mean of the importance-weighted bound over all subsets of K - j particles. The
    bias falls from order 1/K to :math:`K^{-(m + 1)}`. It is **not a bound**: the estimate may lie above the evidence.
    Value and gradient are those of the same expression.

    References:
        Debiasing evidence approximations: on importance-weighted autoencoders and jackknife variational inference
        (Nowozin, 2018), https://openreview.net/forum?id=HyZoi-WRb

    Args:
        order: m; the number of subsets grows as K to the power m
        num_particles: K, above m and at least 2
        options: ``particles_per_pass``, ``beta``, ``free_bits`` and ``capacity`` of :class:`Estimator`

    Raises:
        ValueError: a negative order, or one that is not below K.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> JackknifeIWAE().per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    def __init__(self, *, order: int = 1, num_particles: int = 5, **options: Any) -> None:
        num_particles = check_int("num_particles", num_particles, 2)
        super().__init__(num_particles=num_particles, **options)
        self.order = check_int("order", order, 0)
        if self.order >= num_particles:
            raise ValueError(f"order: expected an int below num_particles={num_particles}, got {order}")

    def check_terms(self, terms: Terms, recorder: Recorder) -> None:
        """Raise if particles are dependent: the bias of a mean over subsets is that of independent ones."""
        super().check_terms(terms, recorder)
        refuse_dependent(terms, "JackknifeIWAE")

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return the combination of the bounds of subsets."""
        log_w = terms.log_w(beta)
        k, m = self.num_particles, self.order
        total = 0.0
        for j in range(m + 1):
            left = log_w.masked_fill(left_out(k, j, log_w.device).unsqueeze(-1), -math.inf)
            each = left.logsumexp(1) - math.log(k - j)
            total = total + (-1) ** j * (k - j) ** m / (math.factorial(m - j) * math.factorial(j)) * each.mean(0)
        return total


@cached_tensors
def left_out(k: int, j: int, device: torch.device) -> Tensor:
    """Return which particles are left out in each way to leave out j of k, ``(ways, k)``."""
    ways, n = list(itertools.combinations(range(k), j)), math.comb(k, j)
    which = torch.tensor(ways, dtype=torch.long, device=device).reshape(n, j)
    return torch.zeros(n, k, dtype=torch.bool, device=device).scatter_(1, which, True)
