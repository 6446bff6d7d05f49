"""Beta-TC-VAE: the KL divergence split into three weighted parts."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from pyro_vae._util.validation import check_int, check_number
from pyro_vae.estimators.averages import mean
from pyro_vae.estimators.over_batch import OverBatch, only_latent, reconstruction
from pyro_vae.trace import Site, Terms
from pyro_vae.trace.divergence import factors

__all__ = ["BetaTC"]


class BetaTC(OverBatch):
    r"""The bound with the divergence in three parts (beta-TC-VAE), to weigh the total correlation.

    .. math:: \mathbb E_q[\log p(x \mid z)]
              - \alpha \, \mathbb E_q\left[\log \frac{q(z \mid x)}{q(z)}\right]
              - \beta \, \mathbb E_q\left[\log \frac{q(z)}{\prod_d q(z_d)}\right]
              - \gamma \, \mathbb E_q\left[\log \frac{\prod_d q(z_d)}{p(z)}\right]

    The parts are the mutual information of the latent and the index of the example, the total correlation, and the
    divergence of each dimension. With all weights 1 they sum to the ELBO, draw by draw. The densities of the aggregate
    posterior are estimated from the M rows of a batch out of N examples by stratified sampling,

    .. math:: q(z_i) \approx \frac1N q(z_i \mid x_i) + \frac{N - 1}{N (M - 1)} \sum_{j \ne i} q(z_i \mid x_j),

    or by weighted sampling, :math:`\frac{1}{NM} \sum_j q(z_i \mid x_j)`. The first is unbiased for :math:`q(z_i)` and
    exact when the batch is all data; the second is too small by a factor that tends to N. Logarithms of both are
    **biased**, by an amount that depends on the batch size.

    References:
        Isolating sources of disentanglement in variational autoencoders (Chen et al., 2018),
        https://arxiv.org/abs/1802.04942

    Args:
        data_size: N, the number of examples that the batches are drawn from
        alpha: weight of the information
        beta: weight of the total correlation, a number or a schedule
        gamma: weight of the divergence of each dimension
        stratified: use stratified sampling, otherwise weighted sampling
        options: ``num_particles`` and ``free_bits`` of :class:`Estimator`

    Raises:
        ValueError: fewer than two examples, or a negative weight; in a run, a batch of one row or of more than N,
            several latent sites, or a posterior that is not a product over dimensions.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian(off=0.1)
        >>> bound = BetaTC(data_size=1000, beta=6.0)
        >>> bound.per_datum(toy.program.model, toy.program.guide, toy.draw(5)).shape
        torch.Size([5])
    """

    def __init__(
        self, *, data_size: int, alpha: float = 1.0, gamma: float = 1.0, stratified: bool = True, **options: Any
    ) -> None:
        super().__init__(**options)
        data_size = check_int("data_size", data_size, 2)
        self.alpha, self.gamma = check_number("alpha", alpha, 0), check_number("gamma", gamma, 0)
        self.data_size, self.stratified = data_size, stratified

    @classmethod
    def example(cls, **options: Any) -> BetaTC:
        """Build an instance for a thousand examples."""
        return cls(data_size=1000, **options)

    def bound(self, terms: Terms, beta: float | Tensor) -> Tensor:
        """Return reconstruction minus the three weighted parts per example."""
        information, correlation, dimensions = self.parts(only_latent(terms, self))
        gap = self.alpha * information + beta * correlation + self.gamma * dimensions
        return reconstruction(terms) - mean(gap)

    def parts(self, site: Site) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three parts of the divergence, ``(particles, batch)`` each."""
        log_q = pairs(site)
        weights = self.log_weights(log_q)
        whole = (log_q.sum(2) + weights).logsumexp(1)
        product = (log_q + weights.unsqueeze(1)).logsumexp(1).sum(1)
        return site.log_q - whole, whole - product, product - site.log_p

    def log_weights(self, like: Tensor) -> Tensor:
        """Return the log weight of each row j in the density at a draw of row i, ``(j, i)``."""
        rows, n = like.shape[1], self.data_size
        if rows > n:
            raise ValueError(f"data_size: expected at least the {rows} rows of the batch, got {n}")
        if not self.stratified:
            return like.new_full((rows, rows), -math.log(n * rows))
        others = like.new_full((rows, rows), math.log((n - 1) / (n * (rows - 1))))
        return others.fill_diagonal_(-math.log(n))


def pairs(site: Site) -> Tensor:
    """Return the log-density of each dimension of the draw of row i given row j, ``(particles, j, dims, i)``."""
    fn, z = site.guide["fn"], site.guide["value"]
    q = factors(fn)
    if q is None:
        raise ValueError(
            f"posterior: BetaTC needs a product over dimensions at site {site.name!r}: use one such as "
            "MeanFieldNormal, or FactorVAE"
        )
    # move the rows of the draws to the far left, where no parameter has a dimension
    row = z.dim() - fn.event_dim + site.layout.dim
    log_q = q.log_prob(z.movedim(row, 0).unsqueeze(row + 1)).movedim(0, -1)
    return site.per_row(log_q, event_dim=fn.event_dim + 1).unflatten(-1, (-1, z.shape[row]))
