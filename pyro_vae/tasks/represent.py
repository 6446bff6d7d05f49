"""Representations of data: posterior means and standard deviations of the latents, and clusters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_vae._util.lock import in_turn
from pyro_vae._util.validation import check_int
from pyro_vae.evaluation.over import over
from pyro_vae.evaluation.posterior.posterior_means import guide_sites, means, variances
from pyro_vae.evaluation.representation.representation import clustering_scores, require_sklearn
from pyro_vae.programs import MixtureVAE
from pyro_vae.programs.program import Program
from pyro_vae.tasks.classify import check_unlabelled, classify

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Clusters", "Embedding", "cluster", "embed", "init_clusters"]


@dataclass(frozen=True)
class Embedding:
    """Mean and standard deviation of the latents of each example under q(z given x).

    Attributes:
        names: names of the latents, such as ``"z[0]"``
        mean: posterior means, of shape ``(n, latents)``
        std: posterior standard deviations, of shape ``(n, latents)``
    """

    names: tuple[str, ...]
    mean: Tensor
    std: Tensor

    def plot(self, labels: Any = None) -> Figure:
        """Plot the first two principal components of the means, with ellipses of one standard deviation."""
        from pyro_vae.plots import latent_map

        return latent_map(self.mean, labels, std=self.std)


@in_turn
def embed(program: Program, x: Any, *, num_samples: int = 16, seed: int = 0, progress: bool = True) -> Embedding:
    r"""Return the posterior mean and standard deviation of all latents of each example.

    Both are exact for a posterior with one site and moments in closed form, such as ``posteriors.MeanFieldNormal``.
    For latents that depend on other latents u they are averages over samples of u, by the law of total variance,

    .. math:: \operatorname{Var}[z] = E[\operatorname{Var}[z \mid u]] + \operatorname{Var}[E[z \mid u]].

    For a posterior without moments in closed form they are the moments of the samples.

    Args:
        program: a Program; the latents of one with classes include the class probabilities
        x: rows of data, or a tuple ``(x, context)``
        num_samples: samples of the latents per example, at least 2
        seed: random seed
        progress: show a progress bar

    Returns:
        The embedding, on the CPU.

    Raises:
        ValueError: the data do not fit the program, it has no latents, or ``x`` is a ``DataLoader`` that shuffles.

    Example:
        >>> import pyro_vae as pv
        >>> toy = pv.testing.LinearGaussian()
        >>> found = embed(toy.program, toy.draw(5))
        >>> found.names, found.mean.shape
        (('z[0]', 'z[1]'), torch.Size([5, 2]))
    """
    num_samples = check_int("num_samples", num_samples, 2)

    def moments(*batch: Tensor) -> dict[str, Tensor]:
        sites = guide_sites(program, batch, num_samples)
        mean, variance = means(sites), variances(sites)
        return {name: torch.stack([mean[name].mean(0), variance[name].sqrt()], 1) for name in mean}

    options: dict[str, Any] = {"num_particles": num_samples, "seed": seed, "by_row": True, "progress": progress}
    found = over(program, x, moments, desc="embed", **options)
    names = tuple(f"{name}[{i}]" for name, values in found.items() for i in range(values.shape[-1]))
    mean, std = torch.cat(list(found.values()), -1).unbind(1)
    return Embedding(names, mean, std)


@dataclass(frozen=True)
class Clusters:
    """Cluster probabilities of examples.

    Attributes:
        probabilities: q(k given x), of shape ``(n, clusters)``
    """

    probabilities: Tensor

    @property
    def assigned(self) -> Tensor:
        """The most probable cluster of each example, of shape ``(n,)``."""
        return self.probabilities.argmax(-1)

    @property
    def sizes(self) -> Tensor:
        """Number of examples assigned to each cluster, of shape ``(clusters,)``."""
        return self.assigned.bincount(minlength=self.probabilities.shape[1])

    def scores(self, y: Any) -> dict[str, float]:
        """Return accuracy under the best match, NMI and ARI against known class numbers ``(n,)``."""
        return clustering_scores(y, self.assigned)

    def __str__(self) -> str:
        confidence = float(self.probabilities.max(-1).values.mean())
        sizes = ", ".join(map(str, self.sizes.tolist()))
        return f"{len(self.probabilities):,} examples in clusters of {sizes}; mean probability {confidence:.2f}"


@in_turn
def cluster(program: MixtureVAE, x: Any, *, progress: bool = True) -> Clusters:
    """Assign each example to a cluster.

    Args:
        program: a trained ``programs.MixtureVAE``
        x: rows of data
        progress: show a progress bar

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
    return Clusters(classify(require_clusters(program), x, progress=progress).probabilities)


