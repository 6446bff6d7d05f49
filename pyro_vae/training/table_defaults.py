"""Sizes of a network and of its training that follow the size of a table."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyro_vae._util.validation import check_int

__all__ = ["ImputationDefaults", "TableDefaults"]


#: Tables with fewer rows than this get its number of steps.
FEWEST = 1600


@dataclass(frozen=True)
class TableDefaults:
    r"""The default sizes of a VAE for a table of n rows and d columns, and of its training.

    .. math:: \text{latents} = \max(2, \lfloor \sqrt d \rceil), \; \text{steps} = \lceil 10 \sqrt{\max(n, 1600)} \rceil

    Encoder and decoder have one hidden layer of 32. A larger network, or one that is trained for longer, learns the
    few unusual rows as well, and its log-likelihood no longer shows that they are unusual. The standard error of what
    a table can teach falls as :math:`1 / \sqrt n`, so that more rows are worth more steps; with fewer than 400 steps
    not even the correlations of columns are learned.

    Args:
        rows: number of rows, n
        columns: number of columns, d

    Raises:
        ValueError: a number is below 1.

    Example:
        >>> sizes = TableDefaults(rows=1600, columns=10)
        >>> sizes.latent, sizes.hidden, sizes.num_steps, sizes.epochs(batch_size=128)
        (3, (32,), 400, 31)
    """

    rows: int
    columns: int

    def __post_init__(self) -> None:
        check_int("rows", self.rows)
        check_int("columns", self.columns)

    @property
    def latent(self) -> int:
        """Number of latents."""
        return max(2, round(math.sqrt(self.columns)))

    @property
    def hidden(self) -> tuple[int, ...]:
        """Width of each hidden layer of encoder and decoder."""
        return (32,)

    @property
    def num_steps(self) -> int:
        """Number of steps of the training."""
        return math.ceil(10 * math.sqrt(max(self.rows, FEWEST)))

    def epochs(self, batch_size: int) -> int:
        """Return the smallest number of passes over the rows with so many steps."""
        return math.ceil(self.num_steps / math.ceil(self.rows / batch_size))


class ImputationDefaults(TableDefaults):
    r"""The default sizes of a VAE that imputes a table of n rows and d columns.

    .. math:: \text{latents} = \max(2, \lfloor d / 2 \rfloor), \;
              \text{steps} = 4 \lceil 10 \sqrt{\max(n, 1600)} \rceil

    A density may leave a correlation between two columns out, which imputation needs: more latents and more steps
    learn it.

    Args:
        rows: number of rows, n
        columns: number of columns, d

    Raises:
        ValueError: a number is below 1.

    Example:
        >>> sizes = ImputationDefaults(rows=1600, columns=10)
        >>> sizes.latent, sizes.hidden, sizes.num_steps
        (5, (32,), 1600)
    """

    @property
    def latent(self) -> int:
        """Number of latents."""
        return max(2, self.columns // 2)

    @property
    def num_steps(self) -> int:
        """Number of steps of the training."""
        return 4 * super().num_steps
