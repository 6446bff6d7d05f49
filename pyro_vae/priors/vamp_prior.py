"""The VampPrior: the posterior averaged over pseudo-inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional, UnitNormal
from pyro_vae.distributions import Mixture
from pyro_vae.nets.shapes import Shape, as_shape
from pyro_vae.priors.encoder_prior import EncoderPrior

__all__ = ["VampPrior"]


class VampPrior(EncoderPrior):
    r"""A mixture of the posteriors at learned pseudo-inputs.

    .. math:: p(z) = \sum_{k=1}^{K} \pi_k \, q(z \mid u_k)

    It is shifted to mean 0 unless ``center`` is False. The prior that maximizes the ELBO is the posterior averaged
    over the data; the pseudo-inputs u approximate the data. Prior and posterior share the encoder, which gets
    gradients from both. Any posterior works that has a density at latents that it did not sample.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018), https://arxiv.org/abs/1705.07120

    Args:
        posterior: q(z given x), the same object as in the program
        num_components: number of pseudo-inputs K
        shape: shape of one example; ``posterior.net.in_shape`` if None
        initial: data ``(n, *shape)``, from which the initial pseudo-inputs are sampled (each at most once as long as
            there are enough); uniform noise on [0, 1] if None
        learn_inputs: learn the pseudo-inputs instead of keeping their initial values
        learn_weights: learn the weights :math:`\pi`, which are 1/K otherwise
        squash: applied to the pseudo-inputs, such as ``nn.Hardtanh(0.0, 1.0)`` to keep them in [0, 1];
            ``initial`` is given before squashing
        center: shift the prior to mean 0, which keeps the latents from drifting to where the decoder saturates, and
            so from collapsing; False for the formula as published

    Shape:
        no context, to batch shape ``()`` (or that of the context, if the posterior takes one) and the event shape of
        the posterior.

    Raises:
        TypeError: the posterior is not a Conditional.
        ValueError: ``num_components`` is below 1, the shape of an example is unknown, or ``initial`` does not fit it.

    Example:
        >>> import pyro_vae as pv
        >>> posterior = pv.posteriors.MeanFieldNormal((2, 2), 3)
        >>> VampPrior(posterior, num_components=7)().components.batch_shape
        torch.Size([7])
    """

    def __init__(
        self,
        posterior: Conditional,
        *,
        num_components: int = 500,
        shape: Shape | None = None,
        initial: Tensor | None = None,
        learn_inputs: bool = True,
        learn_weights: bool = False,
        squash: Callable[[Tensor], Tensor] | None = None,
        center: bool = True,
    ) -> None:
        super().__init__(posterior, center=center)
        check_int("num_components", num_components)
        shape = getattr(getattr(posterior, "net", None), "in_shape", None) if shape is None else shape
        if shape is None:
            raise ValueError(
                f"shape: expected the shape of one example, as {type(posterior).__name__} has no attribute `net` with "
                "an `in_shape`"
            )
        self.squash, shape = squash, as_shape(shape)
        inputs = torch.rand(num_components, *shape) if initial is None else sample_rows(initial, num_components, shape)
        self.inputs = (nn.Parameter if learn_inputs else nn.Buffer)(inputs)
        self.logits = (nn.Parameter if learn_weights else nn.Buffer)(torch.zeros(num_components))

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2), **options: Any) -> VampPrior:
        """Build a small instance with its own posterior."""
        return cls(UnitNormal(shape, (latent,)), **{"num_components": 5, "learn_weights": True, **options})

    def forward(self, *context: Tensor) -> Mixture:
        """Return p(z), or p(z given c) if the posterior takes a context."""
        inputs = self.inputs if self.squash is None else self.squash(self.inputs)
        return self.mixture(self.logits, self.encode(inputs, context))


def sample_rows(data: Tensor, n: int, shape: Shape) -> Tensor:
    """Return ``n`` random rows, each at most once as long as there are enough."""
    if data.dim() == 0 or tuple(data.shape[1:]) != tuple(shape) or not len(data):
        raise ValueError(f"initial: expected data of shape (n, {', '.join(map(str, shape))}), got {tuple(data.shape)}")
    rounds = -(-n // len(data))
    rows = torch.cat([torch.randperm(len(data), device=data.device) for _ in range(rounds)])[:n]
    return data[rows].detach().clone()
