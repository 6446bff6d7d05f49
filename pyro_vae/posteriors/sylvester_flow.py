"""The Sylvester flow posterior."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pyro_vae._util.validation import check_int
from pyro_vae.conditional import Conditional
from pyro_vae.distributions.amortized_flow import AmortizedFlow, Step, tanh_root
from pyro_vae.distributions.sphere import direction
from pyro_vae.nets import MLP, NetBuilder, Shape, build
from pyro_vae.scales import positive

__all__ = ["Basis", "Householder", "Orthogonal", "SylvesterFlow"]


class Basis(ABC):
    """The orthonormal columns of a Sylvester flow, as a function of encoder outputs."""

    @abstractmethod
    def shape(self, latent: int) -> tuple[int, int]:
        """Return the number of columns and of encoder outputs."""

    @abstractmethod
    def __call__(self, raw: Tensor, latent: int) -> Tensor:
        """Return orthonormal columns, ``(*batch, latent, columns)``."""


class Orthogonal(Basis):
    """Columns orthonormalized by a QR decomposition; a few of them make a bottleneck for many latents.

    Args:
        columns: number of columns, ``latent`` if None
    """

    def __init__(self, columns: int | None = None) -> None:
        self.columns = columns

    def shape(self, latent: int) -> tuple[int, int]:
        """Return the number of columns and of encoder outputs."""
        columns = latent if self.columns is None else self.columns
        if not 1 <= columns <= latent:
            raise ValueError(f"columns: expected 1 to latent = {latent}, got {columns}")
        return columns, latent * columns

    def __call__(self, raw: Tensor, latent: int) -> Tensor:
        """Return orthonormal columns."""
        raw = torch.tanh(raw.unflatten(-1, (latent, -1)))
        # the diagonal keeps the columns independent even if all outputs of the network are equal
        return torch.linalg.qr(raw + 1.5 * torch.eye(*raw.shape[-2:], dtype=raw.dtype, device=raw.device))[0]


class Householder(Basis):
    """An orthogonal matrix as a product of Householder reflections.

    Args:
        reflections: number of reflections; ``latent`` of them make any orthogonal matrix
    """

    def __init__(self, reflections: int = 4) -> None:
        check_int("reflections", reflections)
        self.reflections = reflections

    def shape(self, latent: int) -> tuple[int, int]:
        """Return the number of columns and of encoder outputs."""
        return latent, latent * self.reflections

    def __call__(self, raw: Tensor, latent: int) -> Tensor:
        """Return an orthogonal matrix."""
        q = torch.eye(latent, dtype=raw.dtype, device=raw.device)
        for v in direction(raw.unflatten(-1, (-1, latent))).unbind(-2):
            q = q - 2 * v.unsqueeze(-1) * (v.unsqueeze(-2) @ q)
        return q


class SylvesterFlow(Conditional):
    r"""A normal pushed through Sylvester maps, which generalize planar maps to several directions.

    .. math:: f(z) = z + Q R \tanh(\tilde R Q^\top z + b), \qquad
              \log \lvert \det J \rvert = \sum_i \log \left(1 + r_{ii} \tilde r_{ii} \, (1 - h_i^2)\right), \quad
              h = \tanh(\tilde R Q^\top z + b)

    Q has orthonormal columns; R and :math:`\tilde R` are upper triangular with diagonals in (-1, 1), so that f is
    invertible. All of them come from the encoder. Values other than the posterior's own samples are inverted
    coordinate by coordinate, by bisection.

    References:
        Sylvester normalizing flows for variational inference (van den Berg et al., 2018),
        https://arxiv.org/abs/1803.05649

    Args:
        shape: shape of one example
        latent: number of latents
        net: builds the encoder, ``net(shape, (n,))``, with n the number of parameters of q
        context: width of the context in addition to x
        layers: number of maps
        basis: parameterization of Q: ``Orthogonal(columns)`` or ``Householder(reflections)`` of
            ``pyro_vae.posteriors.sylvester_flow``; ``Orthogonal()`` if None

    Raises:
        ValueError: ``layers`` is below 1, or the basis has more columns than there are latents.

    Example:
        >>> import torch
        >>> SylvesterFlow((28, 28), 3, basis=Householder(2))(torch.zeros(5, 28, 28)).event_shape
        torch.Size([3])
    """

    def __init__(
        self,
        shape: Shape,
        latent: int,
        *,
        net: NetBuilder = MLP,
        context: int = 0,
        layers: int = 4,
        basis: Basis | None = None,
    ) -> None:
        super().__init__(latent=latent, context=context)
        check_int("layers", layers)
        self.latent, self.layers, self.basis = latent, layers, Orthogonal() if basis is None else basis
        columns, outputs = self.basis.shape(latent)
        self.sizes = (outputs, columns * columns, columns * columns, columns)
        self.net = build(net, shape, (2 * latent + layers * sum(self.sizes),), context)

    def forward(self, x: Tensor, *context: Tensor) -> AmortizedFlow:
        """Return q(z given x)."""
        loc, raw, steps = self.net(x, *context).split([self.latent, self.latent, self.layers * sum(self.sizes)], -1)
        maps = []
        for step in steps.unflatten(-1, (self.layers, -1)).unbind(-2):
            q, r, r_tilde, b = step.split(self.sizes, -1)
            square = (b.shape[-1], b.shape[-1])
            r, r_tilde = triangle(r.unflatten(-1, square)), triangle(r_tilde.unflatten(-1, square))
            maps.append(Sylvester(self.basis(q, self.latent), r, r_tilde, b))
        return AmortizedFlow(loc, positive(raw), maps)


class Sylvester(Step):
    """A Sylvester map."""

    def __init__(self, q: Tensor, r: Tensor, r_tilde: Tensor, b: Tensor) -> None:
        self.q, self.r, self.r_tilde, self.b = q, r, r_tilde, b

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image and the log-determinant."""
        h = torch.tanh(times(self.r_tilde, times(self.q.mT, z)) + self.b)
        diagonal = (self.r * self.r_tilde).diagonal(dim1=-2, dim2=-1)
        return z + times(self.q, times(self.r, h)), torch.log1p(diagonal * (1 - h.square())).sum(-1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return the preimage of ``z``, from the last coordinate in the basis, which depends on itself only."""
        image = times(self.q.mT, z)
        y, h = torch.zeros_like(image), torch.zeros_like(image)
        for i in reversed(range(image.shape[-1])):
            r, s = self.r[..., i, i], self.r_tilde[..., i, i]
            # the contribution of the coordinates after i: those before it are still 0
            c = self.b[..., i] + (self.r_tilde[..., i, :] * y).sum(-1)
            t = image[..., i] - (self.r[..., i, :] * h).sum(-1)
            y[..., i] = tanh_root(r, s, c, t)
            h[..., i] = torch.tanh(s * y[..., i] + c)
        return z - times(self.q, times(self.r, h))


def triangle(raw: Tensor) -> Tensor:
    """Return an upper triangular matrix with its diagonal in (-1, 1)."""
    diagonal = 0.999 * torch.tanh(raw.diagonal(dim1=-2, dim2=-1))
    return raw.triu(1) / math.sqrt(raw.shape[-1]) + torch.diag_embed(diagonal)


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Return the product of each matrix with its vector."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
