"""A class beside the latents: semi-supervised classification, and clustering where no label is known."""

from __future__ import annotations

import math

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.programs.checks import check_tensor, check_values
from pyro_vae.programs.program import DataPlate, Program, announce, evaluating, mean_or_draw, observe

__all__ = ["MixtureVAE", "SemiSupervised"]

ENUMERATE = {"enumerate": "parallel"}


class SemiSupervised(Program):
    r"""A class y and latents z a datum, with labels for some of the data (M2).

    .. math:: p(x) = \sum_y p(y) \int p(z \mid y)\, p(x \mid z, y)\, dz, \qquad
              q(y, z \mid x) = q(y \mid x)\, q(z \mid x, y)

    The class of an unlabelled datum is summed over exactly, weighted by :math:`q(y \mid x)`; for a labelled one its
    label takes the place of y, and in training :math:`\alpha \log q(y \mid x)` is added, without which the labels
    would not teach the classifier. Parts that do not depend on y are built without ``context=``.

    References:
        Semi-supervised learning with deep generative models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298

    Args:
        classes: p(y), a prior over one-hot vectors such as ``priors.OneHotCategorical``
        prior: p(z), or p(z given y)
        likelihood: p(x given z, y)
        classifier: q(y given x), a posterior over one-hot vectors such as ``posteriors.OneHotCategorical``
        posterior: q(z given x, y)
        alpha: weight of the classification term; the paper uses 0.1 times the number of data over that of labels

    Shape:
        data as a tuple ``(x, y)``: y one-hot floats of shape ``(n, classes)``, a row of NaN where no label is known;
        or x alone.

    Raises:
        ValueError: alpha is negative.

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
        alpha: float = 0.0,
    ) -> None:
        super().__init__()
        if not alpha >= 0:
            raise ValueError(f"alpha: expected a number of at least 0, got {alpha}")
        self.classes, self.prior, self.likelihood = classes, prior, likelihood
        self.classifier, self.posterior, self.alpha = classifier, posterior, alpha

    def model(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Draw class and latents, and observe ``x`` and the labels."""
        announce(classes=self.classes, prior=self.prior, likelihood=self.likelihood)
        with DataPlate(x):
            label = self.draw_class(y)
            self.score_class(x, y)
            z = pyro.sample("z", self.prior(label))
            return observe("x", self.likelihood(z, label), x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Draw (or enumerate) the class where it is not known, then the latents."""
        announce(classifier=self.classifier, posterior=self.posterior)
        with DataPlate(x):
            return pyro.sample("z", self.posterior(x, self.infer_class(x, y)))

    def draw_class(self, y: Tensor | None) -> Tensor:
        """Draw the class in the model, and observe it where it is known."""
        if y is None:
            return pyro.sample("y", self.classes())
        known = labelled(y)
        with poutine.mask(mask=~known):
            drawn = pyro.sample("y", self.classes())
        with poutine.mask(mask=known):
            pyro.sample("label", self.classes(), obs=safe(y))
        return fill(drawn, y)

    def score_class(self, x: Tensor, y: Tensor | None) -> None:
        """Add the classification of the labelled data: an objective of training, no part of p(x, y)."""
        if y is None or not self.training or not self.alpha:
            return
        announce(classifier=self.classifier)
        with poutine.mask(mask=labelled(y)), poutine.scale(scale=self.alpha):
            pyro.sample("classified", self.classifier(x), obs=safe(y))

    def infer_class(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Draw or enumerate the class in the guide, and put the labels where they are known."""
        with poutine.mask(mask=True if y is None else ~labelled(y)):
            drawn = pyro.sample("y", self.classifier(x), infer=dict(ENUMERATE))
        return fill(drawn, y)

    def classify(self, x: Tensor) -> Tensor:
        """Return q(y given x), the probability of each class, of shape ``(n, classes)``."""
        with evaluating(self):
            return self.classifier(x).probs

    def sample(self, n: int, y: Tensor | None = None, *, mean: bool = False) -> Tensor:
        """Draw ``n`` new data, of the classes ``y`` (one-hot, ``(n, classes)``) if given."""
        with evaluating(self):
            y = self.classes().expand((n,)).sample() if y is None else y
            fn = self.likelihood(self.prior(y).expand((n,)).sample(), y)
            return mean_or_draw(fn) if mean else fn.sample()

    def reconstruct(self, x: Tensor) -> Tensor:
        """Draw class and latents given ``x`` and return the mean of p(x given z, y)."""
        with evaluating(self):
            y = self.classifier(x).sample()
            return mean_or_draw(self.likelihood(self.posterior(x, y).sample(), y))

    def check(self, x: Tensor, *context: Tensor) -> None:
        """Refuse data and labels that do not fit the parts."""
        with evaluating(self):
            p = self.blank(x)
        check_tensor("x", x, p.event_shape, self.dtype)
        check_values("x", x, p.support, self.likelihood)
        self.check_labels(x, *context)

    def blank(self, x: Tensor) -> TorchDistributionMixin:
        """Return p(x given z, y) at the first class and at zero, for its shape and support."""
        y = safe(x.new_full((1, *self.classes().event_shape), math.nan, dtype=self.dtype))
        return self.likelihood(x.new_zeros(1, *self.prior(y).event_shape, dtype=self.dtype), y)

    def check_labels(self, x: Tensor, *context: Tensor) -> None:
        """Refuse labels that are neither one-hot rows nor rows of NaN."""
        if len(context) > 1:
            raise ValueError(f"data: expected x, or (x, y), got {1 + len(context)} columns")
        for y in context:
            check_tensor("y", y, self.classes().event_shape, self.dtype, missing=True)
            if len(y) != len(x):
                raise ValueError(f"y: expected {len(x)} rows, one a datum, got {len(y)}")
            bad = labelled(y) & ~self.classes().support.check(y)
            if bad.any():
                row = int(bad.nonzero()[0])
                raise ValueError(
                    f"y: y[{row}] is {y[row].tolist()}, expected a one-hot row, or NaN where no label is known"
                )


class MixtureVAE(SemiSupervised):
    r"""A cluster k and latents z a datum: the prior of z is a mixture, the cluster is summed over.

    .. math:: p(x) = \sum_k p(k) \int p(z \mid k)\, p(x \mid z)\, dz, \qquad
              q(k, z \mid x) = q(k \mid x)\, q(z \mid x, k)

    The same program as :class:`SemiSupervised` where no label is known (``classes`` is then p(k)) and the likelihood
    does not see the class.

    References:
        Deep unsupervised clustering with Gaussian mixture variational autoencoders (Dilokthanakul et al., 2016),
        https://arxiv.org/abs/1611.02648; Variational deep embedding (Jiang et al., 2017),
        https://arxiv.org/abs/1611.05148

    Args:
        classes: p(k), a prior over one-hot vectors
        prior: p(z given k), such as ``priors.ConditionalNormal``
        likelihood: p(x given z)
        classifier: q(k given x), a posterior over one-hot vectors
        posterior: q(z given x, k), or q(z given x)

    Example:
        >>> import torch, pyro_vae as pv
        >>> clusters = pv.programs.MixtureVAE(
        ...     classes=pv.priors.OneHotCategorical(3),
        ...     prior=pv.priors.ConditionalNormal(2, context=3),
        ...     likelihood=pv.likelihoods.Bernoulli(2, (4,)),
        ...     classifier=pv.posteriors.OneHotCategorical((4,), 3),
        ...     posterior=pv.posteriors.MeanFieldNormal((4,), 2),
        ... )
        >>> clusters.sample(5).shape
        torch.Size([5, 4])
    """

    def cluster(self, x: Tensor) -> Tensor:
        """Return the most probable cluster of each datum, of shape ``(n,)``."""
        return self.classify(x).argmax(-1)


def labelled(y: Tensor) -> Tensor:
    """Return which rows hold a label, of shape ``(n,)``."""
    return ~torch.isnan(y).any(-1)


def safe(y: Tensor) -> Tensor:
    """Put a one-hot vector in place of NaN, to stand behind a mask."""
    first = torch.zeros_like(y)
    first[..., 0] = 1
    return torch.where(labelled(y).unsqueeze(-1), y, first)


def fill(drawn: Tensor, y: Tensor | None) -> Tensor:
    """Put the labels that are known in place of drawn ones."""
    return drawn if y is None else torch.where(labelled(y).unsqueeze(-1), y, drawn)
