"""A codebook: vectors that stand for discrete codes, learned or moved to running means."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed import get_world_size, is_available, is_initialized

from pyro_vae._util.validation import check_int, check_number

__all__ = ["Codebook"]

#: The share of outputs, in parts of the mean share, below which a code is replaced.
UNUSED = 0.1


class Codebook(nn.Module):
    r"""K code vectors :math:`e_k`, the first layer of the decoder of a VQ-VAE.

    With a ``decay`` each code is the running mean of the encoder outputs that are nearest to it,

    .. math:: e_k = \frac{\sum_t \gamma^{T - t} s_{kt}}{\sum_t \gamma^{T - t} n_{kt}},

    with the number :math:`n_{kt}` and the sum :math:`s_{kt}` of those outputs in training step t. A code with less
    than 10% of the mean share of outputs is replaced by a random encoder output of the batch. Without a decay the
    codes are parameters, and unused codes stay.

    References:
        Neural discrete representation learning (van den Oord et al., 2017), appendix A.1,
        https://arxiv.org/abs/1711.00937

    Args:
        num_codes: K
        code_dim: length of a code vector
        decay: :math:`\gamma`, at least 0 and below 1; None for codes that are parameters

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> Codebook(8, 2)(torch.eye(8)).shape
        torch.Size([8, 2])
    """

    def __init__(self, num_codes: int, code_dim: int, *, decay: float | None = 0.99) -> None:
        super().__init__()
        shape = check_int("num_codes", num_codes), check_int("code_dim", code_dim)
        self.decay = None if decay is None else check_number("decay", decay, 0, below=1)
        codes = torch.randn(shape)
        self.codes = nn.Parameter(codes) if decay is None else nn.Buffer(codes)
        if decay is not None:
            self.counts, self.sums = nn.Buffer(torch.zeros(num_codes)), nn.Buffer(torch.zeros(shape))

    def forward(self, one_hot: Tensor) -> Tensor:
        """Return the code vectors ``(*batch, code_dim)`` of one-hot vectors ``(*batch, num_codes)``."""
        # a copy, as a later batch changes a buffer that the gradient of this one needs
        return one_hot @ (self.codes if self.decay is None else self.codes.clone())

    @torch.no_grad()
    def update(self, outputs: Tensor, one_hot: Tensor) -> None:
        """Move the codes towards the encoder outputs of one batch.

        Args:
            outputs: encoder outputs, of shape ``(*batch, code_dim)``
            one_hot: their nearest codes, of shape ``(*batch, num_codes)``

        Raises:
            ValueError: several processes train together, each of which would have codes of its own.
        """
        if is_available() and is_initialized() and get_world_size() > 1:
            raise ValueError(
                f"decay: expected None where several processes train together, got {self.decay} (Codebook). Build the "
                "posterior with decay=None, so that the codes are parameters"
            )
        outputs, one_hot = outputs.flatten(0, -2), one_hot.flatten(0, -2)
        self.counts.mul_(self.decay).add_(one_hot.sum(0) * (1 - self.decay))
        self.sums.mul_(self.decay).add_(one_hot.T @ outputs * (1 - self.decay))
        mean = self.counts.mean()
        unused = self.counts < UNUSED * mean
        rows = outputs[torch.randint(len(outputs), (len(self.codes),), device=outputs.device)]
        self.sums.copy_(torch.where(unused.unsqueeze(-1), mean * rows, self.sums))
        self.counts.copy_(torch.where(unused, mean, self.counts))
        self.codes.copy_(self.sums / self.counts.unsqueeze(-1))
