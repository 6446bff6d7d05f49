"""The VampPrior: the posterior averaged over pseudo-inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.conditional import Conditional
from pyro_vae.distributions import Mixture
from pyro_vae.nets import MLP
from pyro_vae.nets.contract import as_shape, build
from pyro_vae.scales import positive

__all__ = ["VampPrior"]


class VampPrior(Conditional):
    r"""A mixture whose components are the posterior at learned pseudo-inputs.

    .. math:: p(z) = \sum_{k=1}^{K} \pi_k \, q(z \mid u_k)

    The prior that makes the bound largest is the posterior averaged over the data; the pseudo-inputs u stand in
    for the data. Prior and posterior share the encoder, which learns from both. Any posterior will do that can
    score a latent which it did not draw.

    References:
        VAE with a VampPrior (Tomczak and Welling, 2018), https://arxiv.org/abs/1705.07120

    Args:
        posterior: q(z given x), the same object that the program has
        components: number of pseudo-inputs K
        shape: shape of one datum; read from ``posterior.net.in_shape`` if None
        initial: data ``(n, *shape)`` from which the pseudo-inputs are drawn where learning starts, without
            replacement while they last; uniform noise on [0, 1] if None
        learn_inputs: learn the pseudo-inputs; if not, they stay as they were drawn
        learn_weights: learn the weights :math:`\pi`, which are 1/K otherwise
        squash: applied to the pseudo-inputs, such as ``nn.Hardtanh(0.0, 1.0)`` to keep them in [0, 1];
            ``initial`` is given as it is before

    Shape:
        no context, to batch shape ``()`` (with a posterior that takes a context: that of the context) and the
        event shape of the posterior.

    Raises:
        TypeError: the posterior is no Conditional.
        ValueError: there is no component, the shape of a datum is unknown, or ``initial`` does not fit it.

    Example:
        >>> import pyro_vae as pv
        >>> posterior = pv.posteriors.MeanFieldNormal((2, 2), 3)
        >>> VampPrior(posterior, components=7)().components.batch_shape
        torch.Size([7])
    """

    def __init__(
        self,
        posterior: Conditional,
        *,
        components: int = 500,
        shape: Sequence[int] | None = None,
        initial: Tensor | None = None,
        learn_inputs: bool = True,
        learn_weights: bool = False,
        squash: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(posterior, Conditional):
            raise TypeError(f"posterior: expected the posterior of the program, got {posterior!r}")
        if components < 1:
            raise ValueError(f"components: expected at least 1, got {components}")
        shape = shape_of_datum(posterior) if shape is None else as_shape(shape)
        self.posterior, self.squash = posterior, squash
        self.context = posterior.context
        inputs = torch.rand(components, *shape) if initial is None else draw_rows(initial, components, shape)
        self.inputs = (nn.Parameter if learn_inputs else nn.Buffer)(inputs)
        self.logits = (nn.Parameter if learn_weights else nn.Buffer)(torch.zeros(components))

    @classmethod
    def example(cls, *, latent: int = 3, shape: tuple[int, ...] = (2, 2)) -> VampPrior:
        """Return a small instance with a posterior of its own."""
        return cls(_MeanFieldNormal(shape, latent), components=5, learn_weights=True)

    def forward(self, *context: Tensor) -> Mixture:
        """Return p(z), or p(z given c) if the posterior takes a context."""
        inputs = self.inputs if self.squash is None else self.squash(self.inputs)
        columns = [c.unsqueeze(-2) for c in context] if self.context else []
        return Mixture(self.logits, self.posterior(inputs, *columns))


def shape_of_datum(posterior: Conditional) -> tuple[int, ...]:
    """Read the shape of a datum from the posterior's network."""
    shape = getattr(getattr(posterior, "net", None), "in_shape", None)
    if shape is None:
        raise ValueError(
            f"shape: {type(posterior).__name__} has no network `net` that knows its in_shape: pass the shape of one "
            "datum"
        )
    return as_shape(shape)


def draw_rows(data: Tensor, n: int, shape: Sequence[int]) -> Tensor:
    """Draw ``n`` rows, each at most once while there are enough."""
    if data.dim() == 0 or tuple(data.shape[1:]) != tuple(shape) or not len(data):
        raise ValueError(f"initial: expected data of shape (n, {', '.join(map(str, shape))}), got {tuple(data.shape)}")
    rounds = -(-n // len(data))
    rows = torch.cat([torch.randperm(len(data), device=data.device) for _ in range(rounds)])[:n]
    return data[rows].detach().clone()


class _MeanFieldNormal(Conditional):
    """A posterior for the example: this shelf knows nothing of the other ones."""

    def __init__(self, shape: Sequence[int], latent: int) -> None:
        super().__init__()
        self.net = build(partial(MLP, hidden=(16,)), shape, (2, latent))

    def forward(self, x: Tensor, *context: Tensor) -> dist.Independent:
        loc, raw = self.net(x).unbind(-2)
        return dist.Normal(loc, positive(raw)).to_event(1)
