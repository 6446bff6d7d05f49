"""Sites that only the model has, summed out of its density by tensor variable elimination."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import Any

import torch
from opt_einsum import get_symbol
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.packed import pack, unpack
from torch import Tensor

from pyro_vae.trace.handlers import Recorder
from pyro_vae.trace.layout import Layout, same
from pyro_vae.trace.masks import masked
from pyro_vae.trace.plates import PARTICLES, VALUES_DIM, batch_shape, frames
from pyro_vae.trace.site import Marginal, Site
from pyro_vae.trace.values import average_inside, check_inside

__all__ = ["marginals"]


def marginals(scored: Recorder, layout: Layout, values: Sequence[Site]) -> dict[str, Marginal]:
    r"""Return the marginal densities of a model in which sites are enumerated that the guide does not have.

    .. math:: \log p(x, z) = \log \sum_y p(y) \, p(z \mid y) \, p(x \mid z, y)

    Sites that depend on the same enumerated site have one density together, which is read at the last observed one of
    them (at the last latent one where none is observed).

    Args:
        scored: a run of the model
        layout: the layout of the dimensions
        values: sites that the guide enumerates, whose values remain

    Returns:
        The density of each site that depends on an enumerated site, by name.

    Raises:
        ValueError: sites that depend on an enumerated site have another scale, or lack its plates.
    """
    dims = {name: VALUES_DIM - len(scored.earlier) - i for i, name in enumerate(scored.enumerated)}
    found: dict[str, Marginal] = {}
    for group in groups(scored, dims):
        rest = [name for name in group if name not in dims]
        if not rest:
            continue  # probabilities sum to 1
        messages = [scored.sites[name] for name in group]
        check_scales(messages, dims)
        holder = [name for name in rest if scored.sites[name]["is_observed"]] or rest
        joint = len(rest) > 1
        compute = partial(marginal, messages, dims, layout, values)
        for name in rest:
            zero = partial(zeros, scored.sites[name], layout)
            found[name] = Marginal(compute if name == holder[-1] else zero, joint)
    return found


def groups(scored: Recorder, dims: Mapping[str, int]) -> list[list[str]]:
    """Return the names of the sites that depend on the same enumerated sites, those included."""
    found: list[tuple[set[str], list[str]]] = []
    for name, message in scored.sites.items():
        shape = batch_shape(message)
        on = {other for other, dim in dims.items() if len(shape) >= -dim and shape[dim] > 1} | ({name} & set(dims))
        for other in on:
            check_inside(message, other, scored.sites[other])
        if on:
            joined = [group for group in found if group[0] & on]
            found = [group for group in found if not group[0] & on]
            found.append((on.union(*(g[0] for g in joined)), [*(n for g in joined for n in g[1]), name]))
    order = list(scored.sites)
    return [sorted(names, key=order.index) for _, names in found]


def check_scales(messages: Sequence[Any], dims: Mapping[str, int]) -> None:
    """Raise if sites that are summed together have several scales."""
    for message in messages:
        if not same(message["scale"], messages[0]["scale"]):
            raise ValueError(
                f"model: the sum over the values of {sorted(dims.keys() & {m['name'] for m in messages})} needs one "
                f"scale for all sites that depend on them, but {message['name']!r} has {message['scale']} and "
                f"{messages[0]['name']!r} has {messages[0]['scale']}: scale them alike, or enumerate in the guide"
            )


def marginal(messages: Sequence[Any], dims: Mapping[str, int], layout: Layout, values: Sequence[Site]) -> Tensor:
    """Return the logarithm of the sum of the joint density of several sites over the enumerated ones."""
    symbols: defaultdict[Any, str] = defaultdict(lambda: get_symbol(len(symbols)))
    plates: dict[str, Any] = {}
    to_dim: dict[str, int] = {}
    tree: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    densities = [message["fn"].log_prob(message["value"]) for message in messages]
    dtype = reduce(torch.promote_types, [log_p.dtype for log_p in densities])
    for message, log_p in zip(messages, densities, strict=True):
        own = {frame.dim: frame for frame in frames(message)}
        # the probabilities of a masked site still sum to 1
        log_p = (log_p if message["name"] in dims else masked(message["mask"], log_p)).to(dtype)
        of_dim = {dim: symbols[own[dim].name if dim in own else dim] for dim in range(-log_p.dim(), 0)}
        to_dim |= {symbol: dim for dim, symbol in of_dim.items()}
        plates |= {of_dim[dim]: frame for dim, frame in own.items()}
        tree.setdefault(frozenset(of_dim[dim] for dim in own), []).append(pack(log_p, of_dim))
    try:
        contracted = contract_tensor_tree(tree, {symbols[dim] for dim in dims.values()})
    except NotImplementedError as error:
        raise ValueError(
            f"model: the sum over the values of {sorted(dims)} is exponential, because sites in independent plates "
            "depend on the same values: make one of the plates sequential, or enumerate in the guide"
        ) from error
    particles = [frame for frame in messages[-1]["cond_indep_stack"] if frame.name == PARTICLES]
    total: Tensor | float = 0.0
    for ordinal, terms in contracted.items():
        stack = [*(plates[symbol] for symbol in ordinal), *particles]
        place = {"name": messages[-1]["name"], "cond_indep_stack": tuple(stack)}
        for term in terms:
            x = unpack(term, to_dim)
            depth = max((-frame.dim for frame in stack), default=1)
            x = average_inside(values, place, x.reshape((1,) * (depth - x.dim()) + x.shape))
            total = total + layout.per_example(x, place)
    return total


def zeros(message: Any, layout: Layout) -> Tensor:
    """Return the log-density of a site that is read elsewhere."""
    # without the dimensions of the values
    shape = message["fn"].batch_shape[VALUES_DIM + 1 :]
    return layout.per_example(torch.zeros(shape, device=message["value"].device), message)