@in_turn
def init_clusters(program: MixtureVAE, x: Any, *, seed: int = 0) -> None:
    """Initialise p(k) and p(z given k) by a mixture of normals fitted to the posterior means of the data.

    Each component gets the mean and variance of the latents of its examples. A mixture that learns all its parts from
    scratch often leaves clusters empty: train likelihood and posterior as a VAE first, call this function, then train
    all parts together. It changes the parameters of ``program.classes`` and ``program.prior``.

    References:
        Variational deep embedding (Jiang et al., 2017), https://arxiv.org/abs/1611.05148

    Args:
        program: a ``MixtureVAE`` with a posterior that does not depend on the cluster and a normal ``prior``
        x: rows of data
        seed: random seed of the mixture fit

    Raises:
        TypeError: the program has no clusters, or has parts that do not allow this; the part is named.
        ValueError: the data do not fit the program, or there are fewer examples than clusters.
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
    require_clusters(program)
    require_sklearn()
    from sklearn.mixture import GaussianMixture

    if not any(p.requires_grad for p in program.prior.parameters()):
        raise TypeError(
            f"prior: expected one with parameters, such as ConditionalNormal, got {type(program.prior).__name__}"
        )
    z_mean, z_variance = posterior_moments(program, x)
    clusters = program.classes().enumerate_support()
    if len(z_mean) < len(clusters):
        raise ValueError(f"x: expected at least {len(clusters)} examples, one per cluster, got {len(z_mean)}")
    mixture = GaussianMixture(len(clusters), covariance_type="diag", reg_covar=1e-4, n_init=3, random_state=seed)
    points = z_mean.double().numpy()
    mixture.fit(points)
    loc, variance, weight, share = (
        torch.as_tensor(v).to(clusters)
        for v in (mixture.means_, mixture.covariances_, mixture.weights_, mixture.predict_proba(points))
    )
    # law of total variance: the latents of an example vary about their mean as well
    variance = variance + share.T @ z_variance.to(share) / share.sum(0).clamp(min=1e-6).unsqueeze(-1)
    target = dist.Normal(loc, variance.sqrt()).to_event(1)
    parameters = [*program.prior.parameters(), *program.classes.parameters()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        kl = kl_divergence(target, program.prior(clusters)) - program.classes().log_prob(clusters)
        value = (weight * kl).sum()
        value.backward()
        return value

    optimizer.step(loss)
    optimizer.zero_grad()


def posterior_moments(program: MixtureVAE, x: Any) -> tuple[Tensor, Tensor]:
    """Return mean and variance of q(z given x) of each example, of shape (n, latent)."""
    name = type(program.posterior).__name__
    if getattr(program.posterior, "context", 0):
        raise TypeError(f"posterior: expected one that does not depend on the cluster, got {name} with context")

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        q = program.posterior(x)
        return q.mean, q.variance

    try:
        return over(program, x, moments, check=partial(check_unlabelled, program), progress=False)
    except NotImplementedError as error:
        raise TypeError(
            f"posterior: expected one with moments in closed form, such as MeanFieldNormal, got {name}"
        ) from error


def require_clusters(program: Any) -> MixtureVAE:
    """Return the program, or raise if it has no clusters."""
    if not isinstance(program, MixtureVAE):
        raise TypeError(f"program: expected a MixtureVAE, which has clusters, got {type(program).__name__}")
    return program
