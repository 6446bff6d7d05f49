"""A semi-supervised program on the latents of a VAE."""

from __future__ import annotations

import pyro
from torch import Tensor

from pyro_vae.conditional import Conditional
from pyro_vae.programs.checks import check_supports, check_tensor, check_values
from pyro_vae.programs.program import DataPlate, Program, announce, evaluating, mean_or_draw, observe
from pyro_vae.programs.semi_supervised import SemiSupervised

__all__ = ["StackedSemiSupervised"]


class StackedSemiSupervised(Program):
    r"""A VAE whose latents z1 have a class y and latents z2 of their own (M1+M2).

    .. math:: p(x) = \sum_y p(y) \int p(z_2 \mid y)\, p(z_1 \mid z_2, y)\, p(x \mid z_1)\, dz_1\, dz_2, \qquad
              q(z_1, y, z_2 \mid x) = q(z_1 \mid x)\, q(y \mid z_1)\, q(z_2 \mid z_1, y)

    M2 is a :class:`SemiSupervised` that takes z1 for its data: the class is summed over exactly and weighted by
    :math:`q(y \mid z_1)`, and ``alpha`` of M2 weighs the classification of the labelled data. All parts are trained
    together; in the paper M1 is trained first and M2 then, on its latents, as in the example.

    References:
        Semi-supervised learning with deep generative models (Kingma et al., 2014), https://arxiv.org/abs/1406.5298

    Args:
        top: M2, with a likelihood p(z1 given z2, y) that has the shape of z1
        likelihood: p(x given z1)
        posterior: q(z1 given x)

    Shape:
        data as a tuple ``(x, y)``: y one-hot floats of shape ``(n, classes)``, a row of NaN where no label is known;
        or x alone.

    Raises:
        TypeError: ``top`` is no SemiSupervised program.

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
            raise TypeError(f"top: expected a SemiSupervised program whose data are z1, got {top!r}")
        self.top, self.likelihood, self.posterior = top, likelihood, posterior

    def model(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Draw class and latents, and observe ``x`` and the labels."""
        top = self.top
        announce(classes=top.classes, prior=top.prior, latents=top.likelihood, likelihood=self.likelihood)
        with DataPlate(x):
            label = top.draw_class(y)
            z2 = pyro.sample("z2", top.prior(label))
            z1 = pyro.sample("z1", top.likelihood(z2, label))
            top.score_class(z1, y)
            return observe("x", self.likelihood(z1), x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Draw z1, draw (or enumerate) the class where it is not known, then draw z2."""
        top = self.top
        announce(posterior=self.posterior, classifier=top.classifier, top=top.posterior)
        with DataPlate(x):
            z1 = pyro.sample("z1", self.posterior(x))
            return pyro.sample("z2", top.posterior(z1, top.infer_class(z1, y)))

    def classify(self, x: Tensor, *, draws: int = 64) -> Tensor:
        """Return the mean of q(y given z1) over ``draws`` of z1 given x, of shape ``(n, classes)``."""
        with evaluating(self):
            return self.top.classify(self.posterior(x).sample((draws,))).mean(0)

    def sample(self, n: int, y: Tensor | None = None, *, mean: bool = False) -> Tensor:
        """Draw ``n`` new data, of the classes ``y`` (one-hot, ``(n, classes)``) if given."""
        with evaluating(self):
            fn = self.likelihood(self.top.sample(n, y))
            return mean_or_draw(fn) if mean else fn.sample()

    def reconstruct(self, x: Tensor) -> Tensor:
        """Draw z1 given ``x`` and return the mean of p(x given z1)."""
        with evaluating(self):
            return mean_or_draw(self.likelihood(self.posterior(x).sample()))

    def check(self, x: Tensor, *context: Tensor) -> None:
        """Refuse data and labels that do not fit the parts, and parts that do not fit each other."""
        with evaluating(self):
            latents = self.top.blank(x)
            p = self.likelihood(x.new_zeros(1, *latents.event_shape, dtype=self.dtype))
            check_tensor("x", x, p.event_shape, self.dtype)
            check_values("x", x, p.support, self.likelihood)
            q = self.posterior(x[:1])
        self.top.check_labels(x, *context)
        if q.event_shape != latents.event_shape:
            raise ValueError(
                f"posterior {type(self.posterior).__name__} makes z1 of shape {tuple(q.event_shape)}, the likelihood "
                f"{type(self.top.likelihood).__name__} of `top` has data of shape {tuple(latents.event_shape)}: "
                "build both with the same shape"
            )
        check_supports(q, latents, type(self.posterior).__name__, type(self.top.likelihood).__name__)
