"""Distributions whose draws a test decides: chosen noise for normal sites, chosen values for discrete sites."""

from contextlib import contextmanager
from dataclasses import dataclass, field

import pyro
import torch
from pyro import distributions as dist


@dataclass
class Script:
    """The draws of the next runs.

    A draw of one value per particle (a dimension of that size on the left of all plates) gets one row of noise, or one
    row of values, per particle; a single draw gets the row of its kind.

    Attributes:
        nesting: number of plate dimensions of the program
        noise: standard normal numbers by site, ``(rows, *plates, *event)``
        values: values of discrete sites, ``(particles, *plates, *event)``
        rows: the row of noise of each particle
        row: the row of noise of a single draw of a site that belongs to one example
        shared_row: that of a site that all examples share
        shared: names of the sites that all examples share
        drawn: names of the discrete sites that were drawn
        passes: the rows of each pass of few particles: what a pass draws first, it draws again for its gradient
    """

    nesting: int
    noise: dict = field(default_factory=dict)
    values: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)
    row: int = 0
    shared_row: int = 0
    shared: frozenset = frozenset()
    drawn: set = field(default_factory=set)
    passes: dict = field(default_factory=dict)

    def pick(self, name, table, rows, shape, event_dim, single):
        """Return the rows of a table that a draw of the given shape gets."""
        left = self.nesting + event_dim
        table = table.reshape(len(table), *[1] * (left - table.dim() + 1), *table.shape[1:])
        if len(shape) > left and shape[-left - 1] > 1:
            return table[self.rows_of_pass(name, rows, shape[-left - 1])].expand(shape)
        while table.dim() - 1 > len(shape):  # plates outside of those of this site
            table = table.squeeze(1)
        return table[single].expand(shape)

    def rows_of_pass(self, name, rows, size):
        """Return the rows of the particles of a pass, which its random state identifies."""
        if size == len(rows):
            return rows
        state = name, torch.get_rng_state().numpy().tobytes()
        torch.rand(1)
        first = size * self.passes.setdefault(state, sum(site == name for site, _ in self.passes))
        return [rows[(first + i) % len(rows)] for i in range(size)]

    def noise_for(self, name, shape, event_dim):
        if name not in self.noise:  # a site that is not traced, of which nothing depends
            return torch.zeros(shape, dtype=torch.float64)
        table = self.noise[name]
        if name not in self.shared:
            return self.pick(name, table, self.rows, shape, event_dim, self.row)
        # over all rows of single draws, each particle gets every row
        rows = [(self.shared_row + k) % len(table) for k in range(len(self.rows))]
        return self.pick(name, table, rows, shape, event_dim, self.shared_row)

    def values_for(self, name, shape):
        self.drawn.add(name)
        table = self.values[name]
        return self.pick(name, table, list(range(len(table))), shape, 0, 0)


_ACTIVE: list[Script] = []


@contextmanager
def scripted(script):
    """Have all draws follow a script."""
    _ACTIVE.append(script)
    try:
        yield script
    finally:
        _ACTIVE.pop()


class OfASite:
    """A distribution that knows the name of its site and the number of dimensions of an event there."""

    site, inner = "", 0

    def expand(self, batch_shape, _instance=None):
        new = super().expand(batch_shape, _instance)
        new.site, new.inner = self.site, self.inner
        return new


class Normal(OfASite, dist.Normal):
    """A normal distribution that takes its noise from the script."""

    def rsample(self, sample_shape=()):
        if not _ACTIVE:
            return super().rsample(sample_shape)
        shape = self._extended_shape(torch.Size(sample_shape))
        return self.loc + self.scale * _ACTIVE[-1].noise_for(self.site, shape, self.inner).to(self.loc.dtype)


class Discrete(OfASite):
    """A discrete distribution that takes its values from the script."""

    def sample(self, sample_shape=()):
        if not _ACTIVE:
            return super().sample(sample_shape)
        return _ACTIVE[-1].values_for(self.site, self._extended_shape(torch.Size(sample_shape)))


class Bernoulli(Discrete, dist.Bernoulli):
    """A Bernoulli distribution that takes its values from the script."""


class Categorical(Discrete, dist.Categorical):
    """A categorical distribution that takes its values from the script."""

    def sample(self, sample_shape=()):
        return super().sample(sample_shape).long()


#: Data of one and of two dimensions, and parameters to start from.
X = torch.tensor([0.6, -1.1], dtype=torch.float64)
TABLE = torch.tensor([[0.6, -1.1], [0.2, 0.9], [-0.7, 1.4]], dtype=torch.float64)
START = {"b": 0.3, "s": 1.2, "w": 0.8, "c": -0.2, "a": 0.5, "d": 0.1, "t": 0.6}


def observe(name, mean, x, scale=0.7, **options):
    """Observe a normal site."""
    return pyro.sample(name, dist.Normal(mean, scale), obs=x, **options)


def normal(name, loc, scale, event_dim=0, **options):
    """Sample a normal site."""
    fn = Normal(torch.as_tensor(loc).double(), torch.as_tensor(scale).double())
    fn.site, fn.inner = name, event_dim
    return pyro.sample(name, fn.to_event(event_dim) if event_dim else fn, **options)


def binary(name, logits, *, marked=False, **infer):
    """Sample a binary site."""
    fn = Bernoulli(logits=torch.as_tensor(logits).double())
    fn.site = name
    return pyro.sample(name, fn, infer=marks(marked, infer))


def choice(name, logits, *, marked=False, **infer):
    """Sample a site with a few classes; ``logits`` has one entry per class on the right."""
    fn = Categorical(logits=torch.as_tensor(logits).double())
    fn.site = name
    return pyro.sample(name, fn, infer=marks(marked, infer))


def marks(marked, infer):
    return {**({"enumerate": "parallel"} if marked else {}), **infer}
