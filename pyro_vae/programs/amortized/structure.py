"""Which latents the encoder of each latent sees in addition to the data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, combinations, permutations

from pyro_vae._util.abstract import Abstract
from pyro_vae._util.describe import Described

__all__ = ["Forward", "Inverse", "MeanField", "Structure"]

#: The latents of an example in the density of each site of the model, that of the site itself included.
Dependencies = Mapping[str, set[str]]


class Structure(Described, Abstract):
    """The order in which a guide samples the latents of an example, and what the encoder of each one sees.

    Every encoder sees all the data of the example.
    """

    @abstractmethod
    def parents(self, latents: Sequence[str], dependencies: Callable[[], Dependencies]) -> dict[str, list[str]]:
        """Return for each latent, in the order of the guide, the latents that its encoder sees.

        Args:
            latents: names of the latents of an example, in the order of the model
            dependencies: returns for each site of the model the latents of an example in its density, the site itself
                included; those that are not in ``latents`` are summed over by the model
        """


class MeanField(Structure):
    r"""Latents that are independent given the data.

    .. math:: q(z \mid x) = \prod_i q(z_i \mid x)

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Example:
        >>> MeanField().parents(["a", "b"], dict)
        {'a': [], 'b': []}
    """

    def parents(self, latents: Sequence[str], dependencies: Callable[[], Dependencies]) -> dict[str, list[str]]:
        """Return no parents."""
        return {name: [] for name in latents}


class Forward(Structure):
    r"""Each latent given all latents before it in the model.

    .. math:: q(z \mid x) = \prod_i q(z_i \mid x, z_1, \dots, z_{i-1})

    References:
        Auto-encoding variational Bayes (Kingma and Welling, 2014), https://arxiv.org/abs/1312.6114

    Example:
        >>> Forward().parents(["a", "b"], dict)
        {'a': [], 'b': ['a']}
    """

    def parents(self, latents: Sequence[str], dependencies: Callable[[], Dependencies]) -> dict[str, list[str]]:
        """Return all latents before each one."""
        return {name: list(latents[:i]) for i, name in enumerate(latents)}


class Inverse(Structure):
    r"""The faithful inverse of the model: each latent given the later ones that it depends on given the data.

    .. math:: q(z \mid x) = \prod_i q(z_i \mid x, z_{\mathrm{pa}(i)}), \qquad \mathrm{pa}(i) \subseteq \{i + 1, \dots\}

    The inverse has no conditional independence that the posterior lacks, so that the exact posterior is among its
    distributions if the encoders are flexible enough. It is found by variable elimination in the moral graph of the
    model: the latents are eliminated from the first to the last, those with the fewest new edges first, and the
    neighbours of a latent that are not yet eliminated are its parents. Latents that all examples share count as known.

    References:
        Faithful inversion of generative models for effective amortized inference (Webb et al., 2018),
        https://arxiv.org/abs/1712.00287

    Example:
        >>> model = {"a": {"a"}, "b": {"a", "b"}, "x": {"b"}}
        >>> Inverse().parents(["a", "b"], lambda: model)
        {'b': [], 'a': ['b']}
    """

    def parents(self, latents: Sequence[str], dependencies: Callable[[], Dependencies]) -> dict[str, list[str]]:
        """Eliminate the latents of the moral graph and return their neighbours."""
        found = dependencies()
        edges: dict[str, set[str]] = {name: set() for name in {*latents, *chain(*found.values())}}
        for names in found.values():
            join(edges, names)
        for name in sorted(edges.keys() - set(latents)):  # the model sums over them: they are in no guide
            eliminate(edges, name)
        inverse: dict[str, list[str]] = {}
        while edges:
            ready = [name for name in latents if name in edges and not (found[name] - {name}) & edges.keys()]
            name = min(ready, key=lambda name: new_edges(edges, name))
            neighbours = eliminate(edges, name)
            inverse[name] = [other for other in latents if other in neighbours]
        return dict(reversed(inverse.items()))


def join(edges: dict[str, set[str]], names: Iterable[str]) -> None:
    """Add an edge between each two of the names."""
    for a, b in permutations(names, 2):
        edges[a].add(b)


def eliminate(edges: dict[str, set[str]], name: str) -> set[str]:
    """Remove a name from the graph, join its neighbours and return them."""
    neighbours = edges.pop(name)
    for other in neighbours:
        edges[other].discard(name)
    join(edges, neighbours)
    return neighbours


def new_edges(edges: Mapping[str, set[str]], name: str) -> int:
    """Return the number of edges that the elimination of a name would add."""
    return sum(b not in edges[a] for a, b in combinations(edges[name], 2))
