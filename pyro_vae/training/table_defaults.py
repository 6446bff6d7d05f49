"""Settings of a VAE and of its training that follow the size of a table, one class per purpose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyro_vae._util.validation import check_int
from pyro_vae.estimators import TrimmedELBO
from pyro_vae.likelihoods import StudentTTable

__all__ = ["PURPOSES", "AnomalyDefaults", "ImputationDefaults", "TableDefaults"]


#: Tables with fewer rows than this get its number of steps.
FEWEST = 1600


@dataclass(frozen=True)
class TableDefaults:
    r"""The default settings of a VAE that is a density of a table of n rows, and of its training.

    .. math:: \text{steps} = \lceil 10 \sqrt{\max(n, 1600)} \rceil

    The standard error of what a table can teach falls as :math:`1 / \sqrt n`, so that more rows are worth more steps;
    with fewer than 400 steps not even the correlations of columns are learned.

    Args:
        rows: number of rows, n
        columns: number of columns, d

    Raises:
        ValueError: a number is below 1.

    Example:
        >>> sizes = TableDefaults(rows=1600, columns=10)
        >>> sizes.latent, sizes.hidden, sizes.num_steps, sizes.epochs(batch_size=128)
        (8, (128, 128), 400, 31)
    """

    rows: int
    columns: int

    def __post_init__(self) -> None:
        check_int("rows", self.rows)
        check_int("columns", self.columns)

    @property
    def latent(self) -> int:
        """Number of latents."""
        return 8

    @property
    def hidden(self) -> tuple[int, ...]:
        """Width of each hidden layer of encoder and decoder."""
        return (128, 128)

    @property
    def classifier(self) -> tuple[int, ...]:
        """Width of each hidden layer of the classifier and the encoder of a program with classes."""
        return (32,)

    @property
    def linear(self) -> bool:
        """Whether the decoder is the sum of its network and a linear map, which learns correlations quickly."""
        return False

    @property
    def learning_rate(self) -> float:
        """Learning rate of Adam."""
        return 1e-2

    @property
    def decays(self) -> bool:
        """Whether the learning rate falls to 0 along a cosine."""
        return True

    @property
    def parts(self) -> Mapping[str, Any]:
        """Makers of the parts that differ from those that suit the types of the columns, by axis."""
        return {}

    @property
    def num_steps(self) -> int:
        """Number of steps of the training."""
        return math.ceil(10 * math.sqrt(max(self.rows, FEWEST)))

    def epochs(self, batch_size: int) -> int:
        """Return the smallest number of passes over the rows with so many steps."""
        return math.ceil(self.num_steps / math.ceil(self.rows / batch_size))

    def patience(self, epochs: int) -> int:
        """Return the number of epochs without a better validation bound before the training stops."""
        return 20


class AnomalyDefaults(TableDefaults):
    r"""The default settings of a VAE that ranks the rows of a table, some of which are anomalies, by log-likelihood.

    .. math:: \text{latents} = \max(2, \lfloor \sqrt d \rceil)

    A larger network, or one that is trained for longer, learns the few unusual rows as well, and its log-likelihood no
    longer shows that they are unusual. So does one with a scale per column or row: a Student-t likelihood with one
    scale of all columns is not drawn towards unusual rows, and :class:`pyro_vae.estimators.TrimmedELBO` leaves the
    least likely fifth of each batch out. Such a VAE has a lower log-likelihood than one of :class:`TableDefaults`.

    Args:
        rows: number of rows, n
        columns: number of columns, d

    Raises:
        ValueError: a number is below 1.

    Example:
        >>> sizes = AnomalyDefaults(rows=1600, columns=10)
        >>> sizes.latent, sizes.hidden, sizes.learning_rate, sorted(sizes.parts)
        (3, (32,), 0.002, ['estimator', 'likelihood'])
    """

    @property
    def latent(self) -> int:
        """Number of latents."""
        return max(2, round(math.sqrt(self.columns)))

    @property
    def hidden(self) -> tuple[int, ...]:
        """Width of each hidden layer of encoder and decoder."""
        return (32,)

    @property
    def learning_rate(self) -> float:
        """Learning rate of Adam."""
        return 2e-3

    @property
    def decays(self) -> bool:
        """Whether the learning rate falls to 0 along a cosine."""
        return False

    @property
    def parts(self) -> Mapping[str, Any]:
        """Makers of likelihood and estimator, by axis."""
        return {"likelihood": StudentTTable, "estimator": partial(TrimmedELBO, trim=0.2)}

    def patience(self, epochs: int) -> int:
        """Return the number of epochs without a better validation bound before the training stops."""
        return max(20, epochs // 4)


class ImputationDefaults(TableDefaults):
    r"""The default settings of a VAE that imputes a table of n rows and d columns.

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
    def hidden(self) -> tuple[int, ...]:
        """Width of each hidden layer of encoder and decoder."""
        return (32,)

    @property
    def linear(self) -> bool:
        """Whether the decoder is the sum of its network and a linear map, which learns correlations quickly."""
        return True

    @property
    def num_steps(self) -> int:
        """Number of steps of the training."""
        return 4 * super().num_steps

    def patience(self, epochs: int) -> int:
        """Return the number of epochs without a better validation bound before the training stops."""
        return max(20, epochs // 4)


#: The settings by what a VAE of a table is for.
PURPOSES = {"density": TableDefaults, "imputation": ImputationDefaults, "anomalies": AnomalyDefaults}
