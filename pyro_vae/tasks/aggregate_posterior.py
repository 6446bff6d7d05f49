"""A density fitted to the latents of data after training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints

from pyro_vae._util.lock import in_turn
from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions.base import Distribution
from pyro_vae.evaluation.over import over
from pyro_vae.priors import FlowMatching, MixtureOfNormals
from pyro_vae.programs import VAE, DataPlate, Program, announce, observe
from pyro_vae.scales import inverse_positive
from pyro_vae.tasks.decoding import require_vae
from pyro_vae.training import fit

__all__ = ["AggregatePosterior"]


class AggregatePosterior(Conditional):
    r"""A density fitted to the latents of data after training (ex-post density estimation).

    .. math:: \max_\theta \frac1N \sum_n \mathbb E_{q(z \mid x_n)}[\log p_\theta(z)], \qquad
              p_\theta(z) \approx \frac1N \sum_n q(z \mid x_n)

    The aggregate posterior of a trained VAE differs from its prior, and the decoder was trained on the former. Sample
    from this density by ``generate(vae, num_samples, prior=...)``, or build a ``VAE`` with it as the prior: the ELBO
    of that program is a bound on log p(x), and higher than before where the density is better. No part of ``program``
    changes.

    References:
        From variational to deterministic autoencoders (Ghosh et al., 2020), https://arxiv.org/abs/1903.12436 (mixture
        of normals); Diagnosing and enhancing VAE models (Dai and Wipf, 2019), https://arxiv.org/abs/1903.05789 (a
        second VAE); Neural discrete representation learning (van den Oord et al., 2017),
        https://arxiv.org/abs/1711.00937 (an autoregressive prior)

    Args:
        program: a trained VAE
        x: its training data: rows, or a tuple ``(x, context)``, as in ``fit``
        family: one of

            * an int: a mixture of this number of normals with full covariances, fitted by expectation maximization
            * a prior such as ``priors.NeuralSplineFlow``: a copy of it is fitted by maximum likelihood, with new
              samples of the latents in each epoch; ``priors.FlowMatching`` by its ``regression_loss``. A prior with a
              context is fitted as p(z given the context)
            * a program whose data are vectors of latents, such as a second ``VAE``: a copy of it is trained on the
              latents. It has samples, but no density
        num_samples: samples of the latents per example; 1 for a prior, as each epoch has new ones
        seed: random seed
        progress: show a progress bar
        options: arguments of ``fit`` for a prior or program, such as ``epochs`` (10 by default), ``optimizer``,
            ``batch_size`` or ``estimator``

    Attributes:
        family: the fitted prior or program

    Raises:
        ImportError: scikit-learn is not installed, for a mixture.
        TypeError: the program is not a VAE, or the family is none of the above.
        ValueError: the data do not fit the program, the family does not fit its latents, or there are too few samples.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> AggregatePosterior(toy.program, toy.draw(200), 2, progress=False)().event_shape
        torch.Size([2])
        >>> flow = pv.priors.FlowMatching(2).to(toy.program.dtype)
        >>> fitted = AggregatePosterior(toy.program, toy.draw(200), flow, epochs=2, progress=False)
        >>> pv.tasks.generate(toy.program, 7, prior=fitted).shape
        torch.Size([7, 5])
    """

    family: Conditional | Program

    @in_turn
    def __init__(
        self,
        program: Program,
        x: Any,
        family: int | Conditional | Program = 10,
        *,
        num_samples: int = 1,
        seed: int = 0,
        progress: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        vae, num_samples = require_vae(program), check_int("num_samples", num_samples)
        training = {"epochs": 10, "seed": seed, "progress": progress, **options}
        self.event_shape = torch.Size()
        if isinstance(family, Conditional):
            if num_samples > 1:
                raise ValueError(f"num_samples: expected 1 for a prior, got {num_samples}. Raise epochs instead")
            self.family = copy.deepcopy(family)
            fit(LatentDensity(vae, self.family), x, **training)
        elif isinstance(family, Program):
            z, *context = latents(vae, x, num_samples, seed, progress)
            self.family, self.event_shape = copy.deepcopy(family), z.shape[1:]
            fit(self.family, (z, *context) if family.context else z, **training)
        else:
            try:
                num_components = check_int("family", family)
            except ValueError as error:
                raise TypeError(f"family: expected a positive int, a prior or a program, got {family!r}") from error
            if options:
                raise ValueError(f"{', '.join(options)}: expected none for a mixture. Leave it out")
            z, *_ = latents(vae, x, num_samples, seed, progress)
            self.family = mixture_of_normals(z, num_components, seed).to(program.device, z.dtype)
        self.context = self.family.context

    def forward(self, *context: Tensor) -> TorchDistributionMixin:
        """Return p(z), or p(z given c)."""
        if isinstance(self.family, Program):
            return Marginal(self.family, self.event_shape, context if self.context else ())
        return self.family(*context)


def latents(vae: VAE, x: Any, num_samples: int, seed: int, progress: bool) -> tuple[Tensor, ...]:
    """Return samples of q(z given x) for all examples, and the context of each sample."""

    def sample(*batch: Tensor) -> tuple[Tensor, ...]:
        z = vae.encode(*batch).sample((num_samples,)).transpose(0, 1)
        return z, *(c.unsqueeze(1).expand(-1, num_samples, -1) for c in batch[1:])

    found = over(vae, x, sample, num_particles=num_samples, seed=seed, desc="latents", progress=progress)
    return tuple(column.flatten(0, 1) for column in found)


def mixture_of_normals(z: Tensor, num_components: int, seed: int) -> MixtureOfNormals:
    """Return a mixture of normals fitted to vectors of latents by expectation maximization."""
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise ImportError("AggregatePosterior needs scikit-learn: pip install 'pyro-vae[sklearn]'") from error
    if z.dim() != 2:
        raise ValueError(f"program: expected a vector of latents, got shape {tuple(z.shape[1:])}")
    if len(z) < num_components:
        raise ValueError(f"family: expected at most {len(z)}, the number of latents, got {num_components}")
    found = GaussianMixture(num_components, random_state=seed, reg_covar=1e-6).fit(z.double().numpy())
    weights, means, covariances = map(torch.as_tensor, (found.weights_, found.means_, found.covariances_))
    with fork_rng(seed=seed):  # the initial means are random
        mixture = MixtureOfNormals(z.shape[1], num_components=num_components, full=True).to(z.dtype)
    factor = torch.linalg.cholesky(covariances)
    raw = factor.tril(-1) + torch.diag_embed(inverse_positive(factor.diagonal(dim1=-2, dim2=-1)))
    with torch.no_grad():
        for parameter, value in ((mixture.logits, weights.log()), (mixture.loc, means), (mixture.raw, raw)):
            parameter.copy_(value)
    return mixture


class Marginal(Distribution):
    """The data of a program, without a density.

    Args:
        program: the program to sample from
        event_shape: shape of one example
        context: context of each example
    """

    support = constraints.real_vector

    def __init__(self, program: Program, event_shape: torch.Size, context: Sequence[Tensor] = ()) -> None:
        self.program, self.context = program, tuple(context)
        batch = torch.broadcast_shapes(*(c.shape[:-1] for c in context))
        super().__init__(batch, event_shape, validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Return samples of shape ``(*sample_shape, *batch, *event)``, without a gradient."""
        shape = self._extended_shape(sample_shape)
        batch = shape[: len(shape) - self.event_dim]
        rows = (c.expand(*batch, c.shape[-1]).reshape(-1, c.shape[-1]) for c in self.context)
        seed = int(torch.randint(2**62, ()))
        return self.program.sample(batch.numel(), *rows, seed=seed).reshape(shape)

    def _log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError(
            f"family: {type(self.program).__name__} has samples, but no density of the latents. Estimate it by "
            "evaluation.log_likelihood(fitted.family, z), or fit a prior"
        )


