"""Semi-supervised classification with a VAE (M2)."""

from __future__ import annotations

import warnings
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae import posteriors, priors
from pyro_vae._util.validation import check_number
from pyro_vae.conditional import Conditional
from pyro_vae.distributions.missing import hide_missing, readable
from pyro_vae.likelihoods import Normal
from pyro_vae.programs.checks import check_tensor
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.program import SMALL, Program, evaluating

__all__ = ["SemiSupervised"]


class SemiSupervised(Program):
    r"""A class y and latents z per example, with labels for some of the examples (M2).

    .. math:: p(x) = \sum_y p(y) \int p(z \mid y)\, p(x \mid z, y)\, dz, \qquad
              q(y, z \mid x) = q(y \mid x)\, q(z \mid x, y)

    For an unlabelled example the class is enumerated exactly, weighted by :math:`q(y \mid x)`. A labelled example uses
    its label, and training adds :math:`\alpha \log q(y \mid x)`, without which the labels would not train the
    classifier. Build parts that do not depend on y without ``context=``. Where labels are few, ``weight_decay`` keeps
    the classifier from learning them by heart.

    References:
        Semi-supervised learning with deep generative models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298

    Args:
        classes: p(y), a prior over one-hot vectors such as ``priors.OneHotCategorical``
        prior: p(z), or p(z given y)
        likelihood: p(x given z, y)
        classifier: q(y given x), a posterior over one-hot vectors such as ``posteriors.OneHotCategorical``
        posterior: q(z given x, y)
        alpha: weight of the classification term of a labelled example. None for the weight of the paper: 0.1 times the
            number of examples divided by the number of labels, both counted in each batch. Estimators that weight
            samples, such as IWAE, take labels with 0 only (or 1, which adds a factor to the weights)
        weight_decay: :math:`\lambda` of a penalty :math:`\tfrac\lambda2 \lVert w \rVert^2` on the weights w of the
            classifier (not its biases), which is subtracted from each :math:`\log q(y \mid x)` before it is multiplied
            by ``alpha``. One divided by the number of labels is a standard normal prior over w, as the default of
            logistic regression in scikit-learn
        missing: whether entries of x may be missing (NaN). They do not contribute to the bound or its gradient, and
            are 0 in the input of a classifier or posterior without the attribute ``takes_missing``

    Shape:
        data as a tuple ``(x, y)``: y one-hot floats of shape ``(n, classes)``, with a row of NaN where the label is
        missing; or x alone.

    Raises:
        ValueError: ``alpha`` or ``weight_decay`` is negative.

    Example:
        >>> import torch, pyro_vae as pv
        >>> m2 = pv.programs.SemiSupervised(
        ...     classes=pv.priors.OneHotCategorical(3),
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihood=pv.likelihoods.Bernoulli(2, (4,), context=3),
        ...     classifier=pv.posteriors.OneHotCategorical((4,), 3),
        ...     posterior=pv.posteriors.MeanFieldNormal((4,), 2, context=3),
        ... )
        >>> m2.classify(torch.zeros(5, 4)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        *,
        classes: Conditional,
        prior: Conditional,
        likelihood: Conditional,
        classifier: Conditional,
        posterior: Conditional,
        alpha: float | None = None,
        weight_decay: float = 0.0,
        missing: bool = False,
    ) -> None:
        super().__init__()
        self.classes, self.prior, self.likelihood = classes, prior, likelihood
        self.classifier, self.posterior, self.missing = classifier, posterior, missing
        self.alpha = None if alpha is None else check_number("alpha", alpha, 0)
        self.weight_decay = check_number("weight_decay", weight_decay, 0)

    @classmethod
    def example(cls, **options: Any) -> SemiSupervised:
        """Build a small instance with three classes; ``options`` replace arguments of the constructor."""
        return cls(
            **{
                "classes": priors.OneHotCategorical(3),
                "prior": priors.StandardNormal(2),
                "likelihood": Normal(2, (4,), context=3, net=SMALL),
                "classifier": posteriors.OneHotCategorical((4,), 3, net=SMALL),
                "posterior": posteriors.MeanFieldNormal((4,), 2, context=3, net=SMALL),
                **options,
            }
        )

    def model(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample class and latents, and observe ``x`` and the labels."""
        announce(classes=self.classes, prior=self.prior, likelihood=self.likelihood)
        with DataPlate(x):
            label = self.sample_class(y)
            self.score_class(x, y)
            z = pyro.sample("z", self.prior(label))
            fn = self.likelihood(z, label)
            if self.missing:
                fn, x = hide_missing(fn, x)
            return observe("x", fn, x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sample (or enumerate) missing labels, then sample the latents."""
        announce(classifier=self.classifier, posterior=self.posterior)
        with DataPlate(x):
            return pyro.sample("z", self.encode(x, self.infer_class(x, y)))

    def encode(self, x: Tensor, y: Tensor) -> TorchDistributionMixin:
        """Return q(z given x, y)."""
        return self.posterior(readable(self.posterior, x) if self.missing else x, y)

    def infer(self, x: Tensor) -> TorchDistributionMixin:
        """Return q(y given x)."""
        return self.classifier(readable(self.classifier, x) if self.missing else x)

    def sample_class(self, y: Tensor | None) -> Tensor:
        """Sample the class in the model, and observe it where the label is known."""
        if y is None:
            return pyro.sample("y", self.classes())
        known = labelled(y)
        with poutine.mask(mask=~known):
            sampled = pyro.sample("y", self.classes())
        with poutine.mask(mask=known):
            pyro.sample("label", self.classes(), obs=without_nan(y))
        return fill(sampled, y)

    def score_class(self, x: Tensor, y: Tensor | None) -> None:
        """Add the classification term of the labelled examples: a training objective, not a part of p(x, y)."""
        if y is None or not self.training or self.alpha == 0:
            return
        announce(classifier=self.classifier)
        known = labelled(y)
        alpha = 0.1 * len(y) / known.sum().clamp(min=1) if self.alpha is None else self.alpha
        with poutine.mask(mask=known), poutine.scale(scale=alpha):
            pyro.sample("classified", self.infer(x), obs=without_nan(y))
            if self.weight_decay:
                weights = (p for p in self.classifier.parameters() if p.dim() > 1)
                norm = sum((w.square().sum() for w in weights), x.new_zeros(()))
                pyro.factor("weight_decay", (-0.5 * self.weight_decay * norm).expand(len(x)))

    def infer_class(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Sample or enumerate the class in the guide where the label is missing."""
        with poutine.mask(mask=y is None or ~labelled(y)):
            sampled = pyro.sample("y", self.infer(x), infer={"enumerate": "parallel"})
        return fill(sampled, y)

    def sample_latents(self, y: Tensor | None) -> Tensor:
        """Sample the class, z2 and z1 in the model of a program whose latents z1 are the data of this program."""
        announce(classes=self.classes, prior=self.prior, latents=self.likelihood)
        label = self.sample_class(y)
        z1 = pyro.sample("z1", self.likelihood(pyro.sample("z2", self.prior(label)), label))
        self.score_class(z1, y)
        return z1

    def infer_latents(self, z1: Tensor, y: Tensor | None) -> Tensor:
        """Sample (or enumerate) missing labels and sample z2 in the guide of such a program."""
        announce(classifier=self.classifier, top=self.posterior)
        return pyro.sample("z2", self.posterior(z1, self.infer_class(z1, y)))

    def classify(self, x: Tensor) -> Tensor:
        """Return q(y given x), the probability of each class, of shape ``(n, classes)``."""
        with evaluating(self):
            return self.infer(x).probs

    def sample(self, num_samples: int, *, y: Tensor | None = None, mean: bool = False, seed: int = 0) -> Tensor:
        """Sample new data as :meth:`Program.sample`, of the classes ``y`` (one-hot, ``(n, classes)``) if given."""
        return self._sample(num_samples, mean=mean, seed=seed, y=y)

    def decode_prior(self, num_samples: int, *, y: Tensor | None = None) -> TorchDistributionMixin:
        """Sample the latents (and the class, if not given) from the prior and return p(x given z, y)."""
        y = self.classes().expand((num_samples,)).sample() if y is None else y
        return self.likelihood(self.prior(y).expand((num_samples,)).sample(), y)

    def decode_posterior(self, x: Tensor, y: Tensor | None = None) -> TorchDistributionMixin:
        """Sample missing labels and the latents given ``x`` and return p(x given z, y)."""
        y = fill(self.infer(x).sample(), y)
        return self.likelihood(self.encode(x, y).sample(), y)

    def check_data(self, x: Tensor, *context: Tensor) -> None:
        """Raise if shape, type or values of the data do not fit, or the labels are neither one-hot nor NaN."""
        super().check_data(x)
        self.check_labels(x, *context)

    def check_labels(self, x: Tensor, *context: Tensor) -> None:
        """Raise unless the labels have one row per example, one-hot or NaN."""
        if len(context) > 1:
            raise ValueError(f"data: expected one column of labels y, or none, got {len(context)}")
        for y in context:
            check_tensor("y", y, self.classes().event_shape, self.dtype, missing=True)
            if len(y) != len(x):
                raise ValueError(f"y: expected {len(x)} rows, one per example, got {len(y)}")
            bad = labelled(y) & ~self.classes().support.check(y)
            if bad.any():
                row = int(bad.nonzero()[0])
                raise ValueError(
                    f"y: y[{row}] is {y[row].tolist()}, expected a one-hot row, or NaN where the label is missing"
                )

    def before_training(self, x: Tensor, *context: Tensor) -> None:
        """Warn if there are labels from which the classifier cannot learn."""
        if self.alpha == 0 and any(labelled(y).any() for y in context):
            advice = "Leave it out, or pass 1.0, which every estimator takes"
            warnings.warn(f"alpha: with 0 the labels do not train the classifier. {advice}", stacklevel=2)


def labelled(y: Tensor) -> Any:
    """Return which rows have a label, a tensor of shape ``(n,)``."""
    return ~torch.isnan(y).any(-1)


def without_nan(y: Tensor) -> Tensor:
    """Replace rows of NaN by a one-hot vector, a valid value behind a mask."""
    first = torch.zeros_like(y)
    first[..., 0] = 1
    return torch.where(labelled(y).unsqueeze(-1), y, first)


def fill(sampled: Tensor, y: Tensor | None) -> Tensor:
    """Replace sampled classes by the labels that are known."""
    return sampled if y is None else torch.where(labelled(y).unsqueeze(-1), y, sampled)
