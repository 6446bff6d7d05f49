"""Semi-supervised classification of the latents of a VAE (M1+M2)."""

from __future__ import annotations

import pyro
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae._util.random_state import fork_rng
from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.likelihoods import Normal
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.program import SMALL, Program, evaluating
from pyro_vae.programs.semi_supervised import SemiSupervised

__all__ = ["StackedSemiSupervised"]


class StackedSemiSupervised(Program):
    r"""A VAE whose latents z1 are the data of a semi-supervised program with a class y and latents z2 (M1+M2).

    .. math:: p(x) = \sum_y p(y) \int p(z_2 \mid y)\, p(z_1 \mid z_2, y)\, p(x \mid z_1)\, dz_1\, dz_2, \qquad
              q(z_1, y, z_2 \mid x) = q(z_1 \mid x)\, q(y \mid z_1)\, q(z_2 \mid z_1, y)

    The class is enumerated exactly, weighted by :math:`q(y \mid z_1)`, and ``alpha`` of ``top`` weights the
    classification of the labelled examples. All parts are trained together. The paper trains M1 first and then M2 on
    its latents, as in the example.

    References:
        Semi-supervised learning with deep generative models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298

    Args:
        top: M2, with a likelihood p(z1 given z2, y) over vectors of the size of z1
        likelihood: p(x given z1)
        posterior: q(z1 given x)

    Shape:
        data as a tuple ``(x, y)``: y one-hot floats of shape ``(n, classes)``, with a row of NaN where the label is
        missing; or x alone.

    Raises:
        TypeError: ``top`` is not a SemiSupervised program.

    Example:
        >>> import torch, pyro_vae as pv
        >>> m1 = pv.VAE(
        ...     prior=pv.priors.StandardNormal(4),
        ...     likelihood=pv.likelihoods.Bernoulli(4, (8, 8)),
        ...     posterior=pv.posteriors.MeanFieldNormal((8, 8), 4),
        ... )
        >>> m2 = pv.programs.SemiSupervised(
        ...     classes=pv.priors.OneHotCategorical(3),
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Normal(2, (4,), context=3),
        ...     classifier=pv.posteriors.OneHotCategorical((4,), 3),
        ...     posterior=pv.posteriors.MeanFieldNormal((4,), 2, context=3),
        ... )
        >>> x, y = torch.ones(6, 8, 8), torch.eye(3).repeat(2, 1)
        >>> first = pv.fit(m1, x, epochs=1, progress=False)
        >>> second = pv.fit(m2, (m1.encode(x).mean.detach(), y), epochs=1, progress=False)
        >>> both = pv.programs.StackedSemiSupervised(top=m2, likelihood=m1.likelihood, posterior=m1.posterior)
        >>> both.classify(x).shape
        torch.Size([6, 3])
    """

    def __init__(self, *, top: SemiSupervised, likelihood: Conditional, posterior: Conditional) -> None:
        super().__init__()
        if not isinstance(top, SemiSupervised):
            raise TypeError(f"top: expected a SemiSupervised program over z1, got {top!r}")
        self.top, self.likelihood, self.posterior = top, likelihood, posterior

    @classmethod
    def example(cls) -> StackedSemiSupervised:
        """Build a small instance with three classes."""
        likelihood, posterior = Normal(4, (5,), net=SMALL), MeanFieldNormal((5,), 4, net=SMALL)
        return cls(top=SemiSupervised.example(), likelihood=likelihood, posterior=posterior)

    def model(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample class and latents, and observe ``x`` and the labels."""
        announce(likelihood=self.likelihood)
        with DataPlate(x):
            return observe("x", self.likelihood(self.top.sample_latents(y)), x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample z1, sample (or enumerate) missing labels, then sample z2."""
        announce(posterior=self.posterior)
        with DataPlate(x):
            return self.top.infer_latents(pyro.sample("z1", self.posterior(x)), y)

    def classify(self, x: Tensor, *, num_samples: int = 64, seed: int = 0) -> Tensor:
        """Return the mean of q(y given z1) over ``num_samples`` samples of z1 given x, of shape ``(n, classes)``."""
        num_samples = check_int("num_samples", num_samples)
        with evaluating(self), fork_rng(self.device, seed):
            return self.top.classify(self.posterior(x).sample((num_samples,))).mean(0)

    def sample(self, num_samples: int, *, y: Tensor | None = None, mean: bool = False, seed: int = 0) -> Tensor:
        """Sample new data as :meth:`Program.sample`, of the classes ``y`` (one-hot, ``(n, classes)``) if given."""
        return self._sample(num_samples, mean=mean, seed=seed, y=y)

    def decode_prior(self, num_samples: int, *, y: Tensor | None = None) -> TorchDistributionMixin:
        """Sample class and latents from the prior and return p(x given z1)."""
        return self.likelihood(self.top.decode_prior(num_samples, y=y).sample())

    def decode_posterior(self, x: Tensor, y: Tensor | None = None) -> TorchDistributionMixin:
        """Sample z1 given ``x`` and return p(x given z1)."""
        return self.likelihood(self.posterior(x).sample())

    def check_data(self, x: Tensor, *context: Tensor) -> None:
        """Raise if shape, type or values of the data do not fit, or the labels are neither one-hot nor NaN."""
        super().check_data(x)
        self.top.check_labels(x, *context)

    def before_training(self, x: Tensor, *context: Tensor) -> None:
        """Warn if there are labels from which the classifier cannot learn."""
        self.top.before_training(x, *context)
