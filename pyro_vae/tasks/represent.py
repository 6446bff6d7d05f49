"""Represent data by their latents, with what is not known of them, and by clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.inputs import batches_of
from pyro_vae.evaluation.representation.codes import drawn, means, variances
from pyro_vae.evaluation.representation.representation import clustering_scores, sklearn
from pyro_vae.programs import MixtureVAE
from pyro_vae.programs.program import Program, evaluating
from pyro_vae.tasks.classify import ROWS, classify

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Clusters", "Embedding", "cluster", "embed", "init_clusters"]


@dataclass(frozen=True)
class Embedding:
    """Mean and standard deviation of the latents of each datum under q(z given x).

    Attributes:
        names: of the latents, such as ``"z[0]"``
        mean: of shape ``(n, latents)``
        deviation: of shape ``(n, latents)``
    """

    names: tuple[str, ...]
    mean: Tensor
    deviation: Tensor

    def plot(self, labels: Any = None) -> Figure:
        """Draw a map: the first two principal components of the means, with ellipses of one standard deviation."""
        from pyro_vae.plots import latent_map

        return latent_map(self.mean, labels, deviation=self.deviation)


def embed(program: Program, x: Any, *, draws: int = 16, seed: int = 0, progress: bool = False) -> Embedding:
    r"""Return mean and standard deviation of all latents of each datum.

    Both are exact for a posterior in one piece, such as ``posteriors.MeanFieldNormal``. Of latents that depend on
    others they are averages over draws of those, by the law of total variance,

    .. math:: \operatorname{Var}[z] = E[\operatorname{Var}[z \mid u]] + \operatorname{Var}[E[z \mid u]],

    and of a posterior without moments in closed form they are those of the draws.

    Args:
        program: a Program; of one with classes the probabilities of the classes are latents as well
        x: rows of data, or a tuple ``(x, context)``
        draws: of the latents of each datum, at least 2
        seed: of the draws
        progress: show a progress bar

    Returns:
        The embedding, on the CPU.

    Raises:
        ValueError: the data do not fit the program, or it has no latents.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> found = embed(toy.program, toy.draw(5))
        >>> found.names, found.mean.shape
        (('z[0]', 'z[1]'), torch.Size([5, 2]))
    """
    check_int("draws", draws, 2)

    def moments(sites: list[Any]) -> tuple[tuple[str, ...], Tensor]:
        mean, variance = means(sites), variances(sites)
        names = tuple(f"{name}[{i}]" for name, m in mean.items() for i in range(m.shape[-1]))
        both = torch.cat([m.mean(0) for m in mean.values()], -1), torch.cat(list(variance.values()), -1).sqrt()
        return names, torch.stack(both).cpu()

    names, rows = zip(*drawn(program, x, moments, draws=draws, seed=seed, progress=progress), strict=True)
    mean, deviation = torch.cat(rows, 1)
    return Embedding(names[0], mean, deviation)


@dataclass(frozen=True)
class Clusters:
    """Clusters found for data.

    Attributes:
        probabilities: of each cluster, q(k given x), of shape ``(n, clusters)``
    """

    probabilities: Tensor

    @property
    def assigned(self) -> Tensor:
        """The most probable cluster of each datum, of shape ``(n,)``."""
        return self.probabilities.argmax(-1)

    @property
    def sizes(self) -> Tensor:
        """Number of data assigned to each cluster, of shape ``(clusters,)``."""
        return self.assigned.bincount(minlength=self.probabilities.shape[1])

    def scores(self, y: Any) -> dict[str, float]:
        """Return accuracy under the best match, NMI and ARI against known class numbers ``(n,)``."""
        return clustering_scores(torch.as_tensor(y).cpu().numpy(), self.assigned.numpy())

    def __str__(self) -> str:
        sure = float(self.probabilities.max(-1).values.mean())
        sizes = ", ".join(map(str, self.sizes.tolist()))
        return f"{len(self.probabilities):,} data in clusters of {sizes}; mean probability of its cluster {sure:.2f}"


def cluster(program: MixtureVAE, x: Any) -> Clusters:
    """Find the cluster of each datum, a bounded number of them at once.

    Args:
        program: a trained ``programs.MixtureVAE``
        x: rows of data

    Returns:
        Probabilities and assignments, on the CPU.

    Raises:
        TypeError: the program has no clusters.
        ValueError: the data do not fit the program.

    Example:
        >>> import pyro_vae as pv
        >>> program = MixtureVAE(
        ...     classes=pv.priors.OneHotCategorical(3),
        ...     prior=pv.priors.ConditionalNormal(2, context=3),
        ...     likelihood=pv.likelihoods.Normal(2, (4,)),
        ...     classifier=pv.posteriors.OneHotCategorical((4,), 3),
        ...     posterior=pv.posteriors.MeanFieldNormal((4,), 2),
        ... )
        >>> cluster(program, torch.randn(5, 4)).sizes.sum()
        tensor(5)
    """
    check_clusters(program)
    return Clusters(classify(program, x).probabilities)


def init_clusters(program: MixtureVAE, x: Any, *, seed: int = 0) -> None:
    """Move p(k) and p(z given k) of a program to where a mixture of normals finds clusters among its latents.

    Each cluster gets the mean and the variance of the draws from q(z given x) of its data. A mixture that learns all
    its parts at once often leaves clusters empty. Train likelihood and posterior as a VAE first, call this, and then
    train all parts together.

    References:
        Variational deep embedding (Jiang et al., 2017), https://arxiv.org/abs/1611.05148

    Args:
        program: a ``MixtureVAE`` whose posterior does not see the cluster, with a ``prior`` of normal latents
        x: rows of data
        seed: of the start of the mixture, which is fitted to the means of q(z given x)

    Raises:
        TypeError: the program has no clusters, or parts for which they cannot be placed; the part is named.
        ValueError: the data do not fit the program, or there are fewer than clusters.
        ImportError: scikit-learn is not installed.

    Example:
        >>> import pyro_vae as pv
        >>> parts = {
        ...     "classes": pv.priors.OneHotCategorical(2, learned=True),
        ...     "prior": pv.priors.ConditionalNormal(1, context=2),
        ...     "posterior": pv.posteriors.MeanFieldNormal((3,), 1),
        ... }
        >>> program = MixtureVAE(
        ...     **parts, likelihood=pv.likelihoods.Normal(1, (3,)), classifier=pv.programs.Responsibilities(**parts)
        ... )
        >>> init_clusters(program, torch.randn(50, 3))
    """
    check_clusters(program)
    sklearn()
    from sklearn.mixture import GaussianMixture

    if not any(p.requires_grad for p in program.prior.parameters()):
        raise TypeError(f"prior: expected one to learn, such as ConditionalNormal, got {type(program.prior).__name__}")
    codes, own = posterior_moments(program, x)
    each = program.classes().enumerate_support()
    if len(codes) < len(each):
        raise ValueError(f"x: expected at least a datum for each of {len(each)} clusters, got {len(codes)}")
    found = GaussianMixture(len(each), covariance_type="diag", reg_covar=1e-4, n_init=3, random_state=seed)
    points = codes.double().cpu().numpy()
    found.fit(points)
    loc, variance, weight, share = (
        torch.as_tensor(v).to(codes)
        for v in (found.means_, found.covariances_, found.weights_, found.predict_proba(points))
    )
    # latents of a cluster vary with their data, and about the mean of each
    variance = variance + share.T @ own / share.sum(0).clamp(min=1e-6).unsqueeze(-1)
    target = dist.Normal(loc, variance.sqrt()).to_event(1)
    numbers = [*program.prior.parameters(), *program.classes.parameters()]
    climb = torch.optim.LBFGS(numbers, max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        climb.zero_grad()
        missing = kl_divergence(target, program.prior(each)) - program.classes().log_prob(each)
        value = (weight * missing).sum()
        value.backward()
        return value

    climb.step(loss)
    climb.zero_grad()


def posterior_moments(program: MixtureVAE, x: Any) -> tuple[Tensor, Tensor]:
    """Return mean and variance of q(z given x) of each datum, of shape (n, latent)."""
    name = type(program.posterior).__name__
    if getattr(program.posterior, "context", 0):
        raise TypeError(f"posterior: expected one that does not see the cluster, but {name} was built with context")
    try:
        with evaluating(program):
            found = [program.posterior(rows) for (rows,) in batches_of(program, x, ROWS).epoch(0)]
            return torch.cat([q.mean for q in found]), torch.cat([q.variance for q in found])
    except NotImplementedError as error:
        raise TypeError(f"posterior: {name} has no moments in closed form; use MeanFieldNormal, say") from error


def check_clusters(program: Any) -> None:
    """Refuse a program without clusters."""
    if not isinstance(program, MixtureVAE):
        raise TypeError(f"program: expected a MixtureVAE, which has clusters, got {type(program).__name__}")