class LatentDensity(Program):
    """The prior as a density of the latents that a frozen copy of a VAE infers."""

    def __init__(self, vae: VAE, prior: Conditional) -> None:
        super().__init__()
        self.vae, self.prior = copy.deepcopy(vae).requires_grad_(False).eval(), prior
        self.missing = vae.missing

    @property
    def context(self) -> int:
        """Number of context values per example."""
        return max(self.vae.context, self.prior.context)

    def train(self, mode: bool = True) -> LatentDensity:
        """Set the mode of the prior; the VAE stays in evaluation mode."""
        super().train(mode)
        self.vae.eval()
        return self

    def model(self, x: Tensor, *context: Tensor) -> Tensor:
        """Observe latents sampled from the posterior of ``x`` under the prior."""
        announce(prior=self.prior)
        with torch.no_grad():
            z = self.vae.encode(x, *context).sample()
        with DataPlate(x):
            if isinstance(self.prior, FlowMatching):
                pyro.factor("z", -self.prior.regression_loss(z, *context))
                return z
            return observe("z", self.prior(*context), z)

    def guide(self, x: Tensor, *context: Tensor) -> None:
        """Do nothing, as there are no latent sites."""

    def check_data(self, x: Tensor, *context: Tensor) -> None:
        """Raise if the data do not fit the VAE."""
        self.vae.check_data(x, *context)
