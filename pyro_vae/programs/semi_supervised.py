"""A class beside the latents: semi-supervised classification, and clustering where no label is known."""

from __future__ import annotations

import pyro
import torch
from pyro import poutine
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
        known = self._known(x, y)
        with DataPlate(x):
            with poutine.mask(mask=~known):
                label = pyro.sample("y", self.classes())
            if y is not None:
                label = self._fill(label, y, known)
                with poutine.mask(mask=known):
                    pyro.sample("label", self.classes(), obs=self._safe(y, known))
                    # an objective of training, no part of p(x, y)
                    if self.training and self.alpha:
                        announce(classifier=self.classifier)
                        with poutine.scale(scale=self.alpha):
                            pyro.sample("classified", self.classifier(x), obs=self._safe(y, known))
            z = pyro.sample("z", self.prior(label))
            return observe("x", self.likelihood(z, label), x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Draw (or enumerate) the class where it is not known, then the latents."""
        announce(classifier=self.classifier, posterior=self.posterior)
        known = self._known(x, y)
        with DataPlate(x):
            with poutine.mask(mask=~known):
                label = pyro.sample("y", self.classifier(x), infer=dict(ENUMERATE))
            return pyro.sample("z", self.posterior(x, self._fill(label, y, known)))

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
        dtype = self.dtype
        if len(context) > 1:
            raise ValueError(f"data: expected x, or (x, y), got {1 + len(context)} columns")
        with evaluating(self):
            y = torch.zeros(1, *self.classes().event_shape, dtype=dtype)
            y[..., 0] = 1
            p = self.likelihood(torch.zeros(1, *self.prior(y).event_shape, dtype=dtype), y)
        check_tensor("x", x, p.event_shape, dtype)
        check_values("x", x, p.support, self.likelihood)
        for labels in context:
            check_tensor("y", labels, self.classes().event_shape, dtype, missing=True)
            if len(labels) != len(x):
                raise ValueError(f"y: expected {len(x)} rows, one a datum, got {len(labels)}")
            known = ~labels.isnan().any(-1)
            bad = known & ~self.classes().support.check(labels)
            if bad.any():
                row = int(bad.nonzero()[0])
                raise ValueError(
                    f"y: y[{row}] is {labels[row].tolist()}, expected a one-hot row, or NaN where no label is known"
                )

    @staticmethod
    def _known(x: Tensor, y: Tensor | None) -> Tensor:
        return x.new_zeros(len(x), dtype=torch.bool) if y is None else ~torch.isnan(y).any(-1)

    @staticmethod
    def _safe(y: Tensor, known: Tensor) -> Tensor:
        # a one-hot vector in place of NaN, behind a mask
        first = torch.zeros_like(y)
        first[..., 0] = 1
        return torch.where(known.unsqueeze(-1), y, first)

    @staticmethod
    def _fill(label: Tensor, y: Tensor | None, known: Tensor) -> Tensor:
        return label if y is None else torch.where(known.unsqueeze(-1), y, label)


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
    """

    def cluster(self, x: Tensor) -> Tensor:
        """Return the most probable cluster of each datum, of shape ``(n,)``."""
        return self.classify(x).argmax(-1)
