"""A VAE of several modalities, any of which may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_vae._util.random_state import fork_rng
from pyro_vae.conditional import Conditional
from pyro_vae.distributions.missing import factorized, hide_missing, readable
from pyro_vae.likelihoods import Normal
from pyro_vae.posteriors import MeanFieldNormal
from pyro_vae.priors import StandardNormal
from pyro_vae.programs.multimodal.checks import check_arguments, check_modalities
from pyro_vae.programs.multimodal.joint import Joint
from pyro_vae.programs.multimodal.latents import is_seen, normal, private_site, together
from pyro_vae.programs.multimodal.product_of_experts import ProductOfExperts
from pyro_vae.programs.primitives import DataPlate, announce, observe
from pyro_vae.programs.program import SMALL, Program, evaluating, mean_or_sample

__all__ = ["Multimodal"]


class Multimodal(Program):
    r"""Several modalities of an example (an image and its label, say) with shared latents z.

    .. math:: p(x_1, \dots, x_M) = \int p(z) \prod_m p(x_m \mid z, w_m)\, p(w_m)\, dz\, dw, \qquad
              q(z, w \mid x_S) = q(z \mid x_S) \prod_{m \in S} q(w_m \mid x_m)

    A modality is missing where all its entries are NaN; other NaN are missing entries. What is missing is summed over
    exactly, and q depends on the set S of modalities that are seen. Private latents :math:`w_m` (DMVAE) are optional.
    The likelihood of a modality that has them takes z and w in one vector.

    References:
        Multimodal generative models for scalable weakly-supervised learning (Wu and Goodman, 2018),
        https://arxiv.org/abs/1802.05335; Private-shared disentangled multimodal VAE (Lee and Pavlovic, 2021),
        https://arxiv.org/abs/2012.13024

    Args:
        prior: p(z), a diagonal normal
        likelihoods: p(x_m given z) or p(x_m given z, w_m), by name of the modality
        posteriors: the experts by name of the modality, diagonal normals over z; ``joint`` says what an expert is
        joint: ``programs.ProductOfExperts()`` (MVAE, the default), ``programs.MixtureOfExperts()`` (MMVAE) or
            ``programs.MixtureOfProducts()`` (MoPoE)
        private_priors: p(w_m) by name, of the modalities that have private latents
        private_posteriors: q(w_m given x_m) by name, of the same modalities

    Shape:
        data as a tuple with one column per modality, in the order of ``likelihoods``. The last columns may be left
        out, which means that these modalities are missing. :meth:`columns` makes such a tuple from a dictionary.

    Raises:
        ValueError: the names of the parts differ, or a modality has a name that another site has.
        TypeError: ``joint`` is not an instance of a Joint.

    Example:
        >>> import torch, pyro_vae as pv
        >>> program = pv.programs.Multimodal(
        ...     prior=pv.priors.StandardNormal(2),
        ...     likelihoods={
        ...         "image": pv.likelihoods.Bernoulli(2, (8, 8)),
        ...         "label": pv.likelihoods.Categorical(2, (1,), levels=10, grid=False),
        ...     },
        ...     posteriors={
        ...         "image": pv.posteriors.MeanFieldNormal((8, 8), 2),
        ...         "label": pv.posteriors.MeanFieldNormal((1,), 2),
        ...     },
        ...     joint=pv.programs.MixtureOfExperts(),
        ... )
        >>> data = program.columns({"image": torch.ones(6, 8, 8), "label": torch.ones(6, 1)})
        >>> history = pv.fit(program, data, epochs=1, progress=False)
        >>> program.generate({"label": torch.ones(3, 1)}, "image").shape
        torch.Size([3, 8, 8])
    """

    def __init__(
        self,
        *,
        prior: Conditional,
        likelihoods: Mapping[str, Conditional],
        posteriors: Mapping[str, Conditional],
        joint: Joint | None = None,
        private_priors: Mapping[str, Conditional] | None = None,
        private_posteriors: Mapping[str, Conditional] | None = None,
    ) -> None:
        super().__init__()
        joint, private = ProductOfExperts() if joint is None else joint, private_priors or {}
        check_arguments(joint, likelihoods, posteriors, private, private_posteriors or {})
        self.prior, self.joint = prior, joint
        self.likelihoods = nn.ModuleDict(likelihoods)
        self.posteriors = nn.ModuleDict({name: posteriors[name] for name in likelihoods})
        self.private_priors = nn.ModuleDict(private)
        self.private_posteriors = nn.ModuleDict(private_posteriors or {})

    @classmethod
    def example(cls, **options: Any) -> Multimodal:
        """Build a small instance with modalities ``x`` and ``y``, with further ``options`` of the constructor."""
        return cls(
            **{
                "prior": StandardNormal(2),
                "likelihoods": {m: Normal(2, (d,), net=SMALL) for m, d in (("x", 4), ("y", 3))},
                "posteriors": {m: MeanFieldNormal((d,), 2, net=SMALL) for m, d in (("x", 4), ("y", 3))},
                **options,
            }
        )

    @property
    def names(self) -> list[str]:
        """The names of the modalities, in the order of the columns."""
        return [*self.likelihoods]

    def model(self, x: Tensor, *others: Tensor) -> Tensor:
        """Sample the latents, and observe each modality where it is seen."""
        announce(prior=self.prior, likelihoods=self.likelihoods, private_priors=self.private_priors)
        with DataPlate(x):
            z = pyro.sample("z", self.prior())
            for name, column in self.given(x, *others).items():
                latents = z
                if name in self.private_priors:
                    with poutine.mask(mask=is_seen(column)):
                        w = pyro.sample(private_site(name), self.private_priors[name]())
                    latents = together(z, w)
                fn = self.likelihoods[name](latents)
                observe(name, *(hide_missing(fn, column) if factorized(fn) else (fn, column)))
        return x

    def guide(self, x: Tensor, *others: Tensor) -> Tensor:
        """Sample z given all modalities that are seen, and private latents given their own."""
        announce(prior=self.prior, posteriors=self.posteriors, private_posteriors=self.private_posteriors)
        with DataPlate(x):
            z = pyro.sample("z", self.encode(x, *others))
            for name, column in self.given(x, *others).items():
                if name in self.private_posteriors:
                    with poutine.mask(mask=is_seen(column)):
                        pyro.sample(private_site(name), self.encode_private(name, column))
            return z

    def given(self, *columns: Tensor) -> dict[str, Tensor]:
        """Return the columns by name of their modality."""
        return dict(zip(self.names, columns, strict=False))

    def columns(self, modalities: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return data of the program, with NaN for modalities that are not given.

        Args:
            modalities: batches by name of the modality, of equal lengths

        Raises:
            ValueError: there is no modality, or it is not one of the program.
        """
        if not modalities or not modalities.keys() <= {*self.names}:
            raise ValueError(f"modalities: expected some of {self.names}, got {[*modalities]}")
        first = next(iter(modalities.values()))
        with evaluating(self), fork_rng(self.device, 0):
            shapes = {name: fn.event_shape for name, fn in self.decode_all(1).items()}
        absent = {name: (len(first), *shape) for name, shape in shapes.items() if name not in modalities}
        return tuple(
            first.new_full(absent[name], torch.nan) if name in absent else modalities[name] for name in self.names
        )

    def encode(self, *columns: Tensor) -> TorchDistributionMixin:
        """Return q(z given the modalities that are seen)."""
        given, prior = self.given(*columns), normal("prior", self.prior, self.prior())
        experts = [
            normal(f"posteriors.{name}", part := self.posteriors[name], part(readable(part, column)))
            for name, column in given.items()
        ]
        loc, scale = (torch.stack([getattr(fn, name) for fn in experts], -2) for name in ("loc", "scale"))
        return self.joint(prior, loc, scale, torch.stack([is_seen(column) for column in given.values()], -1))

    def encode_private(self, name: str, x: Tensor) -> TorchDistributionMixin:
        """Return q(w given x) of the private latents of a modality."""
        return self.private_posteriors[name](readable(self.private_posteriors[name], x))

    def decode_all(self, num_samples: int) -> dict[str, TorchDistributionMixin]:
        """Sample all latents from the prior and return the likelihood of each modality."""
        z = self.prior().expand((num_samples,)).sample()
        return {name: self.decode(z, name) for name in self.names}

    def decode(self, z: Tensor, target: str) -> TorchDistributionMixin:
        """Return the likelihood of a modality given z; private latents are sampled from their prior."""
        self.checked_target(target)
        if target in self.private_priors:
            z = together(z, self.private_priors[target]().expand(z.shape[:-1]).sample())
        return self.likelihoods[target](z)

    def decode_prior(self, num_samples: int, *, target: str | None = None) -> TorchDistributionMixin:
        """Sample all latents from the prior and return the likelihood of one modality."""
        return self.decode_all(num_samples)[self.checked_target(self.names[0] if target is None else target)]

    def decode_posterior(self, x: Tensor, *others: Tensor) -> TorchDistributionMixin:
        """Sample the latents given all modalities and return the likelihood of the first one."""
        z, name = self.encode(x, *others).sample(), self.names[0]
        if name in self.private_posteriors:
            z = together(z, self.encode_private(name, x).sample())
        return self.likelihoods[name](z)

    def sample(self, num_samples: int, *, target: str | None = None, mean: bool = False, seed: int = 0) -> Tensor:
        """Sample a modality as :meth:`Program.sample`.

        Args:
            num_samples: number of samples
            target: name of the modality, the first by default. Samples of different modalities with the same seed have
                the same z
            mean: return the mean of the likelihood instead of a sample
            seed: seed of all random numbers
        """
        return self._sample(num_samples, mean=mean, seed=seed, target=target)

    def generate(self, given: Mapping[str, Tensor], target: str, *, mean: bool = False, seed: int = 0) -> Tensor:
        """Sample one modality given others: z from its posterior, private latents of the target from their prior.

        Args:
            given: batches of the other modalities by name, of equal lengths; rows of NaN are missing
            target: name of the modality to generate
            mean: return the mean of the likelihood instead of a sample
            seed: seed of all random numbers

        Returns:
            One sample per row, of shape ``(n, *shape)``.

        Raises:
            ValueError: the data do not fit, or a name is not that of a modality.
        """
        columns = self.columns(given)
        self.check(*columns)
        self.checked_target(target)
        with evaluating(self), fork_rng(self.device, seed):
            fn = self.decode(self.encode(*columns).sample(), target)
            return mean_or_sample(fn) if mean else fn.sample()

    def checked_target(self, target: str) -> str:
        """Return the name of a modality, or raise if it is none."""
        if not isinstance(target, str) or target not in self.names:
            raise ValueError(f"target: expected one of {self.names}, got {target!r}")
        return target

    def check_data(self, x: Tensor, *others: Tensor) -> None:
        """Raise if shapes, types or values of the data, or the latents of the parts, do not fit."""
        check_modalities(self, x, *others)
