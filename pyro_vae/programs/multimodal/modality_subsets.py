"""Subsets of the modalities of each row, to train on (MVAE)."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae._util.validation import check_int

__all__ = ["modality_subsets"]


def modality_subsets(*columns: Tensor, num_subsets: int = 0, seed: int = 0) -> tuple[Tensor, ...]:
    r"""Return the data once complete, once with each modality alone, and with some random subsets.

    .. math:: \mathrm{ELBO}(x_1, \dots, x_M) + \sum_m \mathrm{ELBO}(x_m) + \sum_k \mathrm{ELBO}(x_{A_k})

    Training on them maximizes this sum, the sub-sampled objective of MVAE, which also trains each expert alone. The
    paper draws the subsets A again in each step.

    References:
        Multimodal generative models for scalable weakly-supervised learning (Wu and Goodman, 2018),
        https://arxiv.org/abs/1802.05335

    Args:
        columns: data of a :class:`Multimodal` program, one column per modality
        num_subsets: number of random subsets of 1 to M modalities of each row
        seed: seed of the random subsets

    Returns:
        ``1 + M + num_subsets`` times as many rows, with NaN for the modalities that a subset leaves out.

    Raises:
        ValueError: ``num_subsets`` is not an integer of at least 0.

    Example:
        >>> x, y = modality_subsets(torch.zeros(2, 4), torch.zeros(2, 3))
        >>> [torch.isnan(column).all(-1).tolist() for column in (x, y)]
        [[False, False, False, False, True, True], [False, False, True, True, False, False]]
    """
    num_subsets = check_int("num_subsets", num_subsets, 0)
    n, modalities = len(columns[0]), len(columns)
    fixed = torch.cat([torch.ones(1, modalities, dtype=torch.bool), torch.eye(modalities, dtype=torch.bool)])
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(1, 2**modalities, (num_subsets * n, 1), generator=generator)
    keep = torch.cat([fixed.repeat_interleave(n, 0), (numbers >> torch.arange(modalities)) % 2 == 1])
    found = []
    for column, kept in zip(columns, keep.T, strict=True):
        ones = [1] * (column.dim() - 1)
        rows = column.repeat(1 + modalities + num_subsets, *ones)
        found.append(rows.masked_fill(~kept.to(column.device).reshape(-1, *ones), torch.nan))
    return tuple(found)
