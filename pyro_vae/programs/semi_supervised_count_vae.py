"""Counts with a library size and partly known labels, such as single-cell data with cell types (scANVI)."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.likelihoods import NegativeBinomial
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.programs.count_program import CountProgram
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.program import SMALL, evaluating
from pyro_vae.programs.semi_supervised import SemiSupervised

__all__ = ["SemiSupervisedCountVAE"]


class SemiSupervisedCountVAE(CountProgram):
    r"""Counts given a library size and latents with a class y, with labels for some of the cells (scANVI).

    .. math:: p(x \mid c) &= \sum_y p(y) \int p(z_2 \mid y)\, p(z_1 \mid z_2, y)\, p(\ell \mid c)\,
              \mathrm{NB}(x \mid \ell\, \rho(z_1, c), r)\, dz_1\, dz_2\, d\ell, \\
              q(z_1, \ell, y, z_2 \mid x, c) &= q(z_1 \mid x, c)\, q(\ell \mid x, c)\, q(y \mid z_1)\,
              q(z_2 \mid z_1, y)

    This is a :class:`CountVAE` whose latents z1 are the data of a :class:`SemiSupervised` program ``top``. The class
    of a cell without a label is enumerated exactly, weighted by :math:`q(y \mid z_1)`, and ``alpha`` of ``top``
    weights the classification of the labelled cells. Library size and covariates c are those of :class:`CountVAE`.

    References:
        Probabilistic harmonization and annotation of single-cell transcriptomics data with deep generative models
        (Xu et al., 2021), https://doi.org/10.15252/msb.20209620

    Args:
        top: p(y), p(z2), p(z1 given z2, y), q(y given z1) and q(z2 given z1, y); its likelihood is over vectors of the
            size of z1
        likelihood: p(x given z1, c, library size), built with ``library=True`` and ``context=WIDTH + 1`` for WIDTH
            covariates: ``likelihoods.NegativeBinomial`` or ``likelihoods.ZeroInflatedNegativeBinomial``
        posterior: q(z1 given log(1 + x), c)
        library_prior: p(log library size given c) over one number: ``priors.Normal(1)``, or
            ``priors.ConditionalNormal(1, context=WIDTH)`` for one distribution per batch
        library_posterior: q(log library size given log(1 + x), c) over one number

    Shape:
        data as a tuple ``(x, c, y)``, without c if there are no covariates, and without y if there are no labels: y
        one-hot floats of shape ``(n, classes)``, with a row of NaN where the label is missing.

    Raises:
        TypeError: ``top`` is not a SemiSupervised program.
        ValueError: the likelihood has no library size, or only one part of a latent library size is given.

    Example:
        >>> import torch, pyro_vae as pv
        >>> top = pv.programs.SemiSupervised(
        ...     classes=pv.priors.OneHotCategorical(3),
        ...     prior=pv.priors.StandardNormal(4),
        ...     likelihood=pv.likelihoods.Normal(4, (4,), context=3, scale=pv.scales.PerExample()),
        ...     classifier=pv.posteriors.OneHotCategorical((4,), 3),
        ...     posterior=pv.posteriors.MeanFieldNormal((4,), 4, context=3),
        ...     alpha=10.0,
        ... )
        >>> program = pv.programs.SemiSupervisedCountVAE(
        ...     top=top,
        ...     likelihood=pv.likelihoods.NegativeBinomial(4, (20,), context=2 + 1, library=True),
        ...     posterior=pv.posteriors.MeanFieldNormal((20,), 4, context=2),
        ... )
        >>> x, batch, y = torch.ones(8, 20), torch.eye(2).repeat(4, 1), torch.eye(3)[torch.arange(8) % 3]
        >>> y[3:] = torch.nan  # cells without a label
        >>> history = pv.fit(program, (x, batch, y), epochs=1, progress=False)
        >>> program.classify(x, batch).shape
        torch.Size([8, 3])
        >>> program.normalized(x, batch, decode_as=torch.tensor([1.0, 0.0])).shape
        torch.Size([8, 20])
    """

    def __init__(
        self,
        *,
        top: SemiSupervised,
        likelihood: Conditional,
        posterior: Conditional,
        library_prior: Conditional | None = None,
        library_posterior: Conditional | None = None,
    ) -> None:
        super().__init__(
            likelihood=likelihood,
            posterior=posterior,
            library_prior=library_prior,
            library_posterior=library_posterior,
        )
        if not isinstance(top, SemiSupervised):
            raise TypeError(f"top: expected a SemiSupervised program over z1, got {top!r}")
        self.top = top

    @classmethod
    def example(cls) -> SemiSupervisedCountVAE:
        """Build a small instance with three classes."""
        likelihood = NegativeBinomial(4, (5,), context=1, library=True, net=SMALL)
        posterior = MeanFieldNormal((5,), 4, net=SMALL)
        return cls(top=SemiSupervised.example(), likelihood=likelihood, posterior=posterior)

    def split_labels(self, columns: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Split the columns after x into covariates and labels."""
        width, count = 0, 0
        while width < self.context and count < len(columns):
            width, count = width + columns[count].shape[-1], count + 1
        return columns[:count], columns[count:]

    def model(self, x: Tensor, *columns: Tensor) -> Tensor:
        """Sample class, latents (and a latent library size), and observe ``x`` and the labels."""
        context, labels = self.split_labels(columns)
        announce(likelihood=self.likelihood)
        with DataPlate(x):
            z1 = self.top.sample_latents(*labels or (None,))
            return observe("x", self.likelihood(z1, *context, self.sample_library(x, *context)), x)

    def guide(self, x: Tensor, *columns: Tensor) -> Tensor:
        """Sample z1 (and a latent library size), sample (or enumerate) missing labels, then sample z2."""
        context, labels = self.split_labels(columns)
        announce(posterior=self.posterior)
        with DataPlate(x):
            z1 = pyro.sample("z1", self.encode(x, *context))
            self.infer_library(x, *context)
            return self.top.infer_latents(z1, *labels or (None,))

    def classify(self, x: Tensor, *context: Tensor, num_samples: int = 64, seed: int = 0) -> Tensor:
        """Return the mean of q(y given z1) over ``num_samples`` samples of z1 given x and c, ``(n, classes)``."""
        num_samples = check_int("num_samples", num_samples)
        with evaluating(self), fork_rng(self.device, seed):
            return self.top.classify(self.encode(x, *context).sample((num_samples,))).mean(0)

    def sample(
        self,
        num_samples: int,
        *context: Tensor,
        library: float | Tensor,
        y: Tensor | None = None,
        mean: bool = False,
        seed: int = 0,
    ) -> Tensor:
        """Sample new data as :meth:`CountVAE.sample`, of the classes ``y`` (one-hot, ``(n, classes)``) if given."""
        return self._sample(num_samples, *context, mean=mean, seed=seed, library=library, y=y)

    def decode_prior(
        self, num_samples: int, *context: Tensor, library: float | Tensor = 1.0, y: Tensor | None = None
    ) -> TorchDistributionMixin:
        """Sample class and latents from the prior and return p(x given z1) at the given library sizes."""
        z1 = self.top.decode_prior(num_samples, y=y).sample()
        return self.decode(z1, *context, library=torch.as_tensor(library).to(z1).expand(num_samples))

    def decode_posterior(self, x: Tensor, *columns: Tensor) -> TorchDistributionMixin:
        """Sample z1 (and a latent library size) given ``x`` and return p(x given z1)."""
        return super().decode_posterior(x, *self.split_labels(columns)[0])

    def normalized(self, x: Tensor, *columns: Tensor, **options: Any) -> Tensor:
        """Return expected counts at one library size as :meth:`CountVAE.normalized`, which do not depend on labels."""
        self.check(x, *columns)
        return super().normalized(x, *self.split_labels(columns)[0], **options)

    def check_data(self, x: Tensor, *columns: Tensor) -> None:
        """Raise if counts, covariates or labels do not fit, or the library size is not one number."""
        context, labels = self.split_labels(columns)
        super().check_data(x, *context)
        self.top.check_labels(x, *labels)

    def before_training(self, x: Tensor, *columns: Tensor) -> None:
        """Warn if there are labels from which the classifier cannot learn."""
        self.top.before_training(x, *self.split_labels(columns)[1])
